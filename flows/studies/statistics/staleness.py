"""What age does to quality: the staleness curve, its half-life, and what an interval is worth.

Everything is paired within a slice: the same queries with the same candidates, by models of several
ages. It knows no cell, no cost and no policy; `shape` tells kinds of decline apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flows.studies.statistics.intervals import block_bootstrap, cluster_error, of_draws, shape_bootstrap
from infra.clock import DAY_US
from infra.errors import DataError
from models.metrics import Interval

__all__ = [
    "AgeScores",
    "Curve",
    "HalfLife",
    "curve",
    "half_life",
    "interval_quality",
    "over_seeds",
    "span_weights",
]

_GRID = 160  # half-lives that are tried
_SLACK = 1.1  # an age this much short of the one needed is near enough: the line is level beyond it
_LEAST_FIT = 0.5  # of the curve: what a decay explains, if it is one
_FEWEST = 3  # slices that an age has to be on, below which its spread over slices is not known
_BEYOND = 8.0  # times the span of the ages: longer half-lives cannot be told from a straight line


@dataclass(frozen=True)
class AgeScores:
    """Quality by age of one component, at one fraction, start and seed.

    `ages_us` float64 [a], rising: from training to the slice's start; `ndcg` float64 [s, a]: mean over a
    slice's queries, NaN where not available; `queries`: of each slice float64 [q, a]; `never` float64 [s]:
    the horizon-start model; `cpu_s`: mean CPU-seconds of one training. Where known: `starts_us` int64 [s]
    of the slices, `rows` float64 [s, a] of each training, `clusters`: of each slice int64 [q], e.g. the
    session of a query, `window_us` of the trainings (None: all there was).
    """

    ages_us: NDArray[np.float64]
    ndcg: NDArray[np.float64]
    queries: Sequence[NDArray[np.float64]]
    never: NDArray[np.float64]
    cpu_s: float
    starts_us: NDArray[np.int64] | None = None
    rows: NDArray[np.float64] | None = None
    clusters: Sequence[NDArray[np.int64]] = field(default_factory=tuple)
    window_us: int | None = None

    @property
    def ages_d(self) -> NDArray[np.float64]:
        """The ages in days: float64 [a]."""
        return np.asarray(self.ages_us, np.float64) / DAY_US


@dataclass(frozen=True)
class Curve:
    """Loss by age against the youngest model, float64 [a] each; the first is 0. `draws` [repeats, a].

    `plain` [repeats, a], `widen` [repeats]: draws as resampled, for functions of the curve's shape
    (`shape_bootstrap`). `slices` int64 [a]: on how many slices each age was measured.
    """

    ages_d: NDArray[np.float64]
    loss: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    draws: NDArray[np.float64]
    plain: NDArray[np.float64]
    widen: NDArray[np.float64]
    slices: NDArray[np.int64]

    @property
    def told(self) -> NDArray[np.bool_]:
        """The ages on enough slices to say what is chance in them: bool [a]; one of luck is no decay."""
        return np.isfinite(self.loss) & (self.slices >= min(_FEWEST, int(self.slices.max(initial=0))))

    def at(self, age_d: float) -> Interval:
        """The loss at an age between those of the ladder."""
        weights = _point_weights(self.ages_d, age_d)
        return of_draws(float(self.loss @ weights), self.draws @ weights)


@dataclass(frozen=True)
class HalfLife:
    """Days in which half of what a model's freshness is worth is lost, with its 95 % interval.

    `worth`: what a model of age 0 gains over an infinitely old one (extrapolated). `edge`: "" where the
    ages tell it, "short" or "long" where the estimate or a bound stands at the edge of what they can tell.
    """

    mean: float
    low: float
    high: float
    worth: float
    edge: str = ""

    def as_dict(self) -> dict[str, Any]:
        """`{"mean", "low", "high", "worth", "edge"}`."""
        return {n: getattr(self, n) for n in ("mean", "low", "high", "worth", "edge")}


def interval_quality(
    ages_us: ArrayLike, ndcg: ArrayLike, *, interval_us: float, delay_us: float
) -> NDArray[np.float64]:
    """What retraining each `interval_us` is worth on each slice: float64 [s], from `ndcg` float64 [s, a].

    The mean over a uniform age in [delay, delay + interval], of the line through the ages that are there;
    below the youngest age the line is level. NaN where the slice lacks the ages. DataError where the
    ladder itself does.
    """
    ages = np.asarray(ages_us, np.float64)
    values = np.atleast_2d(np.asarray(ndcg, np.float64))
    if interval_us <= 0 or delay_us < 0:
        raise DataError(
            f"interval is {interval_us / DAY_US:g} d after a delay of {delay_us / DAY_US:g} d; "
            "expected an interval above 0 and a delay of at least 0"
        )
    oldest = delay_us + interval_us
    if oldest > ages[-1] * _SLACK:
        raise DataError(
            f"an interval of {interval_us / DAY_US:g} d needs models {oldest / DAY_US:.2f} d old; "
            f"the ladder ends at {ages[-1] / DAY_US:.2f} d: ask for longer ages"
        )
    out = np.full(len(values), np.nan)
    held = np.isfinite(values)
    for pattern in np.unique(held, axis=0):
        rows = (held == pattern).all(1)
        there = ages[pattern]
        if not len(there) or there[-1] * _SLACK < oldest or there[0] > max(ages[0], delay_us) * _SLACK:
            continue
        out[rows] = values[np.ix_(rows, pattern)] @ span_weights(there, delay_us, oldest)
    return out


def span_weights(ages: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Weights float64 [a] by which values at `ages` give the mean of their line over [low, high]."""
    knots = np.unique(np.concatenate([[low, high], ages[(ages > low) & (ages < high)]]))
    at = np.stack([_point_weights(ages, k) for k in knots.tolist()])
    steps = np.diff(knots)
    return np.asarray(((at[1:] + at[:-1]) / 2 * steps[:, None]).sum(0) / steps.sum())


def over_seeds(scores: Sequence[AgeScores]) -> AgeScores:
    """The mean of the same slices and ages over training seeds.

    Chance in training differs from slice to slice as well, so that intervals over slices hold it.
    """
    first = scores[0]
    if len(scores) == 1:
        return first
    return AgeScores(
        ages_us=first.ages_us,
        ndcg=np.mean([s.ndcg for s in scores], axis=0),
        queries=[np.mean(parts, axis=0) for parts in zip(*(s.queries for s in scores), strict=True)],
        never=np.mean([s.never for s in scores], axis=0),
        cpu_s=float(np.mean([s.cpu_s for s in scores])),
        starts_us=first.starts_us,
        rows=first.rows,
        clusters=first.clusters,
        window_us=first.window_us,
    )


def curve(
    scores: AgeScores,
    *,
    block: int | None = None,
    repeats: int = 2_000,
    seed: int = 0,
    worlds: ArrayLike | None = None,
) -> Curve:
    """Loss by age relative to the youngest model, paired within each slice, with intervals."""
    loss = scores.ndcg[:, :1] - scores.ndcg
    within = (
        cluster_error([q[:, :1] - q for q in scores.queries], scores.clusters)
        if len(scores.queries)
        else None
    )
    draws = block_bootstrap(loss, block=block, repeats=repeats, seed=seed, worlds=worlds, within=within)
    mean = _nanmean(loss)
    found = [of_draws(mean[k], draws[:, k]) for k in range(loss.shape[1])]
    low, high = np.array([i.low for i in found]), np.array([i.high for i in found])
    plain, widen = shape_bootstrap(loss, block=block, repeats=repeats, seed=seed, worlds=worlds)
    slices = np.isfinite(loss).sum(0)
    return Curve(scores.ages_d, mean, low, high, draws, plain, widen, slices)


def half_life(found: Curve) -> HalfLife | None:
    """The half-life of a decay q(age) = c + A·2^(-age / h), A ≥ 0, fitted to the paired curve.

    h is searched on a grid of logarithms, A and c by least squares. The interval is that of the same fit
    to each resampled curve, with the deviations of log h widened for few and correlated slices. None where
    the loss does not rise with age beyond chance (the slope over the logarithm of age is not above zero at
    97.5 %), where the fit explains less than half of the curve (as with what recurs), or where ages on
    enough slices are fewer than three.
    """
    held = found.told
    ages, loss, draws = found.ages_d[held], found.loss[held], found.draws[:, held]
    told = np.isfinite(draws).all(1)
    draws, plain, widen = draws[told], found.plain[told][:, held], found.widen[told]
    if len(ages) < 3 or not len(draws):
        return None
    slope = np.log(np.maximum(ages, ages[-1] * 1e-4))
    slope = slope - slope.mean()
    if not np.quantile(draws @ slope, 0.025) > 0:
        return None
    grid = _half_lives(ages)
    best, worth = _fit(ages, loss[None], grid)
    fitted = -worth[0] * np.exp2(-ages / best[0])
    if not worth[0] > 0 or np.var(loss - fitted) > (1 - _LEAST_FIT) * np.var(loss):
        return None
    drawn, _ = _fit(ages, plain, grid)
    away = np.log(drawn / best[0]) * widen
    low, high = np.clip(best[0] * np.exp(np.quantile(away, [0.025, 0.975])), grid[0], grid[-1])
    low, high = min(low, best[0]), max(high, best[0])
    short, long = low <= grid[0] * 1.001, high >= grid[-1] * 0.999
    edge = "short and long" if short and long else "short" if short else "long" if long else ""
    return HalfLife(float(best[0]), float(low), float(high), float(worth[0]), edge)


def _half_lives(ages: NDArray[np.float64]) -> NDArray[np.float64]:
    """The half-lives that are tried: from half the smallest step of age to well beyond the span."""
    span = float(ages[-1] - ages[0])
    shortest = max(float(np.diff(ages).min()) / 2, span / 500)
    return np.asarray(np.geomspace(shortest, _BEYOND * span, _GRID), np.float64)


def _fit(
    ages: NDArray[np.float64], loss: NDArray[np.float64], grid: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The best half-life and A of each row of `loss` [r, a]; draws without decay go to the longest."""
    basis = -np.exp2(-ages[None, :] / grid[:, None])
    centred = basis - basis.mean(1, keepdims=True)
    y = loss - loss.mean(1, keepdims=True)
    scale = (centred**2).sum(1)
    size: NDArray[np.float64] = np.maximum(0.0, y @ centred.T / scale)  # A of each row and half-life
    gain = size**2 * scale  # what it explains
    gain[:, -1] += 1e-15  # nothing explained: as good as no decay
    best = gain.argmax(1)
    picked: NDArray[np.float64] = size[np.arange(len(loss)), best]
    return grid[best], picked


def _point_weights(ages: NDArray[np.float64], age: float) -> NDArray[np.float64]:
    """Weights float64 [a] of the line through `ages` at one age; level beyond both ends."""
    weights = np.zeros(len(ages))
    at = int(np.clip(np.searchsorted(ages, age), 1, max(1, len(ages) - 1)))
    if len(ages) == 1:
        weights[0] = 1.0
        return weights
    share = float(np.clip((age - ages[at - 1]) / (ages[at] - ages[at - 1]), 0.0, 1.0))
    weights[at - 1], weights[at] = 1.0 - share, share
    return weights


def _nanmean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    held = np.isfinite(values)
    count = held.sum(0)
    total = np.where(held, values, 0.0).sum(0)
    return np.asarray(np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0))
