"""Counters and histograms of one replica, and their Prometheus text.

Recording is an increment in one thread; it knows nothing of what is counted.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

__all__ = ["BUCKETS_MS", "Gauges", "Metrics"]

BUCKETS_MS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0, 15.0, 25.0, 50.0, 100.0, 250.0, 1_000.0)

Labels = tuple[tuple[str, str], ...]
Level = tuple[dict[str, str], float]
Gauges = dict[str, float | Level | list[Level]]
"""Name → value, or one or several (labels, value)."""


@dataclass
class _Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_MS) + 1))
    sum_ms: float = 0.0


@dataclass
class Metrics:
    """What a replica counted since it started."""

    counters: Counter[tuple[str, Labels]] = field(default_factory=Counter)
    histograms: dict[tuple[str, Labels], _Histogram] = field(default_factory=dict)

    def count(self, name: str, by: int = 1, **labels: str) -> None:
        """Add to a counter."""
        self.counters[name, tuple(labels.items())] += by

    def observe(self, name: str, ms: float, **labels: str) -> None:
        """Add to a histogram of milliseconds."""
        key = (name, tuple(labels.items()))
        histogram = self.histograms.get(key)
        if histogram is None:
            histogram = self.histograms[key] = _Histogram()
        histogram.counts[bisect_left(BUCKETS_MS, ms)] += 1
        histogram.sum_ms += ms

    def text(self, gauges: Gauges) -> str:
        """Prometheus text format 0.0.4."""
        lines: list[str] = []
        seen: set[str] = set()
        for (name, labels), value in sorted(self.counters.items()):
            if name not in seen:
                lines.append(f"# TYPE {name} counter")
                seen.add(name)
            lines.append(f"{name}{_labels(labels)} {value}")
        for (name, labels), histogram in sorted(self.histograms.items()):
            if name not in seen:
                lines.append(f"# TYPE {name} histogram")
                seen.add(name)
            total = 0
            for bound, n in zip(
                [*(f"{b / 1e3:g}" for b in BUCKETS_MS), "+Inf"], histogram.counts, strict=True
            ):
                total += n
                lines.append(f"{name}_bucket{_labels((*labels, ('le', bound)))} {total}")
            lines.append(f"{name}_sum{_labels(labels)} {histogram.sum_ms / 1e3:.6f}")
            lines.append(f"{name}_count{_labels(labels)} {total}")
        for name, gauge in gauges.items():
            levels = (
                gauge if isinstance(gauge, list) else [gauge if isinstance(gauge, tuple) else ({}, gauge)]
            )
            lines.append(f"# TYPE {name} gauge")
            lines += [f"{name}{_labels(tuple(own.items()))} {level:.15g}" for own, level in levels]
        return "\n".join(lines) + "\n"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    pairs = (f'{k}="{_escaped(v)}"' for k, v in labels)
    return "{" + ",".join(pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
