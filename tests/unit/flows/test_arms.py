"""The arms' scores and intervals: gains, samples of first pages, and what an interval has to cover."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flows.evaluation.arms import ARMS, Tally, first_pages, gain, score
from models.metrics import successive_mean


def test_the_gain_of_a_relevance_is_that_of_its_grade() -> None:
    np.testing.assert_allclose(gain(np.array([0.0, 0.25, 0.5, 1.0], np.float32)), [0, 1, 3, 15])


class NineItems:
    """A world, and its plan, of nine items whose relevance falls with their id."""

    page = np.array([0, 1, 0, 0, 0])
    time_us = np.array([10, 20, 30, 40, 50])

    def request(self, i: int) -> int:
        return i

    def relevance(self, plan: Any, i: int, item_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        return (1.0 - np.asarray(item_ids) / 10).astype(np.float32)

    def ideal(self, plan: Any, i: int, k: int) -> NDArray[np.float32]:
        return self.relevance(plan, i, np.arange(1, 10))[:k]


def shop(item_ids: NDArray[np.int64]) -> Any:
    return SimpleNamespace(respond=lambda request: SimpleNamespace(item_ids=item_ids))


def test_first_pages_are_those_of_the_stretch_and_the_same_each_time() -> None:
    plan: Any = NineItems()
    assert first_pages(plan, since_us=10, until_us=50, most=9, seed=1).tolist() == [0, 2, 3]
    some = [first_pages(plan, since_us=0, until_us=99, most=2, seed=1).tolist() for _ in range(2)]
    assert some[0] == some[1] == sorted(some[0])
    assert len(some[0]) == 2


def test_the_ideal_order_scores_one_the_reverse_less_and_nothing_none() -> None:
    world: Any = NineItems()
    ids = np.arange(1, 10)
    shops = {"ideal": shop(ids), "reverse": shop(ids[::-1]), "nothing": shop(ids[:0])}
    found = score(world, world, np.array([0, 2]), shops)
    np.testing.assert_allclose(found["ideal"], 1.0)
    assert (found["reverse"] < 0.9).all()
    np.testing.assert_array_equal(found["nothing"], 0.0)


def tally(seed: int, *, stretches: int, of_stretch: float, sessions: int = 60) -> Tally:
    """Full less state_fresh is 0 in truth; it varies by stretch (the release) and by session."""
    rng = np.random.default_rng(seed)
    found = Tally()
    for k in range(stretches):
        who = np.repeat(np.arange(sessions), 3) + k * sessions
        base = rng.normal(0.3, 0.1, len(who))
        full = base + rng.normal(0, of_stretch) + np.repeat(rng.normal(0, 0.02, sessions), 3)
        found.add({"frozen": base, "state_fresh": base, "full": full}, who)
    return found


def test_a_difference_is_paired() -> None:
    found = tally(1, stretches=12, of_stretch=0.0)
    assert found.difference("state_fresh", "frozen").as_dict() == {"mean": 0, "low": 0, "high": 0}
    paired = found.difference("full", "frozen")
    assert paired.mean == pytest.approx(found.mean("full").mean - found.mean("frozen").mean)
    assert paired.high - paired.low < 0.5 * (found.mean("full").high - found.mean("full").low)


def test_releases_that_differ_by_chance_are_not_taken_for_a_gain() -> None:
    worlds = [tally(s, stretches=6, of_stretch=0.01) for s in range(60)]
    covered = [(d := t.difference("full", "state_fresh")).low <= 0 <= d.high for t in worlds]
    assert np.mean(covered) > 0.85  # sessions alone cover about half


def test_few_stretches_are_left_to_the_sessions() -> None:
    found = tally(3, stretches=2, of_stretch=0.0)
    interval = found.difference("full", "state_fresh")
    assert interval.high - interval.low < 0.02
    assert all(np.isfinite([found.mean(a).low for a in ARMS]))


def test_a_mean_of_stretches_covers_what_it_says_and_a_trend_is_no_chance() -> None:
    rng = np.random.default_rng(5)
    stretches = np.repeat(np.arange(6), 20)
    samples = [np.repeat(rng.normal(size=6), 20) + rng.normal(size=120) for _ in range(400)]
    hits = [(i := successive_mean(x, stretches)).low < 0 < i.high for x in samples]
    assert 0.91 < np.mean(hits) < 0.985
    rising = successive_mean(stretches + samples[0], stretches)
    assert rising.high - rising.low < 0.8 * np.ptp(stretches)
    assert np.isnan(successive_mean([1.0, 2.0], [0, 0]).low)
    assert np.isnan(successive_mean([np.nan], [0]).mean)
