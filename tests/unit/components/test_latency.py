"""HDR latencies: percentiles, merge, honesty about small samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.measure.latency import HIGHEST_US, Interval, Latency, assign_conditions, by_condition


@given(st.lists(st.integers(1, HIGHEST_US), min_size=1, max_size=200))
def test_percentiles_are_those_of_the_values_to_three_digits(values: list[int]) -> None:
    latency = Latency.of(values)
    ordered = np.sort(values)
    for percentile in (50.0, 90.0, 99.0, 100.0):
        rank = max(int(percentile / 100 * len(values) + 0.5), 1)  # HDR's rounding
        assert latency.ms(percentile) * 1_000 == pytest.approx(ordered[rank - 1], rel=2e-3, abs=1)
    assert latency.count == len(values)


@given(
    st.lists(st.integers(1, 10**7), max_size=50),
    st.lists(st.integers(1, 10**7), max_size=50),
)
def test_merging_is_recording_together(one: list[int], two: list[int]) -> None:
    merged = Latency.of(one).merge([Latency.of(two)])
    together = Latency()
    for value in one + two:
        together.record(value)
    assert merged.encode() == together.encode()
    assert Latency.decode(merged.encode()).count == len(one) + len(two)


def test_a_percentile_without_ten_samples_beyond_it_is_not_given() -> None:
    assert Latency.of(range(1, 1_000)).summary()["p99"] is None
    whole = Latency.of(range(1, 1_001)).summary()
    assert whole["p99"] == pytest.approx(0.99, rel=0.01)
    assert whole["p99_9"] is None
    assert Latency().summary() == {"count": 0}
    assert math.isnan(Latency().ms(50))


def test_later_conditions_win_where_intervals_overlap() -> None:
    times = np.array([0, 10, 20, 30, 40])
    intervals = [Interval("training", 5, 35), Interval("installing", 18, 22)]
    assert assign_conditions(times, intervals).tolist() == [
        "quiet",
        "training",
        "installing",
        "training",
        "quiet",
    ]
    split = by_condition(np.array([1, 2, 3, 4, 5]), times, intervals)
    assert {k: v.count for k, v in split.items()} == {"quiet": 2, "training": 2, "installing": 1}
