"""Shop time."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from infra.clock import SECOND_US, ManualClock, ScaledClock, open_clock, wall_us


def test_a_home_without_a_clock_runs_on_wall_time(tmp_path: Path) -> None:
    clock = open_clock(tmp_path / "clock.json")
    assert abs(clock.now_us() - wall_us()) < 60 * SECOND_US


def test_a_saved_clock_is_the_same_for_all(tmp_path: Path) -> None:
    clock = ScaledClock(shop_start_us=5, wall_start_us=wall_us(), rate=4_800.0)
    clock.save(tmp_path / "clock.json")
    clocks = [open_clock(tmp_path / "clock.json") for _ in range(2)]
    first, second = (c.now_us() for c in clocks)
    assert clock.now_us() >= second >= first >= 5


def test_a_clock_that_is_set_later_is_followed(tmp_path: Path) -> None:
    clock = open_clock(tmp_path / "clock.json")
    assert abs(clock.now_us() - wall_us()) < 60 * SECOND_US
    ScaledClock(shop_start_us=77, wall_start_us=wall_us(), rate=0.0).save(tmp_path / "clock.json")
    deadline = wall_us() + 60 * SECOND_US
    while clock.now_us() != 77 and wall_us() < deadline:
        pass
    assert clock.now_us() == 77


def test_a_scaled_clock_runs_at_its_rate() -> None:
    clock = ScaledClock(shop_start_us=1_000, wall_start_us=wall_us() - 10 * SECOND_US, rate=100.0)
    assert 1_000 * SECOND_US <= clock.now_us() - 1_000 < 7_000 * SECOND_US


def test_it_never_runs_backwards() -> None:
    clock = ScaledClock(shop_start_us=0, wall_start_us=wall_us(), rate=3.7)
    times = [clock.now_us() for _ in range(1_000)]
    assert times == sorted(times)


@given(st.integers(0, 2**50), st.integers(0, 2**50), st.floats(0.1, 100_000.0), st.integers(0, 10**12))
def test_wall_of_is_the_inverse(shop: int, wall: int, rate: float, later: int) -> None:
    clock = ScaledClock(shop_start_us=shop, wall_start_us=wall, rate=rate)
    at = clock.wall_of(shop + later)
    assert abs((at - wall) * rate - later) <= max(rate, 1.0) + later * 1e-9


def test_a_manual_clock_stands() -> None:
    clock = ManualClock(7)
    assert [clock.now_us(), clock.now_us()] == [7, 7]
    clock.time_us = 9
    assert clock.now_us() == 9


def test_a_clock_with_an_end_stands_there_for_all(tmp_path: Path) -> None:
    begun = wall_us() - SECOND_US
    ScaledClock(0, begun, 1_000.0, shop_end_us=7 * SECOND_US).save(tmp_path / "clock.json")
    clock = open_clock(tmp_path / "clock.json")
    assert clock.now_us() == clock.now_us() == 7 * SECOND_US
