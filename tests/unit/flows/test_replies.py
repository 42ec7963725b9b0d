"""A trained release answers each query and each shopper in an own way, and a stranger in one way."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from components.search.pipeline import SearchPipeline
from data.replica import current_state
from data.schema import NONE_ID
from data.shop import Request
from data.snapshots import published
from data.world.shop import World
from data.world.words import CATEGORIES
from flows.evaluation.arms import pipeline_of
from flows.evaluation.search import opened_release
from infra.clock import HOUR_US
from infra.settings import Settings

pytestmark = pytest.mark.slow  # stands on a trained release


@pytest.fixture(scope="module")
def pipeline(first: Settings) -> SearchPipeline:
    return pipeline_of(opened_release(first, None), current_state(first.layout))


def page(pipeline: SearchPipeline, query: str, user_id: int = NONE_ID) -> tuple[int, ...]:
    request = Request("search", pipeline.state.as_of_us + HOUR_US, query=query, user_id=user_id)
    return tuple(pipeline.respond(request).item_ids.tolist())


def test_each_query_has_its_own_page(pipeline: SearchPipeline) -> None:
    nouns = [category.noun for category in CATEGORIES]
    pages = {noun: page(pipeline, noun) for noun in nouns}
    assert all(len(found) == 10 for found in pages.values())
    assert len(set(pages.values())) == len(nouns)
    shared = [len(set(pages[a]) & set(pages[b])) for a, b in pairwise(nouns)]
    assert np.mean(shared) < 2.0


def test_shoppers_of_another_past_are_answered_in_another_order(pipeline: SearchPipeline) -> None:
    state = pipeline.state
    users = state.users
    regular = np.flatnonzero(users.recent_n[: state.n_users] >= 5)[:40]
    assert len(regular) == 40
    query = CATEGORIES[0].noun
    pages = [page(pipeline, query, int(users.user_ids[row])) for row in regular.tolist()]
    assert len(set(pages)) > 10
    assert len({page(pipeline, query, NONE_ID) for _ in range(5)}) == 1


def test_a_world_asks_in_many_ways_and_is_answered_so(first: Settings, pipeline: SearchPipeline) -> None:
    world = World.open(first.layout)
    since = published(first.layout).watermark_us
    plan = world.day(int((since - world.start_us) // (24 * HOUR_US)))
    asked = [i for i in range(len(plan)) if plan.page[i] == 0 and plan.query[i]][:60]
    pages = {tuple(pipeline.respond(plan.request(i)).item_ids.tolist()) for i in asked}
    assert len(pages) > 0.9 * len({(plan.query[i], plan.user_id[i]) for i in asked})
