"""Replay: firings in virtual time, with their reasons, whatever steps it takes."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from data.schema import CLICK
from flows.policies.engine import INGEST, Engine, Firing
from flows.policies.log import LOOK_BACK_US, EventLog
from flows.policies.policy import Policy
from flows.policies.replay import EMPTY, replay
from flows.policies.triggers.trigger import NewData
from infra.clock import DAY_US, HOUR_US
from tests.unit.flows.policies.made_log import START_US, made_log


def policy(ingest: str | None = "1h", **components: Any) -> Policy:
    parts = {n: c if "trigger" in c else {"trigger": c} for n, c in components.items()}
    return Policy.model_validate({"name": "p", "ingest": ingest, "tick": "10m", "components": parts})


def run(p: Policy, log: EventLog = EMPTY, *, days: float = 3, **more: Any) -> tuple[Firing, ...]:
    return replay(p, log, since_us=START_US, until_us=START_US + int(days * DAY_US), **more)


DAILY = {"kind": "interval", "every": "1d"}


@pytest.fixture(scope="module")
def log() -> EventLog:
    """Six days; the rate of clicks falls from 0.5 to 0.2 after the third."""
    return EventLog.of(made_log(days=6, sessions_per_day=400, chance=lambda day: 0.5 if day < 3 else 0.2))


def test_components_that_read_the_same_are_one_run() -> None:
    fired = run(policy(ranker=DAILY, text_classifier=DAILY, indexes={"kind": "interval", "every": "12h"}))
    assert [f.components for f in fired] == [
        ("indexes",),
        ("ranker", "text_classifier", "indexes"),
        ("indexes",),
        ("ranker", "text_classifier", "indexes"),
        ("indexes",),
    ]
    apart = run(policy(ranker={"trigger": DAILY, "fraction": 0.6}, text_classifier=DAILY))
    assert [f.components for f in apart] == [("ranker",), ("text_classifier",)] * 2
    assert [f.number for f in apart] == sorted({f.number for f in apart})


def test_what_weighs_nothing_by_age_goes_with_any_half_life() -> None:
    fading = {"trigger": DAILY, "half_life": "2d"}
    fired = run(policy(text_classifier=DAILY, ranker=fading, indexes=DAILY), days=2)
    assert [f.components for f in fired] == [("text_classifier", "ranker", "indexes")]
    fired = run(policy(indexes=DAILY, ranker=fading, encoder=DAILY), days=2)
    assert [f.components for f in fired] == [("indexes", "ranker"), ("encoder",)]
    third = {"trigger": {"kind": "interval", "every": "1d", "after": "12h"}, "half_life": "2d"}
    for half_life, at in (("2d", [12, 36]), ("3d", [12, 24, 36])):  # the ranker that an encoder brings
        p = policy(encoder=third, ranker={"trigger": DAILY, "half_life": half_life})
        assert [(f.at_us - START_US) // HOUR_US for f in run(p, days=1.6)] == at


def test_an_encoder_brings_the_ranker_along() -> None:
    fired = run(policy(encoder={"kind": "interval", "every": "1d", "after": "36h"}, ranker=DAILY), days=4)
    at = [((f.at_us - START_US) // HOUR_US, f.components) for f in fired]
    assert at == [
        (24, ("ranker",)),
        (36, ("encoder",)),
        (60, ("encoder", "ranker")),
        (84, ("encoder", "ranker")),
    ]


def test_what_is_due_while_a_run_is_under_way_waits_and_is_one_run() -> None:
    hourly = policy(ranker={"kind": "interval", "every": "1h"})
    fired = run(hourly, days=1, takes_us=lambda _: int(2.5 * HOUR_US))
    hours = [(f.at_us - START_US) / HOUR_US for f in fired]
    assert hours == [1, 3.5, 6, 8.5, 11, 13.5, 16, 18.5, 21, 23.5]
    assert "with 1 missed since" in fired[1].why


def test_what_becomes_due_during_a_run_is_one_run_after_it() -> None:
    p = policy(
        ranker={"kind": "interval", "every": "1h"}, text_classifier={"kind": "interval", "every": "2h"}
    )
    fired = run(p, days=0.25, takes_us=lambda _: int(1.5 * HOUR_US))
    found = [((f.at_us - START_US) / HOUR_US, f.components) for f in fired]
    both = ("ranker", "text_classifier")
    assert found == [(1, ("ranker",)), (2.5, both), (4, both), (5.5, ("ranker",))]


def test_amounts_are_seen_once_they_are_ingested(log: EventLog) -> None:
    fired = run(policy(ranker={"kind": "amount", "events": 200}), log)
    assert 2 <= len(fired) <= 4
    for f in fired:
        assert "new events of 200" in f.why
        assert (f.at_us - START_US) % HOUR_US == 10 * 60 * 1_000_000  # the tick after an ingest
    late = run(policy("6h", ranker={"kind": "amount", "events": 200}), log)
    assert all((f.at_us - START_US) % (6 * HOUR_US) == 10 * 60 * 1_000_000 for f in late)


def test_a_fall_of_quality_is_found_and_a_steady_one_is_left(log: EventLog) -> None:
    watch = {"kind": "performance", "measure": "ctr", "reference": 300, "tolerance": 0.0}
    fired = run(policy(ranker=watch), log, days=6)
    assert fired
    assert 3 * DAY_US < fired[0].at_us - START_US < 5 * DAY_US
    assert "expected" in fired[0].why
    assert run(policy(ranker=watch), log, days=3) == ()


def test_controls(log: EventLog) -> None:
    assert run(policy(ranker={"kind": "never"}), log) == ()
    assert len(run(policy(ranker={"kind": "always"}), log)) == 3 * 24 - 1
    drawn = run(policy(None, ranker={"kind": "random", "count": 7, "span": "3d", "seed": 2}), log)
    assert len(drawn) == 7
    other = run(policy(None, ranker={"kind": "random", "count": 7, "span": "3d", "seed": 3}), log)
    assert [f.at_us for f in drawn] != [f.at_us for f in other]


def told(
    log: EventLog, seen: int, until: int, now: int, version: dict[str, str], name: str, since: int
) -> NewData:
    return log.new(max(seen, since), until, now_us=now, version=version.get(name, "#0"))


def test_leaping_over_idle_ticks_changes_nothing(log: EventLog) -> None:
    """The same engine asked at every single tick fires at the same times, for the same reasons."""
    p = policy(
        ranker={"kind": "any", "of": [DAILY, {"kind": "amount", "rows": 3_000}]},
        indexes={"kind": "interval", "every": "5h"},
        text_classifier={"kind": "performance", "measure": "click_ndcg", "reference": 100},
    )
    engine, known, seen, found = Engine(p, {}), START_US, START_US, []
    version: dict[str, str] = {}
    for now in range(START_US, START_US + 4 * DAY_US, p.tick):
        fired = engine.tick(now, partial(told, log, seen, known, now, version))
        seen = known
        for f in fired:
            known = now
            version |= dict.fromkeys(f.components, f"#{f.number}")
            found += [f] if f.components != (INGEST,) else []
    assert tuple(found) == run(p, log, days=4)


def test_a_log_read_in_pieces_tells_what_the_whole_one_tells() -> None:
    events = made_log(days=2, sessions_per_day=300, seed=4)
    whole = EventLog.of(events)
    known = events["known_time"].to_numpy()
    cuts = START_US + np.array([0, 3, 11, 12, 29, 48]) * HOUR_US
    total = 0
    for since, until in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
        a, b = np.searchsorted(known, [since - LOOK_BACK_US, until], side="right").tolist()
        piece, same = (
            e.new(since, until, now_us=until) for e in (EventLog.of(events.slice(a, b - a)), whole)
        )
        assert (piece.rows, piece.events, piece.bytes) == (same.rows, same.events, same.bytes)
        for measure in same.outcomes:
            assert np.array_equal(piece.outcomes[measure], same.outcomes[measure])
        total += same.rows
    assert total == np.count_nonzero(known > START_US) - np.count_nonzero(known > cuts[-1])


def test_outcomes_are_one_a_session() -> None:
    events = made_log(days=1, sessions_per_day=500)
    told = EventLog.of(events).new(0, 1 << 62, now_us=0)
    assert len(told.outcomes["ctr"]) == len(set(events["session_id"].to_pylist()) - {-1})
    assert told.events == np.count_nonzero(events["kind"].to_numpy() == CLICK)
    assert 0.4 < told.outcomes["ctr"].mean() < 0.6
    assert len(told.outcomes["click_ndcg"]) == told.outcomes["ctr"].sum()
    levels = 1 / np.log2(np.arange(2, 7))
    assert np.isclose(told.outcomes["click_ndcg"][:, None], levels).any(axis=1).all()


def test_another_trigger_of_a_component_begins_anew_and_the_same_goes_on() -> None:
    memory: dict[str, Any] = {}
    p = policy(None, ranker=DAILY, indexes=DAILY)
    Engine(p, memory).tick(START_US, lambda *_: EMPTY.new(0, 0, now_us=START_US))
    q = policy(None, ranker=DAILY, indexes={"kind": "interval", "every": "2d"})
    engine = Engine(q, memory)
    assert engine.next_us() == {"ranker": START_US + DAY_US, "indexes": None}
