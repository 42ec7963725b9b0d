"""Exact: composed of shared cells, a policy scores what a plain simulation of it scores."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from flows.studies.cells.cell import Cell, CellStore, Scores
from flows.studies.cells.exact import (
    Policy,
    cells_of,
    compose,
    costs,
    live,
    schedule,
    simulate,
    wanted,
)
from flows.studies.cells.ladder import Line, ages, by_age, collect
from flows.studies.cells.learner import Fit, Fitted
from flows.studies.cells.ranker import RankerLearner
from flows.studies.cells.workers import run_cells
from flows.studies.panels.panel import Panel
from flows.studies.statistics.staleness import interval_quality
from infra.clock import DAY_US, HOUR_US
from infra.errors import DataError, InputError
from models.boosting import RankerConfig
from tests.unit.flows.studies.panels import synthetic_panel

QUICK = RankerConfig(max_trees=30, warm_trees=10, num_leaves=7, learning_rate=0.2, doubt=1.0)
DELAY_US = HOUR_US // 2
WINDOW_US = DAY_US


@pytest.fixture(scope="module")
def panel() -> Panel:
    return synthetic_panel(slices=6)


@pytest.fixture(scope="module")
def folder(panel: Panel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("panels") / panel.key
    panel.save(path)
    return path


def policies(start: str) -> list[Policy]:
    return [
        Policy("ranker", interval, fraction, WINDOW_US, start)
        for interval in (DAY_US, 35 * HOUR_US, None)
        for fraction in (0.5, 1.0)
    ]


@pytest.mark.parametrize("start", ["cold", "warm"])
def test_composition_equals_simulation(panel: Panel, folder: Path, tmp_path: Path, start: str) -> None:
    learner, asked = RankerLearner(QUICK), policies(start)
    found = run_cells(folder, learner, wanted(asked, panel, delay_us=DELAY_US), CellStore(tmp_path))
    for policy in asked:
        composed = compose(policy, panel, found, delay_us=DELAY_US)
        plain = simulate(panel, RankerLearner(QUICK), policy, delay_us=DELAY_US).queries
        assert all(np.array_equal(a, b) for a, b in zip(composed, plain, strict=True))
    if start == "warm":
        assert any(s.metrics["warm"] for s in found.values())
        assert max(s.metrics["trees"] for s in found.values()) <= QUICK.max_trees


def test_a_grid_composes_every_schedule_on_it(panel: Panel, folder: Path, tmp_path: Path) -> None:
    every = [Policy("ranker", days * DAY_US, 1.0, WINDOW_US) for days in (1, 2, 3)]
    asked = wanted(every, panel, delay_us=DELAY_US)
    assert set(asked) == set(cells_of(every[0], panel)), "a longer interval trains at no time of its own"
    assert len(asked) == 7
    found = run_cells(folder, RankerLearner(QUICK), asked, CellStore(tmp_path))
    for policy in every:
        composed = compose(policy, panel, found, delay_us=DELAY_US)
        plain = simulate(panel, RankerLearner(QUICK), policy, delay_us=DELAY_US).queries
        assert all(np.array_equal(a, b) for a, b in zip(composed, plain, strict=True))


class Sometimes:
    """A learner that finds nothing to learn at some times; its model is its training's time."""

    name, key = "sometimes", "sometimes"

    def __init__(self, nothing_at: set[int]) -> None:
        self._nothing_at = nothing_at

    def fit(self, panel: Panel, fit: Fit, *, parent: bytes | None = None) -> Fitted:
        if fit.trained_us in self._nothing_at:
            raise DataError("nothing to learn")
        return Fitted((parent or b"") + b"%d;" % fit.trained_us, 1.0, 1)

    def score(self, panel: Panel, model: bytes, at: int, *, frozen: bool = False) -> NDArray[np.float64]:
        times = [int(t) for t in model.split(b";")[:-1]]
        return np.full(len(panel.slices[at].groups), sum(times) / 1e18 + len(times))


@pytest.mark.parametrize("start", ["cold", "warm"])
@pytest.mark.parametrize("failed", [(1,), (0,), (2, 3), (0, 1, 5)])
def test_where_nothing_is_learned_the_model_before_stays_live(
    panel: Panel, folder: Path, tmp_path: Path, start: str, failed: tuple[int, ...]
) -> None:
    policy = Policy("sometimes", DAY_US, start=start)
    learner = Sometimes({panel.horizon_us + k * DAY_US for k in failed})
    found: dict[Cell, Scores] = {}
    for _ in range(2):
        asked = wanted([policy], panel, delay_us=DELAY_US, found=found)
        found = run_cells(folder, learner, asked, CellStore(tmp_path))
    composed = compose(policy, panel, found, delay_us=DELAY_US)
    plain = simulate(panel, learner, policy, delay_us=DELAY_US).queries
    for a, b in zip(composed, plain, strict=True):
        assert np.array_equal(a, b, equal_nan=True)
    if 0 not in failed:
        assert not np.isnan(np.concatenate(composed)).any()


def test_by_age_agrees_with_exact_within_intervals(tmp_path: Path) -> None:
    panel = synthetic_panel(slices=24, days=14)
    panel.save(tmp_path / "panel")
    learner, store = RankerLearner(QUICK), CellStore(tmp_path / "cells")
    intervals = (12 * HOUR_US, 2 * DAY_US)
    asked = [Policy("ranker", i, 1.0, WINDOW_US) for i in intervals]
    exact = run_cells(tmp_path / "panel", learner, wanted(asked, panel, delay_us=DELAY_US), store)
    ladder = by_age(
        panel,
        component="ranker",
        ages_us=ages(DELAY_US, intervals, panel.end_us - panel.horizon_us),
        fractions=(1.0,),
        window_us=WINDOW_US,
    )
    found = run_cells(tmp_path / "panel", learner, ladder.wanted(), store)
    told = collect(panel, ladder, found)[Line(1.0)]
    for policy, interval_us in zip(asked, intervals, strict=True):
        composed = np.array([q.mean() for q in compose(policy, panel, exact, delay_us=DELAY_US)])
        by = interval_quality(told.ages_us, told.ndcg, interval_us=interval_us, delay_us=DELAY_US)
        gap = composed - by
        error = gap.std(ddof=1) / np.sqrt(len(gap))
        assert abs(gap.mean()) < 2.6 * error + 0.005
    short, long = (np.mean([q.mean() for q in compose(p, panel, exact, delay_us=DELAY_US)]) for p in asked)
    assert short > long + 0.02  # what they agree on is not nothing


def test_schedules_and_what_is_live() -> None:
    times = schedule(10, start_us=100, end_us=131)
    assert times.tolist() == [100, 110, 120, 130]
    assert schedule(10, start_us=100, end_us=130).tolist() == [100, 110, 120]
    assert schedule(None, start_us=100, end_us=130).tolist() == [100]
    assert [live(times, t, delay_us=3) for t in (100, 112, 113, 122, 123, 500)] == [0, 0, 1, 1, 2, 3]
    with pytest.raises(InputError, match="more than 0"):
        schedule(0, start_us=0, end_us=1)


def test_a_warm_policy_is_one_chain(panel: Panel) -> None:
    chain = cells_of(Policy("ranker", DAY_US, start="warm"), panel)
    assert len(chain) == 7
    assert chain[0].start == "cold"
    assert all(c.parent == before for before, c in pairwise(chain))


def test_costs_are_those_measured() -> None:
    found = {
        Cell("ranker", 0, 1.0): Scores(cpu_s=2.0, metrics={"shared_cpu_s": 5.0}),
        Cell("ranker", 1, 1.0): Scores(cpu_s=4.0),
        Cell("ranker", 0, 0.5): Scores(cpu_s=1.0),
        Cell("ranker", 3, 0.5): Scores(why="nothing to learn"),
        Cell("ranker", 2, 1.0, start="warm", parent=Cell("ranker", 1, 1.0)): Scores(cpu_s=0.5),
    }
    asked = [
        Policy("ranker", DAY_US, 1.0),
        Policy("ranker", 2 * DAY_US, 0.5),
        Policy("ranker", None, 0.5),
        Policy("ranker", DAY_US, 1.0, start="warm"),
    ]
    told = costs(found, asked, horizon_us=10 * DAY_US, grid_us=DAY_US)
    assert told.train_cpu_s == 12.5
    assert told.mean_cpu_s == {(1.0, "cold"): 3.0, (0.5, "cold"): 1.0, (1.0, "warm"): 0.5}
    assert told.each_policy_alone_cpu_s == 10 * 3.0 + 5 * 1.0 + 1.0 + 10 * 0.5
    assert told.exact_grid_cpu_s == 10 * (3.0 + 1.0 + 0.5)
    with pytest.raises(DataError, match=r"fraction 0\.2"):
        costs(found, [Policy("ranker", DAY_US, 0.2)], horizon_us=DAY_US, grid_us=DAY_US)
