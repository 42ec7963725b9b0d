"""The world as an object: any day's requests, catalogue news and shoppers' reactions.

A world is built from its config and the photo labels, or opened from a home, where it reads the
truth. It goes on for 120 days after its history and knows no model.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.world.catalogue import Catalogue, build_catalogue
from data.world.config import START_US, WorldConfig
from data.world.drift import Tastes
from data.world.feed import catalogue_events
from data.world.logging_policy import LoggingPolicy
from data.world.photos import Photos, photos
from data.world.reactions import Reaction, react
from data.world.sessions import DayPlan, plan_day
from data.world.shoppers import Shoppers, build_shoppers
from data.world.truth import Truth, TruthDay, build_truth, load_truth, relevance
from data.world.words import Vocabulary, vocabulary
from infra.errors import DataError
from infra.settings import Home

__all__ = ["World", "build_world", "public_path"]

_KEPT = 2  # days whose truth is kept at hand


def public_path(layout: Home) -> Path:
    """The file that describes a home's world to everyone."""
    return layout.world / "world.json"


class World:
    """A simulated shop's customers and suppliers. Item and user ids are row + 1."""

    def __init__(
        self,
        config: WorldConfig,
        items: Catalogue,
        users: Shoppers,
        truth: Truth,
        pictures: Photos,
        words: Vocabulary,
    ) -> None:
        self.config = config
        self.start_us = START_US
        self.items = items
        self.users = users
        self.truth = truth
        self.photos = pictures
        self.vocabulary = words
        self._tastes = Tastes(config, truth.taste)
        self._plans: dict[int, DayPlan] = {}
        self._days: dict[int, TruthDay] = {}
        self._by_department: dict[tuple[int, int], NDArray[np.int64]] = {}

    @classmethod
    def open(cls, layout: Home) -> World:
        """The world of a home. Raises DataError where there is none or its truth cannot be read."""
        path = public_path(layout)
        try:
            config = WorldConfig.from_json(json.loads(path.read_text())["config"])
        except FileNotFoundError:
            raise DataError(
                f"no world in {layout.root}; expected {path}: run `shelflife world generate`"
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} is no description of a world ({error}); generate the world again"
            ) from error
        truth = load_truth(layout.truth)
        try:
            labels = np.frombuffer((layout.truth / "labels.bin").read_bytes(), np.uint8)
        except OSError as error:
            raise DataError(
                f"cannot read {layout.truth / 'labels.bin'} ({error.strerror}); expected the photo labels "
                "that `shelflife world generate` wrote: generate the world again with --force"
            ) from error
        return _assemble(config, photos(labels), truth)

    def day(self, d: int) -> DayPlan:
        """The requests of day d, by time; days from 0 to 120 after the history."""
        self._check(d)
        if d not in self._plans:
            _forget(self._plans)
            self._plans[d] = plan_day(
                self.config, self.truth, self.items, self.users, self.vocabulary, self.photos, d
            )
        return self._plans[d]

    def catalogue_events(self, d: int) -> pa.Table:
        """The item_upsert, item_delete and user_upsert events of day d, in canonical order."""
        self._check(d)
        return catalogue_events(self.config, self.items, self.users, self.vocabulary, d)

    def react(
        self, plan: DayPlan, i: int, item_ids: NDArray[np.int64], positions: NDArray[np.int64]
    ) -> Reaction:
        """What the shopper of request i does with the items shown at `positions` (0-based over all pages).

        The same request and item always meet the same luck. Items that are unknown or dead get nothing.
        """
        return self._react(plan, slice(i, i + 1), item_ids, positions)

    def react_batch(
        self,
        plan: DayPlan,
        requests: NDArray[np.int64],
        item_ids: NDArray[np.int64],
        positions: NDArray[np.int64],
    ) -> Reaction:
        """`react` for many requests at once: each item [n] with the index of its request."""
        return self._react(plan, requests, item_ids, positions)

    def relevance(self, plan: DayPlan, i: int, item_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """True relevance in [0, 1] of items to request i: float32 [n]; 0 for the unknown and the dead."""
        return self._relevance(plan, slice(i, i + 1), np.asarray(item_ids, np.int64))[0].astype(np.float32)

    def relevance_batch(
        self, plan: DayPlan, requests: NDArray[np.int64], item_ids: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """True relevance of each item [n] to its request: float32 [n]."""
        return self._relevance(plan, requests, np.asarray(item_ids, np.int64))[0].astype(np.float32)

    def ideal(self, plan: DayPlan, i: int, k: int) -> NDArray[np.float32]:
        """The k best relevances, descending, among all items alive at request i: float32 [<= k].

        Items of other departments than the intended one do not match at all and are left out.
        """
        rows = self._department(plan.day, int(plan.intent[i, 0]))
        found = self._relevance(plan, slice(i, i + 1), rows + 1)[0]
        best = np.partition(found, len(found) - k)[-k:] if len(found) > k else found
        return np.sort(best)[::-1].astype(np.float32)

    def logging_policy(self) -> LoggingPolicy:
        """A fresh policy of the kind that ranked the history; it has learned nothing yet."""
        return LoggingPolicy(self.config, self.items, self.vocabulary, self.photos, len(self.users))

    def _check(self, d: int) -> None:
        if not 0 <= d < self.config.horizon_d:
            raise DataError(
                f"day {d} is outside the world; expected 0 to {self.config.horizon_d - 1}: "
                "generate a world of more days"
            )

    def _today(self, d: int) -> TruthDay:
        if d not in self._days:
            _forget(self._days)
            prices = self.items.prices(d)
            self._days[d] = TruthDay(self.config, self.truth, self.items, self.users, d, prices, self._tastes)
        return self._days[d]

    def _department(self, d: int, department: int) -> NDArray[np.int64]:
        key = (d, department)
        if key not in self._by_department:
            if len(self._by_department) >= 40:
                self._by_department.clear()
            n = self._today(d).n_items
            rows = np.flatnonzero(self.items.department[:n] == department)
            self._by_department[key] = rows[self.items.dead_us[rows] > self.start_of(d)]
        return self._by_department[key]

    def start_of(self, d: int) -> int:
        """The first microsecond of day d."""
        return self._today(d).start_us

    def _relevance(
        self, plan: DayPlan, at: slice | NDArray[np.int64], item_ids: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        today = self._today(plan.day)
        rows = item_ids - 1
        known = (rows >= 0) & (rows < today.n_items)
        rows = np.where(known, rows, 0)
        time_us = plan.time_us[at]
        value, level = relevance(
            today, user=plan.user_id[at] - 1, intent=plan.intent[at], time_us=time_us, rows=rows
        )
        there = known & self.items.alive(rows, time_us)
        return np.where(there, value, 0.0), level

    def _react(
        self,
        plan: DayPlan,
        at: slice | NDArray[np.int64],
        item_ids: NDArray[np.int64],
        positions: NDArray[np.int64],
    ) -> Reaction:
        item_ids = np.asarray(item_ids, np.int64)
        positions = np.asarray(positions, np.int64)
        value, level = self._relevance(plan, at, item_ids)
        return react(
            self.config.seed,
            plan.request_id[at],
            plan.time_us[at],
            item_ids,
            positions,
            value,
            level,
            placebo=self.config.shuffle_clicks,
        )


def build_world(config: WorldConfig, labels: NDArray[np.uint8] | None = None) -> World:
    """The world of a config and of photo labels uint8 [70000] (None: synthetic ones)."""
    return _assemble(config, photos(labels), None)


def _assemble(config: WorldConfig, pictures: Photos, truth: Truth | None) -> World:
    items, users = build_catalogue(config, pictures), build_shoppers(config)
    if truth is None:
        truth = build_truth(config, items, users)
    elif len(truth.quality) != len(items.brand) or len(truth.taste) != len(users):
        raise DataError(
            f"the world's truth is of {len(truth.quality)} items and {len(truth.taste)} users; expected "
            f"{len(items.brand)} and {len(users)}: generate the world again with --force"
        )
    return World(config, items, users, truth, pictures, vocabulary(config.seed))


def _forget(kept: dict[int, object] | dict[int, DayPlan] | dict[int, TruthDay]) -> None:
    while len(kept) >= _KEPT:
        del kept[next(iter(kept))]
