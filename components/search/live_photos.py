"""A release's image index against the live state: which entries hold, and the items that it lacks.

An entry holds while its item carries the photo that was embedded. Items with another photo, or none in the
index, are embedded here and compared one by one. As in `live.py`, readers take what was published.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.search.places import Places
from data.state import State
from models.image_classifier import ImageClassifier
from models.image_index import ImageIndex, unit

__all__ = ["PhotoLive", "PhotoView"]

_BATCH = 512
_NO_VECTORS: NDArray[np.float32] = np.empty((0, 0), np.float32)


@dataclass(frozen=True)
class PhotoLive:
    """What one request sees of the items' photos; arrays by state row but for `rows`.

    rows int32 [m]: the row of each entry of the index, -1 unknown to the state; places int32 [≥ n]: the
    entry of each row, -1 none; stale bool [n]: entries to pass over; delta_rows int32 [d] and
    delta_vectors float32 [d, dim]: items compared one by one.
    """

    n: int
    index: ImageIndex
    rows: NDArray[np.int32]
    places: NDArray[np.int32]
    stale: NDArray[np.bool_]
    delta_rows: NDArray[np.int32]
    delta_vectors: NDArray[np.float32]

    def nearest(
        self, seen: NDArray[np.float32], k: int, *, among: NDArray[np.int32] | None = None
    ) -> NDArray[np.int32]:
        """Rows of items whose photos look like a unit embedding [dim], best first; not all may be alive.

        The k nearest of the index and all of the delta; with `among`, all of these rows that have a photo.
        """
        if among is None:
            at, scores = self.index.search_rows(seen, k)
            rows = self.rows[at]
            held = (rows >= 0) & (rows < self.n)
            held[held] = ~self.stale[rows[held]]
            rows, scores = rows[held], scores[held]
        else:
            rows = among[(self.places[among] >= 0) & ~self.stale[among]]
            scores = self.index.vectors[self.places[rows]] @ seen
        if len(self.delta_rows):
            rows = np.concatenate([rows, self.delta_rows])
            scores = np.concatenate([scores, self.delta_vectors @ seen])
        return np.asarray(rows[np.argsort(-scores, kind="stable")], np.int32)


class PhotoView:
    """Keeps `live` true. `photos` uint8 [m, 28, 28]: the catalogue's; without them there is no delta."""

    def __init__(
        self, index: ImageIndex, classifier: ImageClassifier, state: State, photos: NDArray[np.uint8] | None
    ) -> None:
        self._index = index
        self._classifier = classifier
        self._state = state
        self._photos = photos
        self._at = Places(index.item_ids)
        self._rows = np.full(len(index), -1, np.int32)
        self._places: NDArray[np.int32] = np.empty(0, np.int32)
        self._stale: NDArray[np.bool_] = np.empty(0, np.bool_)
        self._delta: dict[int, NDArray[np.float32]] = {}
        self.live = self._publish(0)

    def refresh(self, changed: NDArray[np.int32], n: int) -> None:
        """Take up changed rows, all of them below `n`; called by the thread that applies events."""
        known = len(self._places)
        if n > known:
            room = max(1_024, n + n // 2)
            wider, stale = np.full(room, -1, np.int32), np.zeros(room, np.bool_)
            wider[:known], stale[:known] = self._places, self._stale
            self._places, self._stale = wider, stale
        state = self._state
        rows = np.unique(changed).astype(np.int32)
        places = self._at.of(state.item_ids[rows]).astype(np.int32)
        held = places >= 0
        self._rows[places[held]] = rows[held]
        self._places[rows] = places
        photo = state.photo[rows]
        same = held.copy()
        same[held] = self._index.photos[places[held]] == photo[held]
        self._stale[rows] = ~same
        for row in rows.tolist():
            self._delta.pop(row, None)
        if self._photos is not None:
            new = ~same & state.alive[rows] & (photo >= 0) & (photo < len(self._photos))
            self._embed(rows[new], photo[new], self._photos)
        self.live = self._publish(n)

    def _embed(self, rows: NDArray[np.int32], numbers: NDArray[np.int32], photos: NDArray[np.uint8]) -> None:
        for start in range(0, len(rows), _BATCH):
            part = slice(start, start + _BATCH)
            vectors = unit(self._classifier.embed(np.asarray(photos[numbers[part]])))
            self._delta.update(zip(rows[part].tolist(), vectors, strict=True))

    def _publish(self, n: int) -> PhotoLive:
        rows = np.array(sorted(self._delta), np.int32)  # in an order of their own: equal photos are equal
        vectors = np.stack([self._delta[r] for r in rows.tolist()]) if len(rows) else _NO_VECTORS
        return PhotoLive(n, self._index, self._rows, self._places, self._stale[:n].copy(), rows, vectors)
