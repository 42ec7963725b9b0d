"""Search judged by people: every judged query of a home asked of the service and of plain BM25.

Gains are those of the published WANDS evaluation: 1 for Exact, 0.5 for Partial, 0 for Irrelevant. The
labels are read here and nowhere else in the offline loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import orjson

from data.labels import read_labels
from data.shop import Request
from data.state import State
from flows.evaluation.ablation import ABLATIONS
from flows.evaluation.judgements import METRICS, Judged, measure, paired
from flows.evaluation.plain_bm25 import NAME, plain_bm25
from flows.evaluation.retrievers import DEPTH, Retrievers
from infra.errors import DataError
from infra.settings import Home
from models.release import Release

__all__ = ["GAINS", "baseline", "judge_labels"]

GAINS = np.array([0.0, 0.5, 1.0])  # of the grades Irrelevant, Partial, Exact
Progress = Callable[..., None]


def judge_labels(
    layout: Home,
    release: Release,
    state: State,
    *,
    queries: int,
    seed: int,
    ablate: bool = False,
    progress: Progress = lambda *_: None,
) -> list[Judged]:
    """The judged queries, at most `queries` of them, each answered by every retriever and by plain BM25.

    Judged items that the catalogue does not hold are left out. DataError where no query is left.
    """
    asked = read_labels(layout).by_query()
    if len(asked) > queries:
        pick = np.sort(np.random.default_rng(seed).choice(len(asked), queries, replace=False))
        asked = [asked[i] for i in pick.tolist()]
    retrievers = Retrievers.of(release, state, without=ABLATIONS if ablate else ())
    alive = np.flatnonzero(state.alive).tolist()
    items = ((int(state.item_ids[row]), orjson.loads(state.payload(row))) for row in alive)
    judged: list[Judged] = []
    with plain_bm25(items) as plain:
        for number, (query_id, query, ids, grades) in enumerate(asked, 1):
            rows = state.item_rows(ids)
            held = (rows >= 0) & state.alive[np.maximum(rows, 0)]
            if not held.any():
                continue
            request = Request("search", state.as_of_us, query=query, request_id=number)
            judged.append(
                Judged(
                    query_id=query_id,
                    cluster=number,
                    ids=ids[held],
                    gains=GAINS[grades[held]],
                    grades=grades[held],
                    lists={**retrievers.lists(request), NAME: plain.search(query, DEPTH)},
                )
            )
            if number % 100 == 0:
                progress(f"{number} of {len(asked)} queries")
    if not judged:
        raise DataError("no judged item is in the catalogue; run `shelflife ingest` and `shelflife refresh`")
    return judged


def baseline(judged: list[Judged], *, seed: int) -> tuple[list[Judged], dict[str, Any]]:
    """The judgements without plain BM25's lists, and its metrics with `served` less them, query by query."""
    found = {m: i.as_dict() for m, i in measure(judged, seed=seed)[NAME].items()}
    difference = {
        metric: paired(judged, "served", NAME, metric, seed=seed).as_dict()
        for metric in METRICS
        if metric in found
    }
    rest = [replace(j, lists={n: ids for n, ids in j.lists.items() if n != NAME}) for j in judged]
    return rest, {"name": NAME, "metrics": found, "served_minus_baseline": difference}
