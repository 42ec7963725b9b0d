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

__all__ = ["LEVEL", "block_bootstrap", "block_length", "cluster_error", "interval", "of_draws", "upper_bound"]

LEVEL = 0.95
_RHO = np.linspace(0.0, 0.8, 41)  # above it, few slices cannot tell a correlation from a trend
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
) -> NDArray[np.float64]:
    """Draws of the columns' means over slices: float64 [repeats, k], from `values` float64 [s, k] or [s].

    Whole rows are resampled, in circular blocks, so that any function of several columns has its interval
    from the same draws. NaN: not available on that slice. `worlds` int [s]: which independent series a
    slice is of; blocks stay in one. `within` float64 [k]: standard error of the means that resampling the
    queries within slices gives (`cluster_error`); draws spread no less, nor less than from world to world.
    With one slice there is only `within`; without that the draws are NaN.

    The draws' spread is c·t: c² is the variance of the mean of an AR(1) series over what this bootstrap
    makes of it, with each column's bias-corrected lag-1 correlation (Kendall 1954); t has one degree of
    freedom less than there are blocks.
    """
    x = np.asarray(values, np.float64)
    x = x[:, None] if x.ndim == 1 else x
    n, columns = x.shape
    held = np.isfinite(x)
    flat = np.where(held, x, 0.0)
    count = held.sum(0)
    mean = np.divide(flat.sum(0), count, out=np.full(columns, np.nan), where=count > 0)
    series = _series(n, worlds)
    rng = np.random.default_rng(seed)
    length = block or block_length(max(len(s) for s in series))
    length = max(1, min(length, max(len(s) for s in series) // 2))
    weights = np.zeros((repeats, n))
    for rows in series:
        _draw_blocks(weights, rows, length, rng)
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = (weights @ flat) / (weights @ held)
    drawn = np.where(np.isfinite(drawn), drawn, mean)
    spread = _correction(x, mean, series, length)
    df = max(1.0, n / length - len(series))
    deviation = (drawn - drawn.mean(0)) * spread
    error = deviation.std(0)
    error[error < 1e-9 * np.abs(np.nan_to_num(mean))] = 0.0  # rounding
    least = np.zeros(columns) if within is None else np.asarray(within, np.float64)
    least = np.maximum(np.where(np.isfinite(least), least, 0.0), _between(x, series) / _t(df))
    if n == 1:
        if within is None:
            return np.full((repeats, columns), np.nan)
        return np.asarray(mean + rng.standard_normal((repeats, 1)) * least)
    short = error < least
    if short.any():  # normal deviations of the size that is known from elsewhere
        scale = np.divide(least, error, out=np.zeros(columns), where=error > 0)
        same = rng.standard_normal((repeats, 1))
        wider = np.where(error > 0, deviation * scale, same * least)
        deviation = np.where(short, wider, deviation)
    tails = np.sqrt(df / rng.chisquare(df, (repeats, 1)))
    return np.asarray(mean + deviation * tails)


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
    level: float = LEVEL,
) -> Interval:
    """The mean over slices of values float64 [s] (of a difference within the slice), with its interval."""
    x = np.asarray(values, np.float64)
    if not np.isfinite(x).any():
        return Interval(np.nan, np.nan, np.nan)
    error = None if within is None else [within]
    drawn = block_bootstrap(x, block=block, repeats=repeats, seed=seed, worlds=worlds, within=error)
    return of_draws(float(np.nanmean(x)), drawn[:, 0], level=level)


def upper_bound(draws: NDArray[np.float64], *, level: float = LEVEL) -> float:
    """The one-sided upper bound of draws [repeats]; infinite where nothing is known."""
    kept = draws[~np.isnan(draws)]
    return float(np.quantile(kept, level)) if len(kept) else float("inf")


def cluster_error(
    queries: Sequence[NDArray[np.float64]], clusters: Sequence[NDArray[np.int64]] | None = None
) -> NDArray[np.float64]:
    """Standard error of the mean over slices that comes of which queries were asked: float64 [k].

    `queries`: of each slice float64 [q, k], already differences where these are asked for; `clusters`: of
    each slice int64 [q], e.g. the session; None: each query for itself. The linearised equivalent of
    resampling clusters within each slice, of equal weight.
    """
    squared, slices = 0.0, 0
    for at, values in enumerate(queries):
        x = np.asarray(values, np.float64)
        x = x[:, None] if x.ndim == 1 else x
        if not len(x):
            continue
        slices += 1
        label = np.arange(len(x)) if clusters is None or not len(clusters) else np.asarray(clusters[at])
        _, group = np.unique(label, return_inverse=True)
        held = np.isfinite(x)
        count = np.maximum(1, held.sum(0))
        residual = np.where(held, x - np.where(held, x, 0.0).sum(0) / count, 0.0)
        n = int(group.max()) + 1
        total = np.stack([np.bincount(group, residual[:, k], n) for k in range(x.shape[1])], axis=1)
        squared = squared + (total**2).sum(0) / count**2 * (n / max(1, n - 1))
    if not slices:
        return np.zeros(0)
    return np.asarray(np.sqrt(squared) / slices)


def _series(n: int, worlds: ArrayLike | None) -> list[NDArray[np.int64]]:
    """The rows of each independent series."""
    if worlds is None:
        return [np.arange(n)]
    label = np.asarray(worlds)
    return [np.flatnonzero(label == w) for w in np.unique(label)]


def _draw_blocks(
    weights: NDArray[np.float64], rows: NDArray[np.int64], length: int, rng: np.random.Generator
) -> None:
    """Add to `weights` [repeats, n] how often each of a series' rows is drawn."""
    n, repeats = len(rows), len(weights)
    starts = rng.integers(0, n, (repeats, -(-n // length)))
    drawn = ((starts[:, :, None] + np.arange(length)) % n).reshape(repeats, -1)[:, :n]
    flat = (np.arange(repeats)[:, None] * n + drawn).ravel()
    weights[:, rows] += np.bincount(flat, minlength=repeats * n).reshape(repeats, n)


def _correction(
    x: NDArray[np.float64], mean: NDArray[np.float64], series: list[NDArray[np.int64]], length: int
) -> NDArray[np.float64]:
    """By what each column's deviations are to be widened: float64 [k]."""
    above, below = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for rows in series:
        d = np.where(np.isfinite(x[rows]), x[rows] - mean, 0.0)
        above += (d[1:] * d[:-1]).sum(0)
        below += (d**2).sum(0)
    rho = np.divide(above, below, out=np.zeros(len(above)), where=below > 0)
    typical = round(float(np.mean([len(s) for s in series])))
    rho = np.clip(rho + (1 + 3 * rho) / typical, 0.0, _RHO[-1])
    table = np.array([_missed(typical, min(length, max(1, typical)), r) for r in _RHO.tolist()])
    return np.asarray(np.sqrt(np.interp(rho, _RHO, table)))


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
    rows = [
        np.where(np.isfinite(x[s]), x[s], 0.0).sum(0) / np.maximum(1, np.isfinite(x[s]).sum(0))
        for s in series
    ]
    error = np.std(rows, axis=0, ddof=1) / np.sqrt(len(series))
    return np.asarray(error * _t(len(series) - 1.0))


def _t(df: float) -> float:
    return float(stdtrit(df, (1 + LEVEL) / 2))
