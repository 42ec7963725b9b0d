"""How likely a shopper looks at a place of a page, learned from the randomised slots of a log.

What a randomised slot shows does not depend on its place, so the fall of its click rate by place
is examination alone: no ranking confounds it. One parameter: P(look at place p) ∝ 1 / (1 + rate·p).
It knows neither items nor what the pages of a shop look like.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["PRIOR_RATE", "Examination", "places"]

PRIOR_RATE = 0.3  # near the DCG curve 1/log2(p + 2) over the first ten places
_PRIOR_SPREAD = 1.0  # standard deviation of log(rate): a log without randomised slots leaves the prior
_GRID = np.exp(np.linspace(np.log(0.005), np.log(5.0), 400))


def places(positions: NDArray[np.int16], groups: NDArray[np.int32]) -> NDArray[np.int64]:
    """The place of each row [n] on its page (0 first), from positions over all pages and group sizes."""
    if not len(groups):
        return np.empty(0, np.int64)
    starts = np.concatenate([[0], np.cumsum(groups)[:-1]])
    wide = np.maximum(positions.astype(np.int64), 0)
    found: NDArray[np.int64] = wide - np.repeat(np.minimum.reduceat(wide, starts), groups)
    return found


@dataclass(frozen=True)
class Examination:
    """The fall of attention down a page."""

    rate: float = PRIOR_RATE

    @classmethod
    def fit(
        cls, place: NDArray[np.int64], clicked: NDArray[np.bool_], propensity: NDArray[np.float32]
    ) -> Examination:
        """The most likely rate, given the place of each row [n], clicks, and propensities (NaN: not random).

        Slots that drew from as many candidates are compared with each other only (a conditional
        multinomial likelihood): wider draws find worse items.
        """
        random = np.isfinite(propensity) & (propensity > 0)
        loglik = -0.5 * (np.log(_GRID / PRIOR_RATE) / _PRIOR_SPREAD) ** 2
        if random.any():
            _, stratum = np.unique(propensity[random], return_inverse=True)
            width = int(place[random].max()) + 1
            cell = stratum * width + place[random]
            shape = (int(stratum.max()) + 1, width)
            shown = np.bincount(cell, minlength=shape[0] * width).reshape(shape)
            clicks = np.bincount(cell, clicked[random], minlength=shape[0] * width).reshape(shape)
            log_look = -np.log1p(_GRID[:, None] * np.arange(width))  # [rates, places]
            whole = np.exp(log_look) @ shown.T  # [rates, strata]
            loglik = loglik + log_look @ clicks.sum(0) - np.log(whole) @ clicks.sum(1)
        return cls(float(_GRID[np.argmax(loglik)]))

    def log_odds(self, place: NDArray[np.int64]) -> NDArray[np.float64]:
        """log P(look), 0 at the first place: float64 [n]."""
        found: NDArray[np.float64] = -np.log1p(self.rate * place)
        return found
