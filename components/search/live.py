"""A release against the live state: item vectors by state row, and the items its indexes lack.

The delta holds alive items that the release's base indexes do not know, or know under another
text. `refresh` is called by the one thread that applies events; readers take `live`, whose
arrays are never taken back (rows are appended, masks are copied on change).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.search.catalogue import Catalogue
from components.search.live_photos import PhotoLive, PhotoView
from components.search.places import Places, copy_rows
from data.state import State
from infra.give_way import give_way
from models.encoder import item_text
from models.release import Release

__all__ = ["Live", "ReleaseView"]

_BATCH = 2_048
_SAME_VECTOR = 1e-3  # largest difference between two encodings of one text (float32 arithmetic: 1e-6)


@dataclass(frozen=True)
class Live:
    """What one request sees: rows below `n`, all arrays by state row.

    vectors float32 [n, dim] (zero where unknown); text_rows and vector_rows int32: the state row of
    each position of the lexical and the vector index, -1 where the state knows no such item;
    text_delta and vector_delta int32: rows that the base indexes lack; stale_text and stale_vector
    bool [n]: base hits to pass over; photos: the same of the image index, None without one.
    """

    n: int
    vectors: NDArray[np.float32]
    text_rows: NDArray[np.int32]
    vector_rows: NDArray[np.int32]
    text_delta: NDArray[np.int32]
    vector_delta: NDArray[np.int32]
    stale_text: NDArray[np.bool_]
    stale_vector: NDArray[np.bool_]
    photos: PhotoLive | None = None


class ReleaseView:
    """Keeps `live` true for one release and one state.

    An upserted item is encoded only if its text hash changed. It is in the delta unless the base
    indexes hold it and its text still encodes to the vector that they hold: so a release need not
    carry the texts that it was built from. When the view is made, items that the indexes hold are
    encoded only if they say (`updated_at`, `created_at`) that they were touched after the release's
    watermark. `photos` uint8 [m, 28, 28]: the catalogue's, for items that the image index lacks.
    """

    def __init__(
        self,
        release: Release,
        state: State,
        *,
        catalogue: Catalogue | None = None,
        photos: NDArray[np.uint8] | None = None,
    ) -> None:
        self.release = release
        self.catalogue = Catalogue(state) if catalogue is None else catalogue
        self._state = state
        self._version = -1
        self._base_vectors = release.item_vectors
        self._text_at = Places(release.lexical_index.item_ids)
        give_way()
        self._vector_at = Places(release.item_ids)
        self._vectors = np.zeros((0, release.vector_index.dim), np.float32)
        self._hash = np.zeros(0, np.int64)
        self._stale = np.zeros((2, 0), np.bool_)  # text, vector
        self._text_rows = np.full(len(self._text_at), -1, np.int32)
        self._vector_rows = np.full(len(self._vector_at), -1, np.int32)
        self._n = 0
        self._photos: PhotoView | None = None
        if release.image_index is not None and release.image_classifier is not None:
            self._photos = PhotoView(release.image_index, release.image_classifier, state, photos)
        self.live = self._publish()
        self.refresh()

    @property
    def base_rows(self) -> NDArray[np.int32]:
        """int32: the state row of each position of the vector index, -1 unknown to the state."""
        return self._vector_rows

    @property
    def delta_rows(self) -> NDArray[np.int32]:
        """int32: alive items that a base index lacks, ascending."""
        return np.union1d(self.live.text_delta, self.live.vector_delta)

    def refresh(self) -> int:
        """Take up the state's catalogue changes; the number of items that had to be encoded."""
        self.catalogue.refresh()
        state = self._state
        version = state.catalogue_version
        if version == self._version:
            return 0
        first = self._version < 0
        n = state.n_items
        rows = np.arange(n, dtype=np.int32) if first else np.unique(state.changed_since(self._version))
        self._reserve(n)
        self._align(rows[rows >= self._n])
        renewed = rows[self.catalogue.text_hash[rows] != self._hash[rows]]
        self._hash[renewed] = self.catalogue.text_hash[renewed]
        if first:  # what the indexes hold and nobody touched since they were built is not encoded again
            touched = self.catalogue.updated_us[renewed] > self.release.manifest.watermark_us
            renewed = renewed[touched | self._stale[1, renewed]]
        self._encode(renewed, at_start=first)
        if self._photos is not None:
            self._photos.refresh(rows, n)
        self._n, self._version = n, version
        self.live = self._publish()
        return len(renewed)

    def _align(self, rows: NDArray[np.int32]) -> None:
        """Give rows that are new to the view their places in the base indexes."""
        for which, (at, base) in enumerate(
            ((self._text_at, self._text_rows), (self._vector_at, self._vector_rows))
        ):
            give_way()
            places = self._places(at, rows)
            held = places >= 0
            base[places[held]] = rows[held]
            self._stale[which, rows] = ~held
            if base is self._vector_rows:
                give_way()
                copy_rows(self._vectors, rows, self._base_vectors, places)

    def _publish(self) -> Live:
        n = self._n
        alive = self._state.alive[:n]
        text, vector = self._stale[0, :n].copy(), self._stale[1, :n].copy()
        return Live(
            n,
            self._vectors[:n],
            self._text_rows,
            self._vector_rows,
            np.flatnonzero(text & alive).astype(np.int32),
            np.flatnonzero(vector & alive).astype(np.int32),
            text,
            vector,
            None if self._photos is None else self._photos.live,
        )

    def _encode(self, rows: NDArray[np.int32], *, at_start: bool) -> None:
        """Vectors of the rows' present texts; marks whether the base indexes still hold these texts."""
        for start in range(0, len(rows), _BATCH):
            some = rows[start : start + _BATCH]
            places = self._places(self._vector_at, some)
            texts = [item_text(self.catalogue.payload(row)) for row in some.tolist()]
            vectors = self.release.encoder.encode_items(texts)
            held = places >= 0
            same = np.zeros(len(some), np.bool_)
            same[held] = np.abs(vectors[held] - self._base_vectors[places[held]]).max(axis=1) < _SAME_VECTOR
            self._vectors[some] = vectors
            self._stale[1, some] = ~same
            # An item of the lexical index alone counts as unchanged when first seen.
            unchanged = same | (~held & at_start)
            self._stale[0, some] = ~((self._places(self._text_at, some) >= 0) & unchanged)

    def _places(self, at: Places, rows: NDArray[np.int32]) -> NDArray[np.int64]:
        return at.of(self._state.item_ids[rows])

    def _reserve(self, n: int) -> None:
        held = len(self._vectors)
        if n <= held:
            return
        capacity = max(1_024, n + n // 2)
        vectors = np.empty((capacity, self._vectors.shape[1]), np.float32)  # each row is filled by `_align`
        vectors[:held] = self._vectors
        hashes = np.zeros(capacity, np.int64)
        hashes[:held] = self._hash
        stale = np.zeros((2, capacity), np.bool_)
        stale[:, :held] = self._stale
        self._vectors, self._hash, self._stale = vectors, hashes, stale
