"""Turns the JSON of clients into event columns, or refuses it with a reason.

A batch is taken whole or not at all. It knows the schema and which items exist (by a callback),
nothing of HTTP or of the journal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from components.serving.refusals import Refusal
from data.schema import (
    CART,
    CLICK,
    ITEM_FIELDS,
    ITEM_UPSERT,
    KINDS,
    NONE_ID,
    ORDER,
    SURFACES,
    USER_UPSERT,
    key_to_id,
    stable_hash,
)

__all__ = [
    "ACCEPTED",
    "MAX_EVENTS",
    "MAX_KEY_CHARS",
    "NUMERIC",
    "USER_LIMITS",
    "Batch",
    "event_columns",
    "item_payload",
    "to_id",
]

MAX_EVENTS = 1_000
MAX_KEY_CHARS = 256
MAX_PAYLOAD_BYTES = 65_536
ACCEPTED = {KINDS[k]: k for k in (CLICK, CART, ORDER, USER_UPSERT)}

_FIELDS = frozenset({
    "kind", "item_id", "user_id", "session_id", "request_id", "release_id", "surface", "query", "position",
    "event_time", "event_key", "payload",
})  # fmt: skip
USER_LIMITS = {"gender": 1, "age": 149, "purchasing_power": 6}
NUMERIC = {
    "price": 1e9, "list_price": 1e9, "cost": 1e9, "stock": 2**31 - 1, "weight_g": 1e9, "rating_sum": 1e12,
    "rating_count": 1e12, "review_count": 1e12, "sales_total": 1e12, "return_rate": 1.0, "photo_count": 1e6,
    "created_at": 2**62, "updated_at": 2**62,
}  # fmt: skip


@dataclass(frozen=True)
class Batch:
    """Columns of the accepted events, and the ids of those that carry an `event_key`."""

    columns: dict[str, list[Any]]
    rows: int
    keyed: tuple[int | None, ...]  # event_id by row, None where the client gave no key


def to_id(value: Any, name: str, where: str = "") -> int:
    """The id of an external key. Raises Refusal 422 for what is neither a string nor a whole number."""
    if isinstance(value, bool) or not isinstance(value, int | str) or value in ("", None):
        raise Refusal(
            422,
            f"{where}{name} is {_shown(value)}",
            "a non-empty string or a whole number",
            f"correct {name}",
        )
    if isinstance(value, str) and len(value) > MAX_KEY_CHARS:
        raise Refusal(
            422, f"{where}{name} has {len(value)} characters", f"at most {MAX_KEY_CHARS}", f"shorten {name}"
        )
    if isinstance(value, str):
        value = value.encode("utf-8", "replace").decode()  # lone surrogates, which UTF-8 cannot hold
    return key_to_id(value)


def event_columns(events: Any, *, now_us: int, future_us: int, known_item: Callable[[int], bool]) -> Batch:
    """Check a list of event objects and give their columns.

    `future_us`: how far ahead of `now_us` an event_time may lie. Raises Refusal 422 that names the
    first wrong event and says why, or 413 for too many.
    """
    if isinstance(events, Mapping) and "events" in events:
        events = events["events"]
    elif isinstance(events, Mapping):
        events = [events]
    if not isinstance(events, list) or not events:
        raise Refusal(
            422,
            f"a body that holds {_shown(events)}",
            'a non-empty list of events or {"events": [...]}',
            "send one",
        )
    if len(events) > MAX_EVENTS:
        raise Refusal(
            413, f"{len(events)} events in one request", f"at most {MAX_EVENTS}", "send them in parts"
        )
    rows = [
        _event(event, f"event {i}: ", now_us=now_us, future_us=future_us, known_item=known_item)
        for i, event in enumerate(events)
    ]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    keyed = tuple(columns["event_id"])
    if all(key is None for key in keyed):
        del columns["event_id"]
    return Batch(columns, len(rows), keyed)


def _event(
    event: Any, where: str, *, now_us: int, future_us: int, known_item: Callable[[int], bool]
) -> dict[str, Any]:
    if not isinstance(event, Mapping):
        raise Refusal(422, f"{where}{_shown(event)}", "a JSON object", "send an object for each event")
    unknown = set(event) - _FIELDS
    if unknown:
        raise Refusal(
            422,
            f"{where}unknown field {sorted(unknown)[0]!r}",
            f"fields of {sorted(_FIELDS)}",
            "correct its name",
        )
    kind = ACCEPTED.get(event["kind"]) if isinstance(event.get("kind"), str) else None
    if kind is None:
        raise Refusal(
            422,
            f"{where}kind is {_shown(event.get('kind'))}",
            f"one of {', '.join(ACCEPTED)}",
            "searches and impressions are journalled by the service; items go to PUT /items/{item_id}",
        )
    row: dict[str, Any] = {
        "kind": kind,
        "item_id": NONE_ID,
        "user_id": _optional_id(event, "user_id", where),
        "session_id": _optional_id(event, "session_id", where),
        "request_id": _request_id(event.get("request_id"), where),
        "release_id": _text(event, "release_id", where, 64),
        "surface": _surface(event.get("surface", ""), where),
        "query": _text(event, "query", where, 1_000),
        "position": _whole(event.get("position", -1), "position", where, -1, 32_767),
        "event_time": _time(event.get("event_time"), where, now_us=now_us, future_us=future_us),
        "event_id": _event_id(event.get("event_key"), where),
        "payload": "",
    }
    if kind == USER_UPSERT:
        if row["user_id"] == NONE_ID:
            raise Refusal(422, f"{where}a user_upsert without user_id", "a user_id", "give it")
        row["payload"] = _user_payload(event.get("payload"), where)
        return row
    if event.get("payload"):
        raise Refusal(422, f"{where}a {KINDS[kind]} with a payload", "none", "leave it out")
    row["item_id"] = to_id(event.get("item_id"), "item_id", where)
    if not known_item(row["item_id"]):
        raise Refusal(
            422,
            f"{where}item {_shown(event['item_id'])} is unknown",
            "an item of the catalogue",
            "upsert it first with PUT /items/{item_id}",
        )
    return row


def item_payload(item_id: str, fields: Any) -> str:
    """The JSON of an item upsert: known fields of the right type, with the external key in `item_id`.

    Raises Refusal 422 or 413.
    """
    if not isinstance(fields, Mapping) or not fields:
        raise Refusal(422, f"a body that holds {_shown(fields)}", "a JSON object of item fields", "send one")
    unknown = set(fields) - set(ITEM_FIELDS)
    if unknown:
        raise Refusal(
            422,
            f"unknown item field {sorted(unknown)[0]!r}",
            f"fields of {sorted(ITEM_FIELDS)}",
            "correct its name",
        )
    if "item_id" in fields and str(fields["item_id"]) != item_id:
        raise Refusal(
            422,
            f"item_id {_shown(fields['item_id'])} in the body",
            f"{item_id!r} as in the path",
            "leave it out",
        )
    for name, value in fields.items():
        if name in NUMERIC:
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not number or not 0 <= value <= NUMERIC[name]:
                raise Refusal(
                    422,
                    f"{name} is {_shown(value)}",
                    f"a number from 0 to {NUMERIC[name]:g}",
                    f"correct {name}",
                )
        elif name == "photo":
            _whole(value, name, "", -1, 2**31 - 1)
        elif name not in ("item_id", "tags", "related_items") and not isinstance(value, str):
            raise Refusal(422, f"{name} is {_shown(value)}", "a string", f"correct {name}")
    try:
        payload = orjson.dumps({**fields, "item_id": item_id})
    except TypeError as error:
        raise Refusal(422, f"an item that is not UTF-8 ({error})", "UTF-8 text", "correct it") from None
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise Refusal(
            413, f"an item of {len(payload)} bytes", f"at most {MAX_PAYLOAD_BYTES}", "shorten its texts"
        )
    return payload.decode()


def upsert_columns(item_id: int, payload: str) -> dict[str, list[Any]]:
    """The one-row columns of an item upsert."""
    return {"kind": [ITEM_UPSERT], "item_id": [item_id], "payload": [payload]}


def _optional_id(event: Mapping[str, Any], name: str, where: str) -> int:
    value = event.get(name)
    return NONE_ID if value is None else to_id(value, name, where)


def _request_id(value: Any, where: str) -> int:
    if value is None:
        return NONE_ID
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise Refusal(
            422,
            f"{where}request_id is {_shown(value)}",
            "the request_id of a reply",
            "copy it from the reply",
        )
    return value


def _text(event: Mapping[str, Any], name: str, where: str, most: int) -> str:
    value = event.get(name, "")
    if not isinstance(value, str) or len(value) > most:
        raise Refusal(
            422, f"{where}{name} is {_shown(value)}", f"a string of at most {most} characters", "correct it"
        )
    return value.encode("utf-8", "replace").decode()


def _surface(value: Any, where: str) -> int:
    if value not in SURFACES:
        raise Refusal(
            422, f"{where}surface is {_shown(value)}", f"one of {', '.join(SURFACES[1:])}", "correct it"
        )
    return SURFACES.index(value)


def _whole(value: Any, name: str, where: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise Refusal(
            422,
            f"{where}{name} is {_shown(value)}",
            f"a whole number from {low} to {high}",
            f"correct {name}",
        )
    return value


def _time(value: Any, where: str, *, now_us: int, future_us: int) -> int:
    if value is None:
        return now_us
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0 or value >= 1 << 62:
        raise Refusal(
            422,
            f"{where}event_time is {_shown(value)}",
            "microseconds since 1970 UTC",
            "correct it or leave it out",
        )
    if value > now_us + future_us:
        raise Refusal(
            422,
            f"{where}event_time is {(value - now_us) / 1e6:.0f} s in the future",
            f"at most {future_us / 1e6:.0f} s after the shop's clock ({now_us})",
            "correct the clock, or leave event_time out",
        )
    return value


def _event_id(key: Any, where: str) -> int | None:
    if key is None:
        return None
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY_CHARS:
        raise Refusal(
            422,
            f"{where}event_key is {_shown(key)}",
            f"a string of 1 to {MAX_KEY_CHARS} characters",
            "correct it",
        )
    return stable_hash("event_key " + key.encode("utf-8", "replace").decode()) & ((1 << 63) - 1)


def _user_payload(payload: Any, where: str) -> str:
    if not isinstance(payload, Mapping) or set(payload) - set(USER_LIMITS) or not payload:
        raise Refusal(
            422, f"{where}payload is {_shown(payload)}", f"an object of {sorted(USER_LIMITS)}", "correct it"
        )
    for name, value in payload.items():
        _whole(value, name, where, 0, USER_LIMITS[name])
    return orjson.dumps(payload, option=orjson.OPT_SORT_KEYS).decode()


def _shown(value: Any) -> str:
    if value is None:
        return "missing"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
