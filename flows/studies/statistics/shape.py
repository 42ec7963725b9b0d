"""What kind of decline a study saw: smooth decay, an abrupt shift, weekly recurrence, growth, or none.

Each kind has its own test, paired within slices; a report puts the finding into words. Which test comes
first is a rule, not a fit: recurrence contradicts any decay, size explains age before age does, and a
date explains more than age only where it fits better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc

from flows.studies.statistics.choice import MARGIN
from flows.studies.statistics.intervals import block_bootstrap, interval, of_draws
from flows.studies.statistics.sizes import size_and_age
from flows.studies.statistics.staleness import AgeScores, Curve, curve
from models.metrics import Interval

__all__ = ["KINDS", "Shape", "shape"]

KINDS = ("flat", "decay", "shift", "weekly", "growth")
_DATES = 60  # dates that are tried
_BY_CHANCE = 1e-3  # of the F test of the best date, the best of some ten that differ
_FEWEST = 3  # slices after a date, below which nothing is said of it


@dataclass(frozen=True)
class Shape:
    """The kind of decline (one of KINDS), and what it was told from; None where the ages do not tell.

    `loss`: from the youngest to the oldest age, by the slope over the logarithm of age; `weekly`: quality
    of a model of seven days less that of one of three; `shift_us`: the date that explains most, `drop`:
    what a model from before it loses after it, `date_over_age`: log-likelihood, a slice and age, of the
    fit by date less that of the fit by age. Where older trainings are smaller: `by_size` and
    `at_equal_size`, what an old model loses for having fewer rows, and for its age at as many rows;
    `size_over_age` the first less the second. Growth is what `SizeAndAge.explains` says.
    """

    kind: str
    loss: Interval
    weekly: Interval | None = None
    shift_us: int | None = None
    drop: Interval | None = None
    date_over_age: Interval | None = None
    by_size: Interval | None = None
    at_equal_size: Interval | None = None
    size_over_age: Interval | None = None


def shape(
    scores: AgeScores,
    *,
    fractions: Sequence[AgeScores] = (),
    found: Curve | None = None,
    seed: int = 0,
    worlds: NDArray[np.int64] | None = None,
) -> Shape:
    """Tell the kind of decline of `scores`.

    `fractions`: the same component at smaller fractions, with `rows`, without which growth cannot be
    told; `scores.starts_us` likewise for a shift. `found`: the curve of `scores`, if it is there already;
    `worlds` int64 [s]: which world each slice is of, None where there is one.
    """
    found = found or curve(scores, seed=seed, worlds=worlds)
    loss = _loss(found)
    weekly = _weekly(scores, seed, worlds)
    size = size_and_age(scores, fractions, seed=seed)
    date = _shift(scores, seed)
    kind = "flat"
    if weekly is not None and weekly.low > 0:
        kind = "weekly"
    elif size is not None and size.explains:
        kind = "growth"
    elif date is not None and date[3] and date[1].low > 0 and date[2].low > 0:
        kind = "shift"
    elif loss.low > 0 or _first_is_worse(scores, seed, worlds):
        kind = "decay"
    return Shape(
        kind,
        loss,
        weekly,
        *((None, None, None) if date is None else date[:3]),
        *((None, None, None) if size is None else (size.by_size, size.at_equal_size, size.size_over_age)),
    )


def _first_is_worse(scores: AgeScores, seed: int, worlds: NDArray[np.int64] | None) -> bool:
    """Whether the horizon's first model loses more than the margin against the youngest, beyond chance.

    It grows old on every slice, where old models by age are on the later ones only. Its own luck is below
    the margin.
    """
    over = scores.ndcg[:, 0] - scores.never if scores.ndcg.size else np.empty(0)
    return bool(
        np.isfinite(over).sum() > 1 and interval(over, seed=seed, worlds=worlds, trend=True).low > MARGIN
    )


def _loss(found: Curve) -> Interval:
    held = found.told
    if held.sum() < 2:
        return Interval(np.nan, np.nan, np.nan)
    x = np.log(np.maximum(found.ages_d[held], found.ages_d[-1] * 1e-4))
    span, x = float(x[-1] - x[0]), x - x.mean()
    weights = x / (x @ x) * span
    drawn = found.draws[:, held] @ weights
    drawn = drawn[np.isfinite(drawn)]
    mean = float(found.loss[held] @ weights)
    if not len(drawn):
        return Interval(mean, np.nan, np.nan)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(mean, float(low), float(high))


def _at_age(scores: AgeScores, age_d: float) -> NDArray[np.float64]:
    """Quality of each slice at an age, on the line between the ages around it: float64 [s]."""
    ages = scores.ages_d
    at = int(np.clip(np.searchsorted(ages, age_d), 1, len(ages) - 1))
    share = np.clip((age_d - ages[at - 1]) / (ages[at] - ages[at - 1]), 0.0, 1.0)
    left, right = scores.ndcg[:, at - 1], scores.ndcg[:, at]
    return np.asarray(right if share > 0.999 else left if share < 0.001 else left + share * (right - left))


def _weekly(scores: AgeScores, seed: int, worlds: NDArray[np.int64] | None) -> Interval | None:
    if scores.ages_d[0] > 3.0 or scores.ages_d[-1] < 6.9 or len(scores.ages_d) < 2:
        return None
    return interval(_at_age(scores, 7.0) - _at_age(scores, 3.0), seed=seed, worlds=worlds)


def _shift(scores: AgeScores, seed: int) -> tuple[int, Interval, Interval, bool] | None:
    """The date that explains most, the drop at it, how much better than age, and whether beyond chance."""
    if scores.starts_us is None or len(scores.ages_us) < 2:
        return None
    held = np.isfinite(scores.ndcg)
    starts = scores.starts_us.astype(np.float64)
    trained = starts[:, None] - scores.ages_us[None, :]
    y = _centred(scores.ndcg, held)
    dates = np.linspace(trained.min(), starts.max(), _DATES + 2)[1:-1]
    best: tuple[float, float, NDArray[np.float64]] | None = None
    for date in dates.tolist():
        x = _centred(_newer(trained, starts, date, scores.window_us), held)
        told = np.abs(x).max(1) > 1e-9
        if told.sum() < _FEWEST:
            continue
        explained = max(0.0, float((x * y).sum())) ** 2 / float((x**2).sum())
        if best is None or explained > best[0]:
            best = (explained, date, x)
    if best is None or not best[0] > 0:
        return None
    explained, date, x = best
    each = np.stack([(x * y).sum(1), (x**2).sum(1)], axis=1)
    size = float(each[:, 0].sum() / each[:, 1].sum())
    draws = block_bootstrap(each, seed=seed)
    ratio = np.divide(draws[:, 0], draws[:, 1], out=np.full(len(draws), np.nan), where=draws[:, 1] > 0)
    free = int(held.sum() - held.any(1).sum()) - 2
    left = float((y**2).sum()) - explained
    by_chance = (
        float(fdtrc(2.0, float(free), explained / 2 / (left / free))) if free > 0 and left > 0 else 0.0
    )
    by_age = _age_residual(y, held, scores.ages_us)
    better = _likelihood(y - size * x, held) - _likelihood(by_age, held)
    return int(date), of_draws(size, ratio), interval(better, seed=seed), by_chance < _BY_CHANCE


def _likelihood(left: NDArray[np.float64], held: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Log-likelihood of each slice's residuals [s, a] as normal deviates, an age (Vuong 1989): [s]."""
    count = np.maximum(1, held.sum(1))
    variance = max(float((left**2).sum()) / float(held.sum()), 1e-300)
    return np.asarray(-0.5 * ((left**2).sum(1) / count / variance + np.log(variance)))


def _newer(
    trained: NDArray[np.float64], starts: NDArray[np.float64], date: float, window_us: int | None
) -> NDArray[np.float64]:
    """How much of each training [s, a] is from after the date; of no use before it."""
    if window_us is None:
        share = (trained > date).astype(np.float64)
    else:
        share = np.clip((trained - date) / window_us, 0.0, 1.0)
    return np.asarray(np.where(starts[:, None] > date, share, 0.0))


def _age_residual(
    y: NDArray[np.float64], held: NDArray[np.bool_], ages: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What the best decay by age alone leaves of `y` [s, a]."""
    span = float(ages[-1] - ages[0])
    best, left = -1.0, y
    for h in np.geomspace(span / 50, span * 8, 60).tolist():
        x = _centred(np.broadcast_to(np.exp2(-ages / h), y.shape), held)
        along, scale = max(0.0, float((x * y).sum())), float((x**2).sum())
        if scale > 0 and along**2 / scale > best:
            best, left = along**2 / scale, y - along / scale * x
    return left


def _centred(values: NDArray[np.float64], held: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Each row less its mean over what is held; 0 elsewhere."""
    x = np.where(held, values, 0.0)
    mean = x.sum(1) / np.maximum(1, held.sum(1))
    return np.asarray(np.where(held, values - mean[:, None], 0.0))
