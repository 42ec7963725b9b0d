"""The shop's items over the whole horizon: births, deaths, prices, sales, new categories and styles.

Items are rows in order of birth, `item_id = row + 1`; each day draws from its own streams, so
that a longer history leaves earlier days as they are. It holds only what the shop may know.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.world.config import START_US, WorldConfig
from data.world.draws import stream, zipf
from data.world.photos import Photos
from data.world.words import (
    BRANDS,
    CATEGORIES,
    COLOURS,
    MATERIALS,
    MAX_NEW_WORDS,
    PATTERNS,
    STYLES,
)  # fmt: skip
from infra.clock import DAY_US, HOUR_US

__all__ = [
    "NEVER_US",
    "Catalogue",
    "DayPrices",
    "build_catalogue",
    "category_open_days",
    "open_words",
    "quality_draws",
]

NEVER_US = 2**62
PRICE_SPREAD = 0.45  # one unit of `price_level` in log price
RESTYLED = 0.015  # share of the items that take up a new style on the day it appears
OPENING = 0.025  # items of a new category on its first day, as a share of the catalogue
_DEPARTMENT = np.array([c.department for c in CATEGORIES], np.int16)
_USUAL_LOG_PRICE = np.log([c.price for c in CATEGORIES])


@dataclass(frozen=True)
class DayPrices:
    """Prices within one day: `start` until `change_us`, then `changed`; `sale` within [from, to).

    All [n_items born by the end of the day]; prices float64, times int64 us.
    """

    start: NDArray[np.float64]
    change_us: NDArray[np.int64]
    changed: NDArray[np.float64]
    sale_from_us: NDArray[np.int64]
    sale_to_us: NDArray[np.int64]
    sale_factor: NDArray[np.float64]

    def at(
        self, rows: NDArray[np.integer], time_us: NDArray[np.int64] | int
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Price and whether on sale of each row at `time_us`: float64 [n], bool [n]."""
        price = np.where(time_us >= self.change_us[rows], self.changed[rows], self.start[rows])
        sale = (time_us >= self.sale_from_us[rows]) & (time_us < self.sale_to_us[rows])
        return np.where(sale, price * self.sale_factor[rows], price), sale


@dataclass(frozen=True)
class Catalogue:
    """Items as struct of arrays [n]; `counts[d]` items are born before day d (d up to the horizon)."""

    counts: NDArray[np.int64]
    born_us: NDArray[np.int64]
    dead_us: NDArray[np.int64]
    created_us: NDArray[np.int64]
    category: NDArray[np.int16]
    department: NDArray[np.int16]
    brand: NDArray[np.int16]
    colour: NDArray[np.int16]
    material: NDArray[np.int16]
    style: NDArray[np.int16]
    style2: NDArray[np.int16]  # a new style, -1 none, from style2_us on
    style2_us: NDArray[np.int64]
    gender: NDArray[np.int8]  # 0 women, 1 men, 2 unisex
    season: NDArray[np.int8]
    pattern: NDArray[np.int8]
    photo: NDArray[np.int32]
    price: NDArray[np.float64]  # at birth
    list_price: NDArray[np.float64]
    rating_sum: NDArray[np.int32]
    rating_count: NDArray[np.int32]
    extras: NDArray[np.float32]  # uniforms [n, 8] for the fields that mean nothing
    changes: tuple[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]], ...]  # row, us, price
    sales: tuple[
        tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]], ...
    ]  # row, from us, to us, factor

    def alive(self, rows: NDArray[np.integer], time_us: NDArray[np.int64] | int) -> NDArray[np.bool_]:
        """Whether each row is in the shop at `time_us`: bool [n]."""
        return np.asarray((self.born_us[rows] <= time_us) & (time_us < self.dead_us[rows]))

    def price_level(self, rows: NDArray[np.integer], price: NDArray[np.float64]) -> NDArray[np.float64]:
        """How dear each is for its category: (log price - usual) / 0.45; float64 [n]."""
        return np.asarray((np.log(price) - _USUAL_LOG_PRICE[self.category[rows]]) / PRICE_SPREAD)

    def prices(self, day: int) -> DayPrices:
        """The prices of a day, over the items born by its end."""
        n = int(self.counts[day + 1])
        start = self.price[:n].copy()
        for rows, _, price in self.changes[:day]:
            start[rows] = price
        change_us = np.full(n, NEVER_US, np.int64)
        changed = start.copy()
        rows, times, price = self.changes[day]
        change_us[rows], changed[rows] = times, price
        sale_from, sale_to, factor = np.full(n, NEVER_US, np.int64), np.zeros(n, np.int64), np.ones(n)
        rows, begins, ends, factors = self.sales[day]
        sale_from[rows], sale_to[rows], factor[rows] = begins, ends, factors
        return DayPrices(start, change_us, changed, sale_from, sale_to, factor)


def category_open_days(config: WorldConfig) -> NDArray[np.int64]:
    """The day on which each category opens (0: open from the start): int64 [30]."""
    days = np.zeros(len(CATEGORIES), np.int64)
    order = stream(config.seed, "opening order")
    late = np.concatenate([order.permutation(10) * 3 + 2, order.permutation(10) * 3 + 1])
    for k, category in enumerate(late[: config.new_categories]):
        days[category] = math.ceil(config.category_every_d * (k + 1))
    return days


def open_words(config: WorldConfig, day: int) -> tuple[int, int]:
    """How many new styles and new synonyms are in use on a day: the k-th word starts on day 1 + k / rate."""
    if config.new_words == 0 or day < 1:
        return 0, 0
    words = min(MAX_NEW_WORDS, math.floor((day - 1) * config.new_words + 1e-9) + 1)
    return (words + 1) // 2, words // 2


def quality_draws(config: WorldConfig, day: int, n: int) -> NDArray[np.float64]:
    """The hidden quality of the items born on a day, in standard deviations (-1: the first items)."""
    return stream(config.seed, "quality", day + 1).standard_normal(n)


def build_catalogue(config: WorldConfig, pictures: Photos) -> Catalogue:
    """All items that are born within the horizon, and what becomes of them."""
    opens = category_open_days(config)
    births = round(config.churn_per_day * config.n_items)
    opening = max(3, round(OPENING * config.n_items))
    days = config.horizon_d
    late = [np.flatnonzero(opens == d) if d > 0 else np.empty(0, np.int64) for d in range(days)]
    sizes = np.array([config.n_items] + [births + opening * len(late[d]) for d in range(days)])
    counts = np.cumsum(sizes)
    n = int(counts[-1])
    a = _empty(n)
    changes, sales = [], []
    for day in range(-1, days):
        rows = np.arange(counts[day + 1] - sizes[day + 1], counts[day + 1])
        _bear(config, pictures, a, rows, day, opens, late[day] if day >= 0 else late[0], opening)
        if day >= 0:
            old = int(counts[day])
            _restyle(config, a, old, day)
            changes.append(_change_prices(config, a, old, day))
            sales.append(_hold_sales(config, a, old, day))
    del a["current"]
    return Catalogue(counts=counts, changes=tuple(changes), sales=tuple(sales), **a)


def _empty(n: int) -> dict[str, NDArray[Any]]:
    kinds = {
        np.int64: ("born_us", "dead_us", "created_us", "style2_us"),
        np.int16: ("category", "department", "brand", "colour", "material", "style", "style2"),
        np.int8: ("gender", "season", "pattern"),
        np.int32: ("photo", "rating_sum", "rating_count"),
        np.float64: ("price", "list_price", "current"),
    }
    arrays: dict[str, NDArray[Any]] = {k: np.zeros(n, t) for t, names in kinds.items() for k in names}
    arrays["extras"] = np.zeros((n, 8), np.float32)
    return arrays


def _bear(
    config: WorldConfig,
    pictures: Photos,
    a: dict[str, NDArray[Any]],
    rows: NDArray[np.int64],
    day: int,
    opens: NDArray[np.int64],
    new: NDArray[np.int64],
    opening: int,
) -> None:
    """Fill in the items born on a day (-1: before the start)."""
    n = len(rows)
    rng = stream(config.seed, "births", day + 1)
    order = stream(config.seed, "category order").permutation(len(CATEGORIES))
    weight = np.zeros(len(CATEGORIES))
    weight[order] = zipf(len(CATEGORIES), 0.5)
    weight[opens > max(day, 0)] = 0.0
    category = rng.choice(len(CATEGORIES), n, p=weight / weight.sum()).astype(np.int16)
    born = START_US + max(day, 0) * DAY_US + (rng.random(n) * DAY_US).astype(np.int64)
    for k, code in enumerate(new):  # a new category opens with a first assortment in the first two hours
        burst = slice(n - opening * (k + 1), n - opening * k)
        category[burst] = code
        born[burst] = START_US + day * DAY_US + (rng.random(opening) * 2 * HOUR_US).astype(np.int64)
    age = (rng.random(n) * 365 * DAY_US).astype(np.int64)
    life = rng.standard_exponential(n)
    a["born_us"][rows] = START_US - HOUR_US + rows * 10 if day < 0 else born
    a["created_us"][rows] = START_US - HOUR_US - age if day < 0 else born
    if config.churn_per_day > 0:
        end = np.where(day < 0, START_US, born) + life * (DAY_US / config.churn_per_day)
        a["dead_us"][rows] = np.minimum(end, NEVER_US).astype(np.int64)
    else:
        a["dead_us"][rows] = NEVER_US
    a["category"][rows] = category
    a["department"][rows] = _DEPARTMENT[category]
    for name, size, exponent in (
        ("brand", BRANDS, 0.9),
        ("colour", len(COLOURS), 0.8),
        ("material", len(MATERIALS), 0.8),
        ("style", len(STYLES), 0.7),
        ("pattern", len(PATTERNS), 1.0),
        ("season", 4, 0.0),
    ):
        a[name][rows] = rng.choice(size, n, p=zipf(size, exponent))
    a["gender"][rows] = rng.choice(3, n, p=(0.45, 0.35, 0.2))
    a["style2"][rows] = -1
    styles, _ = open_words(config, max(day, 0))
    trendy, which = rng.random(n) < 0.25, rng.random(n)
    if styles:
        recent = styles - 1 - (which * min(styles, 5)).astype(np.int64)
        a["style2"][rows] = np.where(trendy, len(STYLES) + recent, -1)
        a["style2_us"][rows] = born
    a["photo"][rows] = pictures.pick(_DEPARTMENT[category], rng.random(n))
    tier = stream(config.seed, "brand price").normal(0.0, 0.25, BRANDS)
    log_list = _USUAL_LOG_PRICE[category] + tier[a["brand"][rows]] + rng.normal(0.1, 0.35, n)
    a["list_price"][rows] = np.round(np.exp(log_list), 2)
    off = np.where(rng.random(n) < 0.3, rng.uniform(0.05, 0.4, n), 0.0)
    a["price"][rows] = np.maximum(1.0, np.round(np.exp(log_list) * (1 - off), 2))
    a["current"][rows] = a["price"][rows]
    reviewers = np.floor(np.exp(rng.normal(2.5, 1.0, n))).astype(np.int32) + 1
    noise = rng.normal(0, 0.4, n)
    rating = np.clip(3.7 + 0.35 * quality_draws(config, day, n) + noise, 1, 5)
    a["rating_count"][rows] = reviewers
    a["rating_sum"][rows] = np.round(rating * reviewers).astype(np.int32)
    a["extras"][rows] = rng.random((n, 8), dtype=np.float32)


def _living(a: dict[str, NDArray[Any]], old: int, day: int) -> NDArray[np.int64]:
    """Rows born before a day that live through all of it."""
    return np.flatnonzero(a["dead_us"][:old] >= START_US + (day + 1) * DAY_US)


def _restyle(config: WorldConfig, a: dict[str, NDArray[Any]], old: int, day: int) -> None:
    """Some items take up the styles that appear on this day, in its first six hours."""
    before, now = open_words(config, day - 1)[0], open_words(config, day)[0]
    rng = stream(config.seed, "restyle", day)
    for style in range(before, now):
        plain = _living(a, old, day)
        plain = plain[a["style2"][plain] < 0]
        picked = rng.choice(plain, min(len(plain), max(2, round(RESTYLED * config.n_items))), replace=False)
        a["style2"][picked] = len(STYLES) + style
        a["style2_us"][picked] = (
            START_US + day * DAY_US + (rng.random(len(picked)) * 6 * HOUR_US).astype(np.int64)
        )


def _change_prices(
    config: WorldConfig, a: dict[str, NDArray[Any]], old: int, day: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    rng = stream(config.seed, "prices", day)
    rows = _living(a, old, day)
    rows = rows[rng.random(len(rows)) < config.price_changes_per_day]
    listed = a["list_price"][rows]
    moved = a["current"][rows] * np.exp(rng.normal(0, 0.15, len(rows)))
    price = np.maximum(1.0, np.round(np.clip(moved, 0.4 * listed, listed), 2))
    a["current"][rows] = price
    return rows, START_US + day * DAY_US + (rng.random(len(rows)) * DAY_US).astype(np.int64), price


def _hold_sales(
    config: WorldConfig, a: dict[str, NDArray[Any]], old: int, day: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    rng = stream(config.seed, "sales", day)
    rows = _living(a, old, day)
    rows = rows[rng.random(len(rows)) < config.flash_sales]
    begin = START_US + day * DAY_US + (rng.uniform(6, 18, len(rows)) * HOUR_US).astype(np.int64)
    end = begin + (rng.uniform(2, 5.9, len(rows)) * HOUR_US).astype(np.int64)
    return rows, begin, end, rng.uniform(0.5, 0.8, len(rows))
