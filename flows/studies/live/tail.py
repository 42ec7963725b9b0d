"""Latency by condition, and as a policy of its true interval would have it: each condition by its real share.

Days go by in seconds, so that a live study trains far more of its time than the policy would. The mixture of
the conditions by their true shares of a day is what users of the real shop would wait. Intervals (95 %) are
bootstraps over days, which is what repeats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.load.result import LoadResult
from components.measure.latency import Interval as Stretch
from components.measure.latency import Latency, assign_conditions
from infra.clock import DAY_US
from models.metrics import Interval

__all__ = ["CONDITIONS", "MEASURING", "SHOPPING", "Tail", "conditions_of", "tail_of"]

CONDITIONS = ("quiet", "training", "installing")
SHOPPING, MEASURING = "shopping", "measuring"
"""While shoppers beside the load act in process, and while the study itself computes: left out."""
_RESAMPLES = 400
_BEYOND = 10  # requests beyond a percentile, below which it is noise


@dataclass(frozen=True)
class Tail:
    """What requests waited, in ms.

    `by_condition`: count, p50, p90, p99, p99_9 (None where too few are beyond it) of each, and of those left
    out; `share`: of a real day, of each condition; `recombined`: p50, p99, p99_9 of the mixture; `p99_moved`:
    the mixture's p99 less the quiet one, and `p99_training_moved`: the p99 while training less the quiet one.
    """

    by_condition: Mapping[str, Mapping[str, Any]]
    share: Mapping[str, float]
    recombined: Mapping[str, float | None]
    p99_moved: Interval | None
    p99_training_moved: Interval | None
    p99_recombined: Interval | None = None
    notes: tuple[str, ...] = field(default_factory=tuple)


def conditions_of(
    runs: Sequence[tuple[int, int]],
    swaps: Sequence[Mapping[str, Any]],
    measuring: Sequence[tuple[int, int]],
    shopping: Sequence[tuple[int, int]] = (),
) -> list[Stretch]:
    """When what was under way, wall us; of what overlaps the later counts."""
    found = [Stretch(SHOPPING, begin, end) for begin, end in shopping]
    found += [Stretch("training", begin, end) for begin, end in runs]
    found += [
        Stretch("installing", s["begin_wall_us"], max(s["flip_wall_us"], s["end_wall_us"])) for s in swaps
    ]
    return found + [Stretch(MEASURING, begin, end) for begin, end in measuring]


def tail_of(
    load: LoadResult,
    stretches: Sequence[Stretch],
    *,
    days: int,
    day_ends_us: NDArray[np.int64],
    seed: int = 0,
) -> Tail:
    """The tail of a run of `days` shop days, whose wall stretches end at `day_ends_us` int64 [days]."""
    condition = assign_conditions(load.due_us, stretches)
    ms = load.latency_us / 1e3
    day = np.minimum(np.searchsorted(day_ends_us, load.due_us), days - 1)
    seconds = {
        name: sum(s.end_us - s.begin_us for s in stretches if s.condition == name) / 1e6 / days
        for name in CONDITIONS[1:]
    }
    share = {name: s / (DAY_US / 1e6) for name, s in seconds.items()}
    share = {CONDITIONS[0]: 1.0 - sum(share.values()), **share}
    summary = {
        name: Latency.of(load.latency_us[condition == name]).summary()
        | {"seconds_per_day": round(seconds.get(name, DAY_US / 1e6 - sum(seconds.values())), 3)}
        for name in CONDITIONS
    }
    for name in (SHOPPING, MEASURING):
        summary[name] = Latency.of(load.latency_us[condition == name]).summary()
    mixture = _Mixture(ms, condition, share, day, days)
    drawn = mixture.drawn(seed)
    quiet, training = (int((condition == name).sum()) for name in CONDITIONS[:2])
    enough = quiet * 0.01 >= _BEYOND
    return Tail(
        by_condition=summary,
        share=share,
        recombined={
            name: round(mixture.quantile(q), 3) if quiet * (1 - q) >= _BEYOND else None
            for name, q in (("p50", 0.5), ("p99", 0.99), ("p99_9", 0.999))
        },
        p99_moved=_between(mixture.moved(), drawn[:, 0]) if enough else None,
        p99_training_moved=_between(mixture.training_moved(), drawn[:, 1])
        if enough and training * 0.01 >= _BEYOND
        else None,
        p99_recombined=_between(mixture.quantile(0.99), drawn[:, 2]) if enough else None,
        notes=mixture.notes,
    )


class _Mixture:
    """Requests of each condition, weighed by its share of a day, whatever their number."""

    def __init__(
        self,
        ms: NDArray[np.float64],
        condition: NDArray[np.object_],
        share: Mapping[str, float],
        day: NDArray[np.int64],
        days: int,
    ) -> None:
        order = np.argsort(ms, kind="stable")
        order = order[np.isin(condition[order].astype(str), CONDITIONS)]
        self.ms, self.day, self.days = ms[order], day[order], days
        self.of = {name: condition[order] == name for name in CONDITIONS}
        self.share = share
        self.notes = tuple(
            f"no request met the condition {name}; the mixture is without it"
            for name in CONDITIONS
            if share[name] > 0 and not self.of[name].any()
        )

    def quantile(self, q: float, times: NDArray[np.float64] | None = None) -> float:
        """Of the mixture; `times` float64 [n]: how often each request counts."""
        times = np.ones(len(self.ms)) if times is None else times
        weight = np.zeros(len(self.ms))
        for name, mine in self.of.items():
            total = times[mine].sum()
            if total > 0:
                weight[mine] = times[mine] * self.share[name] / total
        return self._at(weight, q)

    def of_condition(self, name: str, q: float, times: NDArray[np.float64] | None = None) -> float:
        """Of one condition's requests."""
        times = np.ones(len(self.ms)) if times is None else times
        return self._at(np.where(self.of[name], times, 0.0), q)

    def moved(self, times: NDArray[np.float64] | None = None) -> float:
        """The mixture's p99 less the quiet one."""
        return self.quantile(0.99, times) - self.of_condition("quiet", 0.99, times)

    def training_moved(self, times: NDArray[np.float64] | None = None) -> float:
        """The p99 while training less the quiet one; NaN where nothing trained."""
        return self.of_condition("training", 0.99, times) - self.of_condition("quiet", 0.99, times)

    def drawn(self, seed: int) -> NDArray[np.float64]:
        """`moved`, `training_moved` and the mixture's p99 of days drawn with replacement: [resamples, 3]."""
        rng = np.random.default_rng(seed)
        found = np.full((_RESAMPLES, 3), np.nan)
        for r in range(_RESAMPLES if len(self.ms) else 0):
            drawn = np.bincount(rng.integers(0, self.days, self.days), minlength=self.days).astype(float)
            times = drawn[self.day]
            found[r] = self.moved(times), self.training_moved(times), self.quantile(0.99, times)
        return found

    def _at(self, weight: NDArray[np.float64], q: float) -> float:
        share = np.cumsum(weight)
        if not len(share) or not share[-1] > 0:
            return float("nan")
        return float(self.ms[min(int(np.searchsorted(share, q * share[-1])), len(share) - 1)])


def _between(mean: float, drawn: NDArray[np.float64]) -> Interval | None:
    if not np.isfinite(mean):
        return None
    kept = drawn[np.isfinite(drawn)]
    low, high = np.percentile(kept, (2.5, 97.5)).tolist() if len(kept) else (np.nan, np.nan)
    return Interval(round(mean, 3), round(low, 3), round(high, 3))
