"""What a ranker has to beat on a log without impressions, on the same queries and pools.

Popularity; how often oneself took it; and a known reference, item-item neighbours weighted by BM25 from
the package `implicit`, trained anew on all there was before a slice. None adds a candidate.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.sources.interactions import InteractionLog
from flows.studies.panels.panel import Panel, Slice

__all__ = ["BASELINES", "NEIGHBOURS", "baseline_scores"]

BASELINES = {
    "popularity": "decayed popularity as of the query, its half-life chosen on the burn-in",
    "own_frequency": "how often the user took it, decayed, as of the query; then popularity",
    "reference": "item-item neighbours, BM25 (implicit.nearest_neighbours.BM25Recommender), of all "
    "before the slice but for the last 5 %, applied to what the user took before the query; then popularity",
}
NEIGHBOURS = (20, 200)  # kept of each item: the package's default, and many
_MORE = 1.05  # times what the last fit knew: from then on the reference is fitted anew
_TIE = 1e-9  # of popularity, where the others say the same


def baseline_scores(
    panel: Panel,
    log: InteractionLog,
    *,
    slices: range | None = None,
    progress: Callable[..., None] | None = None,
) -> dict[str, list[NDArray[np.float64]]]:
    """NDCG@10 of each baseline: a name of `BASELINES` → per slice, per query float64 [g].

    `slices`: which, None all. How many neighbours the reference keeps is whatever serves it better on
    the first of them. Its similarities lack at most a twentieth of what was taken before a slice; what the
    user took is as of the query.
    """
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in BASELINES}
    matrix = _Matrix(log)
    neighbours: int | None = None
    for s in slices or range(len(panel.slices)):
        if progress is not None:
            progress("baselines", f"slice {s + 1} of {len(panel.slices)}")
        part = panel.slices[s]
        popular = np.asarray(part.extra["popularity"], np.float64)
        rank = np.argsort(np.argsort(popular, kind="stable"), kind="stable") * _TIE
        own = np.asarray(part.fresh[:, panel.names.index("own_decayed")], np.float64)
        found["popularity"].append(part.ndcg(popular))
        found["own_frequency"].append(part.ndcg(own + rank))
        tried = {
            k: part.ndcg(matrix.scores(part, k) + rank)
            for k in (NEIGHBOURS if neighbours is None else (neighbours,))
        }
        neighbours = max(tried, key=lambda k: float(tried[k].mean()))
        found["reference"].append(tried[neighbours])
    return found


class _Matrix:
    """What users took, as rows of users and columns of items, up to any moment."""

    def __init__(self, log: InteractionLog) -> None:
        self._log = log
        self._users, user = np.unique(log.user_ids, return_inverse=True)
        self._user = user.astype(np.int64)
        self._item = np.searchsorted(log.items, log.item_ids)
        self._by_user = np.argsort(self._user, kind="stable")
        self._starts = np.searchsorted(self._user[self._by_user], np.arange(len(self._users) + 1))
        basket_first = np.unique(log.basket_ids, return_index=True)
        self._baskets, self._begin_us = basket_first[0], log.time_us[basket_first[1]]
        self._fitted: dict[int, tuple[int, Any]] = {}  # by neighbours: on how many rows, similarities

    def scores(self, part: Slice, neighbours: int) -> NDArray[np.float64]:
        """The reference's score of each candidate of a slice: float64 [n]."""
        similar = self._fit(part.start_us, neighbours)
        out = np.zeros(len(part.item_ids))
        ends = np.cumsum(part.groups)
        rows = np.searchsorted(self._log.items, part.item_ids)
        for g, end in enumerate(ends.tolist()):
            at = slice(end - int(part.groups[g]), end)
            taken = self._taken(int(part.clusters[g]), int(part.query_ids[g]))
            items, times = np.unique(taken, return_counts=True)
            if len(items):
                out[at] = times @ similar[items][:, rows[at]]
        return out

    def _taken(self, user_id: int, basket_id: int) -> NDArray[np.int64]:
        """The positive items of a user before a basket: rows int64, as often as taken."""
        u = int(np.searchsorted(self._users, user_id))
        events = self._by_user[self._starts[u] : self._starts[u + 1]]
        begin = self._begin_us[np.searchsorted(self._baskets, basket_id)]
        before = events[(self._log.time_us[events] < begin) & self._log.positive[events]]
        found: NDArray[np.int64] = self._item[before]
        return found

    def _fit(self, until_us: int, neighbours: int) -> Any:
        """Item-item similarities of all that happened before, or nearly: a sparse matrix [m, m]."""
        before = (self._log.time_us < until_us) & self._log.positive
        known, similar = self._fitted.get(neighbours, (0, None))
        rows = int(before.sum())
        if known <= rows < known * _MORE:
            return similar
        from implicit.nearest_neighbours import BM25Recommender
        from scipy.sparse import csr_matrix

        taken = csr_matrix(
            (np.ones(rows, np.float32), (self._user[before], self._item[before])),
            shape=(len(self._users), len(self._log.items)),
        )
        model = BM25Recommender(K=neighbours, num_threads=0)  # all cores; each item is by itself
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it converts a matrix that it made itself
            model.fit(taken, show_progress=False)
        similar = model.similarity.tocsr()
        self._fitted[neighbours] = rows, similar
        return similar
