"""Shop time. One microsecond count since 1970 UTC that may run faster than the wall.

All processes of a home read the same `clock.json`; without one, shop time is wall time.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from infra.files import write_atomic

__all__ = ["DAY_US", "HOUR_US", "SECOND_US", "Clock", "ManualClock", "ScaledClock", "WallClock", "open_clock", "wall_us"]

SECOND_US = 1_000_000
HOUR_US = 3_600 * SECOND_US
DAY_US = 24 * HOUR_US


def wall_us() -> int:
    """Microseconds of wall time since 1970 UTC."""
    return time.time_ns() // 1_000


class Clock(Protocol):
    """Anything that tells shop time."""

    def now_us(self) -> int:
        """Shop time in microseconds since 1970 UTC."""
        ...


@dataclass(frozen=True)
class WallClock:
    """Shop time is wall time."""

    def now_us(self) -> int:
        """Wall time in microseconds."""
        return wall_us()


@dataclass
class ManualClock:
    """A clock that stands until it is set: for tests and replays."""

    time_us: int = 0

    def now_us(self) -> int:
        """The time that was last set."""
        return self.time_us


@dataclass(frozen=True)
class ScaledClock:
    """Shop time runs `rate` times as fast as the wall from a common origin."""

    shop_start_us: int
    wall_start_us: int
    rate: float

    def now_us(self) -> int:
        """Shop time now."""
        return self.shop_start_us + int((wall_us() - self.wall_start_us) * self.rate)

    def wall_of(self, shop_us: int) -> int:
        """The wall time, in microseconds, at which it is `shop_us` in the shop."""
        return self.wall_start_us + int((shop_us - self.shop_start_us) / self.rate)

    def save(self, path: Path) -> None:
        """Make this the clock of a home."""
        write_atomic(path, json.dumps(asdict(self)).encode())


def open_clock(path: Path) -> Clock:
    """The clock of a home: scaled where `clock.json` says so, else the wall."""
    try:
        return ScaledClock(**json.loads(path.read_text()))
    except FileNotFoundError:
        return WallClock()
