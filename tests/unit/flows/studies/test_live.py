"""A live study's arithmetic: its clock, the mixture of conditions, stages of freshness, verdict, words."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.load.result import LoadResult, make_result
from components.measure.latency import Interval as Stretch
from data.world.config import world_config
from data.world.shop import build_world
from flows.policies.policy import parse_policy
from flows.studies.live import words
from flows.studies.live.ask import CONTROL, live_ask, runs_by_day
from flows.studies.live.freshness import STAGES, freshness, weighted_quantile
from flows.studies.live.measure import closed_loop
from flows.studies.live.predict import Predicted
from flows.studies.live.record import Band, Lived, LiveRecord, Over
from flows.studies.live.report import write_report
from flows.studies.live.shop_time import ShopTime, rate_at, shop_of
from flows.studies.live.tail import MEASURING, conditions_of, tail_of
from flows.studies.live.traffic import is_live, steady_trace
from flows.studies.live.verdict import AGREES, DISAGREES, NOT_PREDICTED, NOT_SETTLED, Scored, judged
from flows.studies.statistics.attribution import arms
from flows.studies.telling.record import Arms
from infra.clock import DAY_US, HOUR_US, ScaledClock, open_clock
from infra.errors import ConfigError, InputError
from models.metrics import Interval

S = 1_000_000


# The clock


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


# What is asked


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
    ask = live_ask(days=3, day_seconds=5.0, run_seconds=10.0)
    daily, never = (ask.walls_s(t) for t in ask.trials)
    assert np.subtract(daily, never).tolist() == [0.0, 10.0, 10.0]
    every = parse_policy("name: a\ncomponents: {ranker: {trigger: {kind: interval, every: 6h}}}")
    assert runs_by_day(every, 3) == [3, 4, 4]
    waits = parse_policy("name: a\ningest: 12h\ncomponents: {ranker: {trigger: {kind: amount, events: 900}}}")
    assert runs_by_day(waits, 2) == [3, 3]


def test_there_are_enough_shoppers_for_the_load() -> None:
    ask = live_ask(days=3, scale=0.05, qps=15.0)
    world = build_world(ask.config)
    for day in range(ask.first_day, ask.config.days):
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


# The load


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


# The tail


def result(due_s: Any, ms: Any, **more: Any) -> LoadResult:
    due = np.asarray(np.asarray(due_s) * 1e6, np.int64)
    done = (due * 1_000 + np.asarray(np.asarray(ms) * 1e6, np.int64)).tolist()
    n = len(due)
    given: dict[str, Any] = {
        "status": [200] * n, "label": ["r-1"] * n, "size": [1] * n, "timeout_s": 5.0, "offered": n,
        "connections": 8, "peak_in_flight": 1, "reconnects": 0, "cpu_s": 0.1,
    }  # fmt: skip
    sent = (due * 1_000).tolist()
    return make_result(
        due_us=due, picked_ns=sent, sent_ns=sent, done_ns=done, began_ns=0, began_wall_us=0, **(given | more)
    )


def day_of(seed: int = 0) -> tuple[LoadResult, list[Stretch], np.ndarray[Any, Any]]:
    """Two days of 100 s: 20 s of training at 30 ms or so in each, else 5; 2 s of measuring at 500."""
    rng = np.random.default_rng(seed)
    due = np.sort(rng.random(20_000)) * 200
    at = due % 100
    ms = 5 + rng.random(len(due))
    ms[(at >= 40) & (at < 60)] += 25
    ms[(at >= 80) & (at < 82)] += 495
    runs = [(40 * S, 60 * S), (140 * S, 160 * S)]
    measuring = [(80 * S, 82 * S), (180 * S, 182 * S)]
    return result(due, ms), conditions_of(runs, [], measuring), np.array([100, 200]) * S


def test_conditions_count_by_their_share_of_a_real_day() -> None:
    load, stretches, ends = day_of()
    tail = tail_of(load, stretches, days=2, day_ends_us=ends)
    assert tail.share["training"] == pytest.approx(20 / 86_400)
    assert sum(tail.share.values()) == pytest.approx(1)
    assert tail.by_condition["training"]["p50"] > 29
    assert tail.by_condition["quiet"]["p99"] < 7
    assert tail.by_condition[MEASURING]["p50"] > 400  # told, and left out of all else
    assert tail.recombined["p99"] == pytest.approx(tail.by_condition["quiet"]["p99"], abs=0.1)
    assert tail.p99_moved is not None
    assert abs(tail.p99_moved.mean) < 0.1
    assert tail.p99_training_moved is not None
    moved = tail.p99_training_moved
    assert 24 < moved.low <= moved.mean <= moved.high < 26


def test_a_day_that_is_all_training_has_the_tail_of_training() -> None:
    load, stretches, ends = day_of()
    half = [Stretch("training", s.begin_us, s.begin_us + 2 * DAY_US) if s.condition == "training" else s
            for s in stretches[:1]]  # fmt: skip
    tail = tail_of(load, half, days=2, day_ends_us=ends)
    assert tail.share["quiet"] == pytest.approx(0)
    assert tail.recombined["p99"] == pytest.approx(tail.by_condition["training"]["p99"], rel=0.01)


def test_nothing_is_told_of_the_tail_of_a_few_requests() -> None:
    tail = tail_of(result([1.0, 2.0], [5.0, 6.0]), [], days=1, day_ends_us=np.array([10 * S]))
    assert tail.recombined == {"p50": None, "p99": None, "p99_9": None}
    assert tail.p99_training_moved is None


# Freshness


def test_each_stage_is_told_in_seconds_of_the_shop() -> None:
    # A day in 100 s up to 100 s of wall time, then the wall's pace.
    pieces = [ScaledClock(0, 0, 864.0, DAY_US), ScaledClock(DAY_US, 100 * S, 1.0)]
    wall = np.arange(1, 100, dtype=np.int64) * S
    known = wall * 864
    refresh = {
        "release_id": "r-2", "promoted": True, "begin_wall_us": 101 * S, "end_wall_us": 111 * S,
        "snapshot": {"watermark_us": DAY_US}, "steps": {n: {"wall_s": w} for n, w in
        (("ingest", 2.0), ("open", 1.0), ("ranker", 4.0), ("publish", 1.0), ("gate", 2.0))},
    }  # fmt: skip
    swap = {"release_id": "r-2", "watermark_us": DAY_US, "flip_wall_us": 113 * S}
    load = result([50.0, 114.0, 120.0], [5.0, 5.0, 5.0], label=["r-1", "r-2", "r-2"])
    found = {
        s.name: s
        for s in freshness(
            known, wall, refreshes=[refresh], swaps=[swap], load=load, pieces=pieces, journalled_ms=[4.0, 6.0]
        )
    }
    assert tuple(found) == STAGES
    assert found["journalled"].p50_s == pytest.approx(0.004)
    assert found["ingested"].p50_s == pytest.approx(43_200 + 3, rel=0.02)
    steps = {name: found[name].p50_s for name in ("trained", "gated", "loaded", "served")}
    assert steps == pytest.approx({"trained": 6.0, "gated": 2.0, "loaded": 2.0, "served": 1.005}, abs=0.01)
    whole = [s.whole_p50_s for s in found.values()]
    assert whole == sorted(whole)


def test_what_no_release_learned_from_has_no_freshness() -> None:
    none = np.empty(0, np.int64)
    load = result([1.0], [5.0])
    assert freshness(none, none, refreshes=[], swaps=[], load=load, pieces=[ScaledClock(0, 0, 1.0)],
                     journalled_ms=[]) == ()  # fmt: skip


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30), st.floats(0, 1))
def test_equal_weights_give_the_plain_quantile(values: list[float], q: float) -> None:
    x = np.array(values)
    plain = float(np.quantile(x, q, method="inverted_cdf"))
    share = q * len(x)
    if abs(share - round(share)) > 1e-6:
        assert weighted_quantile(x, np.ones(len(x)), q) == plain


# The verdict


def days(gain: float, *, spread: float, n: int = 20, seed: int = 3) -> list[Scored]:
    rng = np.random.default_rng(seed)
    found = []
    for day in range(n):
        state = 0.6 + 0.1 * rng.standard_normal(80)
        full = state + gain + spread * rng.standard_normal(80)
        queries = np.column_stack([state - 0.1, state, full])
        found.append(Scored(day, day * DAY_US, day, "r-2", queries, np.arange(80), day > 0))
    return found


def predicted(gain: float, n: int = 20) -> Predicted:
    told = np.full(n, gain)
    return Predicted("daily", "1d", told, told, 0.001, Interval(gain, gain, gain), 0.015, 1)


@pytest.mark.parametrize(
    ("live", "said", "spread", "word"),
    [
        (0.04, 0.04, 0.02, AGREES),
        (0.04, 0.09, 0.02, DISAGREES),
        (0.04, 0.0, 0.02, DISAGREES),
        (0.04, 0.04, 0.9, NOT_SETTLED),
        (0.055, 0.04, 0.05, NOT_SETTLED),
    ],
)
def test_the_verdict_is_an_equivalence_test(live: float, said: float, spread: float, word: str) -> None:
    found = judged(predicted(said), days(live, spread=spread), margin=0.015, seed=7)
    assert found.word == word
    assert found.days == 19  # the first day had no release of the policy
    assert found.difference is not None
    assert found.difference.low <= found.difference.mean <= found.difference.high


def test_two_days_settle_nothing_and_what_was_not_predicted_is_not_judged() -> None:
    assert judged(predicted(0.04), days(0.04, spread=0.0, n=3), margin=0.015, seed=7).word == NOT_SETTLED
    found = judged(None, days(0.04, spread=0.02), margin=0.015, seed=7)
    assert (found.word, found.difference) == (NOT_PREDICTED, None)


def test_the_closed_loop_is_paired_by_day_and_query() -> None:
    with_slots, without = days(0.05, spread=0.01, seed=1), days(0.05, spread=0.01, seed=1)
    lower = [replace(s, queries=s.queries - [0, 0, 0.02]) for s in without]
    found = closed_loop("daily", with_slots, lower, seed=7)
    assert found is not None
    assert found.without_minus_with.mean == pytest.approx(-0.02)
    assert found.weights_with.mean - found.weights_without.mean == pytest.approx(0.02)
    assert closed_loop("daily", with_slots, [], seed=7) is None


# The record, the words, the report


def lived(name: str, gain: float, said: float | None, *, spread: float = 0.02, **more: Any) -> Lived:
    scored = days(gain, spread=spread)
    kept = [s for s in scored if s.fresh]
    means = np.array([s.queries.mean(0) for s in kept])
    found = arms(*means.T, queries=[s.queries for s in kept], clusters=[s.sessions for s in kept])
    load, stretches, ends = day_of()
    given: dict[str, Any] = {
        "name": name, "triggers": {"ranker": "every 1d"}, "control": name == CONTROL, "without_slots": False,
        "requests": len(load), "failed": 0, "load": "VALID", "load_reasons": (), "runs": 19, "refreshes": 19,
        "refused": 1, "failed_runs": 0, "swaps": 18, "releases_served": 19,
        "arms": Arms(found.frozen, found.state_fresh, found.full), "full_minus_state_fresh": found.weights,
        "state_fresh_minus_frozen": found.state, "weights_share": found.weights_share,
        "state_share": found.state_share, "cpu_s_per_day": 12.0, "cpu_s_per_refresh": 12.0, "run_s": 9.0,
        "tail": tail_of(load, stretches, days=2, day_ends_us=ends), "freshness": (),
        "verdict": judged(None if said is None else predicted(said), scored, margin=0.015, seed=7),
        "days": np.arange(20.0), "frozen": np.full(20, 0.5), "state_fresh": np.full(20, 0.6),
        "full": np.full(20, 0.6 + gain), "predicted": np.full(20, np.nan if said is None else said),
        "over": Over(1.0, np.arange(5.0), np.full(5, 5.0), np.full(5, 9.0), (Band("training", 1.0, 2.0),)),
    }  # fmt: skip
    return Lived(**(given | more))


def record(*policies: Lived, **more: Any) -> LiveRecord:
    given: dict[str, Any] = {
        "question": words.QUESTION, "source": "world", "policies": policies,
        "sentences": tuple(words.sentence(p) for p in policies if not p.control), "closed_loop": (),
        "requests": sum(p.requests for p in policies), "failed": sum(p.failed for p in policies), "seed": 7,
        "margin": 0.015, "days": 20, "through": "process", "arguments": {"qps": 50.0},
    }  # fmt: skip
    return LiveRecord(**(given | more))


def test_the_sentence_has_its_figures() -> None:
    told = words.sentence(lived("daily", 0.05, 0.05))
    found = re.search(r"(\d+) % comes from fresh state and (\d+) % from fresh weights", told)
    assert found is not None
    assert abs(int(found[1]) - 67) <= 1
    assert int(found[1]) + int(found[2]) in (99, 100, 101)
    assert "cost 12.0 CPU-seconds a day" in told
    assert "confirmed live" in told
    assert "not confirmed" not in told


@pytest.mark.parametrize(
    ("gain", "said", "spread", "has", "has_not"),
    [
        (0.05, 0.12, 0.02, "not confirmed live", "not settled"),
        (0.05, 0.05, 0.9, "not settled live", "confirmed live"),
        (0.0, 0.0, 0.02, "no shares can be told", "% comes from"),
        (0.05, None, 0.02, "Not predicted", "confirmed live"),
    ],
)
def test_nothing_is_claimed_that_is_not_shown(
    gain: float, said: float | None, spread: float, has: str, has_not: str
) -> None:
    told = words.sentence(lived("daily", gain, said, spread=spread))
    assert has in told
    assert has_not not in told


def test_a_failed_request_is_a_broken_promise() -> None:
    assert record(lived("daily", 0.05, 0.05)).promises == ()
    (said,) = record(lived("daily", 0.05, 0.05, failed=2)).promises
    assert "2 of" in said


def test_the_document_comes_back_and_the_report_stands_alone(tmp_path: Path) -> None:
    found = record(lived("daily", 0.05, 0.05), lived(CONTROL, 0.0, None))
    page = write_report(found, tmp_path / "live")
    text = page.read_text()
    assert found.sentences[0].split(";")[0] in text.replace("&#39;", "'")
    assert '<link rel="stylesheet"' not in text
    assert 'src="http' not in text
    for name in ("latency", "cost", "verdict", "quality", "attribution"):
        assert (tmp_path / "live" / f"{name}.svg").exists()
        assert (tmp_path / "live" / f"{name}.png").stat().st_size > 1_000
    back = LiveRecord.load(tmp_path / "live")
    assert back.document() == found.document()
    assert back.main.verdict.word == AGREES
    said = words.summary(found, str(page))
    assert "agrees" in said
    assert str(page) in said


def test_a_study_in_which_nothing_was_measured_has_a_page_too(tmp_path: Path) -> None:
    empty = Over(1.0, np.empty(0), np.empty(0), np.empty(0))
    none: dict[str, Any] = dict.fromkeys(("days", "full", "state_fresh"), np.empty(0))
    nothing = lived(CONTROL, 0.0, None, over=empty, **none)
    assert write_report(record(nothing, sentences=()), tmp_path / "live").exists()
