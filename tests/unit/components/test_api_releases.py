"""What the engine does as releases come, go and fail."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import pytest

from components.serving.engine import Engine
from components.serving.installed import Installed
from components.serving.refusals import Refusal
from data.shop import Request
from infra.clock import ManualClock
from infra.settings import Home
from models.release import OPTIONAL, make_release, publish, read_manifest, release_folder, set_champion
from models.speller import Speller
from tests.unit.components.search_world import NOW_US
from tests.unit.components.serving_http import (
    check_refused,
    get,
    http,
    start,
    wait_for,
)
from tests.unit.components.serving_world import make_home, publish_release


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home of its own."""
    return make_home(tmp_path)


def test_a_page_turn_after_a_swap_stays_with_its_release(home: Home) -> None:
    old = publish_release(home)
    engine = start(home)
    try:
        first = get(engine, "/search", q="black jackets", session_id=3, size=5).json()
        new = publish_release(home, number=1, seed=2)
        wait_for(lambda: engine.live is not None and engine.live.release_id == new)
        second = get(
            engine, "/search", q="black jackets", session_id=3, size=5, cursor=first["cursor"]
        ).json()
        assert (second["release_id"], second["offset"]) == (old, 5)
        assert get(engine, "/search", q="black jackets").json()["release_id"] == new
        set_champion(home, old, at_us=NOW_US, by="rollback")
        wait_for(lambda: engine.live is not None and engine.live.release_id == old)
        assert [r["flipped"] for r in engine.release_info()["swaps"]] == [True, True, True]
    finally:
        engine.close()


def test_a_dropped_release_is_freed_at_once(home: Home) -> None:
    """Waiting for garbage to be collected, a replica would fill with every swap."""
    ids = [publish_release(home, number=k, seed=k + 1, promote=k == 0) for k in range(4)]
    engine = start(home, follow=False)
    parts: list[weakref.ref[object]] = []
    models: list[weakref.ref[object]] = []

    def models_of(served: Installed) -> list[Any]:
        release = served.release
        found = [getattr(release, name, None) for name in ("encoder", *OPTIONAL)]
        return [release.encoder.table, *(part for part in found if part is not None)]

    gc.disable()
    try:
        for release_id in ids:
            assert release_id == ids[0] or engine.install(release_id).flipped
            get(engine, "/search", q="black jackets")
            for k in range(900 if release_id == ids[1] else 0):  # more than the next ones make it forget
                engine.answer(Request("search", NOW_US, query=f"black jackets {k}"), journal=False)
            live = engine.live
            assert live is not None
            held = (live.pipeline, live.view, live.release, live.release.vector_index)
            parts += [weakref.ref(part) for part in held]
            models += [weakref.ref(part) for part in models_of(live)]
            del live, held
        # The live release and the one before it stay.
        # What another thread does just now may hold one for a moment; garbage is not collected meanwhile.
        wait_for(lambda: [part() is None for part in parts] == [True] * 8 + [False] * 8)
        kept = [id(part) for served in engine._swapper.held for part in models_of(served)]
        left = [part() for part in models]
        assert all(id(part) in kept for part in left if part is not None)
        assert left[:2] == [None, None]  # the first release's words and encoder
        assert sum(isinstance(part, Speller) for part in left if part is not None) == 2
    finally:
        gc.enable()
        engine.close()


def test_a_corrupt_release_is_not_installed_and_the_status_says_why(home: Home) -> None:
    old = publish_release(home)
    engine = start(home)
    try:
        new = publish_release(home, number=1, seed=2, promote=False)
        folder = release_folder(home, new)
        weights = max((folder / "encoder").iterdir(), key=lambda p: p.stat().st_size)
        damaged = bytearray(weights.read_bytes())
        damaged[len(damaged) // 2] ^= 0xFF
        weights.unlink()
        weights.write_bytes(damaged)
        set_champion(home, new, at_us=NOW_US, by="test")
        wait_for(lambda: len(engine.release_info()["swaps"]) == 2)
        assert engine.live is not None
        assert engine.live.release_id == old
        assert engine.ready
        wait_for(lambda: json.loads(home.serving_status.read_text())["refused"] is not None)
        refused = json.loads(home.serving_status.read_text())["refused"]
        assert refused["release_id"] == new
        assert weights.name in refused["reason"]
        assert get(engine, "/health").status_code == 200
        assert new in get(engine, "/health").json()["problems"][0]
        assert get(engine, "/search", q="boots").json()["release_id"] == old
    finally:
        engine.close()


@pytest.mark.parametrize("how", ["gone", "torn", "a folder"])
def test_while_the_pointer_tells_nothing_the_release_stays_and_health_says_so(home: Home, how: str) -> None:
    old = publish_release(home)
    engine = start(home)
    pointer = home.releases / "champion.json"
    try:
        whole = pointer.read_bytes()
        pointer.unlink()
        if how == "torn":
            pointer.write_bytes(whole[: len(whole) // 2])
        elif how == "a folder":
            pointer.mkdir()
        wait_for(lambda: bool(engine.health()["problems"]))
        health = get(engine, "/health")
        assert health.status_code == 200
        (problem,) = health.json()["problems"]
        assert "champion pointer" in problem
        assert f"release {old} stays" in problem
        assert get(engine, "/release").json()["pointer"]
        assert get(engine, "/search", q="boots").json()["release_id"] == old
        if how == "a folder":
            pointer.rmdir()
        new = publish_release(home, number=1, seed=2)  # it is back, and names another
        wait_for(lambda: engine.live is not None and engine.live.release_id == new)
        wait_for(lambda: engine.health()["problems"] == [])
        tried = [(r["release_id"], r["flipped"]) for r in engine.release_info()["swaps"]]
        assert (tried[0], tried[-1]) == ((old, True), (new, True))
        assert set(tried[1:-1]) == {("", False)}
    finally:
        engine.close()


def test_without_a_release_it_says_503_and_takes_events_all_the_same(home: Home) -> None:
    engine = start(home)
    try:
        check_refused(get(engine, "/search", q="boots"), 503, "no release")
        assert get(engine, "/health").status_code == 503
        click = http(engine, lambda c: c.post("/events", json=[{"kind": "click", "item_id": 1_000}]))
        assert click.status_code == 202
        release_id = publish_release(home)
        wait_for(lambda: engine.ready)
        assert get(engine, "/search", q="boots").json()["release_id"] == release_id
    finally:
        engine.close()


def test_an_engine_that_has_not_started_refuses_politely(home: Home) -> None:
    engine = Engine(home, ManualClock(NOW_US))
    with pytest.raises(Refusal, match="catching up") as refused:
        engine.events([{"kind": "click", "item_id": 1_000}])
    assert refused.value.status == 503
    assert not engine.ready


def test_a_release_of_another_ranker_alone_keeps_view_and_queries(home: Home) -> None:
    first = publish_release(home)
    engine = start(home)
    try:
        old = engine.live
        assert old is not None
        get(engine, "/search", q="boots")
        before = read_manifest(home, first)
        again = make_release(
            before.artifacts, watermark_us=before.watermark_us, created_us=before.created_us + 1
        )
        publish(home, again)
        assert engine.install(again.release_id).flipped
        new = engine.live
        assert new is not None
        assert new.release_id == again.release_id != old.release_id
        assert new.view is old.view
        assert new.pipeline.queries is old.pipeline.queries
        other = publish_release(home, number=5, seed=6, promote=False)
        assert engine.install(other).flipped
        assert engine.live is not None
        assert engine.live.view is not old.view
        # The old view is followed as long as a release that is held has it: a new item is found by both.
        assert engine.install(again.release_id).flipped
        engine.upsert_item("9001", {"title": "quite singular umbrella", "price": 9.5}).result(10)
        found = get(engine, "/search", q="singular umbrella").json()
        assert found["release_id"] == again.release_id
        assert found["items"][0]["item_id"] == 9001
    finally:
        engine.close()
