"""Talking to an engine over its HTTP interface, without a server."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import httpx

from components.search.pipeline import PipelineConfig
from components.serving.api import make_api
from components.serving.engine import Engine, EngineConfig
from components.serving.shadow import ShadowLimits
from data.journal import read_frames
from infra.clock import ManualClock
from infra.settings import Home
from tests.unit.components.search_world import NOW_US, make_photos

# No machine is so busy that a request is late or a release seems slow: only what tests ask for is left out.
DEADLINE_MS = 100_000.0
CONFIG = EngineConfig(
    poll_s=0.02,
    pipeline=PipelineConfig(deadline_ms=DEADLINE_MS),
    limits=ShadowLimits(queries=4, free_ms=math.inf, pause_s=0.0, rest=0.0),
)


def start(layout: Home, **config: Any) -> Engine:
    engine = Engine(layout, ManualClock(NOW_US), config=replace(CONFIG, **config), photos=make_photos())
    engine.start()
    return engine


def http(engine: Engine, talk: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
    """Run a conversation with the application."""

    async def run() -> Any:
        transport = httpx.ASGITransport(make_api(engine))
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            return await talk(client)

    return asyncio.run(run())


def get(engine: Engine, path: str, **params: Any) -> httpx.Response:
    return http(engine, lambda client: client.get(path, params=params))


def ids(response: httpx.Response) -> list[int]:
    return [int(item["item_id"]) for item in response.json()["items"]]


def wait_for(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.005)


def journalled(layout: Home, writer: str = "serve-0") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for path in sorted((layout.journal / writer).glob("*.*")):
        if path.suffix in (".log", ".open"):
            for _, table in read_frames(path):
                rows += table.to_pylist()
    return rows


def check_refused(response: httpx.Response, status: int, found: str) -> None:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"found", "expected", "do"}
    assert all(error.values()), error
    assert found in error["found"]
