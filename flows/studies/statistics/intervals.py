"""Intervals of confidence over slices of time: a circular moving-block bootstrap made for few slices.

Neighbouring slices resemble each other, and there are 8 to 20 of them, so that a plain bootstrap would
be far too sure. Deviations are therefore widened by what blocks of that length miss of an AR(1) series,
and by Student's t. Only differences within a slice belong in here. It knows no model and no policy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from models.metrics import Interval

__all__ = [
    "LEVEL",
    "block_bootstrap",
    "block_length",
    "cluster_error",
    "interval",
    "of_draws",
    "shape_bootstrap",
    "upper_bound",
]

LEVEL = 0.95
_RHO = np.linspace(0.0, 0.8, 41)  # above it, few slices cannot tell a correlation from a trend
_LEAST_TREND = 3  # slices, above which a line can be told from them
_FEWEST_WORLDS = 3  # below which their spread says too little


def block_length(slices: int) -> int:
    """How many slices follow each other in a block: s^(1/3) (Hall, Horowitz & Jing 1995)."""
    return max(1, round(math.cbrt(slices)))


def block_bootstrap(
    values: ArrayLike,
    *,
    block: int | None = None,
    repeats: int = 2_000,
    seed: int = 0,
    worlds: ArrayLike | None = None,
    within: ArrayLike | None = None,
    trend: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """Draws of the columns' means over slices: float64 [repeats, k], from `values` float64 [s, k] or [s].

    Whole rows are resampled, in circular blocks, so that any function of several columns has its interval
    from the same draws. NaN: not available on that slice. `worlds` int [s]: which independent series a
    slice is of; blocks stay in one. `within` float64 [k]: standard error of the means that resampling the
    queries within slices gives (`cluster_error`); draws spread no less, nor less than from world to world.
    `trend` bool [k]: a straight line over the slices is no chance, as where a model that is never
    retrained grows older with each slice. With one slice there is only `within`; without it, NaN.

    The draws' spread is c·t: c² is the variance of the mean of an AR(1) series over what this bootstrap
    makes of it, with each column's bias-corrected lag-1 correlation (Kendall 1954); t has one degree of
    freedom less than there are blocks.
    """
    x = _columns(values)
    n, columns = x.shape
    mean = _mean(x)
    if trend is not None and n > _LEAST_TREND:
        x = np.where(np.asarray(trend, bool), _straightened(x), x)
    plan = _Plan(n, worlds, block, repeats, seed)
    drawn = plan.means(x)
    deviation = (drawn - drawn.mean(0)) * plan.correction(x)
    error = deviation.std(0)
    error[error < 1e-9 * np.abs(np.nan_to_num(mean))] = 0.0  # rounding
    least = np.zeros(columns) if within is None else np.asarray(within, np.float64)
    least = np.maximum(np.where(np.isfinite(least), least, 0.0), _between(x, plan.series) / _t(plan.df))
    if n == 1:
        if within is None:
            return np.full((repeats, columns), np.nan)
        return np.asarray(mean + plan.rng.standard_normal((repeats, 1)) * least)
    short = error < least
    if short.any():  # as wide as is known from elsewhere
        scale = np.divide(least, error, out=np.zeros(columns), where=error > 0)
        same = plan.rng.standard_normal((repeats, 1))
        deviation = np.where(short, np.where(error > 0, deviation * scale, same * least), deviation)
    return np.asarray(mean + deviation * plan.tails())


def shape_bootstrap(
    values: ArrayLike,
    *,
    block: int | None = None,
    repeats: int = 2_000,
    seed: int = 0,
    worlds: ArrayLike | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draws [repeats, k] as resampled, and by what to widen deviations of functions of them [repeats].

    For functions that go wrong far from what was seen, such as a half-life: compute it on each draw, then
    widen its own deviations. One correction for all columns, from their mean lag-1 correlation.
    """
    x = _columns(values)
    plan = _Plan(len(x), worlds, block, repeats, seed)
    told: NDArray[np.bool_] = np.any(np.isfinite(x) & (np.abs(x - _mean(x)) > 0), axis=0)
    factor = float(plan.correction(x, together=told)[0]) if told.any() else 1.0
    return plan.means(x), factor * plan.tails()[:, 0]


def of_draws(mean: float, draws: NDArray[np.float64], *, level: float = LEVEL) -> Interval:
    """The percentile interval of draws [repeats]; NaN draws are left out, without any the bounds are NaN."""
    kept = draws[~np.isnan(draws)]
    if not len(kept):
        return Interval(float(mean), np.nan, np.nan)
    tail = (1 - level) / 2
    low, high = np.quantile(kept, [tail, 1 - tail])
    return Interval(float(mean), float(low), float(high))


def interval(
    values: ArrayLike,
    *,
    block: int | None = None,
    repeats: int = 2_000,
    seed: int = 0,
    worlds: ArrayLike | None = None,
    within: float | None = None,
    trend: bool = False,
    level: float = LEVEL,
) -> Interval:
    """The mean over slices of values float64 [s] (of a difference within the slice), with its interval."""
    x = np.asarray(values, np.float64)
    if not np.isfinite(x).any():
        return Interval(np.nan, np.nan, np.nan)
    error = None if within is None else [within]
    drawn = block_bootstrap(
        x, block=block, repeats=repeats, seed=seed, worlds=worlds, within=error, trend=[trend]
    )
    return of_draws(float(np.nanmean(x)), drawn[:, 0], level=level)


def upper_bound(draws: NDArray[np.float64], *, level: float = LEVEL) -> float:
    """The one-sided upper bound of draws [repeats]; infinite where nothing is known."""
    kept = draws[~np.isnan(draws)]
    return float(np.quantile(kept, level)) if len(kept) else float("inf")


def cluster_error(
    queries: Sequence[NDArray[np.float64]], clusters: Sequence[NDArray[np.int64]] | None = None
) -> NDArray[np.float64]:
    """Standard error of the mean over slices that comes of which queries were asked: float64 [k].

    `queries`: of each slice float64 [q, k], already differences where these are asked for, NaN where not
    available: the mean is then over fewer slices; `clusters`: of each slice int64 [q], e.g. the session;
    None: each query for itself. The linearised equivalent of resampling clusters within each slice, of
    equal weight.
    """
    squared, slices = np.zeros(0), np.zeros(0, np.int64)
    for at, values in enumerate(queries):
        x = np.asarray(values, np.float64)
        x = x[:, None] if x.ndim == 1 else x
        if not len(x):
            continue
        if not len(slices):
            squared, slices = np.zeros(x.shape[1]), np.zeros(x.shape[1], np.int64)
        label = np.arange(len(x)) if clusters is None or not len(clusters) else np.asarray(clusters[at])
        _, group = np.unique(label, return_inverse=True)
        held = np.isfinite(x)
        count = np.maximum(1, held.sum(0))
        residual = np.where(held, x - np.where(held, x, 0.0).sum(0) / count, 0.0)
        n = int(group.max()) + 1
        total = np.stack([np.bincount(group, residual[:, k], n) for k in range(x.shape[1])], axis=1)
        squared += (total**2).sum(0) / count**2 * (n / max(1, n - 1))
        slices += held.any(0)
    return np.asarray(np.sqrt(squared) / np.maximum(1, slices))


class _Plan:
    """Which slices each repeat draws, and by what its spread falls short."""

    def __init__(self, n: int, worlds: ArrayLike | None, block: int | None, repeats: int, seed: int) -> None:
        label = np.zeros(n, np.int64) if worlds is None else np.asarray(worlds)
        self.series = [np.flatnonzero(label == w) for w in np.unique(label)]
        longest = max(len(s) for s in self.series)
        self.length = max(1, min(block or block_length(longest), longest // 2))
        self.df = max(1.0, n / self.length - len(self.series))
        self.rng = np.random.default_rng(seed)
        self.repeats = repeats
        self.weights = np.zeros((repeats, n))
        for rows in self.series:
            size = len(rows)
            starts = self.rng.integers(0, size, (repeats, -(-size // self.length)))
            drawn = (starts[:, :, None] + np.arange(self.length)) % size
            flat = (np.arange(repeats)[:, None] * size + drawn.reshape(repeats, -1)[:, :size]).ravel()
            self.weights[:, rows] = np.bincount(flat, minlength=repeats * size).reshape(repeats, size)

    def means(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean of each column in each repeat: float64 [repeats, k]."""
        held = np.isfinite(x)
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn = (self.weights @ np.where(held, x, 0.0)) / (self.weights @ held)
        return np.asarray(np.where(np.isfinite(drawn), drawn, _mean(x)))

    def tails(self) -> NDArray[np.float64]:
        """What makes normal deviations Student's: float64 [repeats, 1]."""
        return np.asarray(np.sqrt(self.df / self.rng.chisquare(self.df, (self.repeats, 1))))

    def correction(
        self, x: NDArray[np.float64], *, together: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        """By what each column's deviations are to be widened, or all `together`: float64 [k]."""
        mean = _mean(x)
        above, below = np.zeros(x.shape[1]), np.zeros(x.shape[1])
        for rows in self.series:
            d = np.where(np.isfinite(x[rows]), x[rows] - mean, 0.0)
            above += (d[1:] * d[:-1]).sum(0)
            below += (d**2).sum(0)
        rho = np.divide(above, below, out=np.zeros(len(above)), where=below > 0)
        if together is not None:
            rho = np.full(len(rho), rho[together].mean())
        typical = round(float(np.mean([len(s) for s in self.series])))
        rho = np.clip(rho + (1 + 3 * rho) / typical, 0.0, _RHO[-1])
        table = np.array([_missed(typical, min(self.length, max(1, typical)), r) for r in _RHO.tolist()])
        return np.asarray(np.sqrt(np.interp(rho, _RHO, table)))


def _columns(values: ArrayLike) -> NDArray[np.float64]:
    x = np.asarray(values, np.float64)
    return x[:, None] if x.ndim == 1 else x


def _mean(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of each column over what is there: float64 [k]."""
    held = np.isfinite(x)
    count = held.sum(0)
    total = np.where(held, x, 0.0).sum(0)
    return np.asarray(np.divide(total, count, out=np.full(x.shape[1], np.nan), where=count > 0))


def _straightened(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each column less its straight line over the slices, as wide as its n - 2 degrees of freedom say."""
    out = x.copy()
    for k in range(x.shape[1]):
        rows = np.flatnonzero(np.isfinite(x[:, k]))
        if len(rows) > _LEAST_TREND:
            line = np.polyval(np.polyfit(rows, x[rows, k], 1), rows)
            wide = np.sqrt((len(rows) - 1) / (len(rows) - 2))
            out[rows, k] = x[rows, k].mean() + (x[rows, k] - line) * wide
    return out


@lru_cache(maxsize=4096)
def _missed(n: int, length: int, rho: float) -> float:
    """The variance of the mean of n values of an AR(1) series, over what the block bootstrap expects."""
    if n < 2:
        return 1.0
    steps = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    covariance = np.power(rho, steps, where=steps > 0, out=np.ones((n, n)))
    whole, rest = divmod(n, length)
    found = whole * length**2 * _block_variance(covariance, length)
    if rest:
        found += rest**2 * _block_variance(covariance, rest)
    return float(covariance.sum() / found)


def _block_variance(covariance: NDArray[np.float64], length: int) -> float:
    """The expected variance of the means of all circular blocks about the whole mean."""
    n = len(covariance)
    steps = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    shared = sum(np.maximum(0, length - np.abs(steps - turn)) for turn in (0, n))  # blocks that hold both
    return float((covariance * shared).sum() / (n * length**2) - covariance.sum() / n**2)


def _between(x: NDArray[np.float64], series: list[NDArray[np.int64]]) -> NDArray[np.float64]:
    """Half the 95 % interval that the means of several worlds give, as t times their error: float64 [k]."""
    if len(series) < _FEWEST_WORLDS:
        return np.zeros(x.shape[1])
    rows = [_mean(x[s]) for s in series]
    error = np.std(rows, axis=0, ddof=1) / np.sqrt(len(series))
    return np.asarray(error * _t(len(series) - 1.0))


def _t(df: float) -> float:
    return float(stdtrit(df, (1 + LEVEL) / 2))
