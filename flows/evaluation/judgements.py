"""Ranked lists against what is relevant: metrics with intervals, and TREC files for other people's tools.

Gains are whatever the judge says (the world's truth, or logged clicks). It knows no retriever and no log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infra.files import write_atomic
from models.metrics import Interval, bootstrap_mean, mrr, ndcg, precision, recall

__all__ = ["METRICS", "Judged", "measure", "paired", "write_trec"]

METRICS = ("ndcg10_judged", "ndcg10_all", "p10", "recall10", "recall100", "mrr")


@dataclass(frozen=True)
class Judged:
    """A query, what is known of its items, and what each retriever found.

    ids int64 [m] judged items; gains float64 [m] and grades int8 [m] of them (0 not relevant); `lists`:
    retriever → item ids int64 [≤ 100], best first; `cluster`: what is resampled as a whole (a session).
    """

    query_id: str
    cluster: int
    ids: NDArray[np.int64]
    gains: NDArray[np.float64]
    grades: NDArray[np.int8]
    lists: Mapping[str, NDArray[np.int64]]

    def scores(self, name: str) -> tuple[float, ...]:
        """The METRICS of one retriever; NaN where nothing is relevant to the query."""
        total = int(np.count_nonzero(self.grades))
        if not (self.gains > 0).any():
            return (np.nan,) * len(METRICS)
        found = self.lists.get(name, np.empty(0, np.int64))
        order = np.argsort(self.ids, kind="stable")
        at = order[np.minimum(np.searchsorted(self.ids, found, sorter=order), len(order) - 1)]
        known = self.ids[at] == found
        gains = np.where(known, self.gains[at], 0.0)
        hit = known & (self.grades[at] > 0)
        # Where all that is known of is relevant, any order of it is the best one.
        judged = ndcg(gains[known], self.gains, 10) if (self.grades == 0).any() else np.nan
        quality = judged, ndcg(gains, self.gains, 10)
        if not total:
            return (*quality, *[np.nan] * (len(METRICS) - 2))
        return (
            *quality,
            precision(hit, 10),
            recall(hit, total, 10),
            recall(hit, total, 100),
            mrr(hit),
        )


def measure(judged: Sequence[Judged], *, seed: int) -> dict[str, dict[str, Interval]]:
    """Retriever → metric → mean with its interval, sessions resampled whole; no metric without a value.

    A retriever that could not run for a query is absent from its lists and found nothing.
    """
    names = list(dict.fromkeys(n for j in judged for n in j.lists))
    clusters = np.array([j.cluster for j in judged], np.int64)
    found = {}
    for name in names:
        table = np.array([j.scores(name) for j in judged], float).reshape(len(judged), len(METRICS))
        found[name] = {
            metric: bootstrap_mean(table[:, k], clusters=clusters, seed=seed)
            for k, metric in enumerate(METRICS)
            if not np.isnan(table[:, k]).all()
        }
    return found


def paired(judged: Sequence[Judged], name: str, other: str, metric: str, *, seed: int) -> Interval:
    """The mean of `name` less `other`, query by query, with its interval; sessions resampled whole."""
    k = METRICS.index(metric)
    difference = np.array([j.scores(name)[k] - j.scores(other)[k] for j in judged], float)
    return bootstrap_mean(difference, clusters=np.array([j.cluster for j in judged], np.int64), seed=seed)


def write_trec(judged: Sequence[Judged], dump: Path, *, key_of: Callable[[int], str]) -> list[Path]:
    """Write `DUMP.qrels`, `DUMP.run` (of `served`) and `DUMP.<name>.run` of every retriever; the paths.

    `key_of`: the name of an item. Judged items without a grade are in the qrels with 0.
    """

    def named(item_id: int) -> str:
        return "_".join(key_of(item_id).split()) or "_"  # TREC's columns are separated by spaces

    qrels = [
        f"{j.query_id} 0 {named(i)} {g}\n"
        for j in judged
        for i, g in zip(j.ids.tolist(), j.grades.tolist(), strict=True)
    ]
    files = {dump.with_name(f"{dump.name}.qrels"): qrels}
    for name in dict.fromkeys(n for j in judged for n in j.lists):
        lines = [
            f"{j.query_id} Q0 {named(i)} {rank} {1.0 / rank:.6f} shelflife-{name}\n"
            for j in judged
            for rank, i in enumerate(j.lists.get(name, np.empty(0, np.int64)).tolist(), 1)
        ]
        files[dump.with_name(f"{dump.name}.{name}.run")] = lines
        if name == "served":
            files[dump.with_name(f"{dump.name}.run")] = lines
    dump.parent.mkdir(parents=True, exist_ok=True)
    for path, lines in files.items():
        write_atomic(path, "".join(lines).encode())
    return list(files)
