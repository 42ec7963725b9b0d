"""How what shoppers want moves: Ornstein-Uhlenbeck paths, seasons, an abrupt shift.

A path has a knot at the start of each day and is linear in between; at the knots it is exactly an
OU process, so that its correlation over k days is 2 ** (-k / half-life). It knows no item or user.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.world.config import WorldConfig
from data.world.draws import stream
from data.world.words import BRAND_GROUPS, COLOURS, MATERIALS

__all__ = ["VALUES", "Tastes", "ValuePath", "season_lift", "value_path"]

# The exposed attributes that have a weight: (name, how many, mean, spread of the means, size of the drift).
_GROUPS = (
    ("price", 1, -0.5, 0.0, 0.6),
    ("novelty", 1, 0.3, 0.0, 0.7),
    ("rating", 1, 0.35, 0.0, 0.4),
    ("discount", 1, 0.4, 0.0, 0.6),
    ("brand", BRAND_GROUPS, 0.0, 0.35, 0.7),
    ("colour", len(COLOURS), 0.0, 0.3, 0.6),
    ("material", len(MATERIALS), 0.0, 0.25, 0.5),
)


def _slices() -> dict[str, slice]:
    ends = np.cumsum([g[1] for g in _GROUPS]).tolist()
    return {g[0]: slice(end - g[1], end) for g, end in zip(_GROUPS, ends, strict=True)}


VALUES = _slices()  # where each attribute's weights stand in a row of weights
_MEAN = np.concatenate([np.full(g[1], g[2]) for g in _GROUPS])
_SPREAD = np.concatenate([np.full(g[1], g[3]) for g in _GROUPS])
_SIZE = np.concatenate([np.full(g[1], g[4]) for g in _GROUPS])


@dataclass(frozen=True)
class ValuePath:
    """The value weights at the start and at the end of each day: float64 [days, 40]."""

    start: NDArray[np.float64]
    end: NDArray[np.float64]


def value_path(config: WorldConfig) -> ValuePath:
    """The weights that all shoppers give to the exposed attributes, over the horizon."""
    knots = np.empty((config.horizon_d + 1, len(_MEAN)))
    keep = 2.0 ** (-1.0 / config.value_half_life_d)
    fresh = np.sqrt(1 - keep**2)
    mean = _MEAN + _SPREAD * stream(config.seed, "values").standard_normal(len(_MEAN))
    x = stream(config.seed, "value drift").standard_normal(len(_MEAN))
    for day in range(len(knots)):
        if day:
            x = keep * x + fresh * stream(config.seed, "value drift", day).standard_normal(len(_MEAN))
        if day == config.abrupt_shift_day:
            shifted = stream(config.seed, "abrupt shift")
            x = shifted.standard_normal(len(_MEAN))
            size = np.sqrt(_MEAN**2 + _SPREAD**2)
            mean = (
                size
                * np.where(shifted.random(len(_MEAN)) < 0.5, -1, 1)
                * np.where(_SPREAD > 0, np.abs(shifted.standard_normal(len(_MEAN))), 1.0)
            )
        knots[day] = mean + config.value_drift * _SIZE * x
    end = knots[1:].copy()
    if 0 < config.abrupt_shift_day < len(knots):
        end[config.abrupt_shift_day - 1] = knots[config.abrupt_shift_day - 1]  # the jump is at midnight
    return ValuePath(knots[:-1], end)


class Tastes:
    """Users' tastes: a lasting part `base` float32 [n_users, dim], and an OU process of its own each."""

    def __init__(self, config: WorldConfig, base: NDArray[np.float32]) -> None:
        self._config = config
        self._base = base
        self._keep = np.float32(2.0 ** (-1.0 / config.taste_half_life_d))
        self._knot = -1
        self._x = np.zeros_like(base)
        self._recent: dict[int, NDArray[np.float32]] = {}

    def day(self, day: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The tastes at the start and at the end of a day: float32 [n_users, dim] each."""
        if self._config.taste_drift == 0:
            return self._base, self._base
        return self._at(day), self._at(day + 1)

    def _at(self, knot: int) -> NDArray[np.float32]:
        if knot not in self._recent:
            if knot < self._knot or self._knot < 0:
                self._x, self._knot = self._noise(0), 0
            while self._knot < knot:
                self._knot += 1
                fresh = np.sqrt(np.float32(1) - self._keep**2)
                self._x = self._keep * self._x + fresh * self._noise(self._knot)
            size = np.float32(self._config.taste_drift / np.sqrt(self._base.shape[1]))
            self._recent[knot] = self._base + size * self._x
            while len(self._recent) > 4:
                del self._recent[next(iter(self._recent))]
        return self._recent[knot]

    def _noise(self, knot: int) -> NDArray[np.float32]:
        rng = stream(self._config.seed, "taste drift", knot)
        return rng.standard_normal(self._base.shape, dtype=np.float32)


def season_lift(config: WorldConfig, day: float) -> NDArray[np.float64]:
    """What is added to the utility of an item of each season at a time (in days): float64 [4]."""
    phase = 2 * np.pi * (day / config.season_period_d - np.arange(4) / 4)
    return np.asarray(config.season * np.cos(phase))
