"""What by age is measured against: policies run one by one, on a random part of their own schedules.

Each policy trains at its own times and shares nothing; a drawn model is scored on the slices at which it
is live. What it costs and how wide its intervals get is compared at equal width. Slices without a live
drawn model tell nothing. It trains nothing and knows no ladder of ages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flows.studies.cells.cell import Cell, Scores
from flows.studies.cells.exact import Policy, cells_of, compose, live
from flows.studies.panels.panel import Panel
from flows.studies.statistics.intervals import cluster_error, interval
from models.metrics import Interval

__all__ = ["FEWEST", "Drawn", "Schedules", "cost_at_width", "half_width", "slope"]

FEWEST = 4  # slices, below which no interval is told
_REPEATS = 500


@dataclass(frozen=True)
class Drawn:
    """One random part: which trainings of each policy (numbers int64 [k]), which slices that tells of
    bool [p, s], and what the trainings cost."""

    trainings: tuple[NDArray[np.int64], ...]
    there: NDArray[np.bool_]
    cpu_s: float

    @property
    def count(self) -> int:
        """Trainings of all policies."""
        return sum(len(t) for t in self.trainings)


@dataclass(frozen=True)
class Schedules:
    """Policies as their own trainings would score.

    `queries`: of each policy and slice float64 [q]; `serving` int64 [p, s]: the number of the live
    training; `counts` int64 [p]: trainings of the whole schedule; `cpu_s` float64 [p]: of one training;
    `clusters`: of each slice int64 [q].
    """

    policies: tuple[Policy, ...]
    queries: tuple[tuple[NDArray[np.float64], ...], ...]
    serving: NDArray[np.int64]
    counts: NDArray[np.int64]
    cpu_s: NDArray[np.float64]
    clusters: tuple[NDArray[np.int64], ...]

    @classmethod
    def of(
        cls,
        policies: Sequence[Policy],
        panel: Panel,
        found: Mapping[Cell, Scores],
        *,
        delay_us: int,
        cpu_s: Mapping[float, float],
    ) -> Schedules:
        """From the cells that `exact.wanted` names. `cpu_s`: of one training, by fraction."""
        times = [np.array([c.trained_us for c in cells_of(p, panel)]) for p in policies]
        return cls(
            tuple(policies),
            tuple(tuple(compose(p, panel, found, delay_us=delay_us)) for p in policies),
            np.array([[live(t, s.start_us, delay_us=delay_us) for s in panel.slices] for t in times]),
            np.array([len(t) for t in times]),
            np.array([cpu_s[p.fraction] for p in policies]),
            tuple(np.asarray(s.clusters) for s in panel.slices),
        )

    def draw(self, share: float, rng: np.random.Generator) -> Drawn:
        """A random `share` of each policy's trainings, at least one; each policy's for itself."""
        drawn = tuple(
            np.sort(rng.choice(n, max(1, round(share * n)), replace=False)) for n in self.counts.tolist()
        )
        there = np.stack([np.isin(row, of) for row, of in zip(self.serving, drawn, strict=True)])
        return Drawn(drawn, there, float(sum(len(d) * c for d, c in zip(drawn, self.cpu_s, strict=True))))

    def mean(self, p: int, on: NDArray[np.bool_], *, less: int | None = None, seed: int = 0) -> Interval:
        """A policy's NDCG@10 on those slices; `less`: its difference from another, paired by query.

        Both bounds are NaN on fewer than `FEWEST` slices.
        """
        at = np.flatnonzero(on).tolist()
        own = [self.queries[p][k] - (0 if less is None else self.queries[less][k]) for k in at]
        if len(at) < FEWEST:
            return Interval(float(np.mean([q.mean() for q in own])) if own else np.nan, np.nan, np.nan)
        within = float(cluster_error(own, [self.clusters[k] for k in at])[0])
        return interval([q.mean() for q in own], repeats=_REPEATS, seed=seed, within=within)

    def widths(self, drawn: Drawn, references: Sequence[int], *, paired: bool) -> NDArray[np.float64]:
        """Half the interval's width of each policy's difference from its reference: float64 [p].

        Unpaired: of two means at times of their own, each with its interval. Paired: on the slices that
        happen to be told of both. NaN where too few are, and of a reference from itself.
        """
        found = np.full(len(self.policies), np.nan)
        own = {} if paired else {p: half_width(self.mean(p, on)) for p, on in enumerate(drawn.there)}
        for p, less in enumerate(references):
            if p == less:
                continue
            if paired:
                found[p] = half_width(self.mean(p, drawn.there[p] & drawn.there[less], less=less))
            else:
                found[p] = np.hypot(own[p], own[less])
        return found


def half_width(found: Interval) -> float:
    """Half the width of an interval; NaN where it has no bounds."""
    return (found.high - found.low) / 2


def cost_at_width(cpu_s: float, width: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    """CPU-seconds at which the widths would be the target's, as widths fall with the root of the cost.

    The median over quantities, of those that both tell.
    """
    ratio = (width / target) ** 2
    told = np.isfinite(ratio)
    return float(cpu_s * np.median(ratio[told])) if told.any() else float("nan")


def slope(cpu_s: Sequence[float], widths: Sequence[float]) -> float:
    """The slope of log width over log cost: -0.5 where widths fall with the root of the cost."""
    return float(np.polyfit(np.log(cpu_s), np.log(widths), 1)[0])
