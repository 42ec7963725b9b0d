"""Stage times: what is remembered, and how it is summed up."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest

from components.measure.spans import NOT_RUN, SpanLog
from infra.errors import ConfigError


def test_summary_counts_only_requests_that_ran_the_stage() -> None:
    log = SpanLog(["plan", "rank"], ["non_ai", "ai"])
    log.record([10, 100])
    log.record([30, NOT_RUN])
    lines = {line.name: line for line in log.summary()}
    assert (lines["plan"].count, lines["plan"].mean_us) == (2, 20.0)
    assert (lines["rank"].count, lines["rank"].p50_us) == (1, 100.0)
    assert lines["total"].mean_us == (110 + 30) / 2
    assert lines["ai"].mean_us == 50.0
    assert lines["non_ai"].mean_us == 20.0


@pytest.mark.parametrize("n", [0, 3, 5, 12])
def test_ring_keeps_the_newest_in_order(n: int) -> None:
    log = SpanLog(["a"], ["ai"], capacity=5)
    for i in range(n):
        log.record([i])
    assert log.rows()[:, 0].tolist() == list(range(n))[-5:]
    assert log.recorded == n


def test_empty_log_sums_up_to_nan_and_clear_forgets() -> None:
    log = SpanLog(["a"], ["ai"])
    assert all(line.count == 0 and math.isnan(line.p99_us) for line in log.summary())
    log.record([4])
    log.clear()
    assert len(log.rows()) == log.recorded == 0


def test_percentiles_are_those_of_numpy() -> None:
    log = SpanLog(["a"], ["ai"])
    values = np.random.default_rng(0).integers(1, 10_000, 1_000)
    for value in values.tolist():
        log.record([value])
    line = log.summary()[0]
    assert [line.p50_us, line.p90_us, line.p99_us] == np.percentile(values, (50, 90, 99)).tolist()


def test_threads_lose_nothing() -> None:
    log = SpanLog(["a"], ["ai"], capacity=10_000)
    threads = [threading.Thread(target=lambda: [log.record([1]) for _ in range(1_000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.rows().sum() == 4_000


@pytest.mark.parametrize(
    ("names", "kinds", "capacity"),
    [(["a", "a"], ["ai", "ai"], 1), (["a"], ["magic"], 1), (["a"], [], 1), (["a"], ["ai"], 0)],
)
def test_impossible_logs_are_refused(names: list[str], kinds: list[str], capacity: int) -> None:
    with pytest.raises(ConfigError, match="expected"):
        SpanLog(names, kinds, capacity=capacity)
