"""A log of who took what and when, without impressions: baskets of orders, ratings, clicks.

One plain form for every such source: real data sets, and a home whose events have no impressions.
It knows nothing of models or of how the items were found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from data.codes import code_of
from data.schema import CART, CLICK, ITEM_UPSERT, NONE_ID, ORDER
from data.snapshots import published, read_events
from infra.clock import DAY_US, HOUR_US, SECOND_US
from infra.errors import DataError
from infra.settings import Home

__all__ = ["GAP_US", "InteractionLog", "bursts", "log_of_home", "resolution"]

GAP_US = HOUR_US // 2  # a pause that ends a visit: the usual half hour of web analytics
_REPEATS = 0.02  # share of takings of what one had before, from which a shop is one of repeats


@dataclass(frozen=True)
class InteractionLog:
    """Interactions in order of time, and what is known of the items.

    [n] per interaction: `user_ids`, `item_ids`, `basket_ids`, `time_us` int64; `positive` bool: whether
    it is what a recommender should have found (a low rating is not); `price` float32, NaN unknown.
    [m] per item: `items` int64 sorted; `category`, `brand`, `department` int32 codes, 0 unknown.
    `repeats`: whether users take again what they had; `settle_us`: after its last interaction a basket
    counts as complete; `resolution_us`: of the time stamps; `about`: what a report says of it (JSON).
    """

    name: str
    user_ids: NDArray[np.int64]
    item_ids: NDArray[np.int64]
    basket_ids: NDArray[np.int64]
    time_us: NDArray[np.int64]
    positive: NDArray[np.bool_]
    price: NDArray[np.float32]
    items: NDArray[np.int64]
    category: NDArray[np.int32]
    brand: NDArray[np.int32]
    department: NDArray[np.int32]
    repeats: bool
    settle_us: int = 0
    resolution_us: int = SECOND_US
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises DataError where it is empty, out of order, or a basket has two users."""
        n = len(self.user_ids)
        if not n:
            raise DataError(f"{self.name} holds no interaction; expected clicks or orders by known users")
        if not self.positive.any():
            raise DataError(f"{self.name} holds no positive interaction, so there is nothing to find")
        if (np.diff(self.time_us) < 0).any():
            raise DataError(f"{self.name} is not in order of time; sort its interactions")
        if not np.isin(self.item_ids, self.items).all():
            raise DataError(f"{self.name} has interactions with items that it does not list")
        order = np.lexsort((self.user_ids, self.basket_ids))
        basket, user = self.basket_ids[order], self.user_ids[order]
        if ((basket[1:] == basket[:-1]) & (user[1:] != user[:-1])).any():
            raise DataError(f"{self.name} has a basket of two users; give each its own basket id")

    @property
    def span_d(self) -> float:
        """Days from the first interaction to the last."""
        return float(self.time_us[-1] - self.time_us[0]) / DAY_US


def bursts(
    user_ids: NDArray[np.int64], time_us: NDArray[np.int64], *, gap_us: int = GAP_US, most: int | None = None
) -> NDArray[np.int64]:
    """Baskets where a log has none: a user's interactions without a pause longer than `gap_us`, int64 [n].

    Input is in order of time. `most`: a longer burst is cut after that many, never within one time stamp.
    """
    order = np.lexsort((time_us, user_ids))
    user, at = user_ids[order], time_us[order]
    first = np.concatenate([[True], (user[1:] != user[:-1]) | (np.diff(at) > gap_us)])
    if most is not None:
        begins = np.flatnonzero(first)
        size = np.diff(np.append(begins, len(first)))
        place = np.arange(len(first)) - np.repeat(begins, size)
        stamp = np.concatenate([[True], first[1:] | (np.diff(at) > 0)])
        head = np.maximum.accumulate(np.where(stamp, np.arange(len(first)), 0))
        part = place[head] // most  # of a stamp's first interaction, so that a stamp stays whole
        first |= np.concatenate([[False], part[1:] != part[:-1]])
    found = np.empty(len(order), np.int64)
    found[order] = np.cumsum(first) - 1
    return found


def resolution(time_us: NDArray[np.int64]) -> int:
    """The coarsest of day, hour, minute and second that all time stamps are whole multiples of, in us."""
    for unit in (DAY_US, HOUR_US, 60 * SECOND_US):
        if not (time_us % unit).any():
            return unit
    return SECOND_US


def log_of_home(layout: Home) -> InteractionLog:
    """Clicks, carts and orders of a home's published events, each visit one basket.

    A visit is the session, without one a burst of the user. Whoever has no user id counts as a user of
    their own for the session. Category, brand and price are those an item was first known with, so that
    nothing of later is told. Raises DataError where there is none.
    """
    events = read_events(
        published(layout),
        kinds=(CLICK, CART, ORDER, ITEM_UPSERT),
        columns=("kind", "known_time", "user_id", "session_id", "item_id", "payload"),
    )
    kind, item = events["kind"].to_numpy(), events["item_id"].to_numpy()
    user, session = events["user_id"].to_numpy(), events["session_id"].to_numpy()
    took = (kind != ITEM_UPSERT) & ((user != NONE_ID) | (session != NONE_ID)) & (item != NONE_ID)
    user = np.where(user == NONE_ID, ~session, user)  # below zero, where no user id is
    if not took.any():
        raise DataError(f"{layout.root} has no clicks or orders by known users or sessions; import some")
    user, session, item = user[took], session[took], item[took]
    time_us = events["known_time"].to_numpy()[took]
    burst = bursts(user, time_us)
    visit = np.where(session == NONE_ID, burst, session)
    key = np.stack([user, (session == NONE_ID).astype(np.int64), visit], axis=1)
    _, basket = np.unique(key, axis=0, return_inverse=True)
    items = np.unique(item)
    code, price = _first_known(events, kind, items)
    seen = np.unique(np.stack([user, item], axis=1), axis=0)
    held = np.unique(np.stack([basket.reshape(-1), item], axis=1), axis=0)
    return InteractionLog(
        name=str(layout.root),
        user_ids=user,
        item_ids=item,
        basket_ids=basket.reshape(-1).astype(np.int64),
        time_us=time_us,
        positive=np.ones(len(user), bool),
        price=price[np.searchsorted(items, item)],
        items=items,
        category=code[:, 0],
        brand=code[:, 1],
        department=code[:, 2],
        repeats=1 - len(seen) / len(held) > _REPEATS,
        settle_us=GAP_US,
        resolution_us=resolution(time_us),
        about={"what": "clicks, carts and orders of this home, a visit a basket"},
    )


def _first_known(
    events: Any, kind: NDArray[Any], items: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Codes int32 [m, 3] of category, brand, department, and price float32 [m], of the first upsert."""
    code, price = np.zeros((len(items), 3), np.int32), np.full(len(items), np.nan, np.float32)
    rows = np.flatnonzero(kind == ITEM_UPSERT)
    ids = events["item_id"].to_numpy()[rows]
    found, first = np.unique(ids, return_index=True)
    wanted = np.isin(found, items)
    payloads = events["payload"].take(rows[first[wanted]]).to_pylist()
    for at, text in zip(np.searchsorted(items, found[wanted]).tolist(), payloads, strict=True):
        held = orjson.loads(text or "{}")
        code[at] = [code_of(str(held.get(n) or "")) for n in ("category", "brand", "department")]
        value = held.get("price")
        price[at] = float(value) if isinstance(value, int | float) else np.nan
    return code, price
