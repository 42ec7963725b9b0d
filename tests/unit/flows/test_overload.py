"""The overload bench: what it offers, and what it makes of known latencies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from components.load.result import LoadResult
from flows.bench.overload import Plan, judge_overload, stretches

ENDS = (10_000_000, 20_000_000)


def run(
    *, accepted_ms: float = 100.0, refused_ms: float = 5.0, slow_until_s: float = 0.0, error: int = 0
) -> LoadResult:
    """30 s of a request every 10 ms (1 ms while overloaded, every other one refused)."""
    after = np.arange(ENDS[1], 30_000_000, 10_000)
    due = np.concatenate([np.arange(0, ENDS[0], 10_000), np.arange(*ENDS, 1_000), after])
    loaded = (due >= ENDS[0]) & (due < ENDS[1])
    refused = loaded & (np.arange(len(due)) % 2 == 0)
    latency = np.where(refused, refused_ms, np.where(loaded, accepted_ms, 2.0))
    latency = np.where((due >= ENDS[1]) & (due < ENDS[1] + slow_until_s * 1e6), 50.0, latency)
    status = np.where(refused, 429, 200).astype(np.int16)
    status[np.flatnonzero(loaded)[:error]] = 500
    began = 1_000_000_000
    columns: dict[str, Any] = {"due_us": due + began, "picked_us": due + began, "sent_us": due + began}
    return LoadResult(
        **columns, done_us=due + began + (latency * 1e3).astype(np.int64), status=status,
        label=np.zeros(len(due), np.int16), size=np.zeros(len(due), np.int32), labels=("r",),
        began_wall_us=began, timeout_s=5.0, offered=len(due), connections=64, peak_in_flight=9, reconnects=0,
        cpu_s=0.1,
    )  # fmt: skip


def test_known_latencies_come_out_and_nothing_is_broken() -> None:
    found = judge_overload(run(), ENDS)
    assert found["accepted_ms"]["p99"] == pytest.approx(100.0)
    assert found["rejected_ms"]["p99"] == pytest.approx(5.0)
    assert found["quiet_ms"]["p50"] == found["after_5s_ms"]["p50"] == pytest.approx(2.0)
    assert found["accepted_share"] == pytest.approx(0.5)
    assert (found["offered_rps"], found["recovery_s"], found["broken"]) == (1_000.0, 0.0, [])


@pytest.mark.parametrize(
    ("bad", "promise"),
    [
        ({"accepted_ms": 300.0}, "accepted p99"),
        ({"refused_ms": 80.0}, "refused within"),
        ({"slow_until_s": 7.0}, "quiet again"),
        ({"slow_until_s": 10.0}, "quiet again"),
        ({"error": 1}, "nothing but"),
    ],
    ids=str,
)
def test_each_broken_promise_is_named(bad: dict[str, Any], promise: str) -> None:
    (broken,) = judge_overload(run(**bad), ENDS)["broken"]
    assert promise in broken


def test_recovery_is_when_the_slow_ones_end() -> None:
    assert judge_overload(run(slow_until_s=3.0), ENDS)["recovery_s"] == pytest.approx(3.0, abs=0.26)
    assert judge_overload(run(slow_until_s=10.0), ENDS)["recovery_s"] is None


def test_a_plan_offers_its_multiple_of_the_peak_between_quiet_stretches() -> None:
    plan = Plan(factor=2.0, quiet_rate=100.0, quiet_s=20.0, overload_s=10.0, after_s=20.0)
    due, ends = stretches(plan, peak=400.0, seed=3)
    assert (np.diff(due) >= 0).all()
    assert ends == (20_000_000, 30_000_000)
    rates = np.histogram(due, [0, 20e6, 30e6, 50e6])[0] / [20, 10, 20]
    np.testing.assert_allclose(rates, [100, 800, 100], rtol=0.1)
    assert np.array_equal(due, stretches(plan, peak=400.0, seed=3)[0])


def test_refusing_everybody_keeps_no_promise_to_those_accepted() -> None:
    result = run(accepted_ms=5.0)
    due = result.due_us - result.began_wall_us
    result.status[(due >= ENDS[0]) & (due < ENDS[1])] = 429
    (broken,) = judge_overload(result, ENDS)["broken"]
    assert "accepted p99" in broken
