"""The shop's users: what the shop knows of them, and how often they come.

Activity is heavy-tailed: a few come nearly daily, so that the state of a user matters, and the
mean share that comes in a day is the config's. It knows no taste; that is truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.world.config import WorldConfig
from data.world.draws import stream

__all__ = ["Shoppers", "build_shoppers"]

ACTIVITY_SPREAD = 1.9  # sigma of the log-normal activity
MOST = 0.95  # the most active come on so large a share of the days


@dataclass(frozen=True)
class Shoppers:
    """Users as struct of arrays [n]; `user_id = row + 1`."""

    gender: NDArray[np.int8]  # 0 or 1
    age: NDArray[np.int16]  # 0 to 149
    purchasing_power: NDArray[np.int8]  # 0 to 6
    visits_per_day: NDArray[np.float64]  # probability of being active in a day

    def __len__(self) -> int:
        return len(self.gender)

    def payload(self, row: int) -> dict[str, int]:
        """What the shop knows of a user: the payload of a `user_upsert`."""
        return {
            "gender": int(self.gender[row]),
            "age": int(self.age[row]),
            "purchasing_power": int(self.purchasing_power[row]),
        }


def build_shoppers(config: WorldConfig) -> Shoppers:
    """The users of a world."""
    rng, n = stream(config.seed, "users"), config.n_users
    gender = (rng.random(n) < 0.45).astype(np.int8)
    age = np.clip(np.round(rng.gamma(9.0, 4.3, n)), 12, 110).astype(np.int16)
    power = rng.binomial(6, np.clip(0.25 + 0.005 * (age - 20.0), 0.1, 0.7)).astype(np.int8)
    weight = np.exp(ACTIVITY_SPREAD * rng.standard_normal(n))
    return Shoppers(gender, age, power, _scaled(weight, config.activity))


def _scaled(weight: NDArray[np.float64], mean: float) -> NDArray[np.float64]:
    """min(MOST, s * weight) with s such that the mean is `mean` (by bisection)."""
    low, high = 0.0, 1e6
    for _ in range(200):
        s = (low + high) / 2
        low, high = (s, high) if np.minimum(MOST, s * weight).mean() < mean else (low, s)
    return np.minimum(MOST, high * weight)
