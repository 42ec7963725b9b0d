"""Where ids stand in an index. It knows neither items nor releases."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Places"]


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
