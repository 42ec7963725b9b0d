"""Policies on random parts of their own schedules: what by age is measured against."""

from __future__ import annotations

import numpy as np
import pytest

from flows.studies.cells.cell import Scores
from flows.studies.cells.exact import Policy, wanted
from flows.studies.cells.subsample import FEWEST, Schedules, half_width, slope
from infra.clock import DAY_US, HOUR_US
from tests.unit.flows.studies.panels import synthetic_panel

SLICES, QUERIES = 28, 40
POLICIES = (Policy("ranker", DAY_US // 2), Policy("ranker", 2 * DAY_US, 0.5), Policy("ranker", None))


@pytest.fixture(scope="module")
def schedules() -> Schedules:
    """What moves from slice to slice is shared by all policies; single queries hardly differ."""
    rng = np.random.default_rng(5)
    panel = synthetic_panel(days=12, slices=SLICES, queries=QUERIES, requests_a_day=20)
    level = 0.4 + 0.05 * rng.normal(size=SLICES)
    found = {
        cell: Scores(
            ndcg={
                k: level[k] + 0.002 * rng.normal(size=QUERIES) + 1e-9 * cell.trained_us / DAY_US
                for k, _ in slices
            }
        )
        for cell, slices in wanted(POLICIES, panel, delay_us=HOUR_US // 60).items()
    }
    return Schedules.of(POLICIES, panel, found, delay_us=HOUR_US // 60, cpu_s={1.0: 2.0, 0.5: 1.0})


def test_a_share_of_each_schedule_is_drawn_and_paid_for(schedules: Schedules) -> None:
    assert schedules.counts.tolist() == [14, 4, 1]
    half = schedules.draw(0.5, np.random.default_rng(1))
    assert [len(t) for t in half.trainings] == [7, 2, 1]
    assert half.count == 10
    assert half.cpu_s == 7 * 2.0 + 2 * 1.0 + 2.0
    assert half.there[2].all(), "what is never retrained is live on every slice"
    for drawn, row, serving in zip(half.trainings, half.there, schedules.serving, strict=True):
        assert set(serving[row].tolist()) <= set(drawn.tolist())
        assert not set(serving[~row].tolist()) & set(drawn.tolist())
    whole = schedules.draw(1.0, np.random.default_rng(1))
    assert whole.there.all()
    assert whole.cpu_s == 14 * 2.0 + 4 * 1.0 + 2.0
    assert schedules.draw(0.01, np.random.default_rng(1)).count == 3, "at least one of each"


def test_pairing_takes_out_what_slices_share(schedules: Schedules) -> None:
    there = np.ones((3, SLICES), bool)
    never = [2, 2, 2]
    apart, paired = (schedules.widths(there, never, paired=p) for p in (False, True))
    assert np.isnan(apart[2])
    assert np.isnan(paired[2])
    assert (apart[:2] > 10 * paired[:2]).all()
    own = schedules.widths(there, [None] * 3, paired=False)
    np.testing.assert_allclose(apart[:2], np.hypot(own[:2], own[2]))


def test_half_of_a_schedule_tells_less_than_the_whole(schedules: Schedules) -> None:
    rng = np.random.default_rng(3)
    half, whole = (
        [schedules.widths(schedules.draw(share, rng).there, [None] * 3, paired=False) for _ in range(repeats)]
        for share, repeats in ((0.5, 15), (1.0, 1))
    )
    wider = np.median(half, axis=0) / whole[0]
    assert (wider[:2] > 1.15).all(), "the root of two, and wider tails of fewer slices"
    assert wider[2] == 1
    assert slope([1, 4, 16], [1, 0.5, 0.25]) == pytest.approx(-0.5)


def test_too_few_slices_tell_nothing(schedules: Schedules) -> None:
    on = np.arange(SLICES) < FEWEST - 1
    found = schedules.mean(0, on)
    assert np.isfinite(found.mean)
    assert np.isnan(half_width(found))
    assert np.isnan(schedules.mean(0, np.zeros(SLICES, bool)).mean)
