"""Which photo an item carries and which photos shoppers search with.

Items use photos 0..59999 (Fashion-MNIST's training part), queries the held-out 60000..69999. A
photo's label is its department. It never sees a pixel: labels come as an argument.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.world.words import DEPARTMENTS
from infra.errors import DataError

__all__ = ["HELD_OUT", "N_PHOTOS", "Photos", "photos", "synthetic_labels"]

N_PHOTOS = 70_000
HELD_OUT = 60_000  # the first photo that no item carries


@dataclass(frozen=True)
class Photos:
    """Photo indices by department, for items and for queries; `labels` uint8 [70000]."""

    labels: NDArray[np.uint8]
    item: tuple[NDArray[np.int32], ...]
    query: tuple[NDArray[np.int32], ...]

    def pick(
        self, departments: NDArray[np.integer], u: NDArray[np.float64], *, held_out: bool = False
    ) -> NDArray[np.int32]:
        """A photo of each department: int32 [n], chosen by uniforms `u` [n]."""
        out = np.empty(len(departments), np.int32)
        for d, pool in enumerate(self.query if held_out else self.item):
            mask = departments == d
            out[mask] = pool[(u[mask] * len(pool)).astype(np.int64)]
        return out


def synthetic_labels() -> NDArray[np.uint8]:
    """Labels where no photos are at hand (tests): photo i is of department i mod 10."""
    return (np.arange(N_PHOTOS) % len(DEPARTMENTS)).astype(np.uint8)


def photos(labels: NDArray[np.uint8] | None) -> Photos:
    """Index the labels (None: `synthetic_labels`); DataError where they are not those of 70,000 photos."""
    found = synthetic_labels() if labels is None else np.asarray(labels)
    if found.shape != (N_PHOTOS,) or found.dtype != np.uint8:
        raise DataError(
            f"photo labels are {found.dtype} {list(found.shape)}; expected uint8 [{N_PHOTOS}]: "
            "fetch Fashion-MNIST again"
        )
    item = tuple(np.flatnonzero(found[:HELD_OUT] == d).astype(np.int32) for d in range(len(DEPARTMENTS)))
    query = tuple(
        (HELD_OUT + np.flatnonzero(found[HELD_OUT:] == d)).astype(np.int32) for d in range(len(DEPARTMENTS))
    )
    empty = [d for d in range(len(DEPARTMENTS)) if not (len(item[d]) and len(query[d]))]
    if empty or int(found.max()) >= len(DEPARTMENTS):
        raise DataError(
            f"photo labels hold {np.unique(found).tolist()}; expected 0 to 9 in both parts: "
            "fetch Fashion-MNIST again"
        )
    return Photos(found, item, query)
