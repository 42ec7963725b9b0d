"""The estimate of attention comes near the world's truth, whatever the ranking; no slots, no news."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from data.world.reactions import examination as truth
from models.examination import PRIOR_RATE, Examination

PLACES = np.arange(10)


def _log(
    pages: int, look: NDArray[np.float64], *, seed: int, slots: int = 2
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.float32]]:
    """Pages of ten whose better items stand higher, but for `slots` places that are filled evenly."""
    rng = np.random.default_rng(seed)
    relevance = -np.sort(-rng.beta(1, 4, (pages, 10)), axis=1)
    random = rng.random((pages, 10)).argsort(axis=1) < slots
    relevance = np.where(random, rng.beta(1, 6, (pages, 10)), relevance)
    clicked = rng.random((pages, 10)) < look * relevance
    propensity = np.where(random, 0.01, np.nan).astype(np.float32)
    return np.tile(PLACES, pages), clicked.ravel(), propensity.ravel()


@pytest.mark.parametrize("seed", range(3))
def test_the_estimate_is_near_the_worlds_truth_though_the_ranking_confounds(seed: int) -> None:
    look = truth(PLACES)
    place, clicked, propensity = _log(20_000, look, seed=seed)
    found = np.exp(Examination.fit(place, clicked, propensity).log_odds(PLACES))
    assert np.abs(found - look / look[0]).max() < 0.06
    naive = np.exp(Examination.fit(place, clicked, np.full(len(place), 0.01, np.float32)).log_odds(PLACES))
    assert np.abs(naive - look / look[0]).max() > 0.15


def test_where_all_places_are_seen_alike_it_says_so() -> None:
    place, clicked, propensity = _log(20_000, np.ones(10), seed=3)
    assert np.exp(Examination.fit(place, clicked, propensity).log_odds(PLACES)).min() > 0.85


def test_without_randomised_slots_the_prior_stays() -> None:
    place, clicked, propensity = _log(500, truth(PLACES), seed=4, slots=0)
    assert Examination.fit(place, clicked, propensity).rate == pytest.approx(PRIOR_RATE, rel=0.02)
