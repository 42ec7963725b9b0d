"""The judgement of a run of load."""

from __future__ import annotations

import numpy as np
import pytest

from components.load.result import LoadResult
from components.load.verdict import judge
from components.measure.latency import Interval


def test_the_verdict_splits_by_condition_and_sees_a_late_driver() -> None:
    n = 2_000
    due = np.arange(n, dtype=np.int64) * 1_000 + 1
    slow = np.where((due >= 500_000) & (due < 1_000_000), 9_000, 1_000)
    result = LoadResult(
        due_us=due,
        picked_us=due + 20,
        sent_us=due + 30,
        done_us=due + slow,
        status=np.full(n, 200, np.int16),
        label=np.zeros(n, np.int16),
        size=np.full(n, 100, np.int32),
        labels=("a",),
        began_wall_us=0,
        timeout_s=5.0,
        offered=n,
        connections=8,
        peak_in_flight=2,
        reconnects=0,
        cpu_s=0.1,
    )
    verdict = judge(result, intervals=[Interval("training", 500_000, 1_000_000)])
    assert verdict.valid, verdict.reasons
    split = verdict.figures["by_condition"]
    assert split["training"]["p50"] == pytest.approx(9, rel=0.01)
    assert split["quiet"]["p50"] == pytest.approx(1, rel=0.01)
    assert split["training"]["count"] + split["quiet"]["count"] == n
    late = LoadResult(**{**result.__dict__, "picked_us": due + 30_000, "done_us": due + 31_000})
    assert "its own schedule" in judge(late).reasons[0]
    slow_tail = LoadResult(**{**result.__dict__, "done_us": due + np.arange(n) * 1_500})
    assert any("saturated" in reason for reason in judge(slow_tail).reasons)
