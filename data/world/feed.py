"""The catalogue as events: what the shop is told of items and users, day by day.

Day 0 brings the first catalogue and all users in the hour before the start. Payloads hold the
names of ITEM_FIELDS and nothing hidden.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from data.schema import ITEM_DELETE, ITEM_UPSERT, USER_UPSERT, event_table
from data.world.catalogue import Catalogue
from data.world.config import START_US, WorldConfig
from data.world.shoppers import Shoppers
from data.world.words import (
    CATEGORIES,
    COLOURS,
    DEPARTMENTS,
    GENDERS,
    MATERIALS,
    PATTERNS,
    SEASONS,
    Vocabulary,
)  # fmt: skip
from infra.clock import DAY_US, HOUR_US

__all__ = ["catalogue_events", "item_payload", "title"]

_ORIGINS = ("PT", "IT", "TR", "VN", "BD", "CN", "IN", "ES")
_SIZES = ("XS-XL", "S-XXL", "36-46", "one size")


def title(items: Catalogue, vocabulary: Vocabulary, row: int, *, styled: bool) -> str:
    """Brand, colour, material, style words, noun; with its new style where `styled`."""
    words = [
        vocabulary.brands[items.brand[row]].capitalize(),
        COLOURS[items.colour[row]],
        MATERIALS[items.material[row]],
        vocabulary.style(int(items.style[row])),
    ]
    if styled and items.style2[row] >= 0:
        words.append(vocabulary.style(int(items.style2[row])))
    return " ".join([*words, CATEGORIES[items.category[row]].noun])


def item_payload(items: Catalogue, vocabulary: Vocabulary, row: int, related: list[int]) -> dict[str, Any]:
    """The 32 fields of an item as it is born; `related`: ids of like items."""
    x = items.extras[row].tolist()
    category = CATEGORIES[items.category[row]]
    price = float(items.price[row])
    born = int(items.born_us[row])
    styled = bool(items.style2[row] >= 0 and items.style2_us[row] <= born)
    name = title(items, vocabulary, row, styled=styled)
    count = int(items.rating_count[row])
    style = vocabulary.style(int(items.style[row]))
    return {
        "item_id": row + 1,
        "title": name,
        "description": f"{name}, {PATTERNS[items.pattern[row]]}, for {SEASONS[items.season[row]]}",
        "category": category.name,
        "department": DEPARTMENTS[category.department][0],
        "brand": vocabulary.brands[items.brand[row]].capitalize(),
        "colour": COLOURS[items.colour[row]],
        "material": MATERIALS[items.material[row]],
        "pattern": PATTERNS[items.pattern[row]],
        "season": SEASONS[items.season[row]],
        "gender": GENDERS[items.gender[row]],
        "size_range": _SIZES[int(x[0] * 4)],
        "price": price,
        "list_price": float(items.list_price[row]),
        "cost": round(price * (0.4 + 0.2 * x[1]), 2),
        "currency": "EUR",
        "stock": 5 + int(x[2] * 200),
        "warehouse": f"W{int(x[3] * 6)}",
        "supplier": f"S{int(x[4] * 40)}",
        "origin": _ORIGINS[int(x[5] * 8)],
        "weight_g": 100 + int(x[6] * 900),
        "rating_sum": int(items.rating_sum[row]),
        "rating_count": count,
        "review_count": int(count * 0.6),
        "sales_total": int(count * (2 + 6 * x[7])),
        "return_rate": round(0.02 + 0.1 * x[1] * x[2], 3),
        "photo": int(items.photo[row]),
        "photo_count": 1,
        "related_items": related,
        "tags": [style, *([vocabulary.style(int(items.style2[row]))] if styled else [])],
        "created_at": int(items.created_us[row]),
        "updated_at": born,
    }


def catalogue_events(
    config: WorldConfig,
    items: Catalogue,
    users: Shoppers,
    vocabulary: Vocabulary,
    day: int,
) -> pa.Table:
    """A day's item_upsert, item_delete and user_upsert events, in canonical order."""
    begin, end = START_US + day * DAY_US, START_US + (day + 1) * DAY_US
    kinds: list[int] = []
    times: list[int] = []
    item_ids: list[int] = []
    user_ids: list[int] = []
    payloads: list[str] = []

    def tell(
        kind: int, time_us: int, payload: dict[str, Any] | None, *, item: int = -1, user: int = -1
    ) -> None:
        kinds.append(kind)
        times.append(time_us)
        item_ids.append(item)
        user_ids.append(user)
        payloads.append("" if payload is None else orjson.dumps(payload).decode())

    if day == 0:
        for row in range(len(users)):
            tell(USER_UPSERT, START_US - 2 * HOUR_US + row, users.payload(row), user=row + 1)
    first = 0 if day == 0 else int(items.counts[day])
    related = _related(items, int(items.counts[day + 1]))
    for row in range(first, int(items.counts[day + 1])):
        payload = item_payload(items, vocabulary, row, [r + 1 for r in related[row].tolist() if r >= 0])
        tell(ITEM_UPSERT, int(items.born_us[row]), payload, item=row + 1)
    rows = np.arange(int(items.counts[day + 1]))
    born, dead = items.born_us[rows], items.dead_us[rows]
    for row in rows[(dead >= begin) & (dead < end)].tolist():
        tell(ITEM_DELETE, int(dead[row]), None, item=row + 1)
    styled = (items.style2[rows] >= 0) & (items.style2_us[rows] >= begin) & (items.style2_us[rows] < end)
    for row in rows[styled & (items.style2_us[rows] > born)].tolist():
        at = int(items.style2_us[row])
        words = [vocabulary.style(int(items.style[row])), vocabulary.style(int(items.style2[row]))]
        name = title(items, vocabulary, row, styled=True)
        tell(
            ITEM_UPSERT,
            at,
            {"item_id": row + 1, "title": name, "tags": words, "updated_at": at},
            item=row + 1,
        )
    for row, at, price in _price_news(items, day):
        payload = {"item_id": row + 1, "price": round(price, 2), "updated_at": at}
        tell(ITEM_UPSERT, at, payload, item=row + 1)
    order = np.argsort(np.array(times, np.int64), kind="stable")
    when = np.array(times, np.int64)[order]
    return event_table(
        {
            "event_id": ((day + 1) << 32) + np.arange(len(order), dtype=np.int64),
            "kind": np.array(kinds, np.int8)[order],
            "event_time": when,
            "known_time": when,
            "item_id": np.array(item_ids, np.int64)[order],
            "user_id": np.array(user_ids, np.int64)[order],
            "payload": pa.array(payloads, pa.string()).take(pa.array(order)),
        }
    )


def _related(items: Catalogue, n: int) -> NDArray[np.int64]:
    """Up to three earlier rows of the same category that live at each row's birth (-1 none): int64 [n, 3]."""
    order = np.argsort(items.category[:n], kind="stable")
    found = np.full((n, 3), -1, np.int64)
    for k in range(3):
        row, like = order[k + 1 :], order[: max(0, n - k - 1)]
        same = (items.category[row] == items.category[like]) & (items.dead_us[like] > items.born_us[row])
        found[row[same], k] = like[same]
    return found


def _price_news(items: Catalogue, day: int) -> list[tuple[int, int, float]]:
    """(row, time, price) of each change of a day, and of the begin and end of each sale."""
    prices = items.prices(day)
    rows, times, _ = items.changes[day]
    sold, begins, ends, _ = items.sales[day]
    every = np.concatenate([rows, sold, sold])
    at = np.concatenate([times, begins, ends])
    if not len(every):
        return []
    now: NDArray[np.float64] = prices.at(every, at)[0]
    return list(zip(every.tolist(), at.tolist(), now.tolist(), strict=True))
