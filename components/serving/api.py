"""The HTTP interface: parses, calls the engine, formats. No ranking logic in it.

Replies are bytes made of pre-serialised items; no model of a reply is built or validated. Every
refusal is JSON: {"error": {"found", "expected", "do"}}.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from urllib.parse import parse_qsl

import orjson
from fastapi import FastAPI, Path
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from components.search.pipeline import Answer
from components.serving import openapi
from components.serving.admission import TICKET, deadline_of
from components.serving.engine import Engine
from components.serving.filter_parameters import FILTERS, filters_of
from components.serving.incoming import MAX_KEY_CHARS, to_id
from components.serving.photos import MAX_IMAGE_BYTES, decode_image, image_of_body
from components.serving.refusals import Refusal, error_document, status_of
from data.schema import NONE_ID
from data.shop import Request
from infra.errors import InputError

__all__ = ["make_api"]

_MAX_JSON_BYTES = 2 << 20
_PAGE = frozenset({"user_id", "session_id", "cursor", "size", "offset", "explain"}) | FILTERS
_JSON = "application/json"
_ItemKey = Annotated[str, Path(max_length=MAX_KEY_CHARS, description="the item's id")]


class _Page(Response):
    """A page of items: as Starlette's own, whose making of headers costs as much as ours of the body."""

    def __init__(self, body: bytes, release_id: str) -> None:
        self.status_code, self.body, self.background = 200, body, None
        self.raw_headers = [
            (b"content-length", b"%d" % len(body)),
            (b"content-type", b"application/json"),
            (b"x-release-id", release_id.encode("latin-1")),
        ]


class _Api(FastAPI):
    """FastAPI with a short way for the surfaces' GETs: its routing and dependencies cost half an answer."""

    direct: dict[str, Callable[[HttpRequest], Awaitable[Response]]]
    refuse: Callable[[HttpRequest, InputError], Awaitable[Response]]

    def openapi(self) -> dict[str, Any]:
        """The published document."""
        document = super().openapi()
        document["components"] = {"schemas": openapi.SCHEMAS}
        return document

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer directly where the path is one of `direct`; all else is FastAPI's."""
        handler = self.direct.get(scope["path"]) if scope.get("method") == "GET" else None
        if handler is None:
            await super().__call__(scope, receive, send)
            return
        http = HttpRequest(scope, receive)
        try:
            response = await handler(http)
        except InputError as error:
            response = await self.refuse(http, error)
        await response(scope, receive, send)


def make_api(engine: Engine) -> FastAPI:
    """The ASGI application of an engine."""
    app = _Api(
        title="Shelflife",
        description="Search and recommendation whose models keep themselves fresh.",
        version="1",
        docs_url="/docs",
        redoc_url=None,
    )
    _add_shop(app, engine)
    _add_events(app, engine)
    _add_about(app, engine)
    _add_errors(app, engine)
    return app


def _add_shop(app: _Api, engine: Engine) -> None:
    @app.get("/search", **openapi.SEARCH)
    async def search(http: HttpRequest) -> Response:
        values = _parameters(http, _PAGE | {"q", "photo"})
        photo = _whole(values, "photo", -1)
        surface = "image" if photo >= 0 else "search"
        return _page(engine, http, _request(engine, surface, values, photo=photo), values)

    @app.post("/search/image", **openapi.SEARCH_IMAGE)
    async def search_image(http: HttpRequest) -> Response:
        values = _parameters(http, _PAGE | {"q"})
        body = await _body(http, MAX_IMAGE_BYTES)
        received_ns = time.perf_counter_ns()
        encoded = image_of_body(body, http.headers.get("content-type", ""))
        image = await asyncio.to_thread(decode_image, encoded)
        request = _request(engine, "image", values)
        return _page(engine, http, request, values, image=image, received_ns=received_ns)

    @app.get("/recommend", **openapi.RECOMMEND)
    async def recommend(http: HttpRequest) -> Response:
        values = _parameters(http, _PAGE)
        return _page(engine, http, _request(engine, "recommend", values), values)

    @app.get("/similar", **openapi.SIMILAR)
    async def similar(http: HttpRequest) -> Response:
        values = _parameters(http, _PAGE | {"item_id"})
        if not values.get("item_id"):
            raise Refusal(400, "no item_id", "the item_id of an item", "add ?item_id=…")
        item_id = _key(values, "item_id")
        if not engine.known_item(item_id):
            raise Refusal(
                404, f"item {values['item_id']!r} is unknown", "an item of the catalogue", "check its id"
            )
        return _page(engine, http, _request(engine, "similar", values, item_id=item_id), values)

    app.direct = {"/search": search, "/recommend": recommend, "/similar": similar}


def _add_events(app: FastAPI, engine: Engine) -> None:
    @app.post("/events", **openapi.EVENTS)
    async def events(http: HttpRequest) -> Response:
        accepted = engine.events(_json(await _body(http, _MAX_JSON_BYTES)))
        await _durable(*accepted.futures)
        engine.metrics.count("shelflife_events_total", accepted.rows)
        return _reply(202, {"acked": accepted.rows, "duplicates": accepted.duplicates})

    @app.put("/items/{item_id}", **openapi.PUT_ITEM)
    async def put_item(item_id: _ItemKey, http: HttpRequest) -> Response:
        future = engine.upsert_item(item_id, _json(await _body(http, _MAX_JSON_BYTES)))
        await _durable(future)
        return _reply(200, {"item_id": item_id, "seq": future.result()})

    @app.delete("/items/{item_id}", **openapi.DELETE_ITEM)
    async def delete_item(item_id: _ItemKey) -> Response:
        future = engine.delete_item(item_id)
        await _durable(future)
        return _reply(200, {"item_id": item_id, "deleted": True, "seq": future.result()})


def _add_about(app: FastAPI, engine: Engine) -> None:
    @app.get("/release", **openapi.RELEASE)
    async def release() -> Response:
        return _reply(200, engine.release_info())

    @app.post("/release/look", **openapi.LOOK)
    async def look() -> Response:
        engine.look_now()
        return _reply(202, {"looking": True})

    @app.get("/health", **openapi.HEALTH)
    async def health() -> Response:
        found = engine.health()
        return _reply(200 if found["ready"] else 503, found)

    @app.get("/metrics", **openapi.METRICS)
    async def metrics(http: HttpRequest) -> Response:
        ticket = http.scope.get(TICKET)
        text = engine.metrics_text()
        if ticket is not None:
            text += "\n".join((*ticket.admission.lines(), ""))
        return Response(text, media_type="text/plain; version=0.0.4")


def _add_errors(app: _Api, engine: Engine) -> None:
    @app.exception_handler(InputError)
    async def refused(_: HttpRequest, error: InputError) -> Response:
        status = status_of(error)
        engine.metrics.count("shelflife_refused_total", status=str(status))
        reply = _reply(status, error_document(error))
        if status in (429, 503):
            reply.headers["retry-after"] = "1"
        return reply

    app.refuse = refused

    @app.exception_handler(RequestValidationError)
    async def invalid(_: HttpRequest, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        refusal = Refusal(422, f"{first.get('loc')}: {first.get('msg')}", "what /docs says", "correct it")
        return _reply(422, refusal.document)

    @app.exception_handler(HTTPException)
    async def not_there(http: HttpRequest, error: HTTPException) -> Response:
        refusal = Refusal(
            error.status_code, f"{http.method} {http.url.path}", "a path and method of /docs", "see GET /docs"
        )
        reply = _reply(error.status_code, refusal.document)
        reply.headers.update(error.headers or {})
        return reply


def _page(
    engine: Engine,
    http: HttpRequest,
    request: Request,
    values: dict[str, str],
    *,
    image: Any = None,
    received_ns: int | None = None,
) -> Response:
    """`received_ns`: when the body was there; what it took to arrive is no time of ours."""
    ticket, deadline_ms = http.scope.get(TICKET), deadline_of(http.scope)
    began = time.perf_counter_ns() if ticket is None else ticket.arrived_ns
    if received_ns is not None and deadline_ms is None:
        began = received_ns
    answer = engine.answer(
        request,
        image=image,
        explain=_flag(values, "explain"),
        arrived_ns=began,
        deadline_ms=deadline_ms,
    )
    body = page_body(answer)
    engine.metrics.observe(
        "shelflife_request_seconds", (time.perf_counter_ns() - began) / 1e6, surface=request.surface
    )
    for part in answer.reply.degraded:
        engine.metrics.count("shelflife_degraded_total", part=part)
    return _Page(body, answer.reply.release_id)


def page_body(answer: Answer) -> bytes:
    """The reply as JSON; items are the bytes that were made when they last changed."""
    reply = answer.reply
    rest: dict[str, Any] = {
        "request_id": str(reply.request_id),  # beyond 2^53, which JavaScript cannot hold
        "release_id": reply.release_id,
        "offset": reply.offset,
        "total": reply.total,
        "cursor": reply.cursor or None,
        "degraded": reply.degraded,
        "timings_us": reply.timings_us,
    }
    if reply.notes:
        rest["notes"] = reply.notes
    if answer.explanation is not None:
        rest["explanation"] = answer.explanation
    if answer.asked is not None:
        rest["query"] = answer.asked
    head = orjson.dumps(rest, option=orjson.OPT_SERIALIZE_NUMPY)
    return b'%b,"items":%b}' % (head[:-1], answer.hits)


def _request(
    engine: Engine, surface: str, values: dict[str, str], *, photo: int = -1, item_id: int = NONE_ID
) -> Request:
    return Request(
        surface=surface,
        time_us=engine.clock.now_us(),
        query=values.get("q", ""),
        photo=photo,
        item_id=item_id,
        user_id=_key(values, "user_id"),
        session_id=_key(values, "session_id"),
        offset=_whole(values, "offset", 0),
        size=_whole(values, "size", 10),
        cursor=values.get("cursor", ""),
        filters=filters_of(values),
    )


def _parameters(http: HttpRequest, known: frozenset[str]) -> dict[str, str]:
    # As Starlette's `query_params`, of which only the last value of each name is wanted.
    values = dict(parse_qsl(http.scope["query_string"].decode("latin-1"), keep_blank_values=True))
    unknown = values.keys() - known
    if unknown:
        raise Refusal(
            400,
            f"unknown parameter {sorted(unknown)[0]!r}",
            f"parameters of {sorted(known)}",
            "correct its name",
        )
    return values


def _key(values: dict[str, str], name: str) -> int:
    text = values.get(name)
    if not text:
        return NONE_ID
    if len(text) > MAX_KEY_CHARS:
        raise Refusal(400, f"{name} of {len(text)} characters", f"at most {MAX_KEY_CHARS}", "shorten it")
    return to_id(text, name)


def _whole(values: dict[str, str], name: str, default: int) -> int:
    text = values.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.removeprefix("-").isdecimal() and len(text) < 10):
        raise Refusal(400, f"{name} is {text[:40]!r}", "a whole number", f"correct {name}")
    return int(text)


def _flag(values: dict[str, str], name: str) -> bool:
    text = values.get(name, "0")
    if text not in ("0", "1", "true", "false"):
        raise Refusal(400, f"{name} is {text[:40]!r}", "0 or 1", f"correct {name}")
    return text in ("1", "true")


async def _body(http: HttpRequest, most: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    async for piece in http.stream():
        size += len(piece)
        if size > most:
            raise Refusal(413, f"a body of over {most} bytes", f"at most {most} bytes", "send less at a time")
        pieces.append(piece)
    return b"".join(pieces)


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, f"a body that is not JSON ({error})", "JSON in UTF-8", "correct it") from None


async def _durable(*futures: Any) -> None:
    waits: list[Awaitable[Any]] = [asyncio.wrap_future(f) for f in futures]
    try:
        await asyncio.gather(*waits)
    except OSError as error:
        raise Refusal(
            503,
            f"the journal cannot write ({error})",
            "room on the disk",
            "nothing was kept: try again later",
        ) from None


def _reply(status: int, document: Any) -> Response:
    return Response(orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY), status, media_type=_JSON)
