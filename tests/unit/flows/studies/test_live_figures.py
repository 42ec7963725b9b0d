"""The mixture of conditions, stages of freshness, and the verdict of a live study."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.measure.latency import Interval as Stretch
from flows.studies.live.freshness import STAGES, freshness, weighted_quantile
from flows.studies.live.measure import closed_loop
from flows.studies.live.tail import MEASURING, tail_of
from flows.studies.live.verdict import AGREES, DISAGREES, NOT_PREDICTED, NOT_SETTLED, judged
from infra.clock import DAY_US, ScaledClock
from tests.unit.flows.studies.lived import (
    S,
    day_of,
    days,
    predicted,
    result,
)


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
