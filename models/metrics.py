"""Ranking metrics and intervals of confidence. Numpy only, but for the t distribution."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

__all__ = [
    "Interval",
    "bootstrap_mean",
    "discounts",
    "expected_calibration_error",
    "grouped_dcg",
    "grouped_ndcg",
    "mrr",
    "ndcg",
    "precision",
    "recall",
    "successive_mean",
]


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """`{"mean", "low", "high"}`."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


def discounts(k: int) -> NDArray[np.float64]:
    """DCG discounts 1/log2(rank + 1), ranks from 1 (Järvelin & Kekäläinen 2002): float64 [k]."""
    found: NDArray[np.float64] = 1.0 / np.log2(np.arange(2, k + 2))
    return found


def ndcg(gains: ArrayLike, ideal: ArrayLike, k: int = 10) -> float:
    """NDCG@k of gains in served order against the gains of the ideal order; 0 where the ideal has none."""
    got = np.asarray(gains, float)[:k]
    best = -np.sort(-np.asarray(ideal, float))[:k]
    d = discounts(k)
    whole = float(best @ d[: len(best)])
    return float(got @ d[: len(got)]) / whole if whole > 0 else 0.0


def grouped_dcg(
    scores: NDArray[np.float64], gains: NDArray[np.float64], groups: NDArray[np.int32], k: int = 10
) -> NDArray[np.float64]:
    """DCG@k of each query group when ordered by score: float64 [n_groups].

    `scores`, `gains`: [n] in group order; `groups`: sizes, summing to n. Ties keep the given order.
    """
    group = np.repeat(np.arange(len(groups)), groups)
    starts = np.concatenate([[0], np.cumsum(groups)[:-1]])
    d = np.zeros(int(groups.max(initial=0)))
    d[: min(k, len(d))] = discounts(min(k, len(d)))
    order = np.lexsort((-scores, group))
    rank = np.arange(len(group)) - starts[group]
    return np.bincount(group, gains[order] * d[rank], minlength=len(groups)).astype(np.float64)


def grouped_ndcg(
    scores: NDArray[np.float64], gains: NDArray[np.float64], groups: NDArray[np.int32], k: int = 10
) -> NDArray[np.float64]:
    """NDCG@k of each query group, as `grouped_dcg`; NaN for groups without gain."""
    best = grouped_dcg(gains, gains, groups, k)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(best > 0, grouped_dcg(scores, gains, groups, k) / best, np.nan)


def precision(relevant: NDArray[np.bool_], k: int = 10) -> float:
    """The share of the first k that is relevant."""
    return float(np.count_nonzero(relevant[:k])) / k


def recall(relevant: NDArray[np.bool_], total: int, k: int = 100) -> float:
    """The share of all relevant items that is among the first k; 0 where there are none."""
    return float(np.count_nonzero(relevant[:k])) / total if total else 0.0


def mrr(relevant: NDArray[np.bool_]) -> float:
    """The reciprocal rank of the first relevant item; 0 without one."""
    hits = np.flatnonzero(relevant)
    return 1.0 / (int(hits[0]) + 1) if len(hits) else 0.0


def expected_calibration_error(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], *, bins: int = 15
) -> float:
    """How far the likeliest class's probability is from how often it is right (Guo et al., ICML 2017).

    `probabilities` [n, C], `labels` [n] (-1: none of the classes); the mean distance over equally wide bins,
    weighted by their rows; 0 for no rows.
    """
    if not len(labels):
        return 0.0
    sure = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    bin_of = np.minimum((sure * bins).astype(np.int64), bins - 1)
    apart = np.bincount(bin_of, right - sure, minlength=bins)
    return float(np.abs(apart).sum() / len(labels))


def bootstrap_mean(
    values: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    seed: int = 0,
    rounds: int = 1_000,
    level: float = 0.95,
) -> Interval:
    """The mean of values with a percentile bootstrap interval, resampling whole clusters (e.g. sessions).

    NaN values are left out; without any value all three are NaN.
    """
    x = np.asarray(values, float)
    group = np.arange(len(x)) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    held = ~np.isnan(x)
    x, group = x[held], group[held]
    if not len(x):
        return Interval(np.nan, np.nan, np.nan)
    n = int(group.max()) + 1
    total, count = np.bincount(group, x, n), np.bincount(group, minlength=n)
    present = count > 0
    total, count = total[present], count[present]
    rng = np.random.default_rng(seed)
    means = np.empty(rounds)
    for r in range(rounds):
        pick = rng.integers(0, len(total), len(total))
        means[r] = total[pick].sum() / count[pick].sum()
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(x.mean()), float(low), float(high))


def successive_mean(values: ArrayLike, stretches: ArrayLike, *, level: float = 0.95) -> Interval:
    """The mean of values with a t interval whose error is that of stretches which follow each other.

    The error comes of the differences between one stretch's mean and the next's (von Neumann, The mean
    square successive difference, 1941): a trend over the stretches is no chance. Its efficiency is 2/3,
    hence 2(n - 1)/3 degrees of freedom. NaN values are left out; with one stretch the bounds are NaN.
    """
    x = np.asarray(values, float)
    held = ~np.isnan(x)
    x, group = x[held], np.unique(np.asarray(stretches)[held], return_inverse=True)[1]
    if not len(x):
        return Interval(np.nan, np.nan, np.nan)
    mean, n = float(x.mean()), int(group.max()) + 1
    if n < 2:
        return Interval(mean, np.nan, np.nan)
    steps = np.diff(np.bincount(group, x) / np.bincount(group))
    error = float(np.sqrt((steps**2).mean() / 2 / n))
    reach = float(stdtrit(max(1.0, 2 * (n - 1) / 3), (1 + level) / 2)) * error
    return Interval(mean, mean - reach, mean + reach)
