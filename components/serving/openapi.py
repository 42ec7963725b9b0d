"""What the published OpenAPI says of each route. Documentation only: parsing is in `api.py`."""

from __future__ import annotations

from typing import Any

__all__ = [
    "DELETE_ITEM",
    "EVENTS",
    "HEALTH",
    "LOOK",
    "METRICS",
    "PUT_ITEM",
    "RECOMMEND",
    "RELEASE",
    "SEARCH",
    "SEARCH_IMAGE",
    "SIMILAR",
]


def _parameter(name: str, about: str, kind: str = "string", *, required: bool = False) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "required": required,
        "description": about,
        "schema": {"type": kind},
    }


_PAGE = [
    _parameter("user_id", "who asks; none: anonymous"),
    _parameter("session_id", "the session, for what was clicked in it and for page turns"),
    _parameter("size", "items on a page, 1 to 100 (default 10)", "integer"),
    _parameter("offset", "the first item of the page (default 0); better use `cursor`", "integer"),
    _parameter("cursor", "the `cursor` of the page before; carries its release and list"),
    _parameter("explain", "1: say why each item is there", "boolean"),
    _parameter("category", "only items of this category or department, by its words"),
    _parameter("price_min", "only items with a price from this up", "number"),
    _parameter("price_max", "only items with a price up to this", "number"),
    _parameter("in_stock", "1: only items in stock", "boolean"),
]
_REFUSALS = {
    "400": "a wrong parameter",
    "404": "an unknown item or path",
    "413": "too much at once",
    "422": "a wrong value in the body",
    "429": "too many requests wait; try again after Retry-After",
    "503": "no release is live, or the journal cannot write",
}
_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {name: {"type": "string"} for name in ("found", "expected", "do")},
        }
    },
}
_PAGE_SCHEMA = {
    "type": "object",
    "properties": {
        "request_id": {"type": "string"},
        "release_id": {"type": "string"},
        "offset": {"type": "integer"},
        "total": {"type": "integer"},
        "cursor": {"type": "string", "nullable": True},
        "degraded": {"type": "array", "items": {"type": "string"}},
        "timings_us": {"type": "object", "additionalProperties": {"type": "integer"}},
        "items": {"type": "array", "items": {"type": "object"}},
        "notes": {
            "type": "array",
            "items": {"type": "string"},
            "description": "what to tell the shopper; absent where there is nothing to tell",
        },
    },
}


def _route(
    summary: str,
    *,
    parameters: list[dict[str, Any]] | None = None,
    body: dict[str, Any] | None = None,
    status: int = 200,
    schema: dict[str, Any] | None = None,
    media: str = "application/json",
) -> dict[str, Any]:
    extra: dict[str, Any] = {
        "responses": {
            str(status): {
                "description": "done",
                "content": {media: {"schema": schema or {"type": "object"}}},
            },
            **{
                code: {"description": about, "content": {"application/json": {"schema": _ERROR}}}
                for code, about in _REFUSALS.items()
            },
        }
    }
    if parameters:
        extra["parameters"] = parameters
    if body:
        extra["requestBody"] = {"required": True, "content": body}
    return {"summary": summary, "openapi_extra": extra, "response_model": None, "status_code": status}


_EVENT = {
    "type": "object",
    "required": ["kind"],
    "properties": {
        "kind": {"enum": ["click", "cart", "order", "user_upsert"]},
        **{n: {"type": "string"} for n in ("item_id", "user_id", "session_id", "request_id", "release_id")},
        "surface": {"enum": ["search", "image", "recommend", "similar"]},
        "query": {"type": "string"},
        "position": {"type": "integer"},
        "event_time": {"type": "integer", "description": "us since 1970 UTC, shop time; now if absent"},
        "event_key": {"type": "string", "description": "makes a repeat harmless"},
        "payload": {"type": "object", "description": "user_upsert: gender, age, purchasing_power"},
    },
}

SEARCH = _route(
    "Items for a query (empty: popular ones), or for a catalogue photo.",
    parameters=[
        _parameter("q", "the query, at most 1,000 characters"),
        _parameter("photo", "index of a catalogue or held-out photo", "integer"),
        *_PAGE,
    ],
    schema=_PAGE_SCHEMA,
)
SEARCH_IMAGE = _route(
    "Items for an uploaded image (raw bytes, or a multipart form with one file).",
    parameters=[_parameter("q", "words beside the image"), *_PAGE],
    body={
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {
            "schema": {"type": "object", "properties": {"photo": {"type": "string", "format": "binary"}}}
        },
    },
    schema=_PAGE_SCHEMA,
)
RECOMMEND = _route("Items for a user, without a query.", parameters=_PAGE, schema=_PAGE_SCHEMA)
SIMILAR = _route(
    "Items like one.",
    parameters=[_parameter("item_id", "the item", required=True), *_PAGE],
    schema=_PAGE_SCHEMA,
)
EVENTS = _route(
    "Append events; acknowledged once they are on the disk, all or none.",
    body={
        "application/json": {
            "schema": {"type": "object", "properties": {"events": {"type": "array", "items": _EVENT}}}
        }
    },
    status=202,
)
PUT_ITEM = _route(
    "Insert or change an item; done once replies can hold it.",
    body={"application/json": {"schema": {"type": "object"}}},
)
DELETE_ITEM = _route("Delete an item; done once no later reply can hold it.")
RELEASE = _route("What is live, what is held, every swap so far, how far the state is.")
LOOK = _route("Look at the champion pointer now.", status=202)
HEALTH = _route("200 if requests can be answered, else 503, and what is wrong.")
METRICS = _route("Counters and latencies in Prometheus text.", media="text/plain", schema={"type": "string"})
