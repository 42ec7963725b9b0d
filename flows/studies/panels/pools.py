"""Pools: for a request, what the service would retrieve, with features by two states.

The same candidates by the state as of the request, and by that of the horizon's start, with the same
release, query and time: what differs is the state alone. It knows no relevance and no log.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.search.given import GivenItems
from components.search.live import ReleaseView
from components.search.pipeline import PipelineConfig, SearchPipeline
from components.search.rank import ExploreConfig
from components.search.retrieve import RetrieveConfig
from data.event_batch import Batch
from data.shop import Request
from flows.studies.panels.recent import clicked_lately
from flows.studies.panels.scorers import state_at
from models.candidate_features import FEATURES
from models.release import Release

__all__ = ["POOL", "Moments", "Pool", "Still"]

# Candidates of a query, by fused order. On the default world a young ranker beats that of the horizon's
# start by 0.057 of NDCG@10 in a pool of 60, by 0.071 in one of 120, by 0.078 in one of 200.
POOL = 120


@dataclass(frozen=True)
class Pool:
    """Candidates [n] of a request; `fresh`, `frozen` float32 [n, F]; `known` bool [n]: by the frozen.

    `recent`, `frozen_recent` int32 [REMEMBERED]: what the shopper clicked lately, by each state.
    """

    item_ids: NDArray[np.int64]
    fresh: NDArray[np.float32]
    frozen: NDArray[np.float32]
    known: NDArray[np.bool_]
    recent: NDArray[np.int32]
    frozen_recent: NDArray[np.int32]


class Still(GivenItems):
    """A release with a state that no longer changes: the frozen arm."""

    def recent(self, request: Request) -> NDArray[np.int32]:
        """What the shopper clicked lately, as the state knows it: int32 [REMEMBERED]."""
        return clicked_lately(self.state, request.user_id, request.session_id)


class Moments:
    """A release with the state as of each request in turn; requests have to come in order of time."""

    def __init__(
        self, release: Release, batch: Batch, *, horizon_us: int, pool: int = POOL, still: Still | None = None
    ) -> None:
        """`still`: the frozen arm, None makes one of the batch's events before `horizon_us`."""
        self.still = still or Still(release, state_at(batch, horizon_us))
        self.state = state_at(batch, horizon_us)
        self._batch = batch
        self._at = int(np.searchsorted(batch.known_us, horizon_us, side="left"))
        self._view = ReleaseView(release, self.state)
        config = PipelineConfig(
            retrieve=RetrieveConfig(candidates=pool), explore=ExploreConfig(slots=0), deadline_ms=None
        )
        self._pipeline = SearchPipeline(release, self._view, self.state, config=config)

    def pool(self, request: Request) -> Pool:
        """The candidates of a request; the state holds what was known before it."""
        until = int(np.searchsorted(self._batch.known_us, request.time_us, side="left"))
        if until > self._at:
            self.state.fold(self._batch, self._at, until)
            self._at = until
            self._view.refresh()
        ranked = self._pipeline.ranked(request)
        fresh = ranked.features
        if fresh is None:  # nothing found
            fresh = np.empty((0, len(FEATURES)), np.float32)
        frozen, known = self.still.features(request, ranked.item_ids)
        recent = clicked_lately(self.state, request.user_id, request.session_id)
        return Pool(ranked.item_ids, fresh, frozen, known, recent, self.still.recent(request))
