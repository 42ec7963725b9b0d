"""Who comes when and asks what: the published statistics of sessions and queries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from data.text import tokens
from data.world.config import world_config
from data.world.draws import stream
from data.world.photos import HELD_OUT
from data.world.sessions import DayPlan, diurnal_weights, gap_seconds, session_lengths
from data.world.shop import World, build_world


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(world_config("none", scale=0.5, days=1, seed=2, activity=0.5))


@pytest.fixture(scope="module")
def plan(world: World) -> DayPlan:
    return world.day(0)


def test_lengths_follow_the_published_trace() -> None:
    n = session_lengths(stream(1, "test"), 400_000)
    assert n.mean() == pytest.approx(10.66, rel=0.02)
    assert np.median(n) in (4, 5)
    assert (n == 1).mean() == pytest.approx(0.216, abs=0.004)
    assert (n <= 20).mean() == pytest.approx(0.868, abs=0.004)
    assert n.min() == 1
    assert n.max() <= 200


def test_the_day_follows_the_published_curve(plan: DayPlan) -> None:
    weights = diurnal_weights()
    assert weights.argmin() == 4
    assert weights.argmax() == 22
    assert weights[22] / weights[4] == pytest.approx(100 / 6.5)
    _, starts = np.unique(plan.session_id, return_index=True)
    hours = np.bincount((plan.time_us[starts] // 3_600_000_000 % 24), minlength=24) / len(starts)
    assert np.abs(hours - weights).max() < 0.02


def test_gaps_are_burr_xii() -> None:
    gaps = gap_seconds(stream(1, "gaps"), 200_000)
    c, k, scale = 1.6, 0.9, 15.0
    for x in (5.0, 20.0, 100.0):
        assert (gaps <= x).mean() == pytest.approx(1 - (1 + (x / scale) ** c) ** -k, abs=0.005)


def test_most_requests_turn_the_page(plan: DayPlan) -> None:
    _, first_of_session = np.unique(plan.session_id, return_index=True)
    later = np.setdiff1d(np.arange(len(plan)), first_of_session)
    assert (plan.page[later] == 0).mean() == pytest.approx(0.15, abs=0.015)
    own = np.flatnonzero(plan.page == 0)
    keys = {(plan.session_id[i], plan.query[i], plan.photo[i]) for i in own.tolist()}
    assert len(keys) / len(plan) == pytest.approx(0.195, abs=0.015)
    assert np.all(plan.first[own] == own)
    turned = np.flatnonzero(plan.page > 0)
    assert np.all(plan.session_id[turned] == plan.session_id[plan.first[turned]])
    assert [plan.query[i] for i in turned] == [plan.query[i] for i in plan.first[turned]]
    assert np.array_equal(plan.intent[turned], plan.intent[plan.first[turned]])
    assert np.all(plan.time_us[turned] > plan.time_us[plan.first[turned]])
    assert np.all(np.diff(plan.time_us) >= 0)


def test_surfaces(plan: DayPlan, world: World) -> None:
    _, starts = np.unique(plan.session_id, return_index=True)
    assert (plan.surface[starts] == 3).mean() == pytest.approx(0.10, abs=0.02)
    queries = (plan.page == 0) & (plan.surface != 3)
    assert (plan.surface[queries] == 2).mean() == pytest.approx(0.01, abs=0.006)
    photo = plan.photo[plan.surface == 2]
    assert np.all(photo >= HELD_OUT)
    assert np.array_equal(world.photos.labels[photo], plan.intent[plan.surface == 2, 0])
    assert np.all(world.items.photo < HELD_OUT)
    assert np.array_equal(world.photos.labels[world.items.photo], world.items.department)
    for i in range(len(plan)):
        assert (plan.query[i] != "") == (plan.surface[i] == 1)
    request = plan.request(int(np.flatnonzero(plan.page == 2)[0]))
    assert (request.offset, request.size) == (20, 10)


def test_a_share_of_users_comes_and_some_come_nearly_daily(world: World) -> None:
    p = world.users.visits_per_day
    assert p.mean() == pytest.approx(0.5, abs=0.01)
    low = build_world(replace(world.config, activity=0.05)).users.visits_per_day
    assert low.mean() == pytest.approx(0.05, abs=0.001)
    assert np.median(low) < 0.02
    assert low[low >= 0.3].sum() / low.sum() > 0.3


def test_words_are_zipfian_with_errors_and_synonyms(plan: DayPlan, world: World) -> None:
    texts = [plan.query[i] for i in np.flatnonzero((plan.page == 0) & (plan.surface == 1))]
    words, counts = np.unique([t for q in texts for t in tokens(q)], return_counts=True)
    counts = np.sort(counts)[::-1]
    top = counts[:80]
    slope = np.polyfit(np.log(np.arange(1, 81)), np.log(top), 1)[0]
    assert -1.3 < slope < -0.5
    vocabulary = set(words[np.isin(words, ["frock", "jumper", "rucksack", "tunic"])])
    assert vocabulary == {"frock", "jumper", "rucksack", "tunic"}
    known = {w for w, c in zip(words, np.unique([t for q in texts for t in tokens(q)], return_counts=True)[1],
                               strict=True) if c >= 4}  # fmt: skip
    odd = np.mean([any(t not in known for t in tokens(q)) for q in texts])
    assert 0.02 < odd < 0.12
