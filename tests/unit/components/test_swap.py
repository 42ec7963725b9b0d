"""Swapping a release: one reference, pinned requests, and every failure keeps the old one."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from components.serving import shadow
from components.serving import swap as swapping
from components.serving.gate import Gate
from components.serving.shadow import Answer, ShadowLimits
from data.shop import Request
from tests.unit.components.swap_registry import GOOD, REQUESTS, FakeRegistry, FakeRelease, swapper


def test_it_follows_the_pointer_and_holds_the_last_two() -> None:
    registry = FakeRegistry()
    swap = swapper(registry)
    assert swap.step() is None
    assert swap.live is None
    for name in ("a", "b", "c"):
        registry.point(name)
        record = swap.step()
        assert record is not None
        assert record.flipped
        assert record.begin_wall_us <= record.loaded_wall_us <= record.flip_wall_us <= record.end_wall_us
        assert (record.watermark_us, record.flip_shop_us) == (5, 77)
        assert swap.live is registry.releases[name]
    assert [s.release_id for s in swap.held] == ["c", "b"]
    assert registry.dropped == ["a"]
    assert swap.find("b") is registry.releases["b"]
    assert swap.find("a") is None
    assert swap.step() is None  # nothing new
    assert [r.previous for r in swap.records] == ["", "a", "b"]
    assert registry.noted == 3


def test_a_flip_is_told_at_once_and_what_follows_it_comes_after_a_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry = FakeRegistry()
    swap = swapper(registry, settle_s=0.1)
    told: list[object] = []

    def rest(seconds: float) -> None:
        assert swap.live is not None
        told.append((seconds, swap.live.release_id, len(swap.records), list(registry.dropped)))

    monkeypatch.setattr(swapping, "time", SimpleNamespace(sleep=rest, monotonic=time.monotonic))
    for name in ("a", "b", "c"):
        registry.point(name)
        swap.step()
    assert told == [(0.1, "a", 1, []), (0.1, "b", 2, []), (0.1, "b", 2, []), (0.1, "c", 3, [])]
    assert registry.dropped == ["a"]
    assert all(r.flip_wall_us <= r.end_wall_us for r in swap.records)


def test_only_beside_a_live_release_does_it_wait_for_requests() -> None:
    polite: list[str] = []

    @contextmanager
    def politely() -> Iterator[None]:
        polite.append(registry.pointer or "")
        yield

    registry = FakeRegistry()
    swap = swapper(registry, politely=politely)
    for name in ("a", "b"):
        registry.point(name)
        swap.step()
    assert polite == ["b"]


def test_the_shadow_check_rests_beside_a_live_release_and_never_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rests: list[float] = []
    monkeypatch.setattr(shadow.time, "sleep", rests.append)
    limits = ShadowLimits(rest=1e9)  # as after a query that had to be compiled
    new, live = FakeRelease("b"), FakeRelease("a")
    shadow.shadow_check(lambda served, request: served.reply(request), new, None, REQUESTS, limits)
    assert rests == []
    shadow.shadow_check(lambda served, request: served.reply(request), new, live, REQUESTS, limits)
    assert (min(rests), max(rests)) == (limits.pause_s, limits.longest_s)
    assert len(rests) == 2 * len(REQUESTS)


def test_the_live_release_is_asked_again_only_what_it_is_not_known_to_have_answered() -> None:
    asked: list[str] = []

    def live_reply(request: Request) -> Answer:
        asked.append(request.query)
        return GOOD

    def answered(served: FakeRelease, request: Request) -> Answer | None:
        assert served.release_id == "a"
        return None if request.query == "q5" else replace(GOOD, item_ids=np.arange(5, 15))

    new, live = FakeRelease("b"), FakeRelease("a", reply=live_reply)
    found = shadow.shadow_check(
        lambda served, request: served.reply(request),
        new,
        live,
        REQUESTS,
        ShadowLimits(pause_s=0.0, rest=0.0),
        answered=answered,
    )
    assert asked == ["q0", "q4", "q5", "q8", "q12", "q16"]  # each fourth for its time
    assert found["overlap10"] == pytest.approx((6 * 1.0 + 14 * 0.5) / 20)


def test_a_live_release_that_fails_is_no_reason_to_keep_it() -> None:
    def broken(*_: object) -> Answer:
        raise ValueError("broken")

    new, live = FakeRelease("b"), FakeRelease("a", reply=broken)
    limits = ShadowLimits(pause_s=0.0, rest=0.0)
    for known in (broken, lambda *_: None):
        found = shadow.shadow_check(lambda s, r: s.reply(r), new, live, REQUESTS, limits, answered=known)
        assert (found["errors"], found["overlap10"], found["cpu_live_ms"]) == (0, None, None)


def test_rolling_back_takes_the_held_release_without_loading() -> None:
    registry = FakeRegistry()
    swap = swapper(registry)
    for name in ("a", "b"):
        registry.point(name)
        swap.step()
    first = registry.releases.pop("a")  # loading it would fail
    registry.pointer, registry.version = "a", 9
    record = swap.step()
    assert record is not None
    assert record.flipped
    assert swap.live is first
    assert [s.release_id for s in swap.held] == ["a", "b"]
    assert registry.dropped == []


def test_a_short_status_tells_of_the_last_swaps_and_of_what_is_still_refused() -> None:
    registry = FakeRegistry()
    swap = swapper(registry)
    for name in ("a", "corrupt-1", "b", "corrupt-2", "c", "d", "e"):
        registry.point(name)
        swap.step()
    swap.records[3] = replace(swap.records[3], release_id="d")  # refused once, live later
    told = [s["release_id"] for s in swap.status(most=2)["swaps"]]
    assert told == ["corrupt-1", "d", "e"]
    assert len(swap.status()["swaps"]) == len(swap.status(most=100)["swaps"]) == 7


def fails(_: Request) -> Answer:
    raise ValueError("no such column")


def empty(_: Request) -> Answer:
    return Answer(np.empty(0, np.int64), np.empty(0))


def broken(_: Request) -> Answer:
    return Answer(np.arange(3), np.array([1.0, np.nan, 0.5]))


def slow(_: Request) -> Answer:
    until = time.thread_time() + 0.004
    while time.thread_time() < until:
        pass
    return GOOD


def waiting(_: Request) -> Answer:
    time.sleep(0.004)
    return GOOD


def elsewhere(_: Request) -> Answer:
    return Answer(np.arange(90, 100), np.linspace(1, 0, 10), match=0.3)


def test_a_release_that_had_to_wait_for_requests_is_not_slow() -> None:
    registry = FakeRegistry()
    swap = swapper(registry, free_ms=1.0)
    registry.point("old")
    swap.step()
    registry.point("new", reply=waiting)
    record = swap.step()
    assert record is not None
    assert record.flipped


@pytest.mark.parametrize(
    ("name", "reply", "why"),
    [
        ("corrupt", None, "another hash"),
        ("elsewhere", elsewhere, "match 30% of the words"),
        ("fails", fails, "no such column"),
        ("empty", empty, "came back empty"),
        ("broken", broken, "not finite"),
        ("slow", slow, "it is slow"),
    ],
)
def test_whatever_goes_wrong_keeps_the_old_release_and_says_why(
    name: str, reply: Callable[[Request], Answer] | None, why: str
) -> None:
    registry = FakeRegistry()
    swap = swapper(registry, free_ms=1.0)
    registry.point("old")
    swap.step()
    if reply is None:
        registry.pointer, registry.version = name, 50
    else:
        registry.point(name, reply=reply)
    record = swap.step()
    assert record is not None
    assert not record.flipped
    assert why in record.reason
    assert record.flip_wall_us == 0
    assert swap.live is registry.releases["old"]
    assert [s.release_id for s in swap.held] == ["old"]
    status = swap.status()
    assert status["release_id"] == "old"
    assert status["refused"]["release_id"] == name
    assert why in status["refused"]["reason"]
    if reply is not None:
        assert registry.dropped == [name]  # its view is no longer followed
    assert swap.step() is None  # it is not tried again until the pointer changes
    registry.point("better")
    better = swap.step()
    assert better is not None
    assert better.flipped
    assert swap.status()["refused"] is None


def test_other_items_for_the_same_words_are_no_reason_to_refuse() -> None:
    registry = FakeRegistry()
    swap = swapper(registry)
    registry.point("old")
    swap.step()
    registry.point("other", reply=lambda _: Answer(np.arange(50, 60), np.linspace(9, 8, 10), match=0.7))
    record = swap.step()
    assert record is not None
    assert record.flipped
    assert record.shadow["overlap10"] == 0.0
    assert (record.shadow["match"], record.shadow["match_live"]) == (0.7, 0.8)


def test_without_a_live_release_loading_is_tried_again() -> None:
    registry = FakeRegistry(pointer="late")
    swap = swapper(registry)
    first = swap.step()
    assert first is not None
    assert "KeyError" in first.reason
    registry.releases["late"] = FakeRelease("late")
    again = swap.step()  # the pointer did not change
    assert again is not None
    assert again.flipped


def test_a_nudge_looks_at_an_unchanged_pointer() -> None:
    registry = FakeRegistry()
    swap = swapper(registry)
    registry.point("a")
    swap.step()
    registry.releases["b"] = FakeRelease("b")
    registry.pointer = "b"  # and no new version
    assert swap.step() is None
    swap.nudge()
    record = swap.step()
    assert record is not None
    assert record.flipped


def test_requests_see_one_release_each_while_it_swaps() -> None:
    """Readers take `live` once; id and answer always belong together."""
    registry = FakeRegistry()
    swap = swapper(registry, queries=2, free_ms=math.inf)
    for i in range(60):
        name = f"r{i}"
        registry.releases[name] = FakeRelease(
            name, i, reply=lambda _, i=i: Answer(np.full(10, i), np.ones(10))
        )
    registry.point("r0")
    swap.start()
    mixed: list[tuple[str, int]] = []
    seen: set[str] = set()
    order_broken: list[int] = []
    done = threading.Event()

    def reader() -> None:
        last = -1
        while not done.is_set():
            served = swap.live
            if served is None:
                continue
            number = int(served.reply(REQUESTS[0]).item_ids[0])
            seen.add(served.release_id)
            if served.release_id != f"r{number}":
                mixed.append((served.release_id, number))
            if number < last:
                order_broken.append(number)
            last = number

    readers = [threading.Thread(target=reader) for _ in range(2)]
    for thread in readers:
        thread.start()
    for i in range(1, 60):
        registry.point(f"r{i}")
        swap.nudge()
        time.sleep(0.005)
        if i % 10 == 9:
            until = time.monotonic() + 60
            while f"r{i}" not in seen and time.monotonic() < until:
                time.sleep(0.005)
    done.set()
    for thread in readers:
        thread.join()
    swap.close()
    assert swap.live is registry.releases["r59"]
    assert not mixed
    assert not order_broken
    assert len(seen) > 5
    assert len(swap.held) == 2


def test_the_gate_lets_readers_together_and_the_writer_alone() -> None:
    gate = Gate()
    value = [0, 0]
    torn: list[tuple[int, int]] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            with gate.read():
                one, two = value[0], value[1]
                if one != two:
                    torn.append((one, two))
            time.sleep(0.0005)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for thread in readers:
        thread.start()
    for i in range(50):
        with gate.write():
            value[0] = i
            time.sleep(0.0002)
            value[1] = i
    done.set()
    for thread in readers:
        thread.join()
    assert not torn
    with gate.read(), gate.read():  # readers do not exclude each other
        pass
