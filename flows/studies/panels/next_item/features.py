"""The pool of a query and the features of its candidates, from counters alone.

A query is a user at the door: what will the basket hold? What counts was counted before. It knows no
labels and no models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from flows.studies.panels.next_item.fold import (
    HALF_LIVES_US,
    INTERACTIONS,
    TAKERS,
    TOTAL,
    USER_HALF_LIFE_US,
    Counters,
    Keys,
    decayed,
    neighbours_into,
    own_weights,
    seen,
)
from infra.clock import DAY_US, HOUR_US

__all__ = ["CATEGORICAL", "NAMES", "POOL", "Popular", "features", "pool", "popular_now"]

POOL = 120  # candidates a query
_OWN = 60  # of them, what the user took most and last
_NEAR = 60  # in a shop without repeats: what is taken by the same people
_CATEGORIES, _IN_CATEGORY = 3, 7  # popular items of the first categories of the user
_LISTED = 1000  # popular items from which a pool is filled

NAMES = (
    "popularity_1d", "popularity_7d", "popularity_28d", "trend_1_7", "trend_7_28", "taken_total", "takers",
    "repeat_share", "liked_share", "item_age_d", "own_count", "own_decayed", "own_recency_d", "own_due",
    "own_basket_share", "baskets_since", "category_share", "brand_share", "department_share",
    "category_recency_d", "brand_recency_d", "category_always", "near_mean", "near_most", "near_late",
    "near_relative", "price", "price_to_user", "user_baskets", "user_taken", "basket_size",
    "user_recency_d", "user_gap_d", "hour", "weekday", "category", "brand", "department",
)  # fmt: skip
CATEGORICAL = tuple(NAMES.index(n) for n in ("category", "brand", "department"))


@dataclass(frozen=True)
class Popular:
    """Items by decayed count as of `at_us`: `rows` int64 [≤ 1000] overall, `by_category` grouped.

    Those of category c are `by_category[starts[c]:starts[c + 1]]`.
    """

    at_us: int
    rows: NDArray[np.int64]
    by_category: NDArray[np.int64]
    starts: NDArray[np.int64]


def popular_now(counters: Counters, keys: Keys, now_us: int) -> Popular:
    """The popular items of the last weeks (half-life 28 days)."""
    rows = np.flatnonzero(counters.item[:, TOTAL] > 0)
    now = decayed(counters.item[rows, 2], counters.item_us[rows], now_us, HALF_LIVES_US[2])
    order = rows[np.argsort(-now, kind="stable")]
    category = keys.codes[order, 0]
    grouped = order[np.argsort(category, kind="stable")]
    starts = np.searchsorted(np.sort(category), np.arange(int(keys.codes[:, 0].max()) + 2))
    return Popular(now_us, order[:_LISTED], grouped, starts.astype(np.int64))


def pool(
    counters: Counters, keys: Keys, popular: Popular, user: int, now_us: int, *, repeats: bool
) -> NDArray[np.int64]:
    """The candidates of a query: item rows int64 [≤ 120], each once.

    What the user had before, where users take things again; where not, what is taken by the people who
    took the same, and nothing that the user had. Then the popular in the user's first categories, then
    the popular.
    """
    pairs = slice(keys.pair_start[user], keys.pair_start[user + 1])
    taken = np.zeros(len(keys.codes), bool)  # candidates, and what may not be one
    if repeats:
        weight = own_weights(counters, keys, user, now_us)
        best = np.argsort(-weight, kind="stable")[:_OWN]
        first = keys.pair_item[pairs][best[weight[best] > 0]]
    else:
        taken[keys.pair_item[pairs][counters.pair[pairs, 2] > 0]] = True
        used = int(counters.slots_used[0])
        alike = np.zeros((used, 3))
        neighbours_into(counters, user, np.arange(used), alike)
        near = alike[:, 0] * ~taken[counters.slot_item[:used]]
        best = np.argsort(-near, kind="stable")[:_NEAR]
        first = counters.slot_item[best[near[best] > 0]]
    taken[first] = True
    parts = [first]
    g = slice(keys.group_start[0, user], keys.group_start[0, user + 1])
    liked = decayed(counters.group[g, 1], counters.group_us[g], now_us, USER_HALF_LIFE_US)
    top = np.argsort(-liked, kind="stable")[:_CATEGORIES]
    for code in keys.group_code[g][top[liked[top] > 0]].tolist():
        listed = popular.by_category[popular.starts[code] : popular.starts[code + 1]]
        parts.append(listed[~taken[listed]][:_IN_CATEGORY])
        taken[parts[-1]] = True
    parts.append(popular.rows[~taken[popular.rows]])
    return np.asarray(np.concatenate(parts)[:POOL], np.int64)


def features(
    counters: Counters, keys: Keys, user: int, rows: NDArray[np.int64], *, now_us: int, asked_us: int
) -> NDArray[np.float32]:
    """Features float32 [n, F] of candidates by the counters as of `now_us`, asked for at `asked_us`.

    The two differ for frozen counters: they and all that is measured from them keep the values that
    they had, only the hour and the weekday are of the query.
    """
    out = np.empty((len(rows), len(NAMES)), np.float32)
    near = np.zeros((len(rows), 3))
    neighbours_into(counters, user, counters.slot[rows], near)
    _into(counters, keys, user, rows, now_us, asked_us, near, out)
    return out


@njit(cache=True)
def _group(keys: Keys, attribute: int, user: int, code: int) -> int:
    low, stop = keys.group_start[attribute, user], keys.group_start[attribute, user + 1]
    high = stop
    while low < high:
        middle = (low + high) // 2
        if keys.group_code[middle] < code:
            low = middle + 1
        else:
            high = middle
    return low if low < stop and keys.group_code[low] == code else -1


@njit(cache=True)
def _into(
    c: Counters, keys: Keys, user: int, rows: Any, now_us: int, asked_us: int, near: Any, out: Any
) -> None:
    most_near = 1e-9
    for j in range(len(rows)):
        most_near = max(most_near, near[j, 0])
    known = c.user_us[user] >= 0
    baskets, taken = c.user[user, 0], c.user[user, 1]
    taken_now = decayed(c.user[user, 2], c.user_us[user], now_us, USER_HALF_LIFE_US) if known else 0.0
    price_of_user = c.user[user, 3] / c.user[user, 4] if c.user[user, 4] > 0 else np.nan
    for j in range(len(rows)):
        i = rows[j]
        f = out[j]
        met = c.item_first_us[i] >= 0
        rate = np.zeros(3)
        for h in range(3):
            count = decayed(c.item[i, h], c.item_us[i], now_us, HALF_LIVES_US[h]) if met else 0.0
            rate[h] = count / (HALF_LIVES_US[h] / DAY_US)  # near the takings a day
            f[h] = np.log(rate[h] + 1e-3)
        f[3] = np.log((rate[0] + 0.05) / (rate[1] + 0.05))
        f[4] = np.log((rate[1] + 0.05) / (rate[2] + 0.05))
        total = c.item[i, TOTAL]
        f[5] = np.log1p(total)
        f[6] = np.log1p(c.item[i, TAKERS])
        f[7] = 1.0 - (c.item[i, TAKERS] + 1.0) / (total + 1.0)
        f[8] = (total + 2.0) / (c.item[i, INTERACTIONS] + 4.0)
        f[9] = (now_us - c.item_first_us[i]) / DAY_US if met else np.nan

        p = seen(keys, keys.pair_start[user], keys.pair_start[user + 1], i)
        own = c.pair[p, 0] if p >= 0 else 0.0
        f[10] = np.log1p(own)
        f[11] = 0.0
        f[12] = f[13] = np.nan
        f[14] = 0.0
        f[15] = np.nan
        if own > 0:
            f[11] = decayed(c.pair[p, 1], c.pair_us[p], now_us, USER_HALF_LIFE_US)
            since = (now_us - c.pair_us[p]) / DAY_US
            f[12] = since
            if own > 1:
                gap = (c.pair_us[p] - c.pair_first_us[p]) / DAY_US / (own - 1)
                f[13] = np.log((since + 0.5) / (gap + 0.5))
            f[14] = own / (baskets - c.pair_basket[p, 0] + 1.0)
            f[15] = baskets - c.pair_basket[p, 1]

        for a in range(3):
            g = _group(keys, a, user, keys.codes[i, a])
            share, since = 0.0, np.nan
            if g >= 0 and c.group[g, 0] > 0:
                count = decayed(c.group[g, 1], c.group_us[g], now_us, USER_HALF_LIFE_US)
                share = count / taken_now if taken_now > 0 else 0.0
                since = (now_us - c.group_us[g]) / DAY_US
                if a == 0:
                    f[21] = c.group[g, 0] / max(taken, 1.0)
            elif a == 0:
                f[21] = 0.0
            f[16 + a] = share
            if a < 2:
                f[19 + a] = since
        f[22] = near[j, 0]
        f[23] = near[j, 1]
        f[24] = near[j, 2]
        f[25] = near[j, 0] / most_near
        f[26] = np.log1p(c.item_price[i])
        f[27] = f[26] - price_of_user
        f[28] = np.log1p(baskets)
        f[29] = np.log1p(taken)
        f[30] = taken / baskets if baskets > 0 else np.nan
        f[31] = (now_us - c.user_us[user]) / DAY_US if known else np.nan
        f[32] = (c.user_us[user] - c.user_first_us[user]) / DAY_US / (baskets - 1) if baskets > 1 else np.nan
        f[33] = (asked_us // HOUR_US) % 24
        f[34] = (asked_us // DAY_US) % 7
        for a in range(3):
            f[35 + a] = keys.codes[i, a]
