"""The three arms of a comparison of freshness, scored on identical queries by the world's truth.

`frozen`: weights, indexes and state as on the first day. `state_fresh`: the live state, the first
day's weights and indexes. `full`: what is live. Only simulated worlds have a truth to score by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from components.search.live import ReleaseView
from components.search.pipeline import PipelineConfig, SearchPipeline
from data.shop import Shop
from data.state import State
from data.world.sessions import DayPlan
from data.world.shop import World
from models.metrics import Interval, bootstrap_mean, ndcg, successive_mean
from models.release import Release

__all__ = ["ARMS", "FEWEST_STRETCHES", "Tally", "first_pages", "gain", "pipeline_of", "score"]

ARMS = ("frozen", "state_fresh", "full")
DEPTH = 10
FEWEST_STRETCHES = 3  # below which their spread says too little


def gain(relevance: NDArray[np.float32]) -> NDArray[np.float64]:
    """The gain of a true relevance r in [0, 1]: 2^(4r) − 1, the usual gain of a grade 4r."""
    return np.exp2(4.0 * np.asarray(relevance, np.float64)) - 1.0


def pipeline_of(
    release: Release,
    state: State,
    *,
    view: ReleaseView | None = None,
    photos: NDArray[np.uint8] | None = None,
) -> SearchPipeline:
    """A release against a state, without exploration and deadline: what evaluation asks."""
    return SearchPipeline(
        release,
        view or ReleaseView(release, state, photos=photos),
        state,
        config=PipelineConfig.for_evaluation(),
        photos=photos,
    )


def first_pages(plan: DayPlan, *, since_us: int, until_us: int, most: int, seed: int) -> NDArray[np.int64]:
    """A sample of the requests that start a query in a stretch of the day: int64 [≤ most], by time."""
    rows = np.flatnonzero((plan.page == 0) & (plan.time_us >= since_us) & (plan.time_us < until_us))
    if len(rows) > most:
        rows = np.sort(np.random.default_rng((seed, since_us)).choice(rows, most, replace=False))
    return rows.astype(np.int64)


def score(
    world: World, plan: DayPlan, rows: NDArray[np.int64], shops: Mapping[str, Shop]
) -> dict[str, NDArray[np.float64]]:
    """NDCG@10 of each shop's first page for the same requests: float64 [n] a shop."""
    found: dict[str, NDArray[np.float64]] = {name: np.empty(len(rows)) for name in shops}
    for k, i in enumerate(rows.tolist()):
        request = plan.request(i)
        best = gain(world.ideal(plan, i, DEPTH))
        for name, shop in shops.items():
            served = shop.respond(request).item_ids[:DEPTH]
            found[name][k] = ndcg(gain(world.relevance(plan, i, served)), best, DEPTH)
    return found


@dataclass
class Tally:
    """Scores of the arms as they come in, by stretch and session.

    Two things vary: which sessions ask, and which models were live. Queries of one stretch share a
    release, so the sessions alone would make intervals too narrow. An interval is therefore the hull of
    two: a bootstrap by session, and, from `FEWEST_STRETCHES` stretches on, a t interval from how much one
    stretch differs from the next.
    """

    values: dict[str, list[NDArray[np.float64]]] = field(default_factory=lambda: {a: [] for a in ARMS})
    clusters: list[NDArray[np.int64]] = field(default_factory=list)

    def add(self, scores: Mapping[str, NDArray[np.float64]], sessions: NDArray[np.int64]) -> None:
        """Add one stretch's scores and its requests' sessions."""
        for arm in ARMS:
            self.values[arm].append(scores[arm])
        self.clusters.append(sessions)

    def mean(self, arm: str) -> Interval:
        """An arm's NDCG@10."""
        return self._interval(self.values[arm])

    def difference(self, better: str, than: str) -> Interval:
        """One arm less another, paired by query."""
        return self._interval([a - b for a, b in zip(self.values[better], self.values[than], strict=True)])

    def _interval(self, values: list[NDArray[np.float64]]) -> Interval:
        found = bootstrap_mean(np.concatenate(values), clusters=np.concatenate(self.clusters))
        stretch = np.repeat(np.arange(len(values)), [len(v) for v in values])
        if len(np.unique(stretch)) < FEWEST_STRETCHES:
            return found
        wide = successive_mean(np.concatenate(values), stretch)
        return Interval(found.mean, min(found.low, wide.low), max(found.high, wide.high))
