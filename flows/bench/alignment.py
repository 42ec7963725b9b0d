"""What a swap does to latency: requests aligned to the flip, installing against quiet, with intervals.

Plain arrays of wall times in and figures out; it knows neither services nor releases. Intervals are
percentile bootstraps (95 %) over flips and over stretches of quiet, which is what repeats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "AFTER_MS",
    "BIN_MS",
    "Aligned",
    "Window",
    "aligned",
    "excess",
    "group_of",
    "longest_gap_ms",
    "summary_ms",
    "tail_ratio",
    "within",
]

BIN_MS = 10.0
AFTER_MS = 50.0  # after the flip: where its own cost would show
_RANGE_MS = (-300.0, 700.0)
_RESAMPLES = 400
_FEWEST = 5  # requests in a bin below which its median is not given

Window = tuple[int, int]
"""Wall microseconds, begin ≤ t < end."""


@dataclass(frozen=True)
class Aligned:
    """Latency around the flips: arrays [bins]; times are the bins' beginnings in ms from the flip.

    median, low, high: of the requests due in the bin, in ms; NaN where there were hardly any.
    """

    at_ms: NDArray[np.float64]
    median: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    requests: NDArray[np.int64]

    def to_json(self) -> dict[str, list[float | None]]:
        """Lists, None for NaN."""
        return {
            name: [None if np.isnan(v) else round(float(v), 3) for v in getattr(self, name).astype(float)]
            for name in ("at_ms", "median", "low", "high", "requests")
        }


def aligned(
    due_us: NDArray[np.int64], latency_ms: NDArray[np.float64], flips_us: Sequence[int], *, seed: int = 0
) -> Aligned:
    """Latency in bins of `BIN_MS` around the flips; the interval is a bootstrap over flips."""
    edges: NDArray[np.float64] = np.arange(_RANGE_MS[0], _RANGE_MS[1] + BIN_MS / 2, BIN_MS, dtype=np.float64)
    bins = len(edges) - 1
    which, at = _around(due_us, flips_us, (int(edges[0] * 1e3), int(edges[-1] * 1e3)))
    place = np.minimum(((which[2] / 1e3 - edges[0]) // BIN_MS).astype(int), bins - 1)
    rng = np.random.default_rng(seed)
    median, low, high = (np.full(bins, np.nan) for _ in range(3))
    counts = np.bincount(place, minlength=bins)
    for b in range(bins):
        mine = place == b
        if counts[b] < _FEWEST:
            continue
        values, flip = latency_ms[at[mine]], which[1][mine]
        median[b] = np.median(values)
        low[b], high[b] = _interval([_resampled(values, flip, rng) for _ in range(_RESAMPLES // 4)])
    return Aligned(edges[:-1], median, low, high, counts)


def excess(
    due_us: NDArray[np.int64],
    latency_ms: NDArray[np.float64],
    flips_us: Sequence[int],
    quiet: NDArray[np.bool_],
    *,
    seed: int = 0,
) -> dict[str, float | None]:
    """Median latency of requests due `AFTER_MS` after flips, less the quiet median: mean, low, high."""
    which, at = _around(due_us, flips_us, (0, int(AFTER_MS * 1e3)))
    if not len(at) or not quiet.any():
        return {"mean": None, "low": None, "high": None, "requests": 0}
    base = float(np.median(latency_ms[quiet]))
    rng = np.random.default_rng(seed)
    values = latency_ms[at]
    low, high = _interval([_resampled(values, which[1], rng) - base for _ in range(_RESAMPLES)])
    return {
        "mean": round(float(np.median(values)) - base, 3),
        "low": round(low, 3),
        "high": round(high, 3),
        "requests": len(at),
    }


def tail_ratio(
    latency_ms: NDArray[np.float64],
    group: NDArray[np.int64],
    quiet_ms: NDArray[np.float64],
    quiet_group: NDArray[np.int64],
    *,
    percentile: float = 99.0,
    seed: int = 0,
) -> dict[str, float | None]:
    """A percentile over the same of the quiet requests: mean, low, high.

    `group`, `quiet_group` int64: the installation, the stretch of quiet, that each belongs to.
    """
    if not len(latency_ms) or not len(quiet_ms):
        return {"mean": None, "low": None, "high": None}
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(_RESAMPLES):
        a = _resample(latency_ms, group, rng)
        b = _resample(quiet_ms, quiet_group, rng)
        found.append(float(np.percentile(a, percentile) / np.percentile(b, percentile)))
    low, high = _interval(found)
    mean = float(np.percentile(latency_ms, percentile) / np.percentile(quiet_ms, percentile))
    return {"mean": round(mean, 3), "low": round(low, 3), "high": round(high, 3)}


def longest_gap_ms(done_us: NDArray[np.int64], windows: Sequence[Window]) -> float:
    """The longest time without a reply that ended within one of the windows; 0 without replies."""
    done = np.sort(done_us)
    if len(done) < 2:
        return 0.0
    gaps, ends = np.diff(done), done[1:]
    inside = within(ends, windows)
    return float(gaps[inside].max() / 1e3) if inside.any() else 0.0


def within(times_us: NDArray[np.int64], windows: Sequence[Window]) -> NDArray[np.bool_]:
    """Which times lie in one of the windows: bool [n]."""
    return group_of(times_us, windows) >= 0


def group_of(times_us: NDArray[np.int64], windows: Sequence[Window]) -> NDArray[np.int64]:
    """The window that each time lies in, -1 none (windows do not overlap): int64 [n]."""
    found = np.full(len(times_us), -1, np.int64)
    for k, (begin, end) in enumerate(windows):
        found[(times_us >= begin) & (times_us < end)] = k
    return found


def _around(
    due_us: NDArray[np.int64], flips_us: Sequence[int], span_us: Window
) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]]:
    """((request, flip, us after the flip), request) of the requests due around each flip; due ascending."""
    flips = np.sort(np.asarray(flips_us, np.int64))
    rows, which, after = [], [], []
    for k, flip in enumerate(flips.tolist()):
        begin, end = np.searchsorted(due_us, (flip + span_us[0], flip + span_us[1]))
        rows.append(np.arange(begin, end))
        which.append(np.full(end - begin, k))
        after.append(due_us[begin:end] - flip)
    if not rows:
        none = np.empty(0, np.int64)
        return (none, none, none), none
    at = np.concatenate(rows)
    return (at, np.concatenate(which), np.concatenate(after)), at


def _resample(
    values: NDArray[np.float64], group: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """The values of groups drawn with replacement."""
    order = np.argsort(group, kind="stable")
    _, starts = np.unique(group[order], return_index=True)
    pieces = np.split(values[order], starts[1:])
    return np.concatenate([pieces[i] for i in rng.integers(len(pieces), size=len(pieces))])


def _resampled(values: NDArray[np.float64], group: NDArray[np.int64], rng: np.random.Generator) -> float:
    return float(np.median(_resample(values, group, rng)))


def _interval(found: Sequence[float]) -> tuple[float, float]:
    low, high = np.percentile(found, (2.5, 97.5)).tolist()
    return low, high


def summary_ms(latency_ms: NDArray[np.float64]) -> dict[str, Any]:
    """p50, p99, p99.9 in ms and how many; None of nothing."""
    if not len(latency_ms):
        return {"p50": None, "p99": None, "p999": None, "requests": 0}
    p50, p99, p999 = np.percentile(latency_ms, (50, 99, 99.9)).round(3).tolist()
    return {"p50": p50, "p99": p99, "p999": p999, "requests": len(latency_ms)}
