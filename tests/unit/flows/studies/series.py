"""Series of slices and ages with known answers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flows.studies.statistics.staleness import AgeScores
from infra.clock import DAY_US

AGES_D = np.array([0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 7.0, 14.0])


def scores_of(
    ndcg: NDArray[np.float64], *, rows: NDArray[np.float64] | None = None, window_d: float | None = 2.0
) -> AgeScores:
    starts = np.arange(len(ndcg)) * DAY_US + 100 * DAY_US
    window = None if window_d is None else round(window_d * DAY_US)
    return AgeScores(
        AGES_D * DAY_US, ndcg, [], ndcg[:, -1], 1.0, starts_us=starts, rows=rows, window_us=window
    )


def decaying(seed: int, *, h: float = 3.0, worth: float = 0.2, noise: float = 0.01, s: int = 14) -> AgeScores:
    """Calendar trend and shop hour move all ages of a slice alike; noise does not."""
    rng = np.random.default_rng(seed)
    calendar = 0.5 + 0.1 * rng.standard_normal((s, 1))
    return scores_of(calendar + worth * 2 ** (-AGES_D / h) + noise * rng.standard_normal((s, len(AGES_D))))
