"""The choice of a policy and the attribution of gains, on series with known answers."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from flows.studies.statistics.attribution import arms
from flows.studies.statistics.choice import Policy, choose, halves, interval_name, pareto
from flows.studies.statistics.staleness import (
    interval_quality,
)
from infra.clock import DAY_US, HOUR_US
from infra.errors import InputError
from tests.unit.flows.studies.series import decaying


def _policies(seed: int, *, worth: float, noise: float = 0.003, s: int = 14) -> list[Policy]:
    scores = decaying(seed, worth=worth, noise=noise, s=s)
    rng = np.random.default_rng((seed, 1))
    out = []
    for hours in (12, 24, 48, 168):
        q = interval_quality(scores.ages_us, scores.ndcg, interval_us=hours * HOUR_US, delay_us=0.25 * DAY_US)
        for fraction in (0.5, 1.0):
            lost = 0.05 * (1 - fraction) if worth else 0.0
            out.append(Policy(hours * HOUR_US, fraction, q - lost, 24 / hours * fraction))
    never = scores.ndcg[:, -1] + noise * rng.standard_normal(s)
    return [*out, Policy(None, 1.0, never, 0.0)]


def test_without_drift_the_longest_is_recommended() -> None:
    found = [choose(_policies(s, worth=0.0), margin=0.01, repeats=500) for s in range(20)]
    assert sum(f.interval_us is not None for f in found) <= 2
    assert sum(f.holds for f in found) >= 17


def test_with_drift_the_margin_is_kept() -> None:
    """The recommended interval's true loss is within the margin, and it is not the shortest of all."""
    picks = [choose(_policies(s, worth=0.2), margin=0.02, repeats=500) for s in range(20)]
    assert {p.interval_us for p in picks} == {24 * HOUR_US}  # loses 0.011; two days lose 0.032
    assert all(p.fraction == 1.0 for p in picks)
    assert "within the margin" in picks[0].why
    assert "2 d" in picks[0].why


def test_noise_is_said_to_be_noise() -> None:
    found = choose(_policies(1, worth=0.0, noise=0.1), margin=0.001)
    assert found.interval_us == 12 * HOUR_US
    assert "too few to show it" in found.why


def test_the_choice_is_reported_on_slices_it_did_not_see() -> None:
    found = choose(_policies(2, worth=0.2), margin=0.02)
    assert not set(found.chosen_on) & set(found.reported_on)
    assert sorted(found.chosen_on + found.reported_on) == list(range(14))
    seen = [Policy(p.interval_us, p.fraction, p.quality.copy(), 1.0) for p in _policies(2, worth=0.2)]
    for p in seen:
        p.quality[list(found.reported_on)] = 0.0
    assert choose(seen, margin=0.02).why == found.why
    first, second = halves(10, block=2)
    assert first.tolist() == [0, 1, 4, 5, 8, 9]
    assert second.tolist() == [2, 3, 6, 7]


def test_a_budget_buys_the_best_within_it() -> None:
    policies = _policies(4, worth=0.2)
    found = choose(policies, budget=0.6)
    assert (found.interval_us, found.fraction) == (48 * HOUR_US, 1.0)
    assert found.cpu_s_per_day == 0.5
    with pytest.raises(InputError, match="cheapest policy"):
        choose(policies[:-1], budget=0.01)
    with pytest.raises(InputError, match="margin is 0"):
        choose(policies, margin=0.0)
    with pytest.raises(InputError, match="no policies"):
        choose([])


def test_the_front_has_what_none_beats() -> None:
    assert pareto([1, 2, 3, 4, 2], [0.1, 0.3, 0.2, 0.4, 0.3]).tolist() == [0, 1, 3]
    assert pareto([1.0, 2.0], [0.5, np.nan]).tolist() == [0]
    assert [interval_name(x) for x in (6 * HOUR_US, 2 * DAY_US, 36 * HOUR_US, None)] == [
        "6 h",
        "2 d",
        "36 h",
        "never",
    ]


def _three(seed: int, weights: float, state: float) -> tuple[NDArray[np.float64], ...]:
    rng = np.random.default_rng(seed)
    calendar = 0.5 + 0.1 * rng.standard_normal(14)
    frozen, fresh, full = calendar, calendar + state, calendar + state + weights
    return tuple(a + 0.01 * rng.standard_normal(14) for a in (frozen, fresh, full))


def test_gains_are_attributed() -> None:
    for seed in range(10):
        assert arms(*_three(seed, 0.1, 0.0)).source == "weights"
        assert arms(*_three(seed, 0.0, 0.1)).source == "state"
        assert arms(*_three(seed, 0.1, 0.1)).source == "both"
    found = arms(*_three(0, 0.15, 0.05))
    assert found.weights_share is not None
    assert found.state_share is not None
    assert found.weights_share.low < 0.75 < found.weights_share.high
    assert found.weights_share.mean + found.state_share.mean == pytest.approx(1)
    assert found.whole.mean == pytest.approx(found.weights.mean + found.state.mean)


def test_shares_of_nothing_are_undefined() -> None:
    found = [arms(*_three(s, 0.0, 0.0)) for s in range(20)]
    assert sum(f.weights_share is None for f in found) >= 18
    assert sum(f.source == "neither" for f in found) >= 18
    empty = arms([np.nan], [0.1], [0.2])
    assert empty.source == "neither"
    assert empty.as_dict()["weights_share"] is None
