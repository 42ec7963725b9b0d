"""Order of the candidates: features, the release's ranker, a little exploration.

The features are those of training (`models.candidate_features`). Without a ranker the fused
order stands. It does not know how candidates were found or how replies look.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.search.live import Live
from components.search.rank_kernel import explore_into, in_order
from components.search.retrieve import Candidates, found_by
from components.search.understand import Meaning
from data.state import State
from models.candidate_features import FEATURES, candidate_features, candidate_scores
from models.release import Release

__all__ = ["ExploreConfig", "Ranked", "candidate_inputs", "explain", "explore", "rank"]

_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class ExploreConfig:
    """Randomised slots: `slots` of the first `top` positions are filled evenly from ranks top+1 to `pool`."""

    slots: int = 1
    top: int = 10
    pool: int = 50


_STILL = ExploreConfig(slots=0)


@dataclass(frozen=True)
class Ranked:
    """The whole list, best first; arrays [n].

    rows int32 (state), item_ids int64, scores float64 (the ranker's, else the fused), propensity
    float32 (NaN: not randomised), vector_scores, user_scores (NaN: user without clicks),
    category_probs, fused float32, found uint8 (bits), tiers int8. `features` float32 [n, F] where they
    were asked for. `state_time_us`: known_time of the newest event in the state that ranked this.
    """

    request_id: int
    release_id: str
    key: tuple[Any, ...]
    rows: NDArray[np.int32]
    item_ids: NDArray[np.int64]
    scores: NDArray[np.float64]
    propensity: NDArray[np.float32]
    vector_scores: NDArray[np.float32]
    user_scores: NDArray[np.float32]
    category_probs: NDArray[np.float32]
    fused: NDArray[np.float32]
    found: NDArray[np.uint8]
    tiers: NDArray[np.int8]
    state_time_us: int
    degraded: tuple[str, ...] = ()
    features: NDArray[np.float32] | None = None


def candidate_inputs(
    meaning: Meaning, state: State, live: Live, rows: NDArray[np.int32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """What the features of candidates take from other artifacts, float32 [n] each.

    Vector scores, user scores (NaN: a user without clicks), probabilities of their categories.
    """
    query = meaning.query_vector
    if query is None:
        query = np.zeros(live.vectors.shape[1], np.float32)
    vector_scores, user_scores, _ = candidate_scores(state, meaning.context, rows, live.vectors, query)
    probs: NDArray[np.float32] = np.zeros(len(rows), np.float32)
    if meaning.code_probs is not None:
        probs = meaning.code_probs.of(state.category.take(rows))
    return vector_scores, user_scores, probs


def rank(
    candidates: Candidates,
    meaning: Meaning,
    *,
    request_id: int,
    key: tuple[Any, ...],
    release: Release,
    live: Live,
    state: State,
    explore_config: ExploreConfig,
    with_ranker: bool = True,
    degraded: tuple[str, ...] = (),
    keep_features: bool = False,
) -> Ranked:
    """Score and order the candidates. `with_ranker=False` serves the fused order.

    A release without a ranker explores nothing: until shoppers have clicked, there is nothing to learn.
    """
    rows = candidates.rows
    vector_scores, user_scores, probs = candidate_inputs(meaning, state, live, rows)
    scores = candidates.fused.astype(np.float64)
    features: NDArray[np.float32] | None = None
    ranker = release.ranker if with_ranker else None
    if len(rows) and (ranker is not None or keep_features):
        features = candidate_features(
            state,
            meaning.context,
            rows,
            vector_scores=vector_scores,
            user_scores=user_scores,
            category_probs=probs,
        )
        if ranker is not None:
            scores = ranker.predict(features)
    config = explore_config if release.ranker is not None else _STILL
    order, propensity = explore(len(rows), request_id, config)
    n = len(rows)
    listed, item_ids, sorted_scores = np.empty(n, np.int32), np.empty(n, np.int64), np.empty(n)
    singles = np.empty((4, n), np.float32)
    found, tiers = np.empty(n, np.uint8), np.empty(n, np.int8)
    in_order(
        ranker is not None,
        order,
        rows,
        state.items.item_ids,
        scores,
        vector_scores,
        user_scores,
        probs,
        candidates.fused,
        candidates.found,
        candidates.tiers,
        listed,
        item_ids,
        sorted_scores,
        singles,
        found,
        tiers,
    )
    vector_scores, user_scores, probs, fused = singles
    return Ranked(
        request_id,
        release.manifest.release_id,
        key,
        listed,
        item_ids,
        sorted_scores,
        propensity,
        vector_scores,
        user_scores,
        probs,
        fused,
        found,
        tiers,
        state.as_of_us,
        degraded,
        features[order] if features is not None and keep_features else None,
    )


def explore(n: int, request_id: int, config: ExploreConfig) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Where each position's item comes from (a permutation of n), and the propensities float32 [n].

    Slots are drawn evenly from the first `top` positions, their items evenly and without repeats from
    ranks `top` + 1 to `pool`; a displaced item takes the drawn one's place. The propensity of a drawn
    item, given its slot, is 1 / (ranks to draw from). The same request draws the same.
    """
    choices = min(config.pool, n) - config.top
    slots = min(config.slots, config.top, choices)
    order, propensity = np.empty(n, np.intp), np.empty(n, np.float32)
    explore_into(np.uint64(request_id & _MASK), slots, config.top, choices, order, propensity)
    return order, propensity


def explain(ranked: Ranked, positions: NDArray[np.intp], release: Release) -> list[dict[str, Any]]:
    """Why each of the `positions` of the list is there: retrievers, tier, scores, features.

    `contributions`: what each feature adds to the ranker's score, and `bias`. Features and
    contributions are absent on a turned page, whose list was ranked before.
    """
    rows = []
    features = None if ranked.features is None else ranked.features[positions]
    contributions = None
    if features is not None and release.ranker is not None and len(features):
        contributions = release.ranker.contributions(features)
    for k, i in enumerate(positions.tolist()):
        row: dict[str, Any] = {
            "item_id": int(ranked.item_ids[i]),
            "found_by": found_by(int(ranked.found[i])),
            "tier": int(ranked.tiers[i]) if ranked.tiers[i] >= 0 else None,
            "score": float(ranked.scores[i]),
            "fused": float(ranked.fused[i]),
            "vector_score": float(ranked.vector_scores[i]),
            "user_score": _number(ranked.user_scores[i]),
            "category_prob": float(ranked.category_probs[i]),
            "propensity": _number(ranked.propensity[i]),
        }
        if features is not None:
            row["features"] = {n: _number(v) for n, v in zip(FEATURES, features[k], strict=True)}
        if contributions is not None:
            names = (*FEATURES, "bias")
            row["contributions"] = {n: float(v) for n, v in zip(names, contributions[k], strict=True)}
        rows.append(row)
    return rows


def _number(value: np.floating[Any]) -> float | None:
    return None if np.isnan(value) else float(value)
