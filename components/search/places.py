"""Where ids stand in an index, and the copying of what stands there. It knows neither items nor releases."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["Places", "copy_rows"]


class Places:
    """Where each id stands in an index. Arrays, not a dict: a release is viewed while requests want the
    interpreter, and a million ids would take a hundred megabytes."""

    def __init__(self, ids: NDArray[np.int64]) -> None:
        self._order = np.argsort(ids, kind="stable")
        self._sorted = np.asarray(ids)[self._order]

    def __len__(self) -> int:
        return len(self._order)

    def of(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 [n]: the position of each id, -1 for one that is not there."""
        if not len(self._order):
            return np.full(len(ids), -1, np.int64)
        near = np.minimum(np.searchsorted(self._sorted, ids), len(self._order) - 1)
        return np.where(self._sorted[near] == ids, self._order[near], -1)


@njit(cache=True, nogil=True)
def copy_rows(into: Any, rows: Any, of: Any, places: Any) -> None:
    """Row `rows[i]` of `into` [m, dim] becomes row `places[i]` of `of` [k, dim], zeros where that is -1.

    Compiled, so that requests have the interpreter meanwhile: of a large catalogue it is tens of megabytes,
    which the system gives page by page.
    """
    for i in range(len(rows)):
        row, place = rows[i], places[i]
        for d in range(into.shape[1]):
            into[row, d] = of[place, d] if place >= 0 else 0.0
