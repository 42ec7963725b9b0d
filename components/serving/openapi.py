"""What the published OpenAPI says of each route. Documentation only: `api.py` and `incoming.py` parse.

It has to be true: Schemathesis holds the service against it (`test_openapi.py`, `make fuzz`).
"""

from __future__ import annotations

from typing import Any

from components.search.filters import MAX_CATEGORY
from components.search.request import MAX_QUERY
from components.serving.admission import MAX_DEADLINE_MS
from components.serving.incoming import ACCEPTED, MAX_EVENTS, MAX_KEY_CHARS, NUMERIC, USER_LIMITS
from data.schema import ITEM_FIELDS, SURFACES

__all__ = [
    "DELETE_ITEM",
    "EVENTS",
    "HEALTH",
    "LOOK",
    "METRICS",
    "PUT_ITEM",
    "RECOMMEND",
    "RELEASE",
    "SCHEMAS",
    "SEARCH",
    "SEARCH_IMAGE",
    "SIMILAR",
]

Json = dict[str, Any]

_REFUSALS = {
    400: "a wrong or unknown parameter, or a body that is not JSON",
    404: "an unknown item",
    413: "too much at once",
    422: "a wrong value",
    429: "more requests than can be answered in time, or the deadline passed; try again after Retry-After",
    503: "no release is live, the replica is being started, or the journal cannot write (a full disk)",
}
_RETRY_AFTER = {"Retry-After": {"description": "seconds to wait", "schema": {"type": "string"}}}
_FLAG = {"type": "string", "enum": ["0", "1", "true", "false"]}
_KEY = {"type": "string", "maxLength": MAX_KEY_CHARS}
_ID = {"anyOf": [{"type": "string", "minLength": 1, "maxLength": MAX_KEY_CHARS}, {"type": "integer"}]}


def _object(properties: Json, *, required: tuple[str, ...] = (), more: bool = False, **rest: Any) -> Json:
    return {
        "type": "object",
        "properties": properties,
        **({"required": list(required)} if required else {}),
        **({} if more else {"additionalProperties": False}),
        **rest,
    }


def _whole(low: int | None = None, high: int | None = None) -> Json:
    limits = {"minimum": low, "maximum": high}
    return {"type": "integer", **{k: v for k, v in limits.items() if v is not None}}


def _query(name: str, about: str, schema: Json, *, required: bool = False) -> Json:
    return {"name": name, "in": "query", "required": required, "description": about, "schema": schema}


_ITEM_FIELDS = {
    **{name: {"type": "string"} for name in ITEM_FIELDS},
    **{name: {"type": "number", "minimum": 0, "maximum": most} for name, most in NUMERIC.items()},
    "item_id": {"description": "the id of the path, or left out", **_ID},
    "photo": _whole(-1, 2**31 - 1),
    "tags": {"description": "any JSON"},
    "related_items": {"description": "any JSON"},
}
_STRINGS = {"type": "array", "items": {"type": "string"}}
_PAGE_FIELDS = {
    "request_id": {"type": "string", "description": "to name in events; beyond 2^53"},
    "release_id": {"type": "string"},
    "offset": _whole(0),
    "total": _whole(0),
    "cursor": {"type": ["string", "null"], "description": "for the next page; null on the last one"},
    "degraded": {**_STRINGS, "description": "parts that were left out"},
    "timings_us": {"type": "object", "additionalProperties": {"type": "integer"}},
    "items": {"type": "array", "items": {"type": "object"}},
}
SCHEMAS: Json = {
    "Error": _object(
        {"error": _object({n: {"type": "string"} for n in ("found", "expected", "do")}, required=("found",))},
        required=("error",),
    ),
    "Page": _object(
        {
            **_PAGE_FIELDS,
            "notes": {**_STRINGS, "description": "what to tell the shopper; absent where there is nothing"},
            "explanation": {"type": "array", "items": {"type": "object"}, "description": "with explain=1"},
            "query": {"type": "object", "description": "with explain=1: spelling, synonyms, categories"},
        },
        required=tuple(_PAGE_FIELDS),
    ),
    "Event": _object(
        {
            "kind": {"enum": list(ACCEPTED)},
            "item_id": {"description": "required but for user_upsert", **_ID},
            "user_id": _ID,
            "session_id": _ID,
            "request_id": {
                "description": "of the reply that the event came of",
                "anyOf": [{"type": "string", "pattern": "^[0-9]{1,18}$"}, _whole(0, 2**63 - 1)],
            },
            "release_id": {"type": "string", "maxLength": 64},
            "surface": {"enum": list(SURFACES)},
            "query": {"type": "string", "maxLength": MAX_QUERY},
            "position": _whole(-1, 32_767),
            "event_time": {
                **_whole(1, 2**62 - 1),
                "description": "us since 1970 UTC, shop time; now if absent",
            },
            "event_key": {
                "type": "string",
                "minLength": 1,
                "maxLength": MAX_KEY_CHARS,
                "description": "makes a repeat harmless",
            },
            "payload": _object({name: _whole(0, most) for name, most in USER_LIMITS.items()}, minProperties=1)
            | {"description": "of a user_upsert"},
        },
        required=("kind",),
    ),
    "Item": _object(_ITEM_FIELDS, minProperties=1),
    "Health": _object(
        {"ready": {"type": "boolean"}, "release_id": {"type": ["string", "null"]}, "problems": _STRINGS},
        required=("ready", "release_id", "problems"),
        more=True,
    ),
}
"""What the document's `components` hold."""


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


_CATEGORY = {"type": "string", "maxLength": MAX_CATEGORY}
_PAGE = [
    _query("user_id", "who asks; none: anonymous", _KEY),
    _query("session_id", "the session, for what was clicked in it and for page turns", _KEY),
    _query("size", "items on a page (default 10)", _whole(1, 100)),
    _query("offset", "the first item of the page (default 0); better use `cursor`", _whole(0, 999_999_999)),
    _query("cursor", "the `cursor` of the page before; carries its release and list", {"type": "string"}),
    _query("explain", "1: say why each item is there", _FLAG),
    _query("category", "only items of this category or department, by its words", _CATEGORY),
    _query("price_min", "only items with a price from this up", {"type": "number", "minimum": 0}),
    _query("price_max", "only items with a price up to this", {"type": "number", "minimum": 0}),
    _query("in_stock", "1: only items in stock", _FLAG),
    {
        "name": "X-Deadline-Ms",
        "in": "header",
        "required": False,
        "description": "milliseconds after which nobody waits for the answer any more",
        "schema": _whole(1, MAX_DEADLINE_MS),
    },
]
_QUERY = {"type": "string", "maxLength": MAX_QUERY}


def _route(
    summary: str,
    *refusals: int,
    parameters: list[Json] | None = None,
    body: Json | None = None,
    status: int = 200,
    schema: Json | None = None,
    media: str = "application/json",
) -> Json:
    done = {"description": "done", "content": {media: {"schema": schema or {"type": "object"}}}}
    responses: dict[int | str, Json] = {status: done}
    for code in refusals:
        responses[code] = {
            "description": _REFUSALS[code],
            "content": {"application/json": {"schema": _ref("Error")}},
            **({"headers": _RETRY_AFTER} if code in (429, 503) else {}),
        }
    extra: Json = {}
    if parameters:
        extra["parameters"] = parameters
    if body:
        extra["requestBody"] = {"required": True, "content": body}
    return {
        "summary": summary,
        "openapi_extra": extra,
        "responses": responses,
        "response_model": None,
        "status_code": status,
    }


SEARCH = _route(
    "Items for a query (empty: popular ones), or for a catalogue photo.",
    *(400, 429, 503),
    parameters=[
        _query("q", "the query", _QUERY),
        _query("photo", "index of a catalogue or held-out photo; -1: none", _whole(-1)),
        *_PAGE,
    ],
    schema=_ref("Page"),
)
_BINARY = {"schema": {"type": "string", "format": "binary"}}
SEARCH_IMAGE = _route(
    "Items for an uploaded image of at most 4 MiB (raw bytes, or a multipart form with one file).",
    *(400, 413, 422, 429, 503),
    parameters=[_query("q", "words beside the image", _QUERY), *_PAGE],
    body={
        "application/octet-stream": _BINARY,
        "multipart/form-data": {"schema": _object({"photo": _BINARY["schema"]}, required=("photo",))},
    },
    schema=_ref("Page"),
)
RECOMMEND = _route("Items for a user, without a query.", 400, 429, 503, parameters=_PAGE, schema=_ref("Page"))
SIMILAR = _route(
    "Items like one.",
    *(400, 404, 429, 503),
    parameters=[_query("item_id", "the item", {**_KEY, "minLength": 1}, required=True), *_PAGE],
    schema=_ref("Page"),
)
_MANY = {"type": "array", "minItems": 1, "maxItems": MAX_EVENTS, "items": _ref("Event")}
EVENTS = _route(
    "Append events; acknowledged once they are on the disk, all or none.",
    *(400, 413, 422, 429, 503),
    body={
        "application/json": {
            "schema": {"anyOf": [_object({"events": _MANY}, required=("events",)), _MANY, _ref("Event")]}
        }
    },
    status=202,
    schema=_object({"acked": _whole(1), "duplicates": _whole(0)}, required=("acked", "duplicates")),
)
_WRITTEN = {"item_id": {"type": "string"}, "seq": _whole(1)}
PUT_ITEM = _route(
    "Insert or change an item; done once replies can hold it.",
    *(400, 413, 422, 429, 503),
    body={"application/json": {"schema": _ref("Item")}},
    schema=_object(_WRITTEN, required=("item_id", "seq")),
)
DELETE_ITEM = _route(
    "Delete an item; done once no later reply can hold it.",
    *(404, 422, 429, 503),
    schema=_object(_WRITTEN | {"deleted": {"const": True}}, required=("item_id", "deleted", "seq")),
)
RELEASE = _route("What is live, what is held, every swap so far, how far the state is.")
LOOK = _route("Look at the champion pointer now.", 429, status=202)
HEALTH = _route("200 if requests can be answered, else 503, and what is wrong.", schema=_ref("Health"))
HEALTH["responses"][503] = {
    "description": "requests cannot be answered",
    "content": {"application/json": {"schema": _ref("Health")}},
}
METRICS = _route("Counters and latencies in Prometheus text.", media="text/plain", schema={"type": "string"})
