"""The statistics of studies on series with known answers: coverage, decay, choice, attribution."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from flows.studies.statistics.intervals import block_bootstrap, cluster_error, interval, of_draws, upper_bound
from flows.studies.statistics.shape import shape
from flows.studies.statistics.sizes import size_and_age
from flows.studies.statistics.staleness import (
    AgeScores,
    curve,
    half_life,
    interval_quality,
    over_seeds,
    span_weights,
)
from infra.clock import DAY_US
from infra.errors import DataError
from tests.unit.flows.studies.series import AGES_D, decaying, scores_of


def _series(rng: np.random.Generator, n: int, rho: float) -> NDArray[np.float64]:
    x = np.empty(n)
    x[0] = rng.standard_normal()
    for i in range(1, n):
        x[i] = rho * x[i - 1] + np.sqrt(1 - rho**2) * rng.standard_normal()
    return x


@pytest.mark.parametrize(("slices", "rho"), [(8, 0.3), (14, 0.0), (14, 0.5), (20, 0.5)])
def test_intervals_over_few_correlated_slices_cover(slices: int, rho: float) -> None:
    """Nominal 95 % covers at least 90 % of 400 autocorrelated series."""
    covered = 0
    for seed in range(400):
        found = interval(_series(np.random.default_rng(seed), slices, rho), repeats=400, seed=seed)
        covered += found.low <= 0 <= found.high
    assert covered >= 360


def test_one_sided_bounds_cover() -> None:
    covered = sum(
        upper_bound(block_bootstrap(_series(np.random.default_rng(s), 7, 0.3), repeats=400, seed=s)[:, 0]) > 0
        for s in range(400)
    )
    assert covered >= 360


def test_intervals_are_not_needlessly_wide() -> None:
    """Over many independent slices they are as wide as the t interval of their mean."""
    x = np.random.default_rng(3).standard_normal(400)
    found = interval(x, repeats=4_000)
    assert found.high - found.low == pytest.approx(2 * 1.96 * x.std() / 20, rel=0.15)


def test_draws_of_columns_belong_together() -> None:
    x = np.random.default_rng(0).standard_normal((12, 1))
    draws = block_bootstrap(np.hstack([x, 2 * x, x + 5]), repeats=50)
    assert np.allclose(draws[:, 1], 2 * draws[:, 0])
    assert np.allclose(draws[:, 2], draws[:, 0] + 5)
    assert np.array_equal(draws, block_bootstrap(np.hstack([x, 2 * x, x + 5]), repeats=50))


def test_queries_within_slices_set_the_least_width() -> None:
    """Slices that agree by luck do not make an interval narrower than their queries allow."""
    rng = np.random.default_rng(1)
    queries = [rng.standard_normal((40, 1)) for _ in range(10)]
    queries = [q - q.mean() + 0.5 for q in queries]  # every slice has the same mean
    error = cluster_error(queries)
    assert error[0] == pytest.approx(1 / np.sqrt(400), rel=0.1)
    same = [q.mean() for q in queries]
    assert interval(same).high == pytest.approx(0.5)
    found = interval(same, within=float(error[0]))
    assert found.high - found.low > 2 * 1.96 * error[0]
    sessions = [np.repeat(np.arange(10), 4)] * 10  # queries of a session are alike: fewer are known
    alike = [np.repeat(q[::4], 4, axis=0) for q in queries]
    assert cluster_error(alike, sessions)[0] > 1.7 * cluster_error(alike)[0]


def test_an_error_is_over_the_slices_that_hold_the_column() -> None:
    queries = [np.random.default_rng(k).standard_normal((40, 2)) for k in range(8)]
    for q in queries[2:]:
        q[:, 1] = np.nan
    both, first = cluster_error(queries), cluster_error([q[:, :1] for q in queries[:2]])
    assert both[0] == pytest.approx(1 / np.sqrt(320), rel=0.2)
    assert both[1] == pytest.approx(cluster_error([q[:, 1:] for q in queries[:2]])[0])
    assert both[1] == pytest.approx(first[0], rel=0.4)
    assert len(cluster_error([])) == 0


def test_one_slice_has_its_queries_only() -> None:
    assert np.isnan(interval([0.3]).low)
    found = interval([0.3], within=0.1)
    assert found.low < 0.15
    assert found.high > 0.45


def test_a_line_over_the_slices_is_no_chance_where_one_side_only_ages() -> None:
    x = 0.02 * np.arange(14) + 0.01 * np.random.default_rng(4).standard_normal(14)
    plain, straight = interval(x), interval(x, trend=True)
    assert straight.mean == plain.mean
    assert (straight.high - straight.low) < 0.25 * (plain.high - plain.low)
    covered = 0
    for seed in range(200):
        noise = _series(np.random.default_rng(seed), 14, 0.3)
        found = interval(noise + np.linspace(-3, 3, 14), repeats=300, seed=seed, trend=True)
        covered += found.low <= 0 <= found.high
    assert covered >= 178


def test_worlds_that_differ_widen() -> None:
    rng = np.random.default_rng(2)
    x = np.concatenate([0.02 * rng.standard_normal(10) + m for m in (-1.0, 0.0, 1.0, 0.5)])
    worlds = np.repeat(np.arange(4), 10)
    narrow, wide = interval(x), interval(x, worlds=worlds)
    assert wide.high - wide.low > 1.5
    assert narrow.mean == wide.mean


def test_missing_slices_are_left_out() -> None:
    x = np.array([[1.0, np.nan], [2.0, 4.0], [3.0, 6.0], [np.nan, 8.0], [2.0, 6.0], [2.0, 6.0]])
    draws = block_bootstrap(x)
    assert np.isfinite(draws).all()
    assert draws.mean(0) == pytest.approx([2.0, 6.0], abs=0.15)
    assert np.isnan(interval([np.nan, np.nan]).mean)
    assert np.isnan(of_draws(1.0, np.array([np.nan])).low)


def test_an_interval_is_worth_the_mean_over_its_ages() -> None:
    ages = AGES_D * DAY_US
    line = np.stack([1 - 0.01 * AGES_D, 0.5 - 0.02 * AGES_D])
    found = interval_quality(ages, line, interval_us=2 * DAY_US, delay_us=0.25 * DAY_US)
    assert found == pytest.approx([1 - 0.0125, 0.5 - 0.025])  # the mean age is 1.25 d
    bent = np.where(AGES_D <= 1, 1.0, 0.0)[None]
    found = interval_quality(ages, bent, interval_us=2 * DAY_US, delay_us=0)
    assert found == pytest.approx([(1 + 0.5) / 2])  # level below the youngest, then down in a day
    weights = span_weights(ages, 0.3 * DAY_US, 9 * DAY_US)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()


def test_missing_ages_are_bridged_or_nan() -> None:
    values = np.tile(1 - 0.01 * AGES_D, (3, 1))
    values[1, 2] = np.nan
    values[2, -1] = np.nan
    whole, bridged, short = interval_quality(
        AGES_D * DAY_US, values, interval_us=10 * DAY_US, delay_us=DAY_US
    )
    assert bridged == pytest.approx(whole)
    assert np.isnan(short)
    with pytest.raises(DataError, match="the ladder ends at 14"):
        interval_quality(AGES_D * DAY_US, values, interval_us=20 * DAY_US, delay_us=0)
    with pytest.raises(DataError, match="above 0"):
        interval_quality(AGES_D * DAY_US, values, interval_us=0, delay_us=0)


@pytest.mark.parametrize("h", [1.5, 4.0, 10.0])
def test_a_known_half_life_is_covered(h: float) -> None:
    held, edges = 0, 0
    for seed in range(20):
        found = half_life(curve(decaying(seed, h=h), repeats=400))
        assert found is not None
        held += found.low <= h <= found.high
        edges += found.edge != ""
    assert held >= 18
    assert edges <= (0 if h < 5 else 10)  # ten days of fourteen are near what the ages can tell


def test_no_noise_gives_the_half_life_itself() -> None:
    found = half_life(curve(decaying(0, h=4.0, noise=0.0)))
    assert found is not None
    assert found.mean == pytest.approx(4.0, rel=0.03)
    assert found.worth == pytest.approx(0.2, rel=0.03)
    assert found.as_dict()["edge"] == ""


def test_no_decay_has_no_half_life() -> None:
    assert sum(half_life(curve(decaying(s, worth=0.0), repeats=400)) is not None for s in range(40)) <= 3
    assert half_life(curve(decaying(0, worth=-0.2))) is None
    assert half_life(curve(_weekly(0))) is None


def test_the_curve_is_paired_within_slices() -> None:
    """The calendar moves slices by ten times the loss and does not matter."""
    found = curve(decaying(5))
    true = 0.2 * (2 ** (-0.25 / 3) - 2 ** (-AGES_D / 3))
    assert found.loss[0] == found.high[0] == 0
    assert np.abs(found.loss - true).max() < 0.015
    assert found.at(4.0).low > 0.05


def test_seeds_are_averaged() -> None:
    both = over_seeds([decaying(1), decaying(2)])
    assert np.allclose(both.ndcg, (decaying(1).ndcg + decaying(2).ndcg) / 2)


def _shifted(seed: int, *, worth: float = 0.2, noise: float = 0.01) -> AgeScores:
    rng = np.random.default_rng(seed)
    base = decaying(seed, worth=0.0, noise=noise)
    assert base.starts_us is not None
    trained = base.starts_us[:, None] - base.ages_us
    date = 100 * DAY_US + rng.uniform(4, 8) * DAY_US
    new = np.clip((trained - date) / (2 * DAY_US), 0, 1)
    return scores_of(base.ndcg + np.where(base.starts_us[:, None] > date, worth * (new - 1), 0))


def _weekly(seed: int) -> AgeScores:
    base = decaying(seed, worth=0.0)
    return scores_of(base.ndcg + 0.1 * np.cos(2 * np.pi * (AGES_D + 1) / 7))


def _sized(seed: int, *, decay: float) -> tuple[AgeScores, list[AgeScores]]:
    """Older models have fewer rows; quality goes by rows, and by age where there is decay."""
    rng = np.random.default_rng(seed)
    day = np.arange(14)[:, None] + 16.0

    def part(fraction: float) -> AgeScores:
        rows = fraction * 1_000 * (day - AGES_D)
        ndcg = 0.1 * np.log2(rows) + decay * 2 ** (-AGES_D / 3) + 0.008 * rng.standard_normal(rows.shape)
        return scores_of(ndcg, rows=rows, window_d=None)

    return part(1.0), [part(f) for f in (0.1, 0.25, 0.5)]


def test_kinds_of_decline_are_told_apart() -> None:
    seeds = range(12)
    assert sum(shape(decaying(s, h=4.0)).kind == "decay" for s in seeds) >= 11
    assert sum(shape(_shifted(s)).kind == "shift" for s in seeds) >= 11
    assert sum(shape(_weekly(s)).kind == "weekly" for s in seeds) >= 11
    assert sum(shape(decaying(s, worth=0.0)).kind == "flat" for s in seeds) >= 11
    grown = [_sized(s, decay=0.0) for s in seeds]
    assert sum(shape(g, fractions=f).kind == "growth" for g, f in grown) >= 11
    stale = [_sized(s, decay=0.3) for s in seeds]
    assert sum(shape(g, fractions=f).kind == "decay" for g, f in stale) >= 11


def test_decay_is_seen_in_the_first_model_where_old_ages_are_on_few_slices() -> None:
    for seed in range(6):
        base = decaying(seed, worth=0.0)
        ndcg = base.ndcg.copy()
        ndcg[:, 3:] = np.nan  # no model here is older than a day
        scores = replace(scores_of(ndcg), never=ndcg[:, 0])
        assert shape(scores).kind == "flat"
        assert shape(replace(scores, never=ndcg[:, 0] - 0.01)).kind == "flat"  # within the margin: luck
        assert shape(replace(scores, never=ndcg[:, 0] - 0.1)).kind == "decay"


def test_an_age_on_one_slice_is_no_decay() -> None:
    """Without decay, the one slice that reaches back so far had bad luck: that is not known to be age."""
    for seed in range(6):
        base = decaying(seed, worth=0.0, noise=0.004)
        ndcg = base.ndcg.copy()
        ndcg[:-1, -1] = np.nan
        ndcg[-1, -1] = ndcg[-1, 0] - 0.1
        found = curve(scores_of(ndcg))
        assert found.told.tolist() == [True] * 7 + [False]
        assert found.slices[-1] == 1
        assert half_life(found) is None
        lucky, without = scores_of(ndcg), scores_of(base.ndcg)
        without = replace(without, ages_us=without.ages_us[:-1], ndcg=without.ndcg[:, :-1])
        assert shape(lucky).loss.mean == pytest.approx(shape(without).loss.mean)
        assert shape(lucky).loss.low == pytest.approx(shape(without).loss.low, abs=1e-3)


def test_size_and_age_are_parted() -> None:
    """What older models lose is parted into what was put in; the whole is their sum."""
    whole, parts = _sized(3, decay=0.3)
    found = size_and_age(whole, parts)
    assert found is not None
    assert found.size_over_age.high < 0
    assert found.size_over_age.mean == pytest.approx(found.by_size.mean - found.at_equal_size.mean)
    whole, parts = _sized(3, decay=0.0)
    found = size_and_age(whole, parts)
    assert found is not None
    assert found.at_equal_size.low <= 0.005
    oldest = [r[r >= p[0]][-1] for r, p in zip(whole.rows, parts[0].rows, strict=True)]  # type: ignore[arg-type, index]
    lost = 0.1 * np.log2(whole.rows[:, 0] / oldest).mean()  # type: ignore[index]
    assert found.by_size.low <= lost <= found.by_size.high
    assert found.by_size.mean == pytest.approx(lost, rel=0.15)
    assert size_and_age(whole, []) is None
    assert size_and_age(scores_of(whole.ndcg, rows=np.full(whole.ndcg.shape, 1_000.0)), parts) is None


def test_a_shift_is_dated() -> None:
    found = shape(_shifted(3, noise=0.003))
    date = 100 + np.random.default_rng(3).uniform(4, 8)
    assert found.shift_us is not None
    assert abs(found.shift_us / DAY_US - date) < 1.0
    assert found.kind == "shift"
