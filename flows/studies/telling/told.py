"""Policies as they were scored on the slices, and the intervals of what lies between them.

Differences are paired by query, and all policies stand on the same slices. It runs and decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from flows.studies.cells.age_runs import AgeRun
from flows.studies.cells.asks import IntervalAsk, duration_us
from flows.studies.statistics.intervals import cluster_error, interval
from infra.clock import DAY_US
from models.metrics import Interval

__all__ = ["Told", "bounded", "policies_of", "shortest_of", "span", "worlds_of"]


@dataclass(frozen=True)
class Told:
    """One policy as it was scored: by slice float64 [s], and by query of each slice."""

    component: str
    name: str
    interval_us: int | None
    fraction: float
    by_slice: NDArray[np.float64]
    by_query: list[NDArray[np.float64]]
    cpu_s_per_day: float


def policies_of(component: str, runs: Sequence[AgeRun], ask: IntervalAsk, delay_us: int) -> list[Told]:
    """Each policy's quality, over the slices of all worlds."""
    found = []
    for name in ask.intervals:
        for fraction in ask.fractions:
            length = duration_us(name)
            queries = [q for r in runs for q in r.under(length, fraction, delay_us=delay_us)]
            cpu_s = float(np.mean([r.training_cpu_s(length, fraction) for r in runs]))
            told = Told(component, name, length, fraction, np.empty(0), queries, 0.0)
            found.append(replace(told, cpu_s_per_day=0.0 if length is None else cpu_s * DAY_US / length))
    return on_common_slices(found)


def on_common_slices(told: Sequence[Told]) -> list[Told]:
    """The same with the slices that every policy has, so that none gains by which slices it lacks.

    A policy that lacks half of the slices or more keeps no other from them, and has what it has.
    """
    there = np.array([[bool(len(q)) and bool(np.isfinite(q).all()) for q in t.by_query] for t in told])
    usual = there[there.mean(1) > 0.5]
    common = usual.all(0) if len(usual) else np.ones(there.shape[1], bool)
    found = []
    for t, own in zip(told, there, strict=True):
        kept = (own & common).tolist()
        queries = [q if k else np.empty(0) for q, k in zip(t.by_query, kept, strict=True)]
        means = np.array([q.mean() if len(q) else np.nan for q in queries])
        found.append(replace(t, by_slice=means, by_query=queries))
    return found


def shortest_of(told: Sequence[Told]) -> Told:
    """The shortest interval on most data."""
    return min(told, key=lambda t: (np.inf if t.interval_us is None else t.interval_us, -t.fraction))


def span(told: Told, less: Told | None, runs: Sequence[AgeRun], seed: int) -> Interval:
    """A policy's NDCG@10, or its difference from another one, paired by query."""
    queries = told.by_query
    values = told.by_slice
    if less is not None:
        pairs = zip(queries, less.by_query, strict=True)
        queries = [a - b if len(a) == len(b) else np.empty(0) for a, b in pairs]
        values = values - less.by_slice
    clusters = [c for r in runs for c in r.clusters]
    within = cluster_error(queries, clusters)
    return interval(
        values, seed=seed, worlds=worlds_of(runs), within=float(within[0]) if len(within) else None
    )


def bounded(found: Interval) -> Interval:
    """An NDCG's interval, which ends at 0 and 1 however few slices there are."""
    return Interval(found.mean, max(found.low, 0.0), min(found.high, 1.0))


def worlds_of(runs: Sequence[AgeRun]) -> NDArray[np.int64] | None:
    """Which world each slice is of, int64 [s]; None where there is one."""
    if len(runs) == 1:
        return None
    return np.repeat(np.arange(len(runs)), [len(r.panel.slices) for r in runs])
