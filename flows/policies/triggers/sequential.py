"""A sequential test of a mean that may be looked at after every outcome, for ever.

Against "the mean of outcomes in [0, 1], given the past, is at least m" it bets (Waudby-Smith & Ramdas,
Estimating means of bounded random variables by betting, JRSS B 2024): capital grows by 1 + λ(m − x). The
capital is shared out beforehand over bets λ and over times at which quality may have begun to fall, so it
is a test martingale; by Ville's inequality it ever reaches 1/α with a probability of α at most.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BETS", "BLOCK", "Capital", "lower_bound"]

BETS = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8)
"""λ, each with the same share: the best one is about the drop over the variance. All below 1, so that no
outcome in [0, 1] takes the whole capital."""
BLOCK = 25
"""Outcomes from one time at which a fall may begin to the next; the k-th has a share of 1/(k(k+1))."""


class Capital:
    """The capital of the bets, as plain numbers in `memory`, relative to what it began with."""

    def __init__(self, mean: float, memory: dict[str, Any]) -> None:
        self.mean, self.memory = mean, memory
        self._bets = np.array(BETS)

    def take(self, outcomes: NDArray[np.float64], *, alpha: float) -> float:
        """The capital after these outcomes; it is not taken further once it has reached 1/α."""
        held = np.asarray(self.memory.setdefault("held", [0.0] * len(self._bets)))
        n = int(self.memory.get("n", 0))
        capital = float(self.memory.get("capital", 1.0))
        for x in outcomes.tolist():
            if capital >= 1 / alpha:
                break
            if n % BLOCK == 0:
                k = n // BLOCK + 1
                held = held + 1.0 / (k * (k + 1))
            held = held * (1.0 + self._bets * (self.mean - x))
            n += 1
            capital = float(held.mean()) + 1.0 / ((n - 1) // BLOCK + 2)  # what has not begun yet
        self.memory |= {"held": held.tolist(), "n": n, "capital": capital}
        return capital


def lower_bound(outcomes: NDArray[np.float64], *, alpha: float) -> float:
    """A bound that the mean of outcomes in [0, 1] is below with a probability of α at most.

    The largest m against which betting that the mean is higher wins 1/α by the last outcome (a fixed
    number of them, the same paper's predictable plug-in). 0 where there are none.
    """
    n = len(outcomes)
    if not n:
        return 0.0
    counts = np.arange(1, n + 1)
    means = (0.5 + np.cumsum(outcomes)) / (counts + 1)
    variances = (0.25 + np.cumsum((outcomes - means) ** 2)) / (counts + 1)
    before = np.concatenate([[0.25], variances[:-1]])
    bets = np.sqrt(2 * math.log(1 / alpha) / (n * before))
    low, high = 0.0, 1.0
    for _ in range(40):
        m = (low + high) / 2
        stakes = np.minimum(bets, 0.75 / m)
        won = float(np.log1p(stakes * (outcomes - m)).sum())
        low, high = (m, high) if won >= math.log(1 / alpha) else (low, m)
    return low
