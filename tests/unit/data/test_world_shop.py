"""Relevance, ideal pages and reactions: graded, repeatable, and silent about their causes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from data.world.config import world_config
from data.world.history import history_days
from data.world.reactions import examination
from data.world.sessions import DayPlan
from data.world.shop import World, build_world

CONFIG = world_config("strong", scale=0.1, days=2, seed=9, activity=0.3)


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(CONFIG)


@pytest.fixture(scope="module")
def plan(world: World) -> DayPlan:
    return world.day(1)


def searched(plan: DayPlan) -> np.ndarray:
    return np.flatnonzero((plan.surface == 1) & (plan.page == 0))


def test_one_by_one_is_as_all_at_once(world: World, plan: DayPlan) -> None:
    rng = np.random.default_rng(0)
    requests = np.repeat(np.arange(0, len(plan), 7), 10)
    ids = rng.integers(-3, world._today(1).n_items + 20, len(requests))
    positions = np.tile(np.arange(10), len(requests) // 10)
    batch = world.react_batch(plan, requests, ids, positions)
    values = world.relevance_batch(plan, requests, ids)
    for i in np.unique(requests):
        mine = requests == i
        one = world.react(plan, int(i), ids[mine], positions[mine])
        assert np.array_equal(one.clicked, batch.clicked[mine])
        assert np.array_equal(one.ordered, batch.ordered[mine])
        assert np.array_equal(one.click_us, batch.click_us[mine])
        assert np.array_equal(world.relevance(plan, int(i), ids[mine]), values[mine])


def test_the_same_item_meets_the_same_luck_wherever_it_stands(world: World, plan: DayPlan) -> None:
    ids = np.arange(1, 401)
    for i in searched(plan)[:20].tolist():
        top = world.react(plan, i, ids, np.zeros(400, np.int64)).clicked
        low = world.react(plan, i, ids, np.full(400, 9)).clicked
        assert np.all(top >= low)  # examined less, never clicked more
        shuffled = world.react(plan, i, ids[::-1], np.zeros(400, np.int64)).clicked
        assert np.array_equal(shuffled[::-1], top)


def test_relevance_is_graded_by_the_intent(world: World, plan: DayPlan) -> None:
    rows = np.arange(int(world.items.counts[1]))
    means: dict[str, list[float]] = {"asked": [], "category": [], "department": [], "else": []}
    for i in searched(plan)[:200].tolist():
        r = world.relevance(plan, i, rows + 1)
        alive = world.items.alive(rows, int(plan.time_us[i]))
        category = world.items.category[rows] == plan.intent[i, 1]
        department = world.items.department[rows] == plan.intent[i, 0]
        assert np.all(r[~alive] == 0)
        assert np.all((r >= 0) & (r <= 1))
        if plan.intent[i, 3] >= 0:
            colour = world.items.colour[rows] == plan.intent[i, 3]
            means["asked"].extend(r[alive & category & colour])
            means["category"].extend(r[alive & category & ~colour])
        means["department"].extend(r[alive & department & ~category])
        means["else"].extend(r[alive & ~department])
    m = {k: float(np.mean(v)) for k, v in means.items()}
    assert m["asked"] > 1.3 * m["category"] > 1.3**2 * m["department"] > 100 * m["else"]


def test_ideal_is_the_best_of_everything_alive(world: World, plan: DayPlan) -> None:
    every = np.arange(1, world._today(1).n_items + 1)
    for i in searched(plan)[:10].tolist():
        best = world.ideal(plan, i, 10)
        assert np.all(np.diff(best) <= 0)
        brute = np.sort(world.relevance(plan, i, every))[::-1][:10]
        assert np.allclose(best, brute, atol=1e-3)
    assert world.ideal(plan, 0, 10).mean() > 3 * world.relevance(plan, 0, every[:200]).mean()


def test_click_through_is_like_a_shop_s_and_the_ideal_page_is_much_better() -> None:
    world = build_world(replace(CONFIG, days=3, scale=0.5, activity=0.05))
    clicks = shown_items = 0
    for plan, shown, events in history_days(world):
        kind = events["kind"].to_numpy()
        clicks += int((kind == 2).sum())
        shown_items += len(shown.row)
        relevance = world.relevance_batch(plan, shown.request, shown.row + 1)
        first = np.isin(shown.request, searched(plan))
        ideal = np.mean([world.ideal(plan, i, 10).mean() for i in searched(plan)[:60].tolist()])
        assert ideal > 2.5 * relevance[first].mean()
    assert 0.04 < clicks / shown_items < 0.11


def test_examination_falls_with_the_place_and_slowly_with_the_page() -> None:
    e = examination(np.arange(30))
    assert e[0] == 1.0
    assert np.all(np.diff(e[:10]) < 0)
    assert e[9] == pytest.approx(1 / (1 + 0.12 * 9))
    assert e[20] == pytest.approx(0.98**2)


def test_shuffled_clicks_tell_nothing_but_the_position() -> None:
    config = replace(CONFIG, shuffle_clicks=True, days=1)
    world, true = build_world(config), build_world(replace(config, shuffle_clicks=False))
    plan = world.day(0)
    rng = np.random.default_rng(1)
    requests = np.repeat(np.arange(len(plan)), 10)
    positions = np.tile(np.arange(10), len(plan))
    ids = rng.integers(1, config.n_items, len(requests))
    a = world.react_batch(plan, requests, ids, positions)
    b = world.react_batch(plan, requests, rng.permutation(ids), positions)
    assert np.array_equal(a.clicked, b.clicked)
    assert np.array_equal(a.ordered, b.ordered)
    assert a.clicked.mean() == pytest.approx(0.12 * examination(np.arange(10)).mean(), rel=0.1)
    relevance = world.relevance_batch(plan, requests, ids)
    assert relevance[a.clicked].mean() == pytest.approx(relevance.mean(), abs=0.02)
    honest = true.react_batch(plan, requests, ids, positions)
    assert relevance[honest.clicked].mean() > relevance.mean() + 0.2
    world_kept, true_kept = world.ideal(plan, 0, 5), true.ideal(plan, 0, 5)
    assert np.array_equal(world_kept, true_kept)  # truth stays; only the clicks are silent


def test_carts_and_orders_follow_clicks(world: World, plan: DayPlan) -> None:
    requests = np.repeat(np.arange(len(plan)), 50)
    ids = np.tile(np.arange(1, 51), len(plan))
    r = world.react_batch(plan, requests, ids, np.zeros(len(ids), np.int64))
    assert np.all(r.clicked[r.carted])
    assert np.all(r.carted[r.ordered])
    assert r.clicked.sum() > r.carted.sum() > r.ordered.sum() > 0
    kinds, at, times = r.rows()
    assert len(kinds) == r.clicked.sum() + r.carted.sum() + r.ordered.sum()
    assert np.all(times > plan.time_us[requests[at]])
    assert np.all(r.order_us[r.ordered] > r.cart_us[r.ordered])
