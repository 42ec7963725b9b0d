"""The policy of a home at work: live ticks fire as a replay does, and a crash or a restart loses nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.segments import write_segments
from data.snapshots import published
from data.store import ingest_segments
from flows.policies import live as live_module
from flows.policies.engine import INGEST, TRIES, Firing, with_brought
from flows.policies.home import (
    default_policy,
    firing_of,
    policy_of,
    policy_path,
    read_state,
    record_of,
    set_policy,
)
from flows.policies.live import Live, Outcome, parameters_of
from flows.policies.log import log_of
from flows.policies.replay import replay
from infra.clock import DAY_US, HOUR_US, ManualClock
from infra.errors import DataError, EnvironmentError_
from infra.settings import Home
from tests.unit.flows.policies.made_log import START_US, made_log
from tests.unit.flows.policies.test_replay import DAILY, policy


class Shop:
    """Runs that end at once: each takes in what is known by now, as an ingest does."""

    def __init__(self, layout: Home, events: pa.Table | None = None) -> None:
        self.layout, self.events = layout, events
        self.clock = ManualClock(START_US)
        self.started: dict[str, Firing] = {}
        self.asked: dict[str, tuple[str, Mapping[str, Any]]] = {}
        self.ends: dict[str, Outcome | None] = {}
        self.next_end: Outcome | None = Outcome("done")
        self.taken = 0

    def start(self, firing: Firing, parameters: Mapping[str, Any], *, policy: str, key: str) -> str:
        if key not in self.started and self.events is not None:
            known = self.events["known_time"].to_numpy()
            until = int(np.searchsorted(known, self.clock.now_us(), side="right"))
            if until > self.taken:
                new = self.events.slice(self.taken, until - self.taken)
                write_segments(new, self.layout.segments, name=f"w-{self.taken}", durable=False)
                self.taken = until
            ingest_segments(self.layout, allowed_lateness_us=HOUR_US, clock=self.clock)
        self.started.setdefault(key, firing)
        self.asked.setdefault(key, (policy, parameters))
        self.ends.setdefault(key, self.next_end)
        return key

    def outcome(self, run_id: str) -> Outcome | None:
        return self.ends[run_id]

    @property
    def versions(self) -> dict[str, str]:
        """As a replay counts them."""
        found: dict[str, str] = {}
        for key, firing in self.started.items():
            if self.ends[key] == Outcome("done"):
                found |= dict.fromkeys(with_brought(firing.components), f"#{firing.number}")
        return found


@contextmanager
def versions_of(shop: Shop) -> Iterator[None]:
    """The live artifacts are those that the runs made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Live, "_versions", lambda _: {n: shop.versions.get(n, "#0") for n in ("ranker", "encoder")}
        )
        yield


def ticks(live: Live, shop: Shop, n: int, *, tick: int) -> list[Firing]:
    fired = []
    for _ in range(n):
        fired += [f for f in live.tick() if f.components != (INGEST,)]
        shop.clock.time_us += tick
    return fired


def test_live_ticks_and_replay_fire_alike_across_restarts(home: Home) -> None:
    events = made_log(days=4, sessions_per_day=250, chance=lambda day: 0.6 if day < 2 else 0.2, seed=3)
    p = policy(
        "6h",
        ranker={
            "kind": "any",
            "of": [
                {"kind": "interval", "every": "40h"},
                {"kind": "performance", "measure": "ctr", "reference": 100, "tolerance": 0.0},
            ],
        },
        encoder={"kind": "amount", "events": 300},
        indexes={"kind": "cron", "at": "30 */9 * * *"},
        text_classifier={"kind": "random", "count": 3, "span": "2d"},
        image_classifier={"kind": "all", "of": [DAILY, {"kind": "amount", "bytes": 400_000}]},
    )
    p = p.model_copy(update={"tick": HOUR_US})
    set_policy(home, p)
    shop = Shop(home, events)
    with versions_of(shop):
        fired = []
        for _ in range(8):  # a process that is started anew each half day
            fired += ticks(Live(home, shop, clock=shop.clock), shop, 12, tick=p.tick)
    told = replay(p, log_of(home), since_us=START_US, until_us=START_US + 4 * DAY_US)
    assert [replace(f, number=0) for f in fired] == [replace(f, number=0) for f in told]
    assert {n for f in fired for n in f.components} == set(p.components)
    assert any("sessions" in f.why for f in fired)
    assert published(home).quarantine == {}


def test_a_run_that_is_not_over_is_not_started_twice(home: Home) -> None:
    set_policy(home, policy(None, ranker={"kind": "interval", "every": "1h"}, indexes=DAILY))
    shop = Shop(home)
    shop.next_end = None
    live = Live(home, shop, clock=shop.clock)
    fired = ticks(live, shop, 3 * 6 + 1, tick=HOUR_US // 6)
    assert len(fired) == 1
    (key,) = shop.started
    shop.ends[key] = Outcome("done")
    again = ticks(live, shop, 2, tick=HOUR_US // 6)
    assert len(again) == 1
    assert "missed since" in again[0].why


def test_a_crash_between_record_and_start_starts_the_run_once(home: Home) -> None:
    set_policy(home, policy(None, ranker=DAILY))
    shop = Shop(home)
    live = Live(home, shop, clock=shop.clock)
    live.tick()
    shop.clock.time_us += DAY_US

    class Crash(Exception):
        pass

    def crash(*_: Any, **__: Any) -> str:
        raise Crash

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shop, "start", crash)
        with pytest.raises(Crash):
            live.tick()
    restarted = Live(home, shop, clock=shop.clock)
    assert restarted.tick() == []
    assert [f.components for f in shop.started.values()] == [("ranker",)]
    restarted.tick()
    assert len(shop.started) == 1
    state = read_state(home)
    assert state is not None
    assert [entry["ended"] for entry in state["recent"]] == ["done"]


def test_what_waited_for_its_server_runs_as_it_was_fired_whatever_the_policy_is_now(home: Home) -> None:
    part = {"trigger": DAILY, "window": "2d", "fraction": 0.5}
    set_policy(home, policy(None, ranker=part, text_classifier=DAILY))
    shop = Shop(home)
    live = Live(home, shop, clock=shop.clock)
    live.tick()
    shop.clock.time_us += DAY_US

    def down(*_: Any, **__: Any) -> str:
        raise EnvironmentError_("no server")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shop, "start", down)
        with pytest.raises(EnvironmentError_):
            live.tick()
        set_policy(home, policy(None, indexes=DAILY).model_copy(update={"name": "other"}))
        with pytest.raises(EnvironmentError_):
            live.tick()
    Live(home, shop, clock=shop.clock).tick()  # of a policy without these components
    ranker, text = sorted(shop.asked.values(), key=lambda asked: asked[1]["component"])
    assert [(name, a["component"]) for name, a in (ranker, text)] == [
        ("p", "ranker"),
        ("p", "text_classifier"),
    ]
    assert (ranker[1]["window_d"], ranker[1]["fraction"]) == (2.0, 0.5)
    assert (text[1]["window_d"], text[1]["fraction"]) == (7.0, 1.0)


def test_only_what_the_machine_broke_is_tried_again_and_not_for_ever(home: Home) -> None:
    set_policy(home, policy(None, ranker=DAILY))
    shop = Shop(home)
    live = Live(home, shop, clock=shop.clock)
    live.tick()
    shop.clock.time_us += DAY_US
    shop.next_end = Outcome("again", "the process was killed")
    fired = ticks(live, shop, 40, tick=HOUR_US // 6)
    assert [f.tries for f in fired] == list(range(1, TRIES + 1))
    assert "again after the process was killed" in fired[-1].why
    assert fired[-1].why.count("again after") == 1
    shop.clock.time_us = START_US + 2 * DAY_US
    shop.next_end = Outcome("failed", "a window without clicks")
    assert len(ticks(live, shop, 40, tick=HOUR_US // 6)) == 1


def test_what_was_missed_while_it_was_stopped_is_caught_up_once(home: Home) -> None:
    set_policy(home, policy(None, ranker=DAILY))
    shop = Shop(home)
    Live(home, shop, clock=shop.clock).tick()
    shop.clock.time_us += 10 * DAY_US + HOUR_US
    fired = ticks(Live(home, shop, clock=shop.clock), shop, 12, tick=HOUR_US)
    assert len(fired) == 1
    assert "with 9 missed since" in fired[0].why


def test_a_clock_that_is_set_back_begins_anew(home: Home) -> None:
    set_policy(home, policy(None, ranker=DAILY))
    shop = Shop(home)
    live = Live(home, shop, clock=shop.clock)
    live.tick()
    shop.clock.time_us = START_US - 300 * DAY_US
    fired = ticks(live, shop, 30, tick=HOUR_US)
    assert len(fired) == 1


def test_another_policy_is_taken_up_and_a_wrong_one_is_not(home: Home) -> None:
    set_policy(home, policy(None, ranker=DAILY))
    shop = Shop(home)
    live = Live(home, shop, clock=shop.clock)
    live.tick()
    policy_path(home).write_text("name: broken\nnonsense: 1\n")
    live.tick()
    state = read_state(home)
    assert state is not None
    assert "unknown key 'nonsense'" in state["errors"]["policy"]
    assert state["policy"] == "p"
    set_policy(home, policy(None, indexes={"kind": "interval", "every": "1h"}))
    shop.clock.time_us += HOUR_US
    live.tick()
    shop.clock.time_us += HOUR_US
    assert [f.components for f in live.tick()] == [("indexes",)]
    state = read_state(home)
    assert state is not None
    assert state["errors"] == {}


def test_a_state_of_another_make_is_one_line(home: Home) -> None:
    set_policy(home, policy(None, ranker=DAILY))
    shop = Shop(home)
    Live(home, shop, clock=shop.clock).tick()
    path = home.root / "policy" / "state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, "format": 99}))
    with pytest.raises(DataError, match="format 99; expected 1"):
        Live(home, shop, clock=shop.clock)
    path.write_text("{")
    with pytest.raises(DataError, match="begin anew"):
        Live(home, shop, clock=shop.clock)


def test_a_tick_that_fails_is_told_and_the_next_one_works(home: Home) -> None:
    live = Live(home, Shop(home), clock=ManualClock(START_US))
    live.failed(EnvironmentError_("no server"))
    state = read_state(home)
    assert state is not None
    assert "no server" in state["errors"]["tick"]
    live.tick()
    assert live.state["errors"] == {}


def test_data_that_cannot_be_read_is_told_until_it_can_and_counted_then(home: Home) -> None:
    events = made_log(days=1, sessions_per_day=200)
    set_policy(home, policy("1h", ranker={"kind": "amount", "rows": 10**9}))
    shop = Shop(home, events)
    live = Live(home, shop, clock=shop.clock)
    ticks(live, shop, 14, tick=HOUR_US // 6)
    status = home.snapshots / "status.json"
    held, seen, start = [], live.state["seen_us"], shop.start

    def damaging(*arguments: Any, **more: Any) -> str:
        key = start(*arguments, **more)
        held.append(status.read_bytes())
        status.write_text("{")
        return key

    with pytest.MonkeyPatch.context() as patch:  # an ingest ends well, and what it published is damaged
        patch.setattr(shop, "start", damaging)
        ticks(live, shop, 9, tick=HOUR_US // 6)
        live.tick()  # between two asks
        assert "no JSON document" in live.state["errors"]["data"]
        assert live.state["known_us"] > live.state["seen_us"] == seen
        live = Live(home, shop, clock=shop.clock)
        live.tick()
        assert "no JSON document" in live.state["errors"]["data"]
    status.write_bytes(*held)
    ticks(live, shop, 12, tick=HOUR_US // 6)
    assert live.state["errors"] == {}
    known, upto = events["known_time"].to_numpy(), live.state["seen_us"]
    assert upto > seen + 2 * HOUR_US
    have = live.state["engine"]["triggers"]["ranker"]["memory"]["have"]
    assert have == np.count_nonzero((known > START_US) & (known <= upto))


def test_a_home_without_a_policy_has_the_default_one(home: Home) -> None:
    assert policy_of(home) == default_policy()
    fired = replay(default_policy(), log := live_module.EMPTY, since_us=0, until_us=8 * DAY_US)
    whole = [f for f in fired if len(f.components) == 5]
    assert [f.at_us for f in whole] == [7 * DAY_US]
    assert len([f for f in fired if "ranker" in f.components]) == 8 - 1
    assert len(log.known_us) == 0


def test_what_a_run_is_asked_for_is_what_the_policy_says() -> None:
    p = policy(
        None,
        indexes={"trigger": DAILY, "window": "all", "gate": {"margin": 0.05}},
        ranker={"trigger": DAILY, "window": "36h", "fraction": 0.6, "start": "warm"},
    )
    whys = {"ranker": "because", "indexes": "because"}
    asked = parameters_of(Firing(1, 0, ("ranker",), whys), p)
    assert (asked["component"], asked["window_d"], asked["fraction"], asked["start"]) == (
        "ranker",
        1.5,
        0.6,
        "warm",
    )
    assert asked["half_life_d"] is None
    weighed = policy(None, text_classifier=DAILY, ranker={"trigger": DAILY, "half_life": "12h"})
    both = Firing(1, 0, ("text_classifier", "ranker"), {"ranker": "", "text_classifier": ""})
    assert parameters_of(both, weighed)["half_life_d"] == 0.5
    asked = parameters_of(Firing(1, 0, ("indexes",), whys), p)
    assert (asked["component"], asked["window_d"], asked["gate"]["margin"]) == ("index", None, 0.05)
    firing = Firing(3, 5, ("ranker", "indexes"), whys, 2)
    assert firing_of(json.loads(json.dumps(record_of(firing)))) == firing
