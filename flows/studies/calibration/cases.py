"""The cases of the calibration: which worlds, what has to come out, and in how many of twenty.

It makes no world and judges none: a case looks at what `calibrate.judge` found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from flows.studies.calibration.runs import Setting
from flows.studies.calibration.shops import ShopConfig
from flows.studies.calibration.worlds import SmallWorldConfig

__all__ = ["CASES", "REGRET", "Case"]

REGRET = 0.10  # of the range between the best and the worst policy


@dataclass(frozen=True)
class Case:
    """A kind of world: how it is studied, what has to come out, in how many of twenty."""

    name: str
    setting: Setting
    expected: str
    right: Callable[[Mapping[str, Any]], bool]
    least: int
    most: int | None = None  # worlds, where they are dear
    first: int = 1000  # its seeds; others where a rule was changed after the first were seen


def _values(half_life_d: float) -> Setting:
    return Setting(SmallWorldConfig(value_half_life_d=half_life_d))


def _half_life(h: float) -> Case:
    expected = f"values revert with {h:g} d: the half-life's interval covers that of the true curve"
    return Case(f"half-life {h:g} d", _values(h), expected, lambda r: bool(r["covers"]), 17)


def _regret(h: float) -> Case:
    expected = f"the same worlds: regret at most {REGRET:.0%} of the range".replace("%", " %")
    return Case(f"regret, {h:g} d", _values(h), expected, lambda r: r["regret"] <= REGRET, 17)


def _shop(**knobs: float) -> Setting:
    return Setting(ShopConfig(knobs=tuple(knobs.items())), 4.0)


_STATE = Setting(SmallWorldConfig(taste_half_life_d=3.0, churn=0.02))
_GROWTH = SmallWorldConfig(days=24, burn_in_d=8, slices=10, queries=150, requests_a_day=450)

CASES: tuple[Case, ...] = (
    Case(
        "null",
        Setting(SmallWorldConfig(), 4.0),
        "no drift, trainings of 20,000 rows: the longest interval is recommended",
        lambda r: r["interval"] == "never",
        18,
    ),
    Case(
        "null, half the rows",
        Setting(SmallWorldConfig()),
        "no drift, trainings of 10,000 rows: the longest interval is recommended",
        lambda r: r["interval"] == "never",
        18,
    ),
    _half_life(2.0),
    _half_life(5.0),
    _half_life(15.0),
    _regret(2.0),
    _regret(5.0),
    _regret(15.0),
    Case(
        "values only",
        _values(5.0),
        "drift in what all value (5 d): the gain is in the weights",
        lambda r: r["source"] == "weights",
        18,
    ),
    Case(
        "tastes and churn only",
        _STATE,
        "drift in single users' tastes (3 d) and 2 % churn a day: the gain is in the state",
        lambda r: r["source"] == "state",
        18,
    ),
    Case("smooth decay", _values(5.0), "told as decay", lambda r: r["kind"] == "decay", 17),
    Case(
        "abrupt shift",
        Setting(SmallWorldConfig(shift_d=32.0)),
        "values jump in mid-horizon: told as a shift",
        lambda r: r["kind"] == "shift",
        17,
    ),
    Case(
        "weekly recurrence",
        Setting(SmallWorldConfig(weekly=0.5)),
        "values swing with seven days: told as weekly",
        lambda r: r["kind"] == "weekly",
        17,
    ),
    Case(
        "growth without drift",
        Setting(_GROWTH, None, (0.35, 0.65, 1.0)),
        "all data since the start, no drift: told as growth",
        lambda r: r["kind"] == "growth",
        17,
        first=4000,
    ),
    Case(
        "growth with drift",
        Setting(replace(_GROWTH, value_half_life_d=5.0), None, (0.35, 0.65, 1.0)),
        "all data since the start, and values revert with 5 d: told as decay",
        lambda r: r["kind"] == "decay",
        17,
        most=8,
        first=4000,
    ),
    Case("no drift", Setting(SmallWorldConfig()), "told as flat", lambda r: r["kind"] == "flat", 17),
    Case(
        "shuffled clicks",
        Setting(SmallWorldConfig(value_half_life_d=5.0, shuffled=True)),
        "full equals state-fresh at every age",
        lambda r: bool(r["nothing_learned"]),
        20,
    ),
    Case(
        "shop: no drift",
        _shop(),
        "the real simulator without drift: no decay, nothing gained by fresh weights",
        lambda r: r["kind"] == "flat" and r["weights"]["low"] <= 0,
        17,
        most=8,
        first=3000,
    ),
    Case(
        "shop: values only",
        _shop(value_drift=1.0, value_half_life_d=5.0),
        "the real simulator, values revert with 5 d: fresh weights gain, whatever its counters follow",
        lambda r: r["weights"]["low"] > 0,
        17,
        most=4,
    ),
    Case(
        "shop: tastes and churn only",
        _shop(taste_drift=1.5, taste_half_life_d=3.0, churn_per_day=0.02),
        "the real simulator, tastes (3 d) and 2 % churn a day: the gain is in the state, none in the weights",
        lambda r: r["source"] == "state" and r["weights"]["low"] <= 0,
        17,
        most=4,
    ),
)
