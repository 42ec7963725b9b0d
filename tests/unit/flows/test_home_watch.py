"""What counts as growth over many cycles: a trend that is surely above its bound, and nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks.home_watch import (
    FEWEST,
    GROWTH,
    RECORDS_MB,
    REPLACED,
    broken_bounds,
    look,
    overdue,
    trend,
)
from infra.clock import SECOND_US, wall_us
from infra.settings import Home, Settings

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


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Snapshots published an hour ago: two parts, a floor and a base, and what these replaced and waits."""
    layout = Home(tmp_path)
    events = layout.snapshots / "events"
    events.mkdir(parents=True)
    for name in ("part-1.parquet", "part-2.parquet", "part-0.parquet"):
        (events / name).write_bytes(b"x" * 4096)
    for name in ("floor-1", "floor-2", "floor-3", "base-7"):
        state(layout, name)
    (layout.snapshots / "base.json").write_text(json.dumps({"folder": "base-7"}))
    publish(layout, retired={"part-0.parquet": ago_us(3_900)})
    for path in [*layout.snapshots.iterdir(), *events.iterdir()]:
        aged(path, 3_600)
    aged(layout.snapshots / "floor-2", 3_900)
    aged(events / "part-0.parquet", 9_000)
    return layout


def state(layout: Home, name: str) -> Path:
    folder = layout.snapshots / name
    folder.mkdir()
    (folder / "state.npz").write_bytes(b"x" * 4096)
    return folder


def publish(layout: Home, *, retired: dict[str, int]) -> None:
    parts = [{"file": "part-1.parquet"}, {"file": "part-2.parquet"}]
    status = {"schema": 1, "parts": parts, "retired": retired, "floor": {"state": "floor-3"}}
    (layout.snapshots / "status.json").write_text(json.dumps(status))


def ago_us(seconds: int) -> int:
    return wall_us() - seconds * SECOND_US


def aged(path: Path, seconds: int) -> None:
    os.utime(path, ns=(ago_us(seconds) * 1_000,) * 2)


def test_what_was_replaced_is_told_apart(home: Home) -> None:
    disk = look(Settings(home=home.root)).disk_mb
    assert disk[REPLACED] == pytest.approx(3 * 4096 / 1e6)  # a part, two floors
    assert disk["snapshots"] == pytest.approx((4 + 2) * 4096 / 1e6)  # two parts, floor, base; documents


def test_what_was_replaced_has_ten_minutes_and_not_more(home: Home) -> None:
    assert overdue(home) == ()
    aged(home.snapshots / "floor-2", 3_600 + 620)  # floor-1 was replaced by it, so long before floor-3
    assert overdue(home) == ("floor-1",)
    publish(home, retired={"part-0.parquet": ago_us(3_600 + 620)})
    assert overdue(home) is None  # it may just be at it
    aged(home.snapshots / "status.json", 3_600)
    assert overdue(home) == ("floor-1", "part-0.parquet")
    publish(home, retired={})
    aged(home.snapshots / "status.json", 3_600)
    assert overdue(home) == ("floor-1", "part-0.parquet")  # nothing names it, nothing ever will remove it


@pytest.mark.parametrize("name", ["base-6", "floor-4", ".floor-5.tmp", "events/.part-3.parquet.tmp"])
def test_what_nothing_names_has_no_time_at_all(home: Home, name: str) -> None:
    left = state(home, name)
    assert overdue(home) == ()  # it may be what the next publication will name
    aged(left, 3_700)
    assert overdue(home) == (left.name,)


def test_steps_of_what_waits_are_no_growth() -> None:
    grows = trend([float(c) for c in CYCLES])
    assert broken_bounds({}, {REPLACED: grows}) == []
    assert len(broken_bounds({}, {"snapshots": grows})) == 1
