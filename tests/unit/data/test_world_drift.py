"""Each drift knob moves what it should and nothing else; half-lives are the stated ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import orjson
import pytest

from data.schema import ITEM_DELETE, ITEM_UPSERT
from data.world.catalogue import category_open_days, open_words
from data.world.config import DRIFT_PRESETS, WorldConfig, world_config
from data.world.drift import Tastes, value_path
from data.world.shop import World, build_world
from infra.clock import HOUR_US

STILL = world_config("none", scale=0.05, days=5, seed=11, activity=0.1)
DAY = 4


def moved(config: WorldConfig) -> set[str]:
    """What a day differs in from the world without drift."""
    still, other = build_world(STILL), build_world(config)
    found = set()
    if not np.array_equal(still.truth.values_start[DAY], other.truth.values_start[DAY]):
        found.add("values")
    if not np.array_equal(still._tastes.day(DAY)[0], other._tastes.day(DAY)[0]):
        found.add("tastes")
    news = [other.catalogue_events(d) for d in range(1, DAY + 1)]
    kinds = np.concatenate([e["kind"].to_numpy() for e in news])
    payloads = [orjson.loads(p) for e in news for p in e["payload"].to_pylist() if p]
    if np.any(kinds == ITEM_DELETE):
        found.add("deaths")
    if any("created_at" in p for p in payloads):
        found.add("births")
    if any("price" in p and "created_at" not in p for p in payloads):
        found.add("prices")
    if any("title" in p and "created_at" not in p for p in payloads):
        found.add("titles")
    if still.day(DAY).query != other.day(DAY).query:
        found.add("queries")
    if not np.array_equal(still.day(DAY).time_us, other.day(DAY).time_us):
        found.add("sessions")
    plan, ids = still.day(DAY), np.arange(1, STILL.n_items + 1)
    tea = int(np.searchsorted(plan.time_us, still.start_of(DAY) + 16 * HOUR_US))  # sales are on
    if not np.array_equal(still.relevance(plan, tea, ids), other.relevance(plan, tea, ids)):
        found.add("relevance")
    return found


@pytest.mark.parametrize(
    ("knobs", "what"),
    [
        ({}, set()),
        ({"value_drift": 1.0}, {"values", "relevance"}),
        ({"taste_drift": 1.0}, {"tastes", "relevance"}),
        ({"season": 1.0}, {"relevance"}),
        ({"flash_sales": 0.1}, {"prices", "relevance"}),
        ({"price_changes_per_day": 0.1}, {"prices", "relevance"}),
        ({"abrupt_shift_day": 3}, {"values", "relevance"}),
        ({"abrupt_shift_day": 5}, set()),
        ({"churn_per_day": 0.05}, {"births", "deaths", "queries", "relevance"}),
        ({"new_words": 2.0}, {"titles", "queries"}),
        # closed categories are not in the first catalogue either
        ({"new_categories": 6, "category_every_d": 1.0}, {"births", "queries", "relevance"}),
    ],
)
def test_each_knob_moves_only_its_own(knobs: dict[str, float], what: set[str]) -> None:
    assert moved(replace(STILL, **knobs)) == what


def test_without_drift_nothing_ever_changes() -> None:
    assert world_config("none") == WorldConfig()
    world = build_world(STILL)
    assert all(world.catalogue_events(d).num_rows == 0 for d in range(1, 20))
    assert set(DRIFT_PRESETS) == {"none", "mild", "strong"}


@pytest.mark.parametrize("half_life", [2.0, 8.0])
def test_value_weights_revert_with_the_stated_half_life(half_life: float) -> None:
    config = replace(STILL, value_drift=1.0, value_half_life_d=half_life, days=3_000)
    knots = value_path(config).start
    lag = int(half_life)
    x = (knots - knots.mean(0)) / knots.std(0)
    found = (x[:-lag] * x[lag:]).mean()
    assert found == pytest.approx(0.5, abs=0.04)
    halved = value_path(replace(config, value_drift=0.5)).start
    assert halved.std(0).mean() == pytest.approx(0.5 * knots.std(0).mean(), rel=1e-6)


def test_tastes_revert_with_the_stated_half_life_and_may_be_asked_in_any_order() -> None:
    config = replace(STILL, taste_drift=1.0, taste_half_life_d=4.0)
    base = np.zeros((4_000, 8), np.float32)
    tastes = Tastes(config, base)
    early, late = tastes.day(3)[0], tastes.day(7)[0]
    assert np.corrcoef(early.ravel(), late.ravel())[0, 1] == pytest.approx(0.5, abs=0.03)
    assert late.std() == pytest.approx(1 / np.sqrt(8), rel=0.03)
    for day in range(9, 14):
        tastes.day(day)
    assert np.array_equal(tastes.day(3)[0], early)


def test_an_abrupt_shift_jumps_at_midnight() -> None:
    path = value_path(replace(STILL, abrupt_shift_day=3))
    assert np.array_equal(path.end[2], path.start[2])
    assert np.abs(path.start[3] - path.end[2]).mean() > 0.2
    assert np.array_equal(path.start[3], path.start[9])


def test_new_categories_open_on_their_day_and_are_then_asked_for() -> None:
    config = replace(STILL, scale=0.1, new_categories=3, category_every_d=2.0, activity=0.5)
    world = build_world(config)
    opens = category_open_days(config)
    assert sorted(opens[opens > 0]) == [2, 4, 6]
    late = int(np.flatnonzero(opens == 4)[0])
    assert late not in world.day(3).intent[:, 1]
    assert late in world.day(5).intent[:, 1]
    born = world.items.born_us[world.items.category == late]
    assert len(born) > 0
    assert np.all((born - world.start_us) // 86_400_000_000 == 4)


def test_new_words_appear_in_titles_and_queries() -> None:
    config = replace(STILL, scale=0.1, new_words=2.0, activity=0.5)
    world = build_world(config)
    assert open_words(config, 0) == (0, 0)
    assert open_words(config, 1) == (1, 0)
    assert open_words(config, 4) == (4, 3)
    words = {world.vocabulary.style(24 + k) for k in range(4)}
    titles = " ".join(
        p for e in (world.catalogue_events(d) for d in range(5)) for p in e["payload"].to_pylist()
    )
    assert all(w in titles for w in words)
    said = [{w for q in world.day(d).query for w in q.split()} & words for d in (0, 4)]
    assert not said[0]
    assert said[1]
    _, synonym = world.vocabulary.new_synonym(0)
    assert synonym not in titles


def test_churn_is_of_the_stated_rate() -> None:
    config = replace(STILL, scale=0.2, churn_per_day=0.03)
    world = build_world(config)
    kinds = np.concatenate([world.catalogue_events(d)["kind"].to_numpy() for d in range(1, 11)])
    assert (kinds == ITEM_UPSERT).sum() == 10 * 60
    assert (kinds == ITEM_DELETE).sum() == pytest.approx(600, rel=0.2)


def test_sales_begin_and_end() -> None:
    world: World = build_world(replace(STILL, flash_sales=0.05))
    rows, begins, ends, _ = world.items.sales[2]
    assert len(rows) > 5
    prices = world.items.prices(2)
    before, during, after = (prices.at(rows, t) for t in (begins - 1, begins, ends))
    assert np.all(during[1])
    assert not np.any(before[1] | after[1])
    assert np.all(during[0] < before[0])
    assert np.array_equal(before[0], after[0])
