"""The one table of events, and the ids in it.

An event is one row; columns that do not apply hold the column's "none" (below). Times are
microseconds since 1970 UTC. `known_time` is when the shop learned of the event: training
uses only what was known. The canonical order of events is (known_time, event_id).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = [
    "CART",
    "CLICK",
    "EVENT_SCHEMA",
    "IMPRESSION",
    "ITEM_DELETE",
    "ITEM_FIELDS",
    "ITEM_UPSERT",
    "KINDS",
    "NONE_ID",
    "ORDER",
    "SEARCH",
    "SURFACES",
    "USER_UPSERT",
    "canonical",
    "event_table",
    "key_to_id",
    "stable_hash",
    "stable_hashes",
]

NONE_ID = -1

KINDS = ("search", "impression", "click", "cart", "order", "item_upsert", "item_delete", "user_upsert")
SEARCH, IMPRESSION, CLICK, CART, ORDER, ITEM_UPSERT, ITEM_DELETE, USER_UPSERT = range(len(KINDS))

SURFACES = ("", "search", "image", "recommend", "similar")

EVENT_SCHEMA = pa.schema(
    [
        ("event_id", pa.int64()),
        ("kind", pa.int8()),  # index into KINDS
        ("event_time", pa.int64()),  # us; when it happened
        ("known_time", pa.int64()),  # us; when the shop learned of it
        ("wall_time", pa.int64()),  # us; wall clock when journalled; 0 = never journalled (history)
        ("user_id", pa.int64()),  # -1 anonymous
        ("session_id", pa.int64()),  # -1 none
        ("request_id", pa.int64()),  # -1 none; joins search, impressions and what came of them
        ("release_id", pa.string()),  # "" where no release was involved
        ("surface", pa.int8()),  # index into SURFACES
        ("query", pa.string()),  # as typed; search and impression rows
        ("photo", pa.int32()),  # photo index of an image query, else -1
        ("page", pa.int16()),  # 0-based
        ("item_id", pa.int64()),
        ("position", pa.int16()),  # 0-based over all pages; -1 none
        ("propensity", pa.float32()),  # probability of the shown action in a randomised slot, else NaN
        ("state_time", pa.int64()),  # us; known_time of the newest event in the state that ranked this
        ("vector_score", pa.float32()),  # encoder's, by release_id; NaN where none
        ("category_prob", pa.float32()),  # classifier's, for the item's category; NaN where none
        ("payload", pa.string()),  # JSON object of upserts, else ""
    ]
)

_NONE: dict[str, Any] = {
    "event_id": None,
    "kind": None,
    "event_time": None,
    "known_time": None,
    "wall_time": 0,
    "user_id": NONE_ID,
    "session_id": NONE_ID,
    "request_id": NONE_ID,
    "release_id": "",
    "surface": 0,
    "query": "",
    "photo": -1,
    "page": -1,
    "item_id": NONE_ID,
    "position": -1,
    "propensity": float("nan"),
    "state_time": 0,
    "vector_score": float("nan"),
    "category_prob": float("nan"),
    "payload": "",
}

# The 32 fields of an item; all but item_id are optional in an upsert. Money in the shop's currency,
# times in us. `rating_sum` and `rating_count` give the mean rating (1 to 5).
ITEM_FIELDS = (
    "item_id", "title", "description", "category", "department", "brand", "colour", "material",
    "pattern", "season", "gender", "size_range", "price", "list_price", "cost", "currency",
    "stock", "warehouse", "supplier", "origin", "weight_g", "rating_sum", "rating_count",
    "review_count", "sales_total", "return_rate", "photo", "photo_count", "related_items",
    "tags", "created_at", "updated_at",
)  # fmt: skip


def event_table(columns: Mapping[str, Any], *, rows: int | None = None) -> pa.Table:
    """An event table from the given columns; the others get their "none".

    `columns`: name → array-like of one length, or a scalar for all rows. `event_id`, `kind`,
    `event_time` and `known_time` are required. Raises KeyError for an unknown or missing column.
    """
    unknown = set(columns) - set(EVENT_SCHEMA.names)
    if unknown:
        raise KeyError(f"unknown event column {sorted(unknown)[0]!r}")
    if rows is None:
        rows = len(columns["event_id"])
    arrays = []
    for field in EVENT_SCHEMA:
        value = columns.get(field.name, _NONE[field.name])
        if value is None:
            raise KeyError(f"event column {field.name!r} is required")
        if np.isscalar(value) or isinstance(value, str):
            arrays.append(pa.repeat(pa.scalar(value, field.type), rows))
        else:
            array = value if isinstance(value, pa.Array | pa.ChunkedArray) else pa.array(value)
            arrays.append(array.cast(field.type))
    return pa.table(arrays, schema=EVENT_SCHEMA)


def canonical(table: pa.Table) -> pa.Table:
    """The events in canonical order: by known_time, then event_id."""
    order = np.lexsort((table["event_id"].to_numpy(), table["known_time"].to_numpy()))
    return table if bool(np.all(order[:-1] < order[1:])) else table.take(pa.array(order))


_KEYED = 1 << 62


def key_to_id(key: str | int) -> int:
    """The int64 id of an external key: a whole number below 2^62 is itself, else 62 bits of md5."""
    if isinstance(key, int):
        key = str(key)
    if key.isascii() and key.isdecimal() and (key == "0" or key[0] != "0") and int(key) < _KEYED:
        return int(key)
    return _KEYED | (stable_hash(key) & (_KEYED - 1))


def stable_hash(text: str) -> int:
    """64 bits of md5, the same in every process and version; int64 range."""
    return int.from_bytes(
        hashlib.md5(text.encode(), usedforsecurity=False).digest()[:8], "little", signed=True
    )


def stable_hashes(texts: Sequence[str]) -> NDArray[np.int64]:
    """`stable_hash` of each: int64 [n]."""
    return np.fromiter((stable_hash(t) for t in texts), np.int64, len(texts))
