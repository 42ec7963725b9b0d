"""The engine and its HTTP interface over a real journal, state and releases; no server, no Ray."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from components.serving.admission import TICKET, Admission, Ticket
from components.serving.api import make_api
from components.serving.engine import Engine
from data.schema import CLICK, IMPRESSION, SEARCH, key_to_id
from data.shop import Request
from infra.settings import Home
from tests.unit.components.search_world import NOW_US
from tests.unit.components.serving_http import (
    DEADLINE_MS,
    check_refused,
    get,
    http,
    ids,
    journalled,
    start,
    wait_for,
)
from tests.unit.components.serving_world import make_home, publish_release

HURRIED_NS = int(0.4 * DEADLINE_MS * 1e6)  # in so late a request, parts are left out


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, str]:
    """One home and its release for the tests that change neither."""
    layout = make_home(tmp_path_factory.mktemp("shop"))
    return layout, publish_release(layout)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home of its own."""
    return make_home(tmp_path)


@pytest.fixture(scope="module")
def engine(prepared: tuple[Home, str]) -> Iterator[Engine]:
    """A running engine that the tests of the module share."""
    made = start(prepared[0])
    yield made
    made.close()


def test_a_search_answers_with_what_a_client_needs(engine: Engine, prepared: tuple[Home, str]) -> None:
    response = get(engine, "/search", q="red sneakers", user_id="1", session_id="s-1", size=5)
    assert response.status_code == 200
    body = response.json()
    assert response.headers["x-release-id"] == body["release_id"] == prepared[1]
    assert body["request_id"].isdecimal()
    assert int(body["request_id"]) > 2**53
    assert set(body["timings_us"]) == {"plan", "understand", "retrieve", "rank", "summarise", "total"}
    assert body["degraded"] == []
    assert len(body["items"]) == 5
    assert sum("sneakers" in item["title"] for item in body["items"]) >= 3
    assert body["total"] > 5
    other = get(engine, "/search", q="blue shirts", size=5)
    assert set(ids(other)) != set(ids(response))


def test_pages_go_on_where_the_cursor_points(engine: Engine) -> None:
    first = get(engine, "/search", q="boots", session_id=4, size=7)
    second = get(engine, "/search", q="boots", session_id=4, size=7, cursor=first.json()["cursor"])
    assert second.json()["offset"] == 7
    assert not set(ids(first)) & set(ids(second))
    whole = get(engine, "/search", q="boots", session_id=4, size=14, offset=0)
    assert len(set(ids(whole))) == 14


def test_every_surface_answers(engine: Engine) -> None:
    assert len(ids(get(engine, "/search"))) == 10  # no query: popular items
    assert len(ids(get(engine, "/recommend", user_id=1))) == 10
    similar = get(engine, "/similar", item_id=1_000)
    assert 1_000 not in ids(similar)
    assert len(ids(similar)) == 10
    assert get(engine, "/search", photo=1).status_code == 200
    image = io.BytesIO()
    Image.fromarray(np.full((60, 40), 20, np.uint8)).save(image, "PNG")
    raw = http(engine, lambda c: c.post("/search/image", content=image.getvalue()))
    form = http(
        engine, lambda c: c.post("/search/image", files={"photo": ("x.png", image.getvalue(), "image/png")})
    )
    assert raw.status_code == form.status_code == 200
    assert len(raw.json()["items"]) == len(form.json()["items"]) == 10
    explained = get(engine, "/search", q="boots", explain=1, size=3).json()["explanation"]
    assert [e["item_id"] for e in explained]
    assert explained[0]["found_by"]


@pytest.mark.parametrize(
    "query", ["\u0000\u202e", "💥" * 200, "ﬁ İ ß", "' OR 1=1 --", "%s %n {}", "a" * 1_000]
)
def test_any_unicode_is_a_query(engine: Engine, query: str) -> None:
    response = get(engine, "/search", q=query)
    assert response.status_code == 200


def test_wrong_requests_get_a_reason(engine: Engine) -> None:
    check_refused(get(engine, "/search", q="x" * 10_000), 400, "10000 characters")
    check_refused(get(engine, "/search", q="x", size=0), 400, "page of 0")
    check_refused(get(engine, "/search", q="x", size=101), 400, "101")
    check_refused(get(engine, "/search", q="x", size="many"), 400, "many")
    check_refused(get(engine, "/search", q="x", size="--5"), 400, "--5")
    check_refused(get(engine, "/search", q="x", offset=-1), 400, "-1")
    check_refused(get(engine, "/search", q="x", cursor="nonsense"), 400, "cursor")
    check_refused(get(engine, "/search", query="x"), 400, "unknown parameter 'query'")
    check_refused(get(engine, "/search", q="x", explain="why"), 400, "why")
    check_refused(get(engine, "/search", photo=99), 400, "photo 99")
    check_refused(get(engine, "/search", q="x", user_id="u" * 500), 400, "500")
    check_refused(get(engine, "/similar"), 400, "no item_id")
    check_refused(get(engine, "/similar", item_id=77), 404, "unknown")
    check_refused(get(engine, "/nowhere"), 404, "/nowhere")
    check_refused(http(engine, lambda c: c.post("/search")), 405, "POST")
    check_refused(http(engine, lambda c: c.post("/search/image", content=b"not an image")), 422, "decoded")
    check_refused(http(engine, lambda c: c.post("/search/image", content=b"")), 400, "empty")
    check_refused(http(engine, lambda c: c.post("/search/image", content=b"x" * (5 << 20))), 413, "body")
    check_refused(http(engine, lambda c: c.post("/events", content=b"{")), 400, "not JSON")
    check_refused(http(engine, lambda c: c.post("/events", json=[{"kind": "click", "item_id": 4}])), 422, "4")
    check_refused(http(engine, lambda c: c.post("/events", content=b" " * (3 << 20))), 413, "body")
    check_refused(http(engine, lambda c: c.put("/items/9", json={"price": "cheap"})), 422, "cheap")
    check_refused(http(engine, lambda c: c.delete("/items/never")), 404, "never")


def test_the_schema_is_published(engine: Engine) -> None:
    document = get(engine, "/openapi.json").json()
    assert {"/search", "/search/image", "/recommend", "/similar", "/events", "/items/{item_id}"} <= set(
        document["paths"]
    )
    named = {p["name"] for p in document["paths"]["/search"]["get"]["parameters"]}
    assert {"q", "user_id", "session_id", "cursor", "size", "explain"} <= named


def test_health_release_and_metrics_tell(engine: Engine, prepared: tuple[Home, str]) -> None:
    health = get(engine, "/health")
    assert health.status_code == 200
    assert health.json() == {"ready": True, "release_id": prepared[1], "problems": []}
    info = get(engine, "/release").json()
    assert info["held"] == [prepared[1]]
    assert info["swaps"][0]["flipped"] is True
    assert info["state"]["items"] >= 300
    get(engine, "/search", q="boots")
    text = get(engine, "/metrics").text
    assert f'shelflife_release_info{{release_id="{prepared[1]}"}} 1' in text
    assert 'shelflife_request_seconds_bucket{surface="search",le="+Inf"}' in text
    assert "shelflife_swaps 1" in text
    status = json.loads(prepared[0].serving_status.read_text())
    assert status["release_id"] == prepared[1]


def test_replies_and_events_are_journalled_and_acknowledged_events_are_durable(home: Home) -> None:
    publish_release(home)
    engine = start(home)
    try:
        reply = engine.respond(Request("search", NOW_US, query="red boots", user_id=5, session_id=6, size=4))
        clicked = int(reply.item_ids[1])
        event = {
            "kind": "click",
            "item_id": clicked,
            "user_id": 5,
            "session_id": 6,
            "request_id": str(reply.request_id),
            "event_key": "once",
        }
        first = http(engine, lambda c: c.post("/events", json={"events": [event]}))
        again = http(engine, lambda c: c.post("/events", json=[event, {**event, "event_key": "other"}]))
        assert (first.status_code, first.json()) == (202, {"acked": 1, "duplicates": 0})
        assert again.json() == {"acked": 2, "duplicates": 1}
        clicks = [row for row in journalled(home) if row["kind"] == CLICK]
        assert [(c["item_id"], c["request_id"]) for c in clicks] == [(clicked, reply.request_id)] * 2
        wait_for(lambda: sum(r["kind"] == IMPRESSION for r in journalled(home)) == 4)
        rows = journalled(home)
        search = next(r for r in rows if r["kind"] == SEARCH)
        assert (search["query"], search["release_id"]) == ("red boots", reply.release_id)
        shown = [r for r in rows if r["kind"] == IMPRESSION]
        assert [r["item_id"] for r in shown] == reply.item_ids.tolist()
        assert [r["position"] for r in shown] == [0, 1, 2, 3]
        assert all(np.isfinite(r["vector_score"]) for r in shown)
        assert len({r["event_id"] for r in rows}) == len(rows)
        # What the shopper did is in the state of the next reply.
        wait_for(lambda: engine.health()["problems"] == [])
        wait_for(lambda: clicked in recent(engine, 5))
    finally:
        engine.close()


def recent(engine: Engine, user: int) -> list[int]:
    assert engine.live is not None
    state = engine.live.pipeline.state
    return state.item_ids[state.recent_items(state.user_row(user), -1)].tolist()  # type: ignore[no-any-return]


def test_an_item_is_found_once_put_and_gone_once_deleted(home: Home) -> None:
    publish_release(home)
    engine = start(home)
    try:
        fields = {"title": "zebra striped clogs", "category": "clogs", "price": 30.0, "stock": 2}
        put = http(engine, lambda c: c.put("/items/sku-9", json=fields))
        assert put.status_code == 200
        found = get(engine, "/search", q="zebra clogs", size=50)
        assert "zebra striped clogs" in [i["title"] for i in found.json()["items"]]
        assert "sku-9" in [i["item_id"] for i in found.json()["items"]]
        changed = http(engine, lambda c: c.put("/items/sku-9", json={"price": 20.0}))
        assert changed.status_code == 200
        item = next(
            i
            for i in get(engine, "/search", q="zebra clogs", size=50).json()["items"]
            if "zebra" in i["title"]
        )
        assert item["price"] == 20.0
        click = http(engine, lambda c: c.post("/events", json=[{"kind": "click", "item_id": "sku-9"}]))
        assert click.status_code == 202
        gone = http(engine, lambda c: c.delete("/items/sku-9"))
        assert gone.json()["deleted"] is True
        page = get(engine, "/search", q="zebra clogs", session_id=3, size=50)
        assert "zebra striped clogs" not in [i["title"] for i in page.json()["items"]]
        assert http(engine, lambda c: c.delete("/items/sku-9")).status_code == 200  # once more is no harm
    finally:
        engine.close()
    again = start(home)  # what was acknowledged outlives the process
    try:
        assert again.known_item(key_to_id("sku-9"))
        assert "zebra" not in get(again, "/search", q="zebra clogs").text
    finally:
        again.close()


def test_a_stated_deadline_is_kept_or_refused(engine: Engine) -> None:
    def ask(text: str) -> httpx.Response:
        return http(engine, lambda c: c.get("/search?q=boots", headers={"X-Deadline-Ms": text}))  # type: ignore[no-any-return]

    assert ask("60000").json()["degraded"] == []
    check_refused(ask("soon"), 400, "soon")
    late = http_through(
        engine, 50_000_000, lambda c: c.get("/search?q=boots", headers={"X-Deadline-Ms": "20"})
    )
    check_refused(late, 429, "ms spent")
    assert late.headers["retry-after"] == "1"
    hurried = http_through(engine, HURRIED_NS, lambda c: c.get("/search?q=boots"))
    assert hurried.json()["degraded"][0] == "vectors"
    assert 'shelflife_degraded_total{part="vectors"}' in get(engine, "/metrics").text


def test_what_an_upload_took_to_arrive_is_no_time_of_ours(engine: Engine) -> None:
    image = io.BytesIO()
    Image.fromarray(np.full((28, 28), 20, np.uint8)).save(image, "PNG")
    sent = http_through(engine, HURRIED_NS, lambda c: c.post("/search/image", content=image.getvalue()))
    assert "vectors" not in sent.json()["degraded"]


def http_through(engine: Engine, waited_ns: int, talk: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
    """As `http`, for a request that was read `waited_ns` ago."""
    app = make_api(engine)

    async def late(scope: Any, receive: Any, send: Any) -> None:
        scope[TICKET] = Ticket(time.perf_counter_ns() - waited_ns, Admission(app))
        await app(scope, receive, send)

    async def run() -> Any:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(late), base_url="http://shop") as client:
            return await talk(client)

    return asyncio.run(run())
