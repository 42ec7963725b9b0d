"""Latencies as HDR histograms: percentiles, merging, and the split by condition.

Microseconds in, milliseconds out. A failed request is recorded as at least the time-out, so that
a service that fails never looks quicker. It knows nothing of HTTP or of who measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

__all__ = ["HIGHEST_US", "QUIET", "Interval", "Latency", "assign_conditions", "by_condition"]

HIGHEST_US = 600 * 1_000_000
QUIET = "quiet"

_DIGITS = 3


@dataclass(frozen=True)
class Interval:
    """A stretch of wall time, `begin_us` ≤ t < `end_us`, in which a condition held."""

    condition: str
    begin_us: int
    end_us: int


def _histogram() -> Any:
    return HdrHistogram(1, HIGHEST_US, _DIGITS)


@dataclass
class Latency:
    """A distribution of latencies, exact to three digits between 1 us and ten minutes."""

    histogram: Any = field(default_factory=_histogram)

    @classmethod
    def of(cls, latencies_us: NDArray[np.int64] | Sequence[int]) -> Latency:
        """The distribution of these latencies, int64 [n] in us; above ten minutes counts as ten minutes."""
        made = cls()
        values, counts = np.unique(
            np.clip(np.asarray(latencies_us, np.int64), 1, HIGHEST_US), return_counts=True
        )
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            made.histogram.record_value(value, count)
        return made

    @classmethod
    def decode(cls, text: bytes) -> Latency:
        """What `encode` gave."""
        return cls(HdrHistogram.decode(text))

    def encode(self) -> bytes:
        """HDR's own compressed base64 form, which other people's tools read."""
        return bytes(self.histogram.encode())

    def record(self, latency_us: int) -> None:
        """Add one latency in us."""
        self.histogram.record_value(min(max(latency_us, 1), HIGHEST_US))

    def merge(self, others: Iterable[Latency]) -> Latency:
        """A new distribution of this and the others together."""
        merged = Latency()
        merged.histogram.add(self.histogram)
        for other in others:
            merged.histogram.add(other.histogram)
        return merged

    @property
    def count(self) -> int:
        """How many latencies."""
        return int(self.histogram.get_total_count())

    @property
    def mean_ms(self) -> float:
        """The mean in ms; NaN of nothing."""
        return self.histogram.get_mean_value() / 1_000 if self.count else float("nan")

    @property
    def max_ms(self) -> float:
        """The largest in ms; NaN of nothing."""
        return self.histogram.get_max_value() / 1_000 if self.count else float("nan")

    def ms(self, percentile: float) -> float:
        """The latency in ms at a percentile in [0, 100]; NaN of nothing."""
        return self.histogram.get_value_at_percentile(percentile) / 1_000 if self.count else float("nan")

    def summary(self) -> dict[str, float | int | None]:
        """Count, mean, p50, p90, p99, p99.9 and maximum in ms.

        A percentile with fewer than ten samples beyond it is None: it would be noise.
        """
        found: dict[str, float | int | None] = {"count": self.count}
        if not self.count:
            return found
        found["mean"] = round(self.mean_ms, 3)
        for name, percentile in (("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99_9", 99.9)):
            enough = self.count * (100.0 - percentile) / 100.0 >= 10.0 - 1e-9
            found[name] = round(self.ms(percentile), 3) if enough else None
        found["max"] = round(self.max_ms, 3)
        return found


def assign_conditions(times_us: NDArray[np.int64], intervals: Sequence[Interval]) -> NDArray[np.object_]:
    """The condition at each time: object [n] of str.

    Where intervals overlap the later one in `intervals` wins; outside all of them it is `quiet`.
    """
    found = np.full(len(times_us), QUIET, object)
    for interval in intervals:
        found[(times_us >= interval.begin_us) & (times_us < interval.end_us)] = interval.condition
    return found


def by_condition(
    latencies_us: NDArray[np.int64], times_us: NDArray[np.int64], intervals: Sequence[Interval]
) -> dict[str, Latency]:
    """The latencies split by the condition that held when each request was due."""
    conditions = assign_conditions(times_us, intervals)
    names = dict.fromkeys([QUIET, *(i.condition for i in intervals)])
    return {name: Latency.of(latencies_us[conditions == name]) for name in names}
