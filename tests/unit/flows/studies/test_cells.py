"""Cells: trained once, scored once, kept; and the ranker that they train."""

from __future__ import annotations

import errno
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from flows.studies.cells import cell as cells_module
from flows.studies.cells.cell import Cell, CellStore, Scores, cell_key, recheck
from flows.studies.cells.ladder import Line, by_age, collect
from flows.studies.cells.learner import Fit, Fitted
from flows.studies.cells.ranker import RankerLearner
from flows.studies.cells.workers import run_cells
from flows.studies.panels.panel import Panel
from infra.clock import DAY_US, HOUR_US
from infra.errors import ConfigError, DataError, EnvironmentError_
from models.boosting import RankerConfig
from tests.unit.flows.studies.panels import synthetic_panel

QUICK = RankerConfig(max_trees=40, warm_trees=15, num_leaves=7, learning_rate=0.2, doubt=1.0)
WINDOW_US = DAY_US


class Counting:
    """A ranker learner that counts what it is asked, and may be killed after some trainings."""

    def __init__(self, *, dies_after: int | None = None) -> None:
        self._own = RankerLearner(QUICK)
        self.name, self.key = self._own.name, self._own.key
        self.fits: Counter[tuple[Fit, bool]] = Counter()
        self.scores: Counter[tuple[bytes, int, bool]] = Counter()
        self._left = dies_after

    def fit(self, panel: Panel, fit: Fit, *, parent: bytes | None = None) -> Fitted:
        if self._left is not None:
            if not self._left:
                raise KeyboardInterrupt
            self._left -= 1
        self.fits[fit, parent is not None] += 1
        return self._own.fit(panel, fit, parent=parent)

    def score(self, panel: Panel, model: bytes, at: int, *, frozen: bool = False) -> NDArray[np.float64]:
        self.scores[model, at, frozen] += 1
        return self._own.score(panel, model, at, frozen=frozen)

    def candidates(self, panel: Panel, model: bytes, at: int, *, frozen: bool = False) -> NDArray[np.float64]:
        return self._own.candidates(panel, model, at, frozen=frozen)


@pytest.fixture(scope="module")
def panel() -> Panel:
    return synthetic_panel()


@pytest.fixture(scope="module")
def folder(panel: Panel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("panels") / panel.key
    panel.save(path)
    return path


def plan(panel: Panel, ages_d: tuple[float, ...] = (0.25, 1.0, 2.0)):  # type: ignore[no-untyped-def]
    ages_us = (np.array(ages_d) * DAY_US).astype(np.int64)
    return by_age(panel, component="ranker", ages_us=ages_us, fractions=(0.5, 1.0), window_us=WINDOW_US)


def same(a: Scores, b: Scores) -> bool:
    return a.rows == b.rows and all(
        x.keys() == y.keys() and all(np.array_equal(x[k], y[k], equal_nan=True) for k in x)
        for x, y in ((a.ndcg, b.ndcg), (a.frozen, b.frozen))
    )


def test_a_fresh_model_is_better_and_a_panel_without_drift_does_not_care(tmp_path: Path) -> None:
    quality = {}
    for drift in (2.0, None):
        panel = synthetic_panel(drift_half_life_d=drift, slices=8)
        panel.save(tmp_path / panel.key)
        ladder = plan(panel, (0.25, 4.0))
        found = run_cells(
            tmp_path / panel.key, RankerLearner(QUICK), ladder.wanted(), CellStore(tmp_path), panel=panel
        )
        told = collect(panel, ladder, found)[Line(1.0)]
        quality[drift] = told.ndcg[:, 0] - told.ndcg[:, 1]
        assert quality[drift].shape == (8,)
    assert quality[2.0].mean() > 0.1
    assert abs(quality[None].mean()) < 0.04


def test_each_model_is_trained_once_and_each_pair_scored_once(
    panel: Panel, folder: Path, tmp_path: Path
) -> None:
    learner, store, ladder = Counting(), CellStore(tmp_path), plan(panel)
    told: list[tuple[int, int, float | None]] = []
    first = run_cells(folder, learner, ladder.wanted(), store, progress=lambda *p: told.append(p))
    assert set(learner.fits.values()) == {1}
    pairs = sum(len(v) for v in ladder.wanted().values())
    assert learner.scores.total() == pairs
    assert told[0][:2] == (0, len(first))
    assert told[-1][:2] == (len(first), len(first))
    assert told[-1][2] == pytest.approx(0.0, abs=1e-6)
    again = Counting()
    second = run_cells(folder, again, ladder.wanted(), store)
    assert not again.fits
    assert not again.scores
    assert all(same(first[c], second[c]) for c in first)


def test_more_slices_only_score(panel: Panel, folder: Path, tmp_path: Path) -> None:
    cell = Cell("ranker", panel.horizon_us, window_us=WINDOW_US)
    learner, store = Counting(), CellStore(tmp_path)
    run_cells(folder, learner, {cell: [(0, False)]}, store)
    found = run_cells(folder, learner, {cell: [(0, False), (2, False), (1, True)]}, store)[cell]
    assert learner.fits.total() == 1
    assert learner.scores.total() == 3
    assert sorted(found.ndcg) == [0, 2]
    assert sorted(found.frozen) == [1]


def test_a_killed_study_goes_on_where_it_was(panel: Panel, folder: Path, tmp_path: Path) -> None:
    wanted = plan(panel).wanted()
    killed, store = Counting(dies_after=4), CellStore(tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        run_cells(folder, killed, wanted, store)
    rest = Counting()
    found = run_cells(folder, rest, wanted, store)
    assert killed.fits.total() == 4
    assert not killed.fits.keys() & rest.fits.keys()
    whole = run_cells(folder, Counting(), wanted, CellStore(tmp_path / "whole"))
    assert all(same(found[c], whole[c]) for c in whole)
    assert not list(tmp_path.rglob("*.tmp"))


def test_parents_are_trained_first_whatever_the_order(panel: Panel, folder: Path, tmp_path: Path) -> None:
    chain = [Cell("ranker", panel.horizon_us, window_us=WINDOW_US)]
    for k in range(1, 4):
        chain.append(
            Cell(
                "ranker", panel.horizon_us + k * HOUR_US, window_us=WINDOW_US, start="warm", parent=chain[-1]
            )
        )
    learner = Counting()
    found = run_cells(folder, learner, {chain[-1]: [(0, False)]}, CellStore(tmp_path))
    assert set(found) == set(chain)
    assert [warm for _, warm in learner.fits] == [False, True, True, True]
    trees = [found[c].metrics["trees"] for c in chain]
    assert max(trees) <= QUICK.max_trees
    assert found[chain[1]].metrics["warm"] == float(0 < trees[0] <= QUICK.max_trees - QUICK.warm_trees)


def test_a_warm_start_keeps_the_parents_trees() -> None:
    panel = synthetic_panel(drift_half_life_d=None)
    learner = RankerLearner(replace(QUICK, max_trees=60))
    at = panel.horizon_us
    parent = RankerLearner(replace(QUICK, max_trees=20)).fit(panel, Fit(at, window_us=WINDOW_US))
    warm = learner.fit(panel, Fit(at + DAY_US, window_us=WINDOW_US), parent=parent.model)
    cold = learner.fit(panel, Fit(at + DAY_US, window_us=WINDOW_US))
    assert warm.metrics["warm"] == 1.0
    assert parent.metrics["trees"] < warm.metrics["trees"] <= parent.metrics["trees"] + QUICK.warm_trees
    assert warm.model != cold.model
    full = RankerLearner(replace(QUICK, max_trees=int(parent.metrics["trees"])))
    assert full.fit(panel, Fit(at, window_us=WINDOW_US), parent=parent.model).metrics["warm"] == 0.0


def test_a_long_chain_of_parents_has_a_hash(panel: Panel) -> None:
    cell = Cell("ranker", 0)
    for k in range(1, 5_000):
        cell = Cell("ranker", k, start="warm", parent=cell)
    assert cell == cell
    assert hash(cell) != hash(cell.parent)


def test_the_key_tells_apart_whatever_a_model_depends_on(
    panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, cell = RankerLearner(QUICK), Cell("ranker", 5)
    keys = [
        cell_key(panel, learner, cell),
        cell_key(replace(panel, key="other"), learner, cell),
        cell_key(panel, RankerLearner(), cell),
        *(
            cell_key(panel, learner, c)
            for c in (
                Cell("encoder", 5),
                Cell("ranker", 6),
                Cell("ranker", 5, 0.5),
                Cell("ranker", 5, window_us=7),
                Cell("ranker", 5, seed=8),
                Cell("ranker", 5, start="warm", parent=Cell("ranker", 4)),
                Cell("ranker", 5, start="warm", parent=Cell("ranker", 3)),
            )
        ),
    ]
    assert len(set(keys)) == len(keys)
    monkeypatch.setattr(cells_module, "CELLS_VERSION", 0)
    assert cell_key(panel, learner, cell) not in keys


def test_what_another_version_wrote_is_not_read(
    panel: Panel, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {Cell("ranker", panel.horizon_us, window_us=WINDOW_US): [(0, False)]}
    run_cells(folder, Counting(), wanted, CellStore(tmp_path))
    monkeypatch.setattr(cells_module, "CELLS_VERSION", 999)
    learner = Counting()
    run_cells(folder, learner, wanted, CellStore(tmp_path))
    assert learner.fits.total() == 1


def test_nothing_to_learn_is_a_gap_with_a_reason(panel: Panel, folder: Path, tmp_path: Path) -> None:
    early = Cell("ranker", panel.first_us, window_us=WINDOW_US)
    after = Cell("ranker", panel.horizon_us, window_us=WINDOW_US, start="warm", parent=early)
    store = CellStore(tmp_path)
    found = run_cells(folder, RankerLearner(QUICK), {after: [(0, False)], early: [(0, False)]}, store)
    assert "no clicks" in found[early].why
    assert np.isnan(found[early].ndcg[0]).all()
    assert np.isfinite(found[after].ndcg[0]).all()
    assert found[after].metrics["warm"] == 0.0
    with pytest.raises(DataError, match="no finished cell"):
        recheck(panel, RankerLearner(QUICK), store, {early: found[early]})


def test_a_full_disk_is_said_and_finished_cells_stay(
    panel: Panel, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, store, left = plan(panel).wanted(), CellStore(tmp_path), [3]
    real = cells_module.write_atomic

    def full(path: Path, data: bytes) -> None:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= 1
        real(path, data)

    monkeypatch.setattr(cells_module, "write_atomic", full)
    with pytest.raises(EnvironmentError_, match="No space left on device"):
        run_cells(folder, Counting(), wanted, store)
    monkeypatch.setattr(cells_module, "write_atomic", real)
    learner = Counting()
    run_cells(folder, learner, wanted, store)
    assert learner.fits.total() == len(wanted) - 3


def test_a_damaged_cell_is_named(panel: Panel, folder: Path, tmp_path: Path) -> None:
    cell, store = Cell("ranker", panel.horizon_us, window_us=WINDOW_US), CellStore(tmp_path)
    run_cells(folder, RankerLearner(QUICK), {cell: [(0, False)]}, store)
    path = store.path(cell_key(panel, RankerLearner(QUICK), cell))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"not a finished cell.*delete it"):
        run_cells(folder, RankerLearner(QUICK), {cell: [(0, False)]}, store)


def test_a_cell_trained_again_gives_the_same_score(panel: Panel, folder: Path, tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    found = run_cells(folder, RankerLearner(QUICK), plan(panel).wanted(), store)
    again = recheck(panel, RankerLearner(QUICK), store, found, count=3)
    assert len({r.cell for r in again}) == 3
    assert all(r.same and r.difference == 0 for r in again)
    cell = again[0].cell
    planted = replace(found[cell], ndcg={k: v + 1e-9 for k, v in found[cell].ndcg.items()})
    (other,) = recheck(panel, RankerLearner(QUICK), store, {cell: planted}, count=5)
    assert not other.same
    assert 0 < other.difference < 2e-9


@pytest.mark.parametrize("fraction", [0.3, 1.0])
def test_what_a_training_reads_is_what_the_panel_says(panel: Panel, fraction: float) -> None:
    at, window_us = panel.horizon_us + HOUR_US, 3 * DAY_US
    keep = panel.training(at, window_us=window_us, fraction=fraction)
    rows = panel.rows.take(keep)
    clicked = np.maximum.reduceat(rows.labels, np.cumsum(rows.groups) - rows.groups) > 0
    fitted = RankerLearner(QUICK).fit(panel, Fit(at, fraction, window_us))
    assert fitted.rows == rows.groups[clicked].sum()
    assert fitted.metrics["groups"] == clicked.sum()


def test_impossible_configurations_are_refused() -> None:
    for fraction in (0.0, 1.2, float("nan")):
        with pytest.raises(ConfigError, match="fraction"):
            Cell("ranker", 0, fraction)
    with pytest.raises(ConfigError, match="min_data_in_leaf"):
        RankerLearner(replace(QUICK, min_data_in_leaf=20))


def test_a_learner_travels_without_its_rows_and_learns_the_same(panel: Panel) -> None:
    learner, fit = RankerLearner(QUICK), Fit(panel.horizon_us, window_us=WINDOW_US)
    model = learner.fit(panel, fit).model
    packed = pickle.dumps(learner)
    assert len(packed) < 5_000
    assert pickle.loads(packed).fit(panel, fit).model == model


def test_shuffled_clicks_leave_the_pool_as_given(panel: Panel) -> None:
    labels = np.random.default_rng(0).permutation(panel.rows.labels)
    blind = replace(panel, key="blind", rows=replace(panel.rows, labels=labels))
    learner = RankerLearner(replace(QUICK, doubt=3.0))
    fitted = learner.fit(blind, Fit(panel.end_us))
    assert fitted.metrics["trees"] == 0.0
    part = panel.slices[0]
    given_order = part.ndcg(-np.arange(len(part.item_ids), dtype=float))
    assert np.array_equal(learner.score(blind, fitted.model, 0), given_order)


def test_the_frozen_arm_ranks_last_what_it_does_not_know(panel: Panel) -> None:
    learner = RankerLearner(QUICK)
    model = learner.fit(panel, Fit(panel.horizon_us)).model
    part = replace(panel.slices[0], frozen=panel.slices[0].fresh)
    known_all = replace(panel, slices=(replace(part, known=np.ones_like(part.known)),))
    assert np.array_equal(learner.score(known_all, model, 0, frozen=True), learner.score(known_all, model, 0))
    best = part.gains >= np.repeat(np.maximum.reduceat(part.gains, np.arange(0, len(part.gains), 20)), 20)
    known_rest = replace(panel, slices=(replace(part, known=~best),))
    assert (
        learner.score(known_rest, model, 0, frozen=True).mean() < learner.score(known_rest, model, 0).mean()
    )


def test_dates_a_year_later_change_nothing(panel: Panel) -> None:
    later = synthetic_panel(shift_us=365 * DAY_US)
    for fraction in (0.5, 1.0):
        a, b = (
            RankerLearner(QUICK).score(
                p,
                RankerLearner(QUICK).fit(p, Fit(p.horizon_us, fraction, WINDOW_US)).model,
                1,
            )
            for p in (panel, later)
        )
        assert np.array_equal(a, b)
