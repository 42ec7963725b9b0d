"""The compiled end of ranking: randomised slots, and everything known of a candidate in the list's order.

It sees arrays and a seed, never features or models; `rank.py` says what they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

__all__ = ["explore_into", "in_order"]

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
def explore_into(seed: Any, slots: int, top: int, choices: int, order: Any, propensity: Any) -> None:
    """Where each position's item comes from, int64 [n], and propensities float32 [n]; see `rank.explore`."""
    order[:] = np.arange(len(order))
    propensity[:] = np.nan
    if slots <= 0:
        return
    draws = _drawn(seed, 2 * slots)
    at, of = np.empty(slots, np.int64), np.empty(slots, np.int64)
    _sample(top, draws[:slots], at)
    _sample(choices, draws[slots:], of)
    for k in range(slots):
        slot, drawn = at[k], top + of[k]
        order[slot], order[drawn] = drawn, slot
        propensity[slot] = 1.0 / choices


@njit(cache=True)
def in_order(
    sort: bool,
    order: Any,
    rows: Any,
    item_ids: Any,
    scores: Any,
    vector_scores: Any,
    user_scores: Any,
    category_probs: Any,
    fused: Any,
    found: Any,
    tiers: Any,
    out_rows: Any,
    out_ids: Any,
    out_scores: Any,
    out_singles: Any,
    out_found: Any,
    out_tiers: Any,
) -> None:
    """Fill the out arrays [n] with candidates by descending score, equal ones as they come, moved by `order`.

    `order` int64 [n]: what `explore_into` gave; then the candidates' own places. `sort` false: as they come.
    `item_ids` by row. `out_singles` float32 [4, n]: vector_scores, user_scores, category_probs, fused.
    Nothing is returned: each array that compiled code hands out costs a microsecond.
    """
    best = np.argsort(-scores, kind="mergesort") if sort else np.arange(len(rows))
    for i in range(len(rows)):
        at = best[order[i]]
        order[i] = at
        out_rows[i] = rows[at]
        out_ids[i] = item_ids[rows[at]]
        out_scores[i] = scores[at]
        out_singles[0, i] = vector_scores[at]
        out_singles[1, i] = user_scores[at]
        out_singles[2, i] = category_probs[at]
        out_singles[3, i] = fused[at]
        out_found[i] = found[at]
        out_tiers[i] = tiers[at]
