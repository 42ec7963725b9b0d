"""Counters over a log without impressions: folded in order of time, read as of any moment.

Decayed popularity, what each user took of which item, category, brand and department, and which items
are taken by the same people. Compiled; it sees arrays and row numbers, never ids or models.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from data.sources.interactions import InteractionLog
from infra.clock import DAY_US

__all__ = [
    "HALF_LIVES_US",
    "Counters",
    "Keys",
    "decayed",
    "empty_counters",
    "fold",
    "frozen_copy",
    "keys_of",
    "neighbours_into",
    "own_weights",
    "seen",
]

HALF_LIVES_US = (1 * DAY_US, 7 * DAY_US, 28 * DAY_US)  # of an item's popularity
USER_HALF_LIFE_US = 28 * DAY_US  # of what a user took
TOTAL, INTERACTIONS, TAKERS = 3, 4, 5  # columns of an item after its three decayed counts
SLOTS = 4096  # items that co-occurrence is counted of: the first to be taken this often
FIRST_TAKEN = 5
HISTORY = 128  # distinct items remembered a user
_SHRINK = 5.0  # of the cosine of two items that few took


class Keys(NamedTuple):
    """Row numbers of a log [n] and of everything that is counted; made once, knows no count.

    `pair`: of (user, item), those of user u from `pair_start[u]` on, by item; `group` [n, 3]: of (user,
    category), (user, brand), (user, department), those of user u and attribute a from
    `group_start[a, u]` on, by code; `codes` int32 [m, 3].
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    pair: NDArray[np.int64]
    group: NDArray[np.int64]
    basket: NDArray[np.int64]
    time_us: NDArray[np.int64]
    positive: NDArray[np.bool_]
    price: NDArray[np.float32]
    codes: NDArray[np.int32]
    pair_start: NDArray[np.int64]
    pair_item: NDArray[np.int64]
    group_start: NDArray[np.int64]
    group_code: NDArray[np.int64]


class Counters(NamedTuple):
    """What is counted; each row's decayed counts hold as of its own last time."""

    item: NDArray[np.float64]  # [m, 6]
    item_us: NDArray[np.int64]
    item_first_us: NDArray[np.int64]  # -1 not yet
    item_price: NDArray[np.float64]
    pair: NDArray[np.float64]  # [p, 3]: times taken, decayed, interactions
    pair_us: NDArray[np.int64]
    pair_first_us: NDArray[np.int64]
    pair_basket: NDArray[np.int64]  # [p, 2]: number of the user's basket that had it first, last
    group: NDArray[np.float64]  # [q, 2]: times taken, decayed
    group_us: NDArray[np.int64]
    user: NDArray[np.float64]  # [u, 5]: baskets, taken, decayed taken, sum of prices, prices
    user_us: NDArray[np.int64]  # -1 not yet
    user_first_us: NDArray[np.int64]
    user_basket: NDArray[np.int64]
    together: NDArray[np.float32]  # [slots, slots]: users who took both
    slot: NDArray[np.int64]  # of an item, -1 none
    slot_item: NDArray[np.int64]
    slot_users: NDArray[np.float64]
    history: NDArray[np.int32]  # [u, HISTORY]: slots, a ring
    history_n: NDArray[np.int64]
    slots_used: NDArray[np.int64]  # [1]


def keys_of(log: InteractionLog) -> Keys:
    """Row numbers for a log; users in order of id, items as in `log.items`."""
    users, user = np.unique(log.user_ids, return_inverse=True)
    item = np.searchsorted(log.items, log.item_ids)
    m = len(log.items)
    pairs, pair = np.unique(user * m + item, return_inverse=True)
    codes = np.stack([log.category, log.brand, log.department], axis=1).astype(np.int32)
    starts, held, group = [], [], np.empty((len(user), 3), np.int64)
    offset = 0
    for a in range(3):
        width = int(codes[:, a].max()) + 1
        found, at = np.unique(user * width + codes[item, a], return_inverse=True)
        group[:, a] = at + offset
        starts.append(offset + np.searchsorted(found // width, np.arange(len(users) + 1)))
        held.append(found % width)
        offset += len(found)
    _, basket = np.unique(log.basket_ids, return_inverse=True)
    return Keys(
        user=user.astype(np.int64),
        item=item.astype(np.int64),
        pair=pair.astype(np.int64),
        group=group,
        basket=basket.astype(np.int64),
        time_us=log.time_us,
        positive=log.positive,
        price=log.price,
        codes=codes,
        pair_start=np.searchsorted(pairs // m, np.arange(len(users) + 1)).astype(np.int64),
        pair_item=(pairs % m).astype(np.int64),
        group_start=np.stack(starts).astype(np.int64),
        group_code=np.concatenate(held).astype(np.int64),
    )


def empty_counters(keys: Keys) -> Counters:
    """Counters before the first event."""
    m, p, q = len(keys.codes), len(keys.pair_item), len(keys.group_code)
    u = len(keys.pair_start) - 1
    slots = min(SLOTS, m)
    return Counters(
        item=np.zeros((m, 6)),
        item_us=np.zeros(m, np.int64),
        item_first_us=np.full(m, -1, np.int64),
        item_price=np.full(m, np.nan),
        pair=np.zeros((p, 3)),
        pair_us=np.zeros(p, np.int64),
        pair_first_us=np.zeros(p, np.int64),
        pair_basket=np.zeros((p, 2), np.int64),
        group=np.zeros((q, 2)),
        group_us=np.zeros(q, np.int64),
        user=np.zeros((u, 5)),
        user_us=np.full(u, -1, np.int64),
        user_first_us=np.zeros(u, np.int64),
        user_basket=np.full(u, -1, np.int64),
        together=np.zeros((slots, slots), np.float32),
        slot=np.full(m, -1, np.int64),
        slot_item=np.full(slots, -1, np.int64),
        slot_users=np.zeros(slots),
        history=np.zeros((u, HISTORY), np.int32),
        history_n=np.zeros(u, np.int64),
        slots_used=np.zeros(1, np.int64),
    )


def frozen_copy(counters: Counters) -> Counters:
    """The counters as they are now, which later events leave alone."""
    return Counters(**{name: a.copy() for name, a in counters._asdict().items()})


@njit(cache=True)
def decayed(value: Any, since_us: Any, now_us: Any, half_life_us: Any) -> Any:
    """A decayed count as of now, from its value as of `since_us`."""
    return value * 0.5 ** ((now_us - since_us) / half_life_us)


@njit(cache=True)
def seen(keys: Keys, start: int, stop: int, wanted: int) -> int:
    """Where in `keys.pair_item` [start, stop), sorted, an item is: -1 nowhere."""
    low, high = start, stop
    while low < high:
        middle = (low + high) // 2
        if keys.pair_item[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low if low < stop and keys.pair_item[low] == wanted else -1


@njit(cache=True)
def fold(counters: Counters, keys: Keys, start: int, stop: int) -> None:
    """Take events [start, stop) into the counters."""
    c = counters
    for e in range(start, stop):
        u, i, p, now = keys.user[e], keys.item[e], keys.pair[e], keys.time_us[e]
        if c.user_us[u] < 0:
            c.user_first_us[u] = now
            c.user_us[u] = now
        if c.user_basket[u] != keys.basket[e]:
            c.user_basket[u] = keys.basket[e]
            c.user[u, 0] += 1
        if c.item_first_us[i] < 0:
            c.item_first_us[i] = now
            c.item_us[i] = now
        c.item[i, INTERACTIONS] += 1
        if not np.isnan(keys.price[e]):
            c.item_price[i] = keys.price[e]
            c.user[u, 3] += np.log1p(keys.price[e])
            c.user[u, 4] += 1
        c.pair[p, 2] += 1
        if not keys.positive[e]:
            continue
        for h in range(3):
            c.item[i, h] = 1.0 + decayed(c.item[i, h], c.item_us[i], now, HALF_LIVES_US[h])
        c.item_us[i] = now
        c.item[i, TOTAL] += 1
        c.user[u, 2] = 1.0 + decayed(c.user[u, 2], c.user_us[u], now, USER_HALF_LIFE_US)
        c.user[u, 1] += 1
        c.user_us[u] = now
        for a in range(3):
            g = keys.group[e, a]
            c.group[g, 1] = 1.0 + decayed(c.group[g, 1], c.group_us[g], now, USER_HALF_LIFE_US)
            c.group[g, 0] += 1
            c.group_us[g] = now
        first = c.pair[p, 0] == 0
        c.pair[p, 1] = 1.0 + decayed(c.pair[p, 1], c.pair_us[p], now, USER_HALF_LIFE_US)
        c.pair[p, 0] += 1
        c.pair_us[p] = now
        c.pair_basket[p, 1] = int(c.user[u, 0])
        if first:
            c.pair_first_us[p] = now
            c.pair_basket[p, 0] = int(c.user[u, 0])
            c.item[i, TAKERS] += 1
            _join(c, u, i)


@njit(cache=True)
def _join(c: Counters, u: int, i: int) -> None:
    """A user took an item for the first time: it was taken together with what the user remembers."""
    s = c.slot[i]
    if s < 0 and c.item[i, TOTAL] >= FIRST_TAKEN and c.slots_used[0] < len(c.slot_item):
        s = c.slots_used[0]
        c.slots_used[0] += 1
        c.slot[i] = s
        c.slot_item[s] = i
    if s < 0:
        return
    for k in range(min(c.history_n[u], HISTORY)):
        h = c.history[u, k]
        c.together[h, s] += 1
        c.together[s, h] += 1
    c.slot_users[s] += 1
    c.history[u, c.history_n[u] % HISTORY] = s
    c.history_n[u] += 1


@njit(cache=True)
def own_weights(counters: Counters, keys: Keys, user: int, now_us: int) -> Any:
    """The decayed count of each of a user's pairs, 0 of what was not taken yet: float64 [pairs]."""
    a, b = keys.pair_start[user], keys.pair_start[user + 1]
    out = np.zeros(b - a)
    for p in range(a, b):
        if counters.pair[p, 0] > 0:
            out[p - a] = decayed(counters.pair[p, 1], counters.pair_us[p], now_us, USER_HALF_LIFE_US)
    return out


@njit(cache=True)
def neighbours_into(counters: Counters, user: int, slots: Any, out: Any) -> None:
    """How alike slots int64 [k] are to what a user took: out float64 [k, 3] of mean, most, mean of newest 10.

    Alike are items that the same users took: the cosine of their users, shrunk. -1 gives zeros.
    """
    c = counters
    n = min(c.history_n[user], HISTORY)
    newest = min(n, 10)
    for j in range(len(slots)):
        s = slots[j]
        total = best = late = 0.0
        if s >= 0 and c.slot_users[s] > 0:
            for k in range(n):
                h = c.history[user, (c.history_n[user] - 1 - k) % HISTORY]
                if h == s:
                    continue
                alike = c.together[h, s] / (np.sqrt(c.slot_users[h] * c.slot_users[s]) + _SHRINK)
                total += alike
                best = max(best, alike)
                if k < newest:
                    late += alike
        out[j, 0] = total / n if n else 0.0
        out[j, 1] = best
        out[j, 2] = late / newest if newest else 0.0
