"""The ladder: which models are scored on which slices, by age."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.studies.cells.cell import CellStore
from flows.studies.cells.ladder import SCALE_US, Line, ages, by_age, collect, snapped
from flows.studies.cells.ranker import RankerLearner
from flows.studies.cells.workers import run_cells
from flows.studies.panels.panel import Panel
from infra.clock import DAY_US, HOUR_US
from infra.errors import DataError
from models.boosting import RankerConfig
from tests.unit.flows.studies.panels import synthetic_panel

QUICK = RankerConfig(max_trees=40, warm_trees=15, num_leaves=7, learning_rate=0.2, doubt=1.0)
WINDOW_US = DAY_US


@pytest.fixture(scope="module")
def panel() -> Panel:
    return synthetic_panel()


@given(
    delay=st.integers(1, DAY_US),
    intervals=st.lists(st.none() | st.integers(HOUR_US, 60 * DAY_US), min_size=1),
    horizon=st.integers(DAY_US, 60 * DAY_US),
    resolution=st.sampled_from([1, HOUR_US, DAY_US]),
)
def test_ages_span_what_is_needed(
    delay: int, intervals: list[int | None], horizon: int, resolution: int
) -> None:
    found = ages(delay, intervals, horizon, resolution_us=resolution)
    finite = [i for i in intervals if i is not None]
    assert (np.diff(found) > 0).all()
    assert set(found) <= set(SCALE_US)
    assert found[0] >= resolution
    youngest = max(delay, min([*finite, horizon]) // 4 if finite else 0)
    assert found[0] <= max(youngest, resolution, SCALE_US[0])
    between = SCALE_US[(found[0] < SCALE_US) & (youngest >= SCALE_US)]
    assert not len(between), "younger models than tell the shortest interval are trained for nothing"
    assert found[-1] * 1.1 >= delay + min(max(finite, default=horizon), horizon)
    if finite:
        more = ages(delay, [*intervals, horizon], horizon, resolution_us=resolution)
        assert set(found) <= set(more)


@given(at=st.integers(0, 7 * DAY_US), age=st.integers(10 * HOUR_US // 60, 6 * DAY_US))
def test_training_times_are_no_later_and_within_a_quarter(at: int, age: int) -> None:
    panel = Panel.__new__(Panel)
    object.__setattr__(panel, "horizon_us", 1_000 * DAY_US)
    object.__setattr__(panel, "resolution_us", HOUR_US // 60)
    begin = panel.horizon_us + at
    trained = snapped(panel, begin, age)
    assert age <= begin - trained <= age + max(age // 4, HOUR_US // 60)


def test_a_ladder_shares_models_and_leaves_out_what_has_too_little_history(panel: Panel) -> None:
    asked = (np.array([0.25, 1.0, 2.0, 4.0, 7.0, 28.0]) * DAY_US).astype(np.int64)
    ladder = by_age(panel, component="ranker", ages_us=asked, fractions=(0.5, 1.0), window_us=WINDOW_US)
    assert len(ladder.ages_us) == 5  # nothing is as old as 28 days
    assert (ladder.true_us[0, 4:] == -1).all()
    assert ladder.true_us[-1, 4] >= 7 * DAY_US
    assert len(ladder.wanted()) < len(ladder.cells) + len(ladder.lines)
    earliest = panel.first_us + WINDOW_US
    assert (ladder.true_us[0, :2] > 0).all()
    for (_, k, a), cell in ladder.cells.items():
        assert cell.trained_us >= earliest
        assert panel.slices[k].start_us - cell.trained_us == ladder.true_us[k, a]
    never = ladder.wanted()[ladder.never[Line(1.0)]]
    assert {(k, f) for k in range(len(panel.slices)) for f in (False, True)} <= set(never)


def test_a_warm_start_by_age_is_one_step_from_a_cold_model_an_interval_before(
    panel: Panel, tmp_path: Path
) -> None:
    interval_us = DAY_US
    ladder = by_age(
        panel,
        component="ranker",
        ages_us=np.array([HOUR_US, 6 * HOUR_US, DAY_US, 2 * DAY_US], np.int64),
        fractions=(1.0,),
        window_us=WINDOW_US,
        starts=("cold", "warm"),
        intervals_us=(interval_us, None),
    )
    cold, warm = ladder.lines
    assert (cold, warm) == (Line(1.0), Line(1.0, "warm", interval_us))
    for (line, k, a), cell in ladder.cells.items():
        if line == warm:
            assert cell.parent is not None
            assert cell.parent.start == "cold"
            assert cell.parent.trained_us == cell.trained_us - interval_us
            assert cell.trained_us == ladder.cells[cold, k, a].trained_us
    found = run_cells(tmp_path, RankerLearner(QUICK), ladder.wanted(), CellStore(tmp_path), panel=panel)
    told = collect(panel, ladder, found)
    assert np.isnan(told[warm].ndcg[:, 3]).all()  # older than a day is nobody's age
    assert np.isfinite(told[warm].ndcg[:, :3]).all()
    assert np.isfinite(told[cold].ndcg[:, :3]).all()
    assert np.array_equal(told[warm].never, told[cold].never)


def test_a_short_log_is_refused_with_the_reason(panel: Panel) -> None:
    with pytest.raises(DataError, match=r"5\.0 days before the horizon.*reads 6\.0"):
        by_age(panel, component="ranker", ages_us=SCALE_US[:3], fractions=(1.0,), window_us=6 * DAY_US)
    with pytest.raises(DataError, match="no slice"):
        by_age(
            replace(panel, slices=()), component="ranker", ages_us=SCALE_US[:3], fractions=(1.0,), window_us=1
        )
