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

__all__ = [
    "DAY_US",
    "HOUR_US",
    "SECOND_US",
    "Clock",
    "HomeClock",
    "ManualClock",
    "ScaledClock",
    "WallClock",
    "open_clock",
    "wall_us",
]

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
    """Shop time runs `rate` times as fast as the wall from a common origin; at rate 0 it stands.

    From `shop_end_us` on it stands, in all processes alike, until another clock is set.
    """

    shop_start_us: int
    wall_start_us: int
    rate: float
    shop_end_us: int | None = None

    def now_us(self) -> int:
        """Shop time now."""
        now = self.shop_start_us + int((wall_us() - self.wall_start_us) * self.rate)
        return now if self.shop_end_us is None else min(now, self.shop_end_us)

    def wall_of(self, shop_us: int) -> int:
        """The wall time, in microseconds, at which it is `shop_us` in the shop."""
        return self.wall_start_us + int((shop_us - self.shop_start_us) / self.rate)

    def save(self, path: Path) -> None:
        """Make this the clock of a home."""
        write_atomic(path, json.dumps(asdict(self)).encode())


class HomeClock:
    """The clock of a home as its `clock.json` says now: what is set there holds for all processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = (-1, -1)
        self._look_at_ns = 0
        self._clock: Clock = WallClock()

    def now_us(self) -> int:
        """Shop time now. A change of the file is seen within 50 ms."""
        now_ns = time.monotonic_ns()
        if now_ns >= self._look_at_ns:
            self._look_at_ns = now_ns + 50_000_000
            self._look()
        return self._clock.now_us()

    def _look(self) -> None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._clock, self._seen = WallClock(), (-1, -1)
            return
        seen = found.st_mtime_ns, found.st_ino  # two files of one tick of the file system's clock differ
        if seen != self._seen:
            self._clock = ScaledClock(**json.loads(self._path.read_text()))
            self._seen = seen


def open_clock(path: Path) -> Clock:
    """The clock of a home: scaled where `clock.json` says so, else the wall."""
    return HomeClock(path)
