"""The compiled end of ranking: randomised slots, and everything known of a candidate in the list's order.

It sees arrays and a seed, never features or models; `rank.py` says what they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

__all__ = ["explored", "in_order"]

_STEP = np.uint64(0x9E3779B97F4A7C15)


@njit(cache=True)
def _drawn(seed: Any, count: int) -> Any:
    """The first draws of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014), cheap to seed: uint64 [count]."""
    draws = np.empty(count, np.uint64)
    state = np.uint64(seed)
    for i in range(count):
        state += _STEP
        z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        draws[i] = z ^ (z >> np.uint64(31))
    return draws


@njit(cache=True)
def _sample(n: int, draws: Any, chosen: Any) -> None:
    """len(chosen) distinct numbers below n, evenly (Floyd's algorithm), in the order drawn."""
    count = len(chosen)
    for k in range(count):
        j = n - count + k
        at = int(draws[k] % np.uint64(j + 1))
        for before in chosen[:k]:
            if before == at:
                at = j
                break
        chosen[k] = at


@njit(cache=True)
def explored(n: int, seed: Any, slots: int, top: int, choices: int) -> Any:
    """Where each position's item comes from, int64 [n], and propensities float32 [n]; see `rank.explore`."""
    order = np.arange(n)
    propensity = np.full(n, np.nan, np.float32)
    if slots <= 0:
        return order, propensity
    draws = _drawn(seed, 2 * slots)
    at, of = np.empty(slots, np.int64), np.empty(slots, np.int64)
    _sample(top, draws[:slots], at)
    _sample(choices, draws[slots:], of)
    for k in range(slots):
        slot, drawn = at[k], top + of[k]
        order[slot], order[drawn] = drawn, slot
        propensity[slot] = 1.0 / choices
    return order, propensity


@njit(cache=True)
def in_order(
    sort: bool,
    moved: Any,
    rows: Any,
    item_ids: Any,
    scores: Any,
    vector_scores: Any,
    user_scores: Any,
    category_probs: Any,
    fused: Any,
    found: Any,
    tiers: Any,
) -> Any:
    """The arrays [n] of candidates by descending score, equal ones as they come, then as `moved` says.

    `sort` false: as they come. `item_ids` by row. Returns (order, rows, item_ids, scores, vector_scores,
    user_scores, category_probs, fused, found, tiers).
    """
    n = len(rows)
    order = np.argsort(-scores, kind="mergesort") if sort else np.arange(n)
    order = order[moved]
    ids = np.empty(n, np.int64)
    for i in range(n):
        ids[i] = item_ids[rows[order[i]]]
    return (
        order, rows[order], ids, scores[order], vector_scores[order], user_scores[order],
        category_probs[order], fused[order], found[order], tiers[order],
    )  # fmt: skip
