"""What by age is measured against: policies run one by one, on a random part of their own schedules.

Each policy trains at its own times and shares nothing; a drawn model is scored on the slices at which it
is live. What it costs and how wide its intervals get is compared at equal width. Slices without a live
drawn model tell nothing. It trains nothing and knows no ladder of ages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flows.studies.cells.cell import Cell, Scores
from flows.studies.cells.exact import Policy, cells_of, compose, live
from flows.studies.panels.panel import Panel
from flows.studies.statistics.intervals import cluster_error, interval
from models.metrics import Interval

__all__ = ["FEWEST", "Drawn", "Schedules", "half_width", "slope"]

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
    _known: dict[tuple[int, int | None], tuple[NDArray[np.float64], NDArray[np.float64]]] = field(
        default_factory=dict, repr=False, compare=False
    )

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
        values, errors = self._by_slice(p, less)
        count = int(on.sum())
        if count < FEWEST:
            return Interval(float(values[on].mean()) if count else np.nan, np.nan, np.nan)
        within = float(np.sqrt((errors[on] ** 2).sum()) / count)
        return interval(values[on], repeats=_REPEATS, seed=seed, within=within)

    def _by_slice(self, p: int, less: int | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of each slice the mean and its standard error over queries: float64 [s] each."""
        if (p, less) not in self._known:
            own = self.queries[p]
            if less is not None:
                own = tuple(a - b for a, b in zip(own, self.queries[less], strict=True))
            errors = [cluster_error([q], [c])[0] for q, c in zip(own, self.clusters, strict=True)]
            self._known[p, less] = np.array([q.mean() for q in own]), np.array(errors)
        return self._known[p, less]

    def widths(
        self, there: NDArray[np.bool_], references: Sequence[int | None], *, paired: bool
    ) -> NDArray[np.float64]:
        """Half the interval's width of each policy's difference from its reference: float64 [p].

        `there` bool [p, s]: which slices tell of a policy; a reference None: of the policy's own mean.
        Unpaired: a difference of two means at times of their own, each with its interval. Paired: on the
        slices that happen to tell of both. NaN where too few do, and of a policy from itself.
        """
        found = np.full(len(self.policies), np.nan)
        alone = {} if paired else {p: half_width(self.mean(p, on)) for p, on in enumerate(there)}
        for p, less in enumerate(references):
            if p == less:
                continue
            if less is None:
                found[p] = half_width(self.mean(p, there[p])) if paired else alone[p]
            elif paired:
                found[p] = half_width(self.mean(p, there[p] & there[less], less=less))
            else:
                found[p] = np.hypot(alone[p], alone[less])
        return found


def half_width(found: Interval) -> float:
    """Half the width of an interval; NaN where it has no bounds."""
    return (found.high - found.low) / 2


def slope(cpu_s: Sequence[float], widths: Sequence[float]) -> float:
    """The slope of log width over log cost: -0.5 where widths fall with the root of the cost."""
    return float(np.polyfit(np.log(cpu_s), np.log(widths), 1)[0])
