"""Is an old model worse because it is old, or because it learnt from less?

Where a training reads all there was, older models have fewer rows, so that age and size go together on
one fraction of the data. Nested fractions tell them apart: at equal size, an older model on more of the
data stands beside a younger one on less. It knows no kind of decline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flows.studies.statistics.intervals import interval
from flows.studies.statistics.staleness import AgeScores
from models.metrics import Interval

__all__ = ["SizeAndAge", "size_and_age"]

_SAME_ROWS = 0.9  # oldest over youngest: above it, trainings count as equally large
_FEWEST = 4  # slices, below which leaving one out says too little


@dataclass(frozen=True)
class SizeAndAge:
    """What the oldest comparable model loses against the youngest, in NDCG@10, over slices.

    `by_size`: for having fewer rows; `at_equal_size`: for its age, at as many rows; `size_over_age`: the
    first less the second. Comparable is what has at least the rows of the youngest on the least fraction.
    """

    by_size: Interval
    at_equal_size: Interval
    size_over_age: Interval

    @property
    def explains(self) -> bool:
        """Whether size explains the loss: it costs beyond chance, more than age does, and age is not shown.

        Or more than age beyond chance. Ten slices seldom prove the latter; a loss to age that is there and
        cannot be shown by them has the larger estimate.
        """
        if not self.by_size.low > 0:
            return False
        return self.size_over_age.low > 0 or (self.at_equal_size.low <= 0 < self.size_over_age.mean)


def size_and_age(scores: AgeScores, fractions: Sequence[AgeScores], *, seed: int = 0) -> SizeAndAge | None:
    """Part the loss of older models into size and age.

    One regression of the quality of all models of a slice, of every age and fraction, on the logarithms of
    rows and age, with a level of its own for each slice; errors by leaving out a slice at a time, as
    correlated as neighbours are. `fractions`: the same component on smaller ones, with `rows`. None where
    trainings are of one size, no fraction is smaller, or the slices are too few.
    """
    parts = [f for f in fractions if f.rows is not None and f.ndcg.shape == scores.ndcg.shape]
    if scores.rows is None or not parts or not scores.ndcg.size:
        return None
    if not np.nanmean(scores.rows[:, -1]) <= _SAME_ROWS * np.nanmean(scores.rows[:, 0]):
        return None
    ladder = [scores, *parts]
    ndcg = np.stack([f.ndcg for f in ladder], axis=1)  # [s, f, a]
    rows = np.stack([np.asarray(f.rows, np.float64) for f in ladder], axis=1)
    held = np.isfinite(ndcg) & (rows > 0)
    young = np.where(held[:, :, 0], rows[:, :, 0], np.inf).min(1)
    held &= rows >= young[:, None, None]
    age = np.broadcast_to(np.log(np.maximum(scores.ages_us, 1.0)), ndcg.shape)
    size = np.log(np.where(held, rows, 1.0))
    use = held[:, 0, 0] & (held[:, 0].sum(1) > 1)  # the youngest on all data, and an older one
    if use.sum() < _FEWEST:
        return None
    ndcg, held, age, size = ndcg[use], held[use], age[use], size[use]
    oldest = held.shape[2] - 1 - held[:, 0, ::-1].argmax(1)
    each = np.arange(len(held))
    less = float((size[:, 0, 0] - size[each, 0, oldest]).mean())
    older = float((age[each, 0, oldest] - age[:, 0, 0]).mean())
    slopes = _slopes(ndcg, np.stack([size, -age], axis=-1), held)
    if slopes is None:
        return None
    lost = slopes * np.array([less, older])
    return SizeAndAge(
        interval(lost[:, 0], seed=seed),
        interval(lost[:, 1], seed=seed),
        interval(lost[:, 0] - lost[:, 1], seed=seed),
    )


def _slopes(
    y: NDArray[np.float64], x: NDArray[np.float64], held: NDArray[np.bool_]
) -> NDArray[np.float64] | None:
    """Least squares of `y` [s, f, a] on `x` [s, f, a, k] within slices, a pseudo-value each: [s, k].

    Their mean is the jackknife's estimate (Tukey 1958). None where the columns cannot be told apart.
    """
    n = len(y)
    w = held.reshape(n, -1, 1)
    count = w.sum(1, keepdims=True)
    x, y = x.reshape(n, -1, x.shape[-1]), y.reshape(n, -1, 1)
    x = np.where(w, x - np.where(w, x, 0.0).sum(1, keepdims=True) / count, 0.0)
    y = np.where(w, y - np.where(w, y, 0.0).sum(1, keepdims=True) / count, 0.0)
    square = np.einsum("sjk,sjl->skl", x, x)
    along = np.einsum("sjk,sjo->sk", x, y)
    without = square.sum(0) - square
    if (np.linalg.cond(np.concatenate([square.sum(0)[None], without])) > 1e10).any():
        return None
    whole = np.linalg.solve(square.sum(0), along.sum(0))
    left = np.linalg.solve(without, (along.sum(0) - along)[:, :, None])[:, :, 0]
    return np.asarray(n * whole - (n - 1) * left)
