"""Judges a load run: VALID or INVALID with reasons, and its figures by condition.

A run is invalid if its numbers would not be about the service (the driver fell behind its own
schedule, too few samples) or if requests failed. It knows nothing of what was asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from components.load.result import LoadResult
from components.measure.latency import Interval, Latency, by_condition

__all__ = ["Limits", "Verdict", "judge"]


@dataclass(frozen=True)
class Limits:
    """When a run counts. `lag` is the driver's own lateness, before any connection was asked for."""

    max_failed: int = 0
    min_requests: int = 1_000  # ten samples beyond p99
    max_lag_p99_ms: float = 5.0
    max_lag_mean_ms: float = 1.0
    min_rate_share: float = 0.98


@dataclass(frozen=True)
class Verdict:
    """The judgement of a run; `figures` is ready for JSON."""

    valid: bool
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    figures: dict[str, Any]

    @property
    def word(self) -> str:
        """VALID or INVALID."""
        return "VALID" if self.valid else "INVALID"


def judge(result: LoadResult, *, intervals: Sequence[Interval] = (), limits: Limits | None = None) -> Verdict:
    """The verdict on a run, its latency split by the intervals in which conditions held.

    The headline is p99 from the due time, failures counted as at least the time-out.
    """
    limits = limits or Limits()
    reasons: list[str] = []
    notes: list[str] = []
    n = len(result)
    if n < limits.min_requests:
        reasons.append(f"{n} requests came due; expected {limits.min_requests} or more: run longer or faster")
    if result.failed > limits.max_failed:
        reasons.append(
            f"{result.failed} of {n} requests failed ({_statuses(result)}); "
            f"expected {limits.max_failed} at most"
        )
    lag = Latency.of(result.lag_us)
    if n and (lag.ms(99) > limits.max_lag_p99_ms or lag.mean_ms > limits.max_lag_mean_ms):
        reasons.append(
            f"the driver fell behind its own schedule (mean {lag.mean_ms:.2f} ms, p99 {lag.ms(99):.2f} ms; "
            f"allowed {limits.max_lag_mean_ms} and {limits.max_lag_p99_ms} ms): give it a free core"
        )
    offered_rate, achieved_rate = _rates(result)
    if n >= limits.min_requests and achieved_rate < limits.min_rate_share * offered_rate:
        reasons.append(
            f"{achieved_rate:.1f} requests a second were answered of {offered_rate:.1f} offered: "
            "the service is saturated, and a longer run would only lengthen the queue"
        )
    if n < result.offered:
        notes.append(f"stopped early: {n} of {result.offered} requests of the trace came due")
    if result.peak_in_flight >= result.connections:
        notes.append(f"all {result.connections} connections were busy at times; waiting counts as latency")
    if result.reactions is not None and (result.reactions.dropped or result.reactions.failed):
        notes.append(
            f"of {result.reactions.offered} replies {result.reactions.dropped} reactions were dropped and "
            f"{result.reactions.failed} POSTs failed ({result.reactions.last_error})"
        )
    figures = {
        "requests": n,
        "failed": result.failed,
        "statuses": _statuses(result),
        "offered_rate": round(offered_rate, 2),
        "achieved_rate": round(achieved_rate, 2),
        "latency_ms": Latency.of(result.latency_us).summary(),
        "by_condition": {
            name: latency.summary()
            for name, latency in by_condition(result.latency_us, result.due_us, intervals).items()
        },
        "driver_lag_ms": {"mean": round(lag.mean_ms, 4), "p99": round(lag.ms(99), 4)} if n else {},
        "driver_cpu_s_per_1000": round(result.cpu_s_per_1000, 4),
        "peak_in_flight": result.peak_in_flight,
        "reconnects": result.reconnects,
        "labels": {
            name: int(np.count_nonzero(result.label == i)) for i, name in enumerate(result.labels) if name
        },
    }
    return Verdict(not reasons, tuple(reasons), tuple(notes), figures)


def _statuses(result: LoadResult) -> dict[str, int]:
    values, counts = np.unique(result.status, return_counts=True)
    names = {0: "connection", -1: "timeout"}
    return {names.get(v, str(v)): c for v, c in zip(values.tolist(), counts.tolist(), strict=True)}


def _rates(result: LoadResult) -> tuple[float, float]:
    """(offered, answered) requests a second over the stretch in which requests were due."""
    if len(result) < 2:
        return 0.0, 0.0
    stretch_us = int(result.due_us[-1] - result.began_wall_us) or 1
    ok = result.ok
    # What was answered later than a second after the last due time was not answered at the offered rate.
    in_time = ok & (result.done_us <= result.due_us[-1] + 1_000_000)
    return len(result) * 1e6 / stretch_us, int(np.count_nonzero(in_time)) * 1e6 / stretch_us
