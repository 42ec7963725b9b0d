"""The hidden part of the world: what makes an item relevant to a shopper at a moment.

Relevance = logistic(utility); utility = match with the intent + value weights · exposed attributes
+ taste · latent + hidden quality + interactions + season + sale (docs/world.md has the formulas).
Kept in a folder of its own; the shop never reads it.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.world.catalogue import Catalogue, DayPrices, quality_draws
from data.world.config import START_US, WorldConfig
from data.world.draws import stream, zipf
from data.world.drift import VALUES, Tastes, season_lift, value_path
from data.world.shoppers import Shoppers
from data.world.words import (
    BRAND_GROUPS,
    BRANDS,
    CATEGORIES,
    COLOURS,
    MATERIALS,
    MAX_NEW_WORDS,
    STYLES,
)  # fmt: skip
from infra.clock import DAY_US
from infra.errors import DataError
from infra.files import write_atomic

__all__ = ["INTENT", "LATENT", "Truth", "TruthDay", "build_truth", "load_truth", "relevance", "save_truth"]

LATENT = 8
INTENT = ("department", "category", "brand", "colour", "material", "style")
_LIFT = np.array([0.0, 0.0, 0.8, 0.6, 0.4, 0.6])  # added where the item has what was asked for
_LOSS = np.array([9.0, 3.0, 0.9, 1.0, 0.6, 0.5])  # taken off where it has not
BIAS = -3.3  # utility of an average item of the category that was asked for
SALE_LIFT = 0.6
GENDER_MISFIT = -0.8
NOVELTY_D = 30.0


@dataclass(frozen=True)
class Truth:
    """Everything hidden. Rows are those of the catalogue and of the shoppers."""

    quality: NDArray[np.float64]  # [n_items]
    latent: NDArray[np.float32]  # [n_items, 8]
    taste: NDArray[np.float32]  # [n_users, 8] the lasting part
    affinity: NDArray[np.float32]  # [n_users, 30] log-odds of looking for a category
    brand_group: NDArray[np.int8]  # [60]
    colour_material: NDArray[np.float64]  # [16, 14]
    gender_style: NDArray[np.float64]  # [2, 24 + 200]
    values_start: NDArray[np.float64]  # [days, 40] value weights at the start of each day
    values_end: NDArray[np.float64]

    def content_hash(self) -> str:
        """Hex SHA-256 of all arrays."""
        digest = hashlib.sha256()
        for field in fields(self):
            digest.update(np.ascontiguousarray(getattr(self, field.name)).tobytes())
        return digest.hexdigest()


def build_truth(config: WorldConfig, items: Catalogue, users: Shoppers) -> Truth:
    """Draw everything hidden."""
    rng = stream(config.seed, "latent")
    parts = [
        rng.standard_normal((size, LATENT)) for size in (BRANDS, len(COLOURS), len(MATERIALS), len(STYLES))
    ]
    tables = stream(config.seed, "interactions")
    group = tables.permutation(np.arange(BRANDS) % BRAND_GROUPS).astype(np.int8)
    colour_material = tables.normal(0, 0.5, (len(COLOURS), len(MATERIALS)))
    gender_style = tables.normal(0, 0.5, (2, len(STYLES) + MAX_NEW_WORDS // 2))
    own, quality, first = [], [], 0
    for cohort, last in enumerate(items.counts.tolist()):
        n = last - first
        own.append(stream(config.seed, "own latent", cohort).standard_normal((n, LATENT)))
        quality.append(quality_draws(config, cohort - 1, n))
        first = last
    latent = (
        0.5 * parts[0][items.brand]
        + 0.35 * parts[1][items.colour]
        + 0.35 * parts[2][items.material]
        + 0.45 * parts[3][items.style]
        + 0.6 * np.concatenate(own)
    )
    people = stream(config.seed, "tastes")
    n_users = len(users)
    popular = np.zeros(len(CATEGORIES))
    popular[stream(config.seed, "category order").permutation(len(CATEGORIES))] = zipf(len(CATEGORIES), 0.7)
    taste = config.taste_size / np.sqrt(LATENT) * people.standard_normal((n_users, LATENT))
    affinity = np.log(popular) + 1.3 * people.standard_normal((n_users, len(CATEGORIES)))
    path = value_path(config)
    return Truth(
        config.quality_size * np.concatenate(quality),
        latent.astype(np.float32),
        taste.astype(np.float32),
        affinity.astype(np.float32),
        group,
        colour_material,
        gender_style,
        path.start,
        path.end,
    )


def save_truth(truth: Truth, folder: Path) -> None:
    """Write the arrays as `truth.npz`."""
    buffer = io.BytesIO()
    np.savez(buffer, **{f.name: getattr(truth, f.name) for f in fields(truth)})
    write_atomic(folder / "truth.npz", buffer.getvalue())


def load_truth(folder: Path) -> Truth:
    """Read `truth.npz`; DataError where it is missing, unreadable or not a truth."""
    path = folder / "truth.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return Truth(**{f.name: arrays[f.name] for f in fields(Truth)})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"cannot read the world's truth in {path} ({error}); expected the file that "
            "`shelflife world generate` wrote: generate the world again with --force"
        ) from error


class TruthDay:
    """What one day's relevance is computed from: the parts that no shopper changes, precomputed."""

    def __init__(
        self,
        config: WorldConfig,
        truth: Truth,
        items: Catalogue,
        users: Shoppers,
        day: int,
        prices: DayPrices,
        tastes: Tastes,
    ) -> None:
        n = int(items.counts[day + 1])
        self.start_us = START_US + day * DAY_US
        self.items = items
        self.prices = prices
        self.n_items = n
        self.latent = truth.latent[:n]
        self.taste_start, self.taste_end = tastes.day(day)
        self.codes = np.stack([getattr(items, name)[:n] for name in INTENT], axis=1)
        self.style2 = items.style2[:n]
        self.style = items.style[:n]
        self.price_weight = (truth.values_start[day, 0], truth.values_end[day, 0])
        discount = VALUES["discount"].start
        self.discount_weight = (truth.values_start[day, discount], truth.values_end[day, discount])
        fixed = BIAS + truth.quality[:n] + truth.colour_material[items.colour[:n], items.material[:n]]
        self.start = fixed + _exposed(config, truth.values_start[day], truth, items, n, float(day))
        self.end = fixed + _exposed(config, truth.values_end[day], truth, items, n, float(day + 1))
        self.gender_style = truth.gender_style
        self.item_gender = items.gender[:n]
        self.user_gender = users.gender
        self.power_sense = 1.6 - 0.3 * users.purchasing_power  # the rich care less for the price
        self.age_price = 0.25 * np.clip((users.age - 40) / 15, -2.0, 3.0)  # the old like the dear more


def _exposed(
    config: WorldConfig, weights: NDArray[np.float64], truth: Truth, items: Catalogue, n: int, day: float
) -> NDArray[np.float64]:
    """Value weights · exposed attributes that are the same for all shoppers, and the season: [n]."""
    age_d = np.maximum(0.0, (START_US + day * DAY_US - items.created_us[:n]) / DAY_US)
    rating = items.rating_sum[:n] / items.rating_count[:n]
    total = weights[VALUES["novelty"]][0] * 2.0 * np.exp(-age_d / NOVELTY_D)
    total = total + weights[VALUES["rating"]][0] * (rating - 3.7) / 0.5
    total = total + weights[VALUES["brand"]][truth.brand_group[items.brand[:n]]]
    total = total + weights[VALUES["colour"]][items.colour[:n]]
    total = total + weights[VALUES["material"]][items.material[:n]]
    return np.asarray(total + season_lift(config, day)[items.season[:n]])


def relevance(
    today: TruthDay,
    *,
    user: NDArray[np.int64] | int,
    intent: NDArray[np.int16],
    time_us: NDArray[np.int64] | int,
    rows: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Relevance and price level of items `rows` [n] for shoppers; float64 [n] each.

    `user` rows, `intent` [n or 1, 6] and `time_us` are of the shopper of each item, or of one for all.
    """
    f = (time_us - today.start_us) / DAY_US
    price, on_sale = today.prices.at(rows, time_us)
    level = today.items.price_level(rows, price)
    have = today.codes[rows] == intent
    have[:, 5] |= today.style2[rows] == intent[:, 5]
    asked = intent >= 0
    match = (have * (asked * (_LIFT + _LOSS)) - asked * _LOSS).sum(1)
    taste = _between(today.taste_start[user], today.taste_end[user], np.asarray(f)[..., None])
    gender = today.user_gender[user]
    liked = today.gender_style[gender, today.style[rows]]
    misfit = (today.item_gender[rows] != 2) & (today.item_gender[rows] != gender)
    dear = _between(*today.price_weight, f) * today.power_sense[user] + today.age_price[user]
    off = np.maximum(0.0, 1.0 - price / today.items.list_price[rows])
    utility = (
        _between(today.start[rows], today.end[rows], f)
        + match
        + (today.latent[rows] * taste).sum(1)
        + liked
        + GENDER_MISFIT * misfit
        + dear * level
        + _between(*today.discount_weight, f) * 2.0 * off
        + SALE_LIFT * on_sale
    )
    return 1.0 / (1.0 + np.exp(-utility)), level


def _between(start: Any, end: Any, f: Any) -> Any:
    return start + (end - start) * f
