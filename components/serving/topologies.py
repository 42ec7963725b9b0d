"""Other ways to put the path on Ray Serve, to hold the one replica against: an empty handler, and a split.

`split` gives each of planner, query planner, searcher and ranker a deployment of its own, after the
published scenario; each keeps a state and a release of its own, and a request travels from one to the
next. It answers `/search`, `/recommend` and `/similar` as the service does, page turns by `offset` too.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from components.measure.spans import Span
from components.search.pipeline import MAKES_LIST
from components.serving.api import page_body
from components.serving.app import OPTIONS
from components.serving.engine import Engine, EngineConfig
from components.serving.incoming import to_id
from components.serving.parts import PARTS, StagePart, pack, unpack
from components.serving.process import start_engine
from data.schema import NONE_ID
from data.shop import Request
from infra.errors import InputError

__all__ = ["build_empty", "build_split"]

_SURFACES = {"/search": "search", "/recommend": "recommend", "/similar": "similar"}


class Empty:
    """Answers at once: what the way to a replica and back costs."""

    def __serve_build_asgi_app__(self) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                response = Response(b'{"ready":true}', media_type="application/json")
                await response(scope, receive, send)

        return app


class Planner:
    """Answers HTTP; does the first and the last stage itself and asks the others in turn."""

    def __init__(
        self,
        home: str,
        cache: str | None,
        understand: DeploymentHandle[Any],
        retrieve: DeploymentHandle[Any],
        rank: DeploymentHandle[Any],
    ) -> None:
        self.engine = start_engine(home, EngineConfig(writer="split-planner"), cache=cache)
        self._elsewhere = {"understand": understand, "retrieve": retrieve, "rank": rank}

    def __serve_build_asgi_app__(self) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                return
            surface = _SURFACES.get(scope["path"])
            if surface is None:
                found = self.engine.health()
                response = Response(b'{"ready":%b}' % (b"true" if found["ready"] else b"false"))
            else:
                try:
                    response = await self._page(surface, HttpRequest(scope, receive))
                except InputError as error:
                    response = Response(str(error), 400)
            await response(scope, receive, send)

        return app

    async def _page(self, surface: str, http: HttpRequest) -> Response:
        engine = self.engine
        live = engine.live
        assert live is not None, "no release is live"
        pipeline = live.pipeline
        request = _request(engine, surface, dict(http.query_params))
        work = pipeline.begin(request)
        spans: list[Span] = []
        begun = last = time.perf_counter_ns()
        for stage in pipeline.stages:
            if work.ranked is not None and stage.name in MAKES_LIST:
                continue
            if stage.name in self._elsewhere:
                parcel = await self._elsewhere[stage.name].run.remote(pack(work))
                part, _, degraded = unpack(parcel, engine)
                setattr(work, PARTS[stage.name], part)
                work.degraded = degraded
            else:
                with engine.gate.read():
                    stage.call(work)
            now = time.perf_counter_ns()
            spans.append(Span(stage.name, stage.kind, (last - begun) // 1_000, (now - last) // 1_000))
            last = now
        answer = pipeline.finish(work, spans, total_us=(last - begun) // 1_000)
        engine.journal_shown(request, answer)
        return Response(
            page_body(answer),
            media_type="application/json",
            headers={"x-release-id": answer.reply.release_id},
        )


def build_empty(home: Path, *, cache: Path | None = None) -> Any:
    """An application that answers everything with an empty document."""
    return _deployed(serve.ingress()(Empty), "Empty").bind()


def build_split(home: Path, *, cache: Path | None = None) -> Any:
    """The path over four deployments; `cache`: where fetched data sets lie, for photo queries."""
    where = (str(home), None if cache is None else str(cache))
    parts = {stage: _deployed(StagePart, stage).bind(*where, stage) for stage in PARTS}
    return _deployed(serve.ingress()(Planner), "planner").bind(*where, **parts)


def _deployed(kind: Any, name: str) -> Any:
    return serve.deployment(name=name, **OPTIONS)(kind)


def _request(engine: Engine, surface: str, values: dict[str, str]) -> Request:
    def number(name: str) -> int:
        return to_id(values[name], name) if values.get(name) else NONE_ID

    photo = int(values.get("photo", -1))
    return Request(
        surface=surface if photo < 0 else "image",
        photo=photo,
        time_us=engine.clock.now_us(),
        request_id=engine.next_request_id(),
        query=values.get("q", ""),
        item_id=number("item_id"),
        user_id=number("user_id"),
        session_id=number("session_id"),
        offset=int(values.get("offset", 0)),
        size=int(values.get("size", 10)),
    )
