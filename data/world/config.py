"""Every knob of the simulated shop, with its default, and the three drift presets.

A config is the whole description of a world: together with the photo labels it determines every
event. Unknown or impossible knobs raise ConfigError. It knows nothing of how a knob is used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any

from infra.clock import DAY_US
from infra.errors import ConfigError

__all__ = [
    "DRIFT_KNOBS",
    "DRIFT_PRESETS",
    "FUTURE_DAYS",
    "PAGE_SIZE",
    "START_US",
    "WorldConfig",
    "world_config",
]

START_US = 20_458 * DAY_US  # 2026-01-05 00:00 UTC, a Monday
FUTURE_DAYS = 120  # the world goes on for so many days after its history
PAGE_SIZE = 10


@dataclass(frozen=True)
class WorldConfig:
    """The knobs. Rates are per day, half-lives in days, sizes in units of utility (log-odds).

    The defaults are a world without drift. Raises ConfigError for an impossible value.
    """

    scale: float = 1.0  # 1 = 10,000 items and 6,000 users
    days: int = 14  # of history
    seed: int = 7
    activity: float = 0.05  # share of the users who are active in a day
    # How shoppers choose.
    taste_size: float = 1.2  # spread of users' lasting hidden tastes
    quality_size: float = 0.6  # spread of items' hidden quality
    random_slots: int = 2  # randomised slots on a page of ten of the logging policy
    explore_pool: int = 100  # candidates among which a randomised slot chooses evenly
    shuffle_clicks: bool = False  # placebo: clicks tell nothing of items or users
    # Drift: each kind alone.
    value_drift: float = 0.0  # what all shoppers value: size of the OU process on the value weights
    value_half_life_d: float = 4.0
    taste_drift: float = 0.0  # single users' tastes: size of the OU process on each user's taste
    taste_half_life_d: float = 5.0
    churn_per_day: float = 0.0  # share of the items that die, and are born, in a day
    price_changes_per_day: float = 0.0  # share of the items whose price changes in a day
    new_categories: int = 0  # of the 30 categories, how many are closed at first
    category_every_d: float = 3.0  # days between openings
    new_words: float = 0.0  # words a day that nobody used before (styles and synonyms in turn)
    season: float = 0.0  # swing of the items' season
    season_period_d: float = 56.0
    flash_sales: float = 0.0  # share of the items in a sale of some hours in a day
    abrupt_shift_day: int = -1  # on this day the value weights jump to an unrelated set; -1 = never

    def __post_init__(self) -> None:
        checks = {
            "scale": (0.005, 1000.0),
            "days": (1, 3650),
            "seed": (0, 2**31 - 1),
            "activity": (1e-5, 0.9),
            "taste_size": (0.0, 10.0),
            "quality_size": (0.0, 10.0),
            "random_slots": (0, PAGE_SIZE - 1),
            "explore_pool": (PAGE_SIZE, 10_000),
            "value_drift": (0.0, 10.0),
            "value_half_life_d": (0.01, 10_000.0),
            "taste_drift": (0.0, 10.0),
            "taste_half_life_d": (0.01, 10_000.0),
            "churn_per_day": (0.0, 0.5),
            "price_changes_per_day": (0.0, 1.0),
            "new_categories": (0, 20),
            "category_every_d": (0.1, 1000.0),
            "new_words": (0.0, 50.0),
            "season": (0.0, 10.0),
            "season_period_d": (1.0, 10_000.0),
            "flash_sales": (0.0, 0.5),
            "abrupt_shift_day": (-1, 10_000),
        }
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "bool":
                if not isinstance(value, bool):
                    raise ConfigError(f"world knob {field.name} is {value!r}; expected true or false")
                continue
            if isinstance(value, bool) or not isinstance(value, int if field.type == "int" else int | float):
                kind = "a whole number" if field.type == "int" else "a number"
                raise ConfigError(f"world knob {field.name} is {value!r}; expected {kind}")
            low, high = checks[field.name]
            if not (math.isfinite(value) and low <= value <= high):
                raise ConfigError(f"world knob {field.name} is {value}; expected {low} to {high}")

    @property
    def n_items(self) -> int:
        """Items alive at the start (without categories that are still closed)."""
        return max(1, round(10_000 * self.scale))

    @property
    def n_users(self) -> int:
        """Users."""
        return max(1, round(6_000 * self.scale))

    @property
    def horizon_d(self) -> int:
        """Days for which the world is defined: the history and what follows it."""
        return self.days + FUTURE_DAYS

    def to_json(self) -> dict[str, Any]:
        """The knobs as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> WorldConfig:
        """The config of a JSON object; ConfigError for an unknown knob."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(
                f"unknown world knob {unknown[0]!r}; expected one of {', '.join(sorted(known))}"
            )
        return cls(**values)


DRIFT_PRESETS: Mapping[str, Mapping[str, float | int]] = MappingProxyType(
    {
        "none": MappingProxyType(
            {
                "value_drift": 0.0,
                "value_half_life_d": 4.0,
                "taste_drift": 0.0,
                "taste_half_life_d": 5.0,
                "churn_per_day": 0.0,
                "price_changes_per_day": 0.0,
                "new_categories": 0,
                "category_every_d": 3.0,
                "new_words": 0.0,
                "season": 0.0,
                "season_period_d": 56.0,
                "flash_sales": 0.0,
                "abrupt_shift_day": -1,
            }
        ),
        "mild": MappingProxyType(
            {
                "value_drift": 0.5,
                "value_half_life_d": 15.0,
                "taste_drift": 0.4,
                "taste_half_life_d": 20.0,
                "churn_per_day": 0.005,
                "price_changes_per_day": 0.01,
                "new_categories": 2,
                "category_every_d": 7.0,
                "new_words": 0.3,
                "season": 0.3,
                "season_period_d": 112.0,
                "flash_sales": 0.003,
                "abrupt_shift_day": -1,
            }
        ),
        "strong": MappingProxyType(
            {
                "value_drift": 1.0,
                "value_half_life_d": 4.0,
                "taste_drift": 0.8,
                "taste_half_life_d": 5.0,
                "churn_per_day": 0.02,
                "price_changes_per_day": 0.04,
                "new_categories": 8,
                "category_every_d": 3.0,
                "new_words": 1.0,
                "season": 0.6,
                "season_period_d": 56.0,
                "flash_sales": 0.01,
                "abrupt_shift_day": -1,
            }
        ),
    }
)
DRIFT_KNOBS = tuple(DRIFT_PRESETS["none"])


def world_config(drift: str = "none", **knobs: Any) -> WorldConfig:
    """The config of a preset (`none`, `mild`, `strong`), with `knobs` that are not None on top."""
    if drift not in DRIFT_PRESETS:
        raise ConfigError(f"drift is {drift!r}; expected one of {', '.join(DRIFT_PRESETS)}")
    return WorldConfig.from_json(
        {**DRIFT_PRESETS[drift], **{k: v for k, v in knobs.items() if v is not None}}
    )
