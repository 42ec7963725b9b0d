"""A live study's clock, what it is asked, its load, and how often a policy fires."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.world.config import world_config
from data.world.shop import build_world
from flows.policies.policy import parse_policy
from flows.studies.live.ask import CONTROL, live_ask, runs_by_day
from flows.studies.live.shop_time import ShopTime, rate_at, shop_of
from flows.studies.live.traffic import is_live, steady_trace
from infra.clock import DAY_US, HOUR_US, ScaledClock, open_clock
from infra.errors import ConfigError, InputError
from tests.unit.flows.studies.lived import (
    S,
)


def test_what_the_clock_said_is_what_is_told_afterwards(tmp_path: Path) -> None:
    time = ShopTime(tmp_path / "clock.json")
    time.go(0.0, at_us=5 * DAY_US)
    assert open_clock(tmp_path / "clock.json").now_us() == 5 * DAY_US
    time.go(1e9, until_us=5 * DAY_US + HOUR_US)
    while time.now_us() < 5 * DAY_US + HOUR_US:
        pass
    piece = time.go(1.0)
    assert piece.shop_start_us == 5 * DAY_US + HOUR_US  # it went no further, however fast
    assert [p.rate for p in time.pieces] == [0.0, 1e9, 1.0]
    assert [ScaledClock(**p) for p in json.loads(json.dumps(time.to_json()))] == time.pieces


def test_shop_times_of_wall_times() -> None:
    fast, slow = ScaledClock(0, 10 * S, 100.0, 300 * S), ScaledClock(300 * S, 20 * S, 1.0)
    pieces = [ScaledClock(0, 0, 0.0), fast, slow]
    wall = np.array([-5, 5, 11, 13, 19, 20, 26], np.int64) * S
    assert shop_of(pieces, wall).tolist() == [x * S for x in (0, 0, 100, 300, 300, 300, 306)]
    assert rate_at(pieces, wall).tolist() == [0.0, 0.0, 100.0, 100.0, 0.0, 1.0, 1.0]


@given(st.lists(st.integers(0, 60 * S), min_size=2, max_size=20))
def test_shop_time_never_goes_back(walls: list[int]) -> None:
    fast, slow = ScaledClock(0, 0, 50.0, 500 * S), ScaledClock(500 * S, 30 * S, 1.0)
    pieces = [fast, slow, ScaledClock(515 * S, 45 * S, 9.0)]
    shop = shop_of(pieces, np.sort(np.array(walls, np.int64)))
    assert (np.diff(shop) >= 0).all()


def test_never_is_lived_through_too_unless_it_is_not_wanted(tmp_path: Path) -> None:
    assert [t.name for t in live_ask(scale=0.3).trials] == ["daily", CONTROL]
    assert [t.name for t in live_ask(control=False).trials] == ["daily"]
    assert [t.name for t in live_ask(closed_loop=True).trials] == ["daily", CONTROL, "daily-without-slots"]
    own = tmp_path / "own.yaml"
    own.write_text("name: often\ncomponents: {ranker: {trigger: {kind: interval, every: 12h}, window: 2d}}\n")
    ask = live_ask([own], days=4)
    assert [t.name for t in ask.trials] == ["often", CONTROL]
    assert (ask.window_d, ask.first_day, ask.config.days) == (2.0, 5, 9)


def test_the_load_is_given_time_for_each_run() -> None:
    ask = live_ask(days=3, day_seconds=4.0, run_seconds=10.0)
    daily, never = (ask.walls_s(t) for t in ask.trials)
    assert np.subtract(daily, never).tolist() == [0.0, 10.0, 10.0]
    every = parse_policy("name: a\ncomponents: {ranker: {trigger: {kind: interval, every: 6h}}}")
    assert runs_by_day(every, 3) == [3, 4, 4]
    waits = parse_policy("name: a\ningest: 12h\ncomponents: {ranker: {trigger: {kind: amount, events: 900}}}")
    assert runs_by_day(waits, 2) == [3, 3]


def test_there_are_enough_shoppers_for_the_load() -> None:
    ask = live_ask()
    world = build_world(ask.config)
    for day in range(ask.first_day, ask.first_day + 10):
        assert len(world.day(day)) >= ask.qps * max(ask.walls_s(ask.trials[0]))


def test_another_question_has_another_folder_and_the_same_the_same() -> None:
    each: list[dict[str, Any]] = [{}, {"days": 5}, {"qps": 60.0}, {"margin": 0.02}, {"seed": 8}, {}]
    keys = [live_ask(**given).key for given in each]
    assert keys[0] == keys[-1]
    assert len(set(keys)) == len(keys) - 1


def test_the_command_repeats_what_was_asked() -> None:
    told = live_ask(days=5, qps=20.0, scale=0.1, control=False, through="process").command()
    for part in ("--days 5", "--qps 20", "--scale 0.1", "--no-control", "--through process", "--seed 7"):
        assert part in told
    assert "--drift" not in told
    assert "--margin" not in told


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ({"days": 1}, ConfigError, "--days is 1; expected 2"),
        ({"days": 1_000}, ConfigError, "--days is 1000"),
        ({"qps": 0.0}, ConfigError, "--qps is 0"),
        ({"margin": 1.5}, ConfigError, "--margin is 1.5"),
        ({"queries": 3}, ConfigError, "--queries is 3"),
        ({"drift": "wild"}, ConfigError, "--drift is 'wild'"),
        ({"through": "cron"}, ConfigError, "--through is 'cron'"),
        ({"scale": 0.01}, InputError, "take a larger --scale"),
        ({"source": "/not/there"}, InputError, "expected world or the folder"),
    ],
)
def test_nonsense_is_refused_in_one_line(given: dict[str, Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        live_ask(**given)


def test_a_log_without_shoppers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no simulated shoppers"):
        live_ask(source=str(tmp_path))


def test_two_policies_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("name: a\ncomponents: {ranker: {trigger: {kind: never}}}\n")
    with pytest.raises(InputError, match="the same name"):
        live_ask([path, path])


def test_the_trace_is_of_its_days_at_one_rate() -> None:
    config = world_config("strong", scale=0.05, days=6, activity=0.5)
    world = build_world(config)
    asked: dict[str, Any] = {"first_day": 4, "walls_s": [10.0, 20.0], "qps": 20.0, "seed": 7}
    trace = steady_trace(world, **asked)
    due = trace.trace.due_us / 1e6
    assert (np.diff(due) >= 0).all()
    assert (due[trace.days == 4] < 10).all()
    assert (due[trace.days == 5] >= 10).all()
    first, second = (np.count_nonzero(trace.days == d) for d in (4, 5))
    assert abs(first - 200) < 60
    assert abs(second - 400) < 80
    for day in (4, 5):
        rows = trace.rows[trace.days == day]
        assert (np.diff(rows) > 0).all()
        assert is_live(world.day(day), **asked)[rows].all()  # the crowd does not ask them again
