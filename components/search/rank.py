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
    order: NDArray[np.intp] = np.arange(len(rows))
    if len(rows) and ((with_ranker and release.ranker is not None) or keep_features):
        features = candidate_features(
            state,
            meaning.context,
            rows,
            vector_scores=vector_scores,
            user_scores=user_scores,
            category_probs=probs,
        )
        if with_ranker and release.ranker is not None:
            scores = np.asarray(release.ranker.predict(features), np.float64)
            order = np.argsort(-scores, kind="stable")
    config = explore_config if release.ranker is not None else _STILL
    moved, propensity = explore(len(rows), request_id, config)
    order = order[moved]
    return Ranked(
        request_id,
        release.manifest.release_id,
        key,
        rows[order],
        state.item_ids[rows[order]],
        scores[order],
        propensity,
        vector_scores[order],
        user_scores[order],
        probs[order],
        candidates.fused[order],
        candidates.found[order],
        candidates.tiers[order],
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
    order = np.arange(n)
    propensity = np.full(n, np.nan, np.float32)
    choices = min(config.pool, n) - config.top
    slots = min(config.slots, config.top, choices)
    if slots <= 0:
        return order, propensity
    draws = _splitmix(request_id & _MASK)
    for slot, rank_ in zip(_sample(config.top, slots, draws), _sample(choices, slots, draws), strict=True):
        drawn = config.top + rank_
        order[slot], order[drawn] = drawn, slot
        propensity[slot] = 1.0 / choices
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


def _sample(n: int, k: int, draws: Any) -> list[int]:
    """k distinct numbers below n, evenly (Floyd's algorithm), in the order drawn."""
    chosen: list[int] = []
    for j in range(n - k, n):
        at = next(draws) % (j + 1)
        chosen.append(j if at in chosen else at)
    return chosen


def _splitmix(seed: int) -> Any:
    """SplitMix64 (Steele, Lea & Flood, OOPSLA 2014): a stream of 64-bit draws, cheap to seed."""
    while True:
        seed = (seed + 0x9E3779B97F4A7C15) & _MASK
        z = ((seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        yield z ^ (z >> 31)
