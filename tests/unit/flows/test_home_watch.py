"""What counts as growth over many cycles: a trend that is surely above its bound, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.home_watch import FEWEST, GROWTH, RECORDS_MB, Sample, broken_bounds, trend, turned_over
from data.parts import RETIRE_US

CYCLES = np.arange(50)


def noisy(level: float, slope: float, *, sd: float = 2.0) -> list[float | None]:
    rng = np.random.default_rng(3)
    return list(level + slope * CYCLES + rng.normal(0.0, sd, len(CYCLES)))


@pytest.mark.parametrize("slope", [0.0, 2.0])
def test_a_trend_has_its_slope_in_its_interval(slope: float) -> None:
    found = trend(noisy(500.0, slope))
    assert found["low"] <= slope <= found["high"]
    assert found["low"] < found["slope"] < found["high"]
    assert len(found["by_cycle"]) == len(CYCLES)


def test_what_rises_at_first_and_stays_is_flat() -> None:
    values = [float(min(c, 10)) * 30 for c in CYCLES]
    found = trend(values)
    assert (found["slope"], found["first"], found["last"], found["max"]) == (0.0, 0.0, 300.0, 300.0)


def test_few_cycles_say_nothing_and_missing_ones_are_left_out() -> None:
    assert trend([1.0, 2.0] * (FEWEST // 2))["slope"] is None
    assert broken_bounds({"replica": trend([1.0, 900.0])}, {}) == []
    gaps: list[float | None] = [None if c % 3 else 10.0 + c for c in CYCLES]
    assert trend(gaps)["slope"] == pytest.approx(1.0)


def test_only_growth_that_is_sure_and_above_its_bound_breaks_a_promise() -> None:
    bound = GROWTH["memory"] * 500.0
    assert broken_bounds({"replica": trend(noisy(500.0, 0.0))}, {}) == []
    assert broken_bounds({"replica": trend(noisy(500.0, bound / 2))}, {}) == []
    (told,) = broken_bounds({"replica": trend(noisy(500.0, 4 * bound))}, {})
    assert told.startswith("memory of replica grows by +2.0")
    grows = trend([float(c) / 2 for c in CYCLES])
    (told,) = broken_bounds({}, {"segments": grows, "mlflow": grows, "total": grows})
    assert told.startswith("disk of segments grows")
    assert broken_bounds({}, {"prefect": trend([2 * RECORDS_MB * float(c) for c in CYCLES])})


def test_the_disk_is_judged_once_what_was_replaced_is_gone() -> None:
    def at(wall_us: int, expired: bool) -> Sample:
        return Sample({}, {}, wall_us, expired)

    filling = [at(0, False), at(100, True), at(200, True)]
    assert turned_over(filling) == 3
    assert turned_over([at(0, False), at(RETIRE_US * 2, False)]) == 2  # nothing was ever removed
    assert turned_over([*filling, at(RETIRE_US + 99, True), at(RETIRE_US + 100, True)]) == 4
    fills = [float(min(c, 60)) for c in range(80)]
    assert trend(fills, begin=60)["slope"] == 0.0
    assert trend(fills)["slope"] > 0.5
    assert trend(fills, begin=80)["slope"] is None
