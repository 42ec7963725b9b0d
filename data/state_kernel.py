"""The compiled inner loop of the fold: one event after the other, decayed counters.

Sequential on purpose: folding a batch gives bit for bit what folding its events one by one
gives, so that history cut anywhere ends in the same state. It knows rows, not ids.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from data.schema import CART, CLICK, IMPRESSION, ORDER
from data.state_arrays import (
    AFFINITY,
    BOUGHT,
    HALF_LIVES_US,
    IN_SESSION,
    PAIR_HALF_LIFE_US,
    PAIR_SLOTS,
    RECENT,
    USER_HALF_LIFE_US,
)

__all__ = ["fold_events", "pair_slot", "relative_price", "session_slot"]

_SHORT, _LONG = HALF_LIVES_US
_A1 = AFFINITY[0]
_A2 = _A1 + AFFINITY[1]
_A3 = _A2 + AFFINITY[2]
_MIX = np.uint64(0x9E3779B97F4A7C15)


@njit(cache=True)
def session_slot(session_id: int) -> Any:
    """The slot of a session in the table."""
    return int((np.uint64(session_id) * _MIX) >> np.uint64(49))


@njit(cache=True)
def pair_slot(query_key: int, item_id: int) -> Any:
    """The slot of a (query, item) pair in the table."""
    mixed = (np.uint64(query_key) ^ (np.uint64(item_id) * _MIX)) * np.uint64(0xD6E8FEB86659FD93)
    return int((mixed ^ (mixed >> np.uint64(32))) & np.uint64(PAIR_SLOTS - 1))


@njit(cache=True)
def request_slot(request_id: int) -> Any:
    """The slot of a request in the table."""
    return int((np.uint64(request_id) * _MIX) >> np.uint64(48))


@njit(cache=True)
def _count_item(items: Any, row: int, column: int, amount: float, time_us: int) -> None:
    last = items.counted_us[row]
    if time_us > last:
        if last > 0:
            short = 2.0 ** (-(time_us - last) / _SHORT)
            long = 2.0 ** (-(time_us - last) / _LONG)
            for c in range(items.counters.shape[2]):
                items.counters[row, 0, c] *= short
                items.counters[row, 1, c] *= long
        items.counted_us[row] = time_us
        items.counters[row, 0, column] += amount
        items.counters[row, 1, column] += amount
    else:
        items.counters[row, 0, column] += amount * 2.0 ** (-(last - time_us) / _SHORT)
        items.counters[row, 1, column] += amount * 2.0 ** (-(last - time_us) / _LONG)


@njit(cache=True)
def _count_user(
    users: Any, items: Any, category_price: Any, user: int, row: int, weight: float, time_us: int
) -> None:
    last = users.counted_us[user]
    if time_us > last:
        if last > 0:
            decay = np.float32(2.0 ** (-(time_us - last) / USER_HALF_LIFE_US))
            for k in range(users.affinity.shape[1]):
                users.affinity[user, k] *= decay
            users.total[user] *= decay
            users.price_sum[user] *= decay
        users.counted_us[user] = time_us
    else:
        weight *= 2.0 ** (-(last - time_us) / USER_HALF_LIFE_US)
    users.affinity[user, items.category[row] % AFFINITY[0]] += weight
    users.affinity[user, _A1 + items.brand[row] % AFFINITY[1]] += weight
    users.affinity[user, _A2 + items.colour[row] % AFFINITY[2]] += weight
    users.affinity[user, _A3 + items.material[row] % AFFINITY[3]] += weight
    users.total[user] += weight
    users.price_sum[user] += weight * relative_price(items, category_price, row)


@njit(cache=True)
def relative_price(items: Any, category_price: Any, row: int) -> Any:
    """Log price less the mean log price of the item's category."""
    category = items.category[row]
    count = category_price[category, 1]
    if count <= 0 or items.price[row] <= 0:
        return 0.0
    return np.log(items.price[row]) - category_price[category, 0] / count


@njit(cache=True)
def _count_pair(pairs: Any, slot: int, exposure: float, clicks: float, time_us: int) -> None:
    last = pairs.counted_us[slot]
    if time_us > last:
        if last > 0:
            decay = np.float32(2.0 ** (-(time_us - last) / PAIR_HALF_LIFE_US))
            pairs.exposure[slot] *= decay
            pairs.clicks[slot] *= decay
        pairs.counted_us[slot] = time_us
        scale = 1.0
    else:
        scale = 2.0 ** (-(last - time_us) / PAIR_HALF_LIFE_US)
    pairs.exposure[slot] += exposure * scale
    pairs.clicks[slot] += clicks * scale


@njit(cache=True)
def fold_events(
    items: Any,
    users: Any,
    sessions: Any,
    pairs: Any,
    requests: Any,
    category_price: Any,
    n_items: int,
    events: Any,
    start: int,
    stop: int,
) -> None:
    """Fold interaction events [start, stop) into the arrays, in order.

    Events of rows from `n_items` on are passed over: their items are not known yet.
    """
    for i in range(start, stop):
        kind = events.kind[i]
        key = events.query_key[i]
        request = events.request_id[i]
        if request != -1:
            slot = request_slot(request)
            if key != 0:
                requests.request_ids[slot] = request
                requests.query_keys[slot] = key
            elif requests.request_ids[slot] == request:
                key = requests.query_keys[slot]
        row = events.item_row[i]
        if row < 0 or row >= n_items:
            continue
        time_us = events.time_us[i]
        if kind == IMPRESSION:
            position = events.position[i]
            seen = 1.0 / np.log2(max(position, 0) + 2.0)
            _count_item(items, row, 1, 1.0, time_us)
            _count_item(items, row, 0, seen, time_us)
            if key != 0:
                _count_pair(pairs, pair_slot(key, items.item_ids[row]), seen, 0.0, time_us)
            continue
        user = events.user_row[i]
        weight = 1.0
        if kind == CLICK:
            _count_item(items, row, 2, 1.0, time_us)
            if key != 0:
                _count_pair(pairs, pair_slot(key, items.item_ids[row]), 0.0, 1.0, time_us)
            session = events.session_id[i]
            if session != -1:
                slot = session_slot(session)
                if sessions.session_ids[slot] != session:
                    sessions.session_ids[slot] = session
                    sessions.recent_n[slot] = 0
                    sessions.recent[slot, :] = -1
                sessions.recent[slot, sessions.recent_n[slot] % IN_SESSION] = row
                sessions.recent_n[slot] += 1
            if user >= 0:
                users.recent[user, users.recent_n[user] % RECENT] = row
                users.recent_n[user] += 1
        elif kind == CART:
            _count_item(items, row, 3, 1.0, time_us)
            weight = 2.0
        elif kind == ORDER:
            _count_item(items, row, 4, 1.0, time_us)
            weight = 3.0
            if user >= 0:
                users.bought[user, users.bought_n[user] % BOUGHT] = row
                users.bought_n[user] += 1
        else:
            continue
        if user >= 0:
            _count_user(users, items, category_price, user, row, weight, time_us)
