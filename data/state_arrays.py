"""The state's columns: what is remembered of items, users, sessions and (query, item) pairs.

Struct of arrays, so that compiled code walks them and files hold them as they are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from infra.clock import DAY_US

__all__ = [
    "AFFINITY",
    "AFFINITY_WIDTH",
    "COUNTERS",
    "HALF_LIVES_US",
    "ITEM_COLUMNS",
    "PAIR_HALF_LIFE_US",
    "TOKENS",
    "USER_COLUMNS",
    "USER_HALF_LIFE_US",
    "EventArrays",
    "ItemArrays",
    "PairArrays",
    "RequestArrays",
    "SessionArrays",
    "UserArrays",
    "columns",
    "empty_pairs",
    "empty_requests",
    "empty_sessions",
    "grown",
    "newest_first",
]

# exposure is the sum of DCG discounts of the positions shown: clicks over it is the
# click-through rate corrected for position (clicks over expected clicks, Zhang & Jones 2007).
COUNTERS = ("exposure", "impressions", "clicks", "carts", "orders")
HALF_LIVES_US = (1 * DAY_US, 7 * DAY_US)
USER_HALF_LIFE_US = 10 * DAY_US
PAIR_HALF_LIFE_US = 5 * DAY_US
RECENT = 12  # clicks remembered a user
BOUGHT = 8  # orders remembered a user
IN_SESSION = 8  # clicks remembered a session
SESSION_SLOTS = 1 << 15
PAIR_SLOTS = 1 << 18
REQUEST_SLOTS = 1 << 16
AFFINITY = (32, 32, 16, 16)  # buckets of category, brand, colour, material
AFFINITY_WIDTH = sum(AFFINITY)

TOKENS = 24  # tokens remembered an item


class ItemArrays(NamedTuple):
    """Columns of items by row; all have one capacity."""

    item_ids: NDArray[np.int64]
    alive: NDArray[np.bool_]
    price: NDArray[np.float32]
    list_price: NDArray[np.float32]
    stock: NDArray[np.int32]
    rating: NDArray[np.float32]
    rating_count: NDArray[np.float32]
    created_us: NDArray[np.int64]
    category: NDArray[np.int32]
    brand: NDArray[np.int32]
    colour: NDArray[np.int32]
    material: NDArray[np.int32]
    gender: NDArray[np.int32]
    photo: NDArray[np.int32]
    tokens: NDArray[np.uint32]  # [n, 24], 0-padded
    counters: NDArray[np.float64]  # [n, half-lives, COUNTERS], valid at counted_us
    counted_us: NDArray[np.int64]


class UserArrays(NamedTuple):
    """Columns of users by row."""

    user_ids: NDArray[np.int64]
    gender: NDArray[np.int8]
    age: NDArray[np.int16]
    purchasing_power: NDArray[np.int8]
    affinity: NDArray[np.float32]  # [n, AFFINITY_WIDTH] decayed click weight
    total: NDArray[np.float32]  # decayed click weight
    price_sum: NDArray[np.float32]  # decayed weight × log price relative to the category
    counted_us: NDArray[np.int64]
    recent: NDArray[np.int32]  # [n, RECENT] ring of item rows, -1 none
    recent_n: NDArray[np.int32]
    bought: NDArray[np.int32]  # [n, BOUGHT] ring
    bought_n: NDArray[np.int32]


class SessionArrays(NamedTuple):
    """A direct-mapped table of sessions: a newer session takes an older one's slot."""

    session_ids: NDArray[np.int64]
    recent: NDArray[np.int32]  # [slots, IN_SESSION] ring of clicked rows
    recent_n: NDArray[np.int32]


class PairArrays(NamedTuple):
    """Decayed exposure and clicks of (query, item) pairs, hashed into a fixed table."""

    exposure: NDArray[np.float32]
    clicks: NDArray[np.float32]
    counted_us: NDArray[np.int64]


class RequestArrays(NamedTuple):
    """A direct-mapped table of requests: what was asked, for reactions that only name the request."""

    request_ids: NDArray[np.int64]
    query_keys: NDArray[np.int64]


class EventArrays(NamedTuple):
    """Interaction events as arrays; rows are -1 where unknown."""

    kind: NDArray[np.int8]
    time_us: NDArray[np.int64]
    item_row: NDArray[np.int32]
    user_row: NDArray[np.int32]
    session_id: NDArray[np.int64]
    request_id: NDArray[np.int64]
    query_key: NDArray[np.int64]  # 0 none
    position: NDArray[np.int16]


Spec = dict[str, tuple[Any, tuple[int, ...], float]]  # name → dtype, shape of a row, none

ITEM_COLUMNS: Spec = {
    "item_ids": (np.int64, (), -1),
    "alive": (np.bool_, (), 0),
    "price": (np.float32, (), 0),
    "list_price": (np.float32, (), 0),
    "stock": (np.int32, (), 0),
    "rating": (np.float32, (), np.nan),
    "rating_count": (np.float32, (), 0),
    "created_us": (np.int64, (), 0),
    "category": (np.int32, (), 0),
    "brand": (np.int32, (), 0),
    "colour": (np.int32, (), 0),
    "material": (np.int32, (), 0),
    "gender": (np.int32, (), 0),
    "photo": (np.int32, (), -1),
    "tokens": (np.uint32, (TOKENS,), 0),
    "counters": (np.float64, (len(HALF_LIVES_US), len(COUNTERS)), 0),
    "counted_us": (np.int64, (), 0),
}
USER_COLUMNS: Spec = {
    "user_ids": (np.int64, (), -1),
    "gender": (np.int8, (), -1),
    "age": (np.int16, (), -1),
    "purchasing_power": (np.int8, (), -1),
    "affinity": (np.float32, (AFFINITY_WIDTH,), 0),
    "total": (np.float32, (), 0),
    "price_sum": (np.float32, (), 0),
    "counted_us": (np.int64, (), 0),
    "recent": (np.int32, (RECENT,), -1),
    "recent_n": (np.int32, (), 0),
    "bought": (np.int32, (BOUGHT,), -1),
    "bought_n": (np.int32, (), 0),
}


def columns(spec: Spec, rows: int) -> list[NDArray[Any]]:
    """Fresh arrays of that many rows, each filled with its \"none\"."""
    return [np.full((rows, *shape), none, dtype) for dtype, shape, none in spec.values()]


def grown(arrays: Any, spec: Spec, rows: int) -> Any:
    """The same columns with room for `rows` rows."""
    new = columns(spec, rows)
    for old, fresh in zip(arrays, new, strict=True):
        fresh[: len(old)] = old
    return type(arrays)(*new)


def empty_sessions() -> SessionArrays:
    """The session table without a session."""
    return SessionArrays(
        np.full(SESSION_SLOTS, -1, np.int64),
        np.full((SESSION_SLOTS, IN_SESSION), -1, np.int32),
        np.zeros(SESSION_SLOTS, np.int32),
    )


def empty_pairs() -> PairArrays:
    """The (query, item) table without a count."""
    return PairArrays(
        np.zeros(PAIR_SLOTS, np.float32), np.zeros(PAIR_SLOTS, np.float32), np.zeros(PAIR_SLOTS, np.int64)
    )


def empty_requests() -> RequestArrays:
    """The request table without a request."""
    return RequestArrays(np.full(REQUEST_SLOTS, -1, np.int64), np.zeros(REQUEST_SLOTS, np.int64))


def newest_first(ring: NDArray[np.int32], count: int) -> list[int]:
    """The rows that a ring holds of `count` written, newest first."""
    held = len(ring)
    if count <= held:
        return list(ring[:count][::-1].tolist())
    at = count % held
    return list(np.concatenate([ring[:at][::-1], ring[at:][::-1]]).tolist())
