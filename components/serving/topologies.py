"""Other ways to put the path on Ray Serve, to hold the one replica against: an empty handler, and a split.

`split` gives each of planner, query planner, searcher and ranker a deployment of its own, after the
published scenario; each keeps a state and a release of its own, and a request travels from one to the
next. It answers `/search`, `/recommend` and `/similar` as the service does, page turns by `offset` too.
"""

from __future__ import annotations

import io
import pickle
import time
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from components.measure.spans import Span
from components.search.live import Live, ReleaseView
from components.search.pipeline import MAKES_LIST, Work
from components.serving.api import page_body
from components.serving.app import OPTIONS, cached_photos, keep_what_is_loaded, prepare_interpreter
from components.serving.engine import Engine, EngineConfig
from components.serving.incoming import to_id
from data.schema import NONE_ID
from data.shop import Request
from data.state import State
from infra.clock import open_clock
from infra.errors import InputError
from infra.settings import Home
from models.release import Release

__all__ = ["PARTS", "build_empty", "build_split", "pack", "unpack"]

PARTS = {"understand": "meaning", "retrieve": "candidates", "rank": "ranked"}
"""What each stage that runs elsewhere fills in of a `Work`."""

_SURFACES = {"/search": "search", "/recommend": "recommend", "/similar": "similar"}
_EVERYWHERE: tuple[type, ...] = (Release, ReleaseView, Live, State)


class _Packer(pickle.Pickler):
    """Leaves out what every deployment has of its own: only its name travels."""

    def persistent_id(self, obj: Any) -> str | None:
        return type(obj).__name__ if isinstance(obj, _EVERYWHERE) else None


class _Unpacker(pickle.Unpickler):
    def __init__(self, data: bytes, engine: Engine) -> None:
        super().__init__(io.BytesIO(data))
        live = engine.live
        assert live is not None, "no release is live"
        view = live.view
        self._here = {
            "Release": live.release,
            "ReleaseView": view,
            "Live": view.live,
            "State": live.pipeline.state,
        }

    def persistent_load(self, pid: Any) -> Any:
        return self._here[pid]


def pack(thing: Any) -> bytes:
    """A work or a part of one, to travel between deployments."""
    out = io.BytesIO()
    _Packer(out, protocol=5).dump(thing)
    return out.getvalue()


def unpack(data: bytes, engine: Engine) -> Any:
    """What `pack` gave, on the release and the state of the engine that is here."""
    return _Unpacker(data, engine).load()


class Empty:
    """Answers at once: what the way to a replica and back costs."""

    def __serve_build_asgi_app__(self) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                response = Response(b'{"ready":true}', media_type="application/json")
                await response(scope, receive, send)

        return app


class StagePart:
    """One stage of the path, on a state and a release of its own."""

    def __init__(self, home: str, cache: str | None, stage: str) -> None:
        self.engine = _engine(home, cache, f"split-{stage}")
        live = self.engine.live
        assert live is not None, "no release is live"
        self._call = {s.name: s.call for s in live.pipeline.stages}[stage]
        self._part = PARTS[stage]

    async def run(self, parcel: bytes) -> bytes:
        """The work's next part, microseconds it took, and what it left out."""
        work: Work = unpack(parcel, self.engine)
        began = time.perf_counter_ns()
        with self.engine.gate.read():
            self._call(work)
        took_us = (time.perf_counter_ns() - began) // 1_000
        return pack((getattr(work, self._part), took_us, work.degraded))


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
        self.engine = _engine(home, cache, "split-planner")
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


def _engine(home: str, cache: str | None, writer: str) -> Engine:
    prepare_interpreter()
    layout = Home(Path(home))
    engine = Engine(
        layout, open_clock(layout.clock), config=EngineConfig(writer=writer), photos=cached_photos(cache)
    )
    engine.start()
    keep_what_is_loaded()
    return engine


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
