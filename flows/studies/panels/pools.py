"""Pools: for a request, what the service would retrieve, with features by two states.

The same candidates by the state as of the request, and by that of the horizon's start, with the same
release, query and time: what differs is the state alone. It knows no relevance and no log.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.search.live import Live, ReleaseView
from components.search.pipeline import PipelineConfig, SearchPipeline
from components.search.queries import QueryMemory, class_codes
from components.search.rank import ExploreConfig, candidate_inputs
from components.search.retrieve import RetrieveConfig
from components.search.understand import Meaning, understand
from data.event_batch import Batch
from data.shop import Request
from data.state import State
from flows.studies.panels.recent import clicked_lately
from flows.studies.panels.scorers import state_at
from models.candidate_features import FEATURES, candidate_features
from models.release import Release

__all__ = ["POOL", "Moments", "Pool", "Still"]

# Candidates of a query, by fused order. On the default world a young ranker beats that of the horizon's
# start by 0.057 of NDCG@10 in a pool of 60, by 0.071 in one of 120, by 0.078 in one of 200.
POOL = 120
_NO_CODES: NDArray[np.int32] = np.empty(0, np.int32)


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


class Still:
    """A release with a state that no longer changes: the frozen arm."""

    def __init__(self, release: Release, state: State) -> None:
        self.release = release
        self.state = state
        self.view = ReleaseView(release, state)
        text = release.text_classifier
        self._codes = class_codes(text.classes if text else ())
        self._memory = QueryMemory(release)

    def features(
        self, request: Request, item_ids: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Features of items for a request, float32 [n, F], and whether the state knows them, bool [n].

        What it does not know is a row of NaN.
        """
        meaning = understand(
            request,
            release=self.release,
            live=self.view.live,
            lists=self.view.catalogue.lists,
            state=self.state,
            text_codes=self._codes,
            image_codes=_NO_CODES,
            photo=None,
            memory=self._memory,
        )
        rows = self.state.item_rows(item_ids)
        known = rows >= 0
        out = np.full((len(rows), len(FEATURES)), np.nan, np.float32)
        if known.any():
            out[known] = _features(meaning, self.state, self.view.live, rows[known])
        return out, known

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


def _features(meaning: Meaning, state: State, live: Live, rows: NDArray[np.int32]) -> NDArray[np.float32]:
    """The features that the rank stage gives these rows."""
    vector_scores, user_scores, probs = candidate_inputs(meaning, state, live, rows)
    return candidate_features(
        state,
        meaning.context,
        rows,
        vector_scores=vector_scores,
        user_scores=user_scores,
        category_probs=probs,
    )
