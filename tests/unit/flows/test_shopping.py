"""A day lived through: what shoppers do is known to the next answer, and nothing of what comes later."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from data.schema import SURFACES
from data.shop import Reply, Request
from data.state import State
from data.world.config import world_config
from data.world.shop import World, build_world
from flows.evaluation.shopping import days, shopping
from infra.clock import DAY_US

TODAY = 1


class Shelf:
    """A shop that shows its living items by id, and remembers what its state knew of those who asked."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.asked: list[Request] = []
        self.knew: list[tuple[int, int]] = []  # time of the state, clicks of the session
        self.shown: Counter[int] = Counter()

    def respond(self, request: Request) -> Reply:
        slot = self.state.session_slot(request.session_id)
        clicks = int(self.state.sessions.recent_n[slot]) if slot >= 0 else 0
        self.asked.append(request)
        self.knew.append((self.state.as_of_us, clicks))
        alive = self.state.item_ids[self.state.alive]
        page = alive[request.offset : request.offset + request.size]
        self.shown.update(page.tolist())
        return Reply(request.request_id, "", page, np.full(len(page), np.nan, np.float32), request.offset)


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(world_config("strong", scale=0.05, activity=0.2, days=TODAY, new_categories=0))


@pytest.fixture
def shelf(world: World) -> Shelf:
    state = State()
    state.apply(world.catalogue_events(0))
    return Shelf(state)


def window(world: World) -> tuple[int, int]:
    since = world.start_of(TODAY)
    return since, since + DAY_US


def test_what_a_shopper_did_is_known_before_he_asks_again(world: World, shelf: Shelf) -> None:
    since, until = window(world)
    lived = days(world, since_us=since, until_us=until, most=10_000, seed=1)
    judged = list(shopping(world, lived, shelf, shelf.state, refresh=lambda: None))
    assert len(judged) == sum(len(day.judged) for day in lived) > 50
    assert [r.request_id for r in shelf.asked] == world.day(TODAY).request_id.tolist()
    clicked: Counter[int] = Counter()
    for request, (as_of_us, clicks) in zip(shelf.asked, shelf.knew, strict=True):
        assert as_of_us < request.time_us
        assert clicks >= clicked[request.session_id]
        clicked[request.session_id] = clicks
    assert sum(clicked.values()) > 0, "nobody clicked before he asked again"


def test_what_is_born_and_dies_in_the_day_is_so_at_its_time(world: World, shelf: Shelf) -> None:
    since, until = window(world)
    lived = days(world, since_us=since, until_us=until, most=10_000, seed=1)
    events = world.catalogue_events(TODAY)
    for plan, i in shopping(world, lived, shelf, shelf.state, refresh=lambda: None):
        now = int(plan.time_us[i])
        there = world.items.alive(np.arange(len(world.items.born_us)), np.int64(now - 1))
        assert set(shelf.state.item_ids[shelf.state.alive].tolist()) == set(
            (np.flatnonzero(there) + 1).tolist()
        )
    assert events.num_rows > 5


def test_each_page_is_an_exposure_of_what_was_shown(world: World, shelf: Shelf) -> None:
    since, until = window(world)
    lived = days(world, since_us=since, until_us=until, most=10_000, seed=1)
    told = []
    for _ in shopping(world, lived, shelf, shelf.state, refresh=lambda: told.append(1)):
        pass
    assert told
    exposed = shelf.state.items.counters[: shelf.state.n_items, 1, 1]
    shown = np.array([shelf.shown[i] for i in shelf.state.item_ids.tolist()])
    assert (exposed[shown == 0] == 0).all()
    assert (exposed[shown > 0] > 0).mean() > 0.9


def test_where_there_are_too_many_whole_sessions_are_drawn(world: World) -> None:
    since, until = window(world)
    plan = world.day(TODAY)
    (some,) = days(world, since_us=since, until_us=until, most=40, seed=1)
    assert len(some.judged) == 40
    sessions = {int(plan.session_id[i]) for i in some.judged}
    of_them = [i for i in range(len(plan)) if int(plan.session_id[i]) in sessions]
    assert set(of_them) <= set(some.rows)
    assert all(plan.surface[i] == SURFACES.index("search") and plan.page[i] == 0 for i in some.judged)
    (same,) = days(world, since_us=since, until_us=until, most=40, seed=1)
    (other,) = days(world, since_us=since, until_us=until, most=40, seed=2)
    assert same.rows == some.rows != other.rows
