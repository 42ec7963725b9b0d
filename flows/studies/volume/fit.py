"""More data against quality: intervals over queries and seeds, a power law, where more data stops paying.

Pure numpy: it sees scores by fraction, seed and test case; it knows no component.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.metrics import Interval

__all__ = ["PowerLaw", "diminishing", "drawn_means", "fit_power_law", "gain_of_more", "of_rounds"]

Floats = NDArray[np.float64]

_EXPONENTS = np.geomspace(0.02, 6.0, 240)
_MORE = 1.1  # ten per cent more data
_GRID = 400  # shares of the data that are looked at for the point of diminishing return


@dataclass(frozen=True)
class PowerLaw:
    """error ≈ a·n^−b + c, n the share of the data (1: all of it), error one less the quality.

    `rms`: of what it leaves; `b_interval`: 95 %, over the resampled test cases and seeds.
    """

    a: float
    b: float
    c: float
    rms: float
    b_interval: Interval | None = None

    def error(self, share: ArrayLike) -> Floats:
        """The error at shares of the data, float64, as many as given."""
        n = np.asarray(share, np.float64)
        found: Floats = self.a * n**-self.b + self.c
        return found


def drawn_means(
    scores: Floats, clusters: NDArray[np.int64], *, rounds: int = 1_000, seed: int = 0
) -> tuple[Floats, Floats]:
    """Mean quality of each fraction, float64 [f], and bootstrap draws of it, float64 [rounds, f].

    `scores` float64 [f, k, n]: by fraction, seed and test case; `clusters` int64 [n]: what is resampled as
    a whole. Seeds and clusters are resampled at once, the same for all fractions, so that differences
    between columns of a draw are paired.
    """
    _, group = np.unique(clusters, return_inverse=True)
    count = np.bincount(group)
    sums = np.stack([[np.bincount(group, row) for row in part] for part in scores])  # [f, k, C]
    rng = np.random.default_rng(seed)
    k, c = scores.shape[1], len(count)
    draws = np.empty((rounds, len(scores)))
    for r in range(rounds):
        of_seed = np.bincount(rng.integers(0, k, k), minlength=k) / k
        of_cluster = np.bincount(rng.integers(0, c, c), minlength=c)
        draws[r] = np.tensordot(sums @ of_cluster, of_seed, (1, 0)) / (count @ of_cluster)
    return scores.mean(axis=(1, 2)), draws


def of_rounds(mean: float, draws: Floats) -> Interval:
    """A mean with the 95 % percentile interval of its draws; those that are NaN are left out."""
    held = draws[np.isfinite(draws)]
    if not len(held):
        return Interval(float(mean), np.nan, np.nan)
    low, high = np.quantile(held, [0.025, 0.975])
    return Interval(float(mean), float(low), float(high))


def fit_power_law(shares: ArrayLike, error: ArrayLike, *, draws: Floats | None = None) -> PowerLaw | None:
    """The law of least squares with a, b, c ≥ 0; None with fewer than three shares.

    For each exponent of a grid a and c are linear. `draws` float64 [rounds, f]: of the error, for the
    interval of b. Where the error does not fall, a is 0.
    """
    n, e = np.asarray(shares, np.float64), np.asarray(error, np.float64)
    if len(n) < 3 or not np.isfinite(e).all():
        return None
    a, b, c = (float(x[0]) for x in _fit(n, e[None, :]))
    left = float(np.sqrt(np.mean((a * n**-b + c - e) ** 2)))
    interval = None if draws is None else of_rounds(b, _fit(n, draws)[1])
    return PowerLaw(a, b, c, left, interval)


def _fit(n: Floats, errors: Floats) -> tuple[Floats, Floats, Floats]:
    """a, b, c float64 [rows] of errors [rows, f]."""
    best: Floats = np.full(len(errors), np.inf)
    found: Floats = np.stack([np.zeros(len(errors)), np.full(len(errors), _EXPONENTS[0]), errors.mean(1)])
    for b in _EXPONENTS:
        x = n**-b
        around = x - x.mean()
        a = np.maximum(0.0, (errors @ around) / (around @ around))
        c = errors.mean(1) - a * x.mean()
        through = np.maximum(0.0, errors @ x / (x @ x))  # c would be below 0: through the origin
        a, c = np.where(c < 0, through, a), np.maximum(c, 0.0)
        left = ((a[:, None] * x + c[:, None] - errors) ** 2).sum(1)
        better = left < best - 1e-15
        best = np.where(better, left, best)
        found = np.where(better, np.stack([a, np.full(len(a), b), c]), found)
    return found[0], found[1], found[2]


def gain_of_more(law: PowerLaw, share: ArrayLike) -> Floats:
    """What ten per cent more data than each share brings, by the law."""
    n = np.asarray(share, np.float64)
    found: Floats = law.error(n) - law.error(n * _MORE)
    return found


def diminishing(law: PowerLaw, *, least: float, margin: float) -> float | None:
    """The first share from `least` on where ten per cent more data brings less than `margin`.

    None where all of the data is not enough for that.
    """
    shares = np.linspace(least, 1.0, _GRID)
    enough = np.flatnonzero(gain_of_more(law, shares) < margin)
    return float(shares[enough[0]]) if len(enough) else None
