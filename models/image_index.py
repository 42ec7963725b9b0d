"""Items by what their photo looks like: embeddings of one image classifier, nearest by cosine.

It holds which photo each item carried when it was built, so that a live catalogue can tell which entries
are out of date. It knows embeddings, not what made them: the manifest ties it to its classifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infra.arrays import mapped
from infra.errors import DataError
from models.vector_index import EXACT_BELOW, VectorIndex

__all__ = ["ImageIndex", "unit"]


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vectors [..., dim] at length 1; a zero vector stays zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1), np.float32)


@dataclass(frozen=True)
class ImageIndex:
    """`index` over the items' unit embeddings; `photos` int32 [n]: the photo that each was made of."""

    index: VectorIndex
    photos: NDArray[np.int32]

    @classmethod
    def build(
        cls,
        item_ids: Sequence[int] | NDArray[np.int64],
        photos: Sequence[int] | NDArray[np.int32],
        embeddings: NDArray[np.float32],
        *,
        exact_below: int = EXACT_BELOW,
    ) -> ImageIndex:
        """Index `embeddings` float32 [n, dim] of the `photos` [n] of distinct `item_ids` [n]."""
        numbers = np.ascontiguousarray(photos, np.int32)
        if len(numbers) != len(embeddings):
            raise DataError(f"{len(numbers)} photos and {len(embeddings)} embeddings; expected one each")
        return cls(VectorIndex.build(item_ids, unit(embeddings), exact_below=exact_below), numbers)

    @property
    def item_ids(self) -> NDArray[np.int64]:
        """int64 [n]."""
        return self.index.item_ids

    @property
    def vectors(self) -> NDArray[np.float32]:
        """float32 [n, dim], unit length."""
        return self.index.vectors

    def __len__(self) -> int:
        return len(self.index)

    def search_rows(
        self, embedding: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k entries nearest to a unit embedding [dim]: (places int64 [≤ k], cosines), best first."""
        places, scores = self.index.search_rows(embedding[None], k)
        held = places[0] >= 0
        return places[0][held], scores[0][held]

    def save(self, folder: Path) -> None:
        """Write what `VectorIndex` writes, and `photos.npy`."""
        self.index.save(folder)
        np.save(folder / "photos.npy", self.photos, allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> ImageIndex:
        """Open a saved index; its arrays stay memory-mapped."""
        index = VectorIndex.load(folder)
        try:
            photos = mapped(folder / "photos.npy")
        except (OSError, ValueError) as error:
            raise DataError(f"no image index in {folder} ({error}); build it again") from error
        if len(photos) != len(index):
            raise DataError(f"{folder} holds {len(photos)} photos for {len(index)} items; build it again")
        return cls(index, photos)
