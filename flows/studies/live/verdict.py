"""Whether the live system did what the study predicted: an equivalence test within the declared margin.

Paired by day: what fresh weights added live, less what the study said they would add on that very day. A
model that is never retrained grows older by the day, so that a line over the days is no chance. It knows
neither services nor models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flows.studies.live.predict import Predicted
from flows.studies.statistics.intervals import cluster_error, interval
from models.metrics import Interval

__all__ = [
    "AGREES",
    "DISAGREES",
    "FEWEST_DAYS",
    "NOT_PREDICTED",
    "NOT_SETTLED",
    "Scored",
    "Verdict",
    "judged",
    "mean_of_days",
]

AGREES, DISAGREES, NOT_SETTLED = "agrees", "disagrees", "not settled"
NOT_PREDICTED = "not predicted"
FEWEST_DAYS = 3  # days, below which nothing is settled


@dataclass(frozen=True)
class Scored:
    """The arms on one day: NDCG@10 of each query float64 [q] in the order frozen, state_fresh, full [q, 3].

    `sessions` int64 [q]; `day`: counted from the first live one; `fresh`: whether a release that the policy
    made was live all the while.
    """

    day: int
    queries: NDArray[np.float64]
    sessions: NDArray[np.int64]
    fresh: bool

    def joined(self, later: Scored) -> Scored:
        """Both scorings of one day."""
        return Scored(
            self.day,
            np.concatenate([self.queries, later.queries]),
            np.concatenate([self.sessions, later.sessions]),
            self.fresh and later.fresh,
        )

    @property
    def weights(self) -> NDArray[np.float64]:
        """full − state_fresh of each query."""
        return np.asarray(self.queries[:, 2] - self.queries[:, 1])


@dataclass(frozen=True)
class Verdict:
    """`difference`: NDCG@10 that fresh weights added live, less predicted; `word`: agrees where its whole
    interval is within the margin, disagrees where it is all beyond, not settled else; over so many `days`."""

    word: str
    difference: Interval | None
    live: Interval | None
    predicted: Interval | None
    margin: float
    days: int
    interval: str = ""
    declared_wall_us: int = 0
    note: str = ""


def judged(predicted: Predicted | None, scored: Sequence[Scored], *, margin: float, seed: int) -> Verdict:
    """The verdict on one policy, by the days on which a release of its own was live."""
    days = [s for s in scored if s.fresh]
    live = mean_of_days([s.weights for s in days], [s.sessions for s in days], seed) if days else None
    if predicted is None or not len(predicted.weights):
        note = "" if predicted is None else predicted.note
        return Verdict(NOT_PREDICTED, None, live, None, margin, 0, note=note)
    days = [s for s in days if s.day < len(predicted.weights) and np.isfinite(predicted.weights[s.day])]
    said = predicted.weights[[s.day for s in days]]
    own = interval(said, seed=seed, within=_known(predicted.error), trend=True) if len(said) else None
    found = None
    if len(days):
        gaps = np.array([s.weights.mean() for s in days]) - said
        error = cluster_error([s.weights for s in days], [s.sessions for s in days])
        within = float(np.hypot(error[0], _known(predicted.error) or 0.0))
        found = interval(gaps, seed=seed, within=within, trend=True)
    return Verdict(
        word=_word(found, margin, len(days)),
        difference=found,
        live=live,
        predicted=own,
        margin=margin,
        days=len(days),
        interval=predicted.interval,
        declared_wall_us=predicted.declared_wall_us,
        note=predicted.note,
    )


def _word(found: Interval | None, margin: float, days: int) -> str:
    if found is None or days < FEWEST_DAYS or not np.isfinite([found.low, found.high]).all():
        return NOT_SETTLED
    if -margin < found.low and found.high < margin:
        return AGREES
    return DISAGREES if found.low > margin or found.high < -margin else NOT_SETTLED


def mean_of_days(
    queries: Sequence[NDArray[np.float64]], sessions: Sequence[NDArray[np.int64]], seed: int
) -> Interval:
    """The mean over one or more days of each one's queries float64 [q], by sessions int64 [q]."""
    error = cluster_error(queries, sessions)
    return interval(np.array([q.mean() for q in queries]), seed=seed, within=float(error[0]), trend=True)


def _known(error: float) -> float | None:
    return None if np.isnan(error) else error
