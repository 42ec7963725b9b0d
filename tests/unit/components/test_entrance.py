"""A page is answered without Serve, all else by it; and who comes with others stands in line before it."""

from __future__ import annotations

import asyncio
from typing import Any

from components.serving.admission import Admission, AdmissionConfig
from components.serving.entrance import ShortWay

Message = dict[str, Any]


def scope(path: str, method: str = "GET") -> Message:
    return {"type": "http", "method": method, "path": path, "headers": []}


def answering(name: str, served: list[str]) -> Any:
    async def app(asked: Message, receive: Any, send: Any) -> None:  # at once: nothing else runs meanwhile
        served.append(name)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": name.encode()})

    return app


def ask(app: Any, scopes: list[Message]) -> list[int]:
    """The status of each, sent in one and the same turn of the loop."""
    statuses: list[int] = [0] * len(scopes)

    async def one(k: int) -> None:
        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses[k] = message["status"]

        await app(scopes[k], receive, send)

    async def together() -> None:
        await asyncio.gather(*(one(k) for k in range(len(scopes))))

    asyncio.run(together())
    return statuses


def test_pages_go_the_short_way_and_all_else_through_serve() -> None:
    served: list[str] = []
    app = ShortWay(answering("shop", served), answering("serve", served))
    pages = [scope("/search"), scope("/recommend"), scope("/similar")]
    others = [scope("/health"), scope("/search/image", "POST"), scope("/search", "POST"), scope("/-/healthz")]
    assert ask(app, pages) == [200] * 3
    assert served == ["shop"] * 3
    assert ask(app, others) == [200] * 4
    assert served[3:] == ["serve"] * 4


def test_who_comes_with_others_stands_in_line_though_a_page_never_waits() -> None:
    served: list[str] = []
    app = Admission(
        ShortWay(answering("shop", served), answering("serve", served)),
        AdmissionConfig(at_once=1, always=1, wait_ms=0.0),
    )
    statuses = ask(app, [scope("/search") for _ in range(10)])
    assert statuses == [200, 200] + [429] * 8  # one in hand, one in line
    assert app.counts["queued", "line"] == 1
    assert ask(app, [scope("/search")]) == [200]
