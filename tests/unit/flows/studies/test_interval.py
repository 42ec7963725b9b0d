"""A whole study of intervals, from panel to record, on a small shop whose drift is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.studies.cells.asks import IntervalAsk
from flows.studies.cells.cell import CellStore
from flows.studies.cells.checks import Rechecked
from flows.studies.interval import study_interval
from flows.studies.panels.panel import Panel
from flows.studies.panels.sources import INSTALL_S
from flows.studies.telling.record import StudyRecord
from flows.studies.telling.words import how_measured
from infra.errors import InputError
from infra.settings import Home, Settings
from tests.unit.flows.studies.panels import synthetic_panel
from tests.unit.flows.studies.worded import worded_panel

pytestmark = pytest.mark.slow  # trains some dozens of small rankers

ASK = IntervalAsk(
    intervals=("12h", "2d", "never"),
    fractions=(0.5, 1.0),
    window_d=2.0,
    slices=8,
    workers=1,
)
Study = Callable[..., StudyRecord]


@pytest.fixture(scope="module")
def panel() -> Panel:
    return synthetic_panel(seed=5, days=12, slices=8, drift_half_life_d=2.0)


@pytest.fixture(scope="module")
def root(panel: Panel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the panel and all cells of this module are."""
    root = tmp_path_factory.mktemp("study")
    panel.save(root / "panel")
    return root


@pytest.fixture
def study(root: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """`study_interval` on the panel, whatever source is asked for."""

    def opened(*_: Any, **__: Any) -> tuple[Panel, Path]:
        return Panel.load(root / "panel"), root / "panel"

    monkeypatch.setattr("flows.studies.interval.open_panel", opened)
    monkeypatch.setattr("flows.studies.interval._log", lambda *_: None)  # a log without baselines

    def run(home: Path = root / "home", **given: Any) -> StudyRecord:
        return study_interval(Settings(home=home, cache=root / "cache"), replace(ASK, **given))

    return run


def test_a_drifting_shop_is_worth_retraining_for_and_the_record_says_so(study: Study) -> None:
    record = study()
    assert [(p.interval, p.fraction) for p in record.policies] == [
        (i, f) for i in ASK.intervals for f in ASK.fractions
    ]
    quality = {(p.interval, p.fraction): p.ndcg10.mean for p in record.policies}
    assert quality["12h", 1.0] > max(quality["2d", 1.0], quality["never", 1.0]) + 0.05
    weights = record.full_minus_state_fresh
    assert weights is not None
    assert weights.low > 0
    assert record.recommendation is not None
    assert record.recommendation.interval == "12h"
    cost = {p.interval: p.cpu_s_per_day for p in record.policies if p.fraction == 1.0}
    assert cost["12h"] == pytest.approx(4 * cost["2d"])
    assert cost["never"] == 0
    document = record.document()
    assert StudyRecord.from_document(document).document() == document
    for name in ("cells", "train_cpu_s", "each_policy_alone_cpu_s", "exact_grid_cpu_s"):
        assert document[name] > 0


def test_a_second_study_reuses_the_cells_whatever_its_intervals(study: Study) -> None:
    first = study(seed=99)
    again = study(seed=99, intervals=("1d", "2d", "never"))
    assert first.cells_reused == 0
    assert again.cells_reused == again.cells
    same = [p.ndcg10.mean for r in (first, again) for p in r.policies if p.interval == "2d"]
    assert same[:2] == pytest.approx(same[2:], abs=0.01)  # the second knows no models younger than 6 h
    more = study(seed=99, intervals=("12h", "1d", "2d", "never"))
    same = [p.ndcg10 for r in (first, more) for p in r.policies if p.interval == "2d"]
    assert same[:2] == same[2:]


def test_exactly_and_by_age_agree_within_their_intervals(study: Study) -> None:
    by_age, exactly = study(), study(exact=True)
    for a, b in zip(by_age.policies, exactly.policies, strict=True):
        assert (a.interval, a.fraction) == (b.interval, b.fraction)
        assert a.ndcg10.low <= b.ndcg10.high
        assert b.ndcg10.low <= a.ndcg10.high
    never = [r.policies[-1].ndcg10.mean for r in (by_age, exactly)]
    assert never[0] == never[1]


def test_two_seeds_and_a_warm_start_are_policies_too(study: Study) -> None:
    record = study(seeds=2, start="warm", source="log", fractions=(1.0,))
    assert {p.start for p in record.policies} == {"warm"}
    assert all(np.isfinite(p.ndcg10.mean) for p in record.policies)


def test_the_publish_delay_of_a_home_is_that_of_its_own_refreshes(study: Study, tmp_path: Path) -> None:
    own = Home(tmp_path / "own")
    own.run.mkdir(parents=True)
    refreshed = {"made": {"ranker": "v1"}, "seconds": 41.0}
    (own.run / "refreshes.jsonl").write_text(json.dumps(refreshed) + "\n")
    record = study(source=str(own.root), fractions=(1.0,))
    assert record.publish_delay_s == 41.0 + INSTALL_S


def test_rankings_are_dumped_for_other_tools(study: Study, panel: Panel, tmp_path: Path) -> None:
    study(dump=tmp_path / "trec" / "study", fractions=(1.0,))
    runs = sorted((tmp_path / "trec").glob("study.*.run"))
    assert len(runs) == len(ASK.intervals)
    candidates = sum(len(s.item_ids) for s in panel.slices)
    for run in runs:
        assert len(run.read_text().splitlines()) == candidates


def test_policies_are_compared_on_the_slices_that_all_of_them_have(study: Study, panel: Panel) -> None:
    record = study(intervals=("12h", "4d", "never"), fractions=(1.0,))
    each = [p.by_slice for p in record.policies]
    lacks = [np.isnan(values) for values in each if values is not None]
    assert lacks[0].any()
    assert all((mask == lacks[0]).all() for mask in lacks)
    assert any("left out" in finding for finding in record.findings)


def test_a_study_checks_itself_and_says_what_came_out(study: Study) -> None:
    first = study(seed=31, fractions=(1.0,))
    assert first.recheck == Rechecked(1, 1, 0.0)
    assert study(seed=31, fractions=(1.0,)).recheck is None, "nothing new, nothing to check unless asked"
    record = study(seed=31, fractions=(1.0,), recheck=3, confirm=("2d:1", "never:1"))
    assert record.recheck == Rechecked(3, 3, 0.0)
    assert record.broken == ()
    assert StudyRecord.from_document(record.document()).confirmed == record.confirmed
    alone, never = record.confirmed
    assert (alone.trainings, never.trainings) == (4, 1)
    assert alone.equal
    assert never.equal
    assert alone.cpu_s > 0
    assert alone.computed_cpu_s > never.computed_cpu_s > 0
    assert never.ndcg10 == pytest.approx(record.policies[-1].ndcg10.mean)
    assert alone.told == record.policies[1].ndcg10
    said = dict(how_measured(record))["Checks."]
    assert "3 random cells were trained again from their rows, all with the same scores" in said
    assert "each 2 days on all of the data was also run alone: 4 trainings" in said


def test_a_cell_that_scores_otherwise_is_a_broken_promise(study: Study, tmp_path: Path) -> None:
    asked = {"home": tmp_path, "seed": 77, "fractions": (1.0,), "intervals": ("2d", "never")}
    study(**asked)
    cells = CellStore(tmp_path / "studies" / "cells")  # of its own: no other test reads what is planted
    for path in cells.folder.rglob("*.npz"):
        known, model = cells.get(path.stem), cells.model(path.stem)
        assert known is not None
        assert model is not None
        planted = {k: v + 1e-6 for k, v in known.ndcg.items()}
        cells.put(path.stem, replace(known, ndcg=planted), model)
    record = study(**asked, recheck=2, confirm=("2d:1",))
    assert record.recheck is not None
    assert (record.recheck.cells, record.recheck.equal) == (2, 0)
    assert record.recheck.largest_difference == pytest.approx(1e-6)
    assert "2 of 2 cells trained again score otherwise, by up to 1e-06" in record.broken[0]


def test_an_interval_finer_than_the_time_stamps_is_refused(study: Study) -> None:
    with pytest.raises(InputError, match="finer than the time stamps"):
        study(intervals=("1m", "never"))


def test_of_all_components_those_without_words_are_left_out_and_named(study: Study) -> None:
    record = study(component="all", fractions=(1.0,))
    assert [c.component for c in record.components] == ["ranker"]
    told = [f for f in record.findings if "left out" in f]
    assert len(told) == 2
    assert all("has no searches" in f for f in told)
    with pytest.raises(InputError, match=r"encoder cannot be studied.*no searches.*--component ranker"):
        study(component="encoder")


def test_each_component_is_told_by_itself(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """End to end on a shop of words: policies, costs and words of each, and no cell twice."""
    worded = worded_panel(days=5, burn_in_d=2, slices=3, requests_a_day=400)
    worded.save(tmp_path / "panel")
    opened = Panel.load(tmp_path / "panel"), tmp_path / "panel"
    monkeypatch.setattr("flows.studies.interval.open_panel", lambda *_, **__: opened)
    asked = {"component": "all", "fractions": (1.0,), "intervals": ("1d", "never"), "window_d": 1.0}
    record = study(**asked)
    names = ["ranker", "text_classifier", "encoder"]
    assert [c.component for c in record.components] == names
    assert [c.component for c in record.curves] == names
    assert [p.component for p in record.policies] == [n for n in names for _ in range(2)]
    assert record.components[0].beside_cpu_s == 0 < record.components[1].beside_cpu_s
    assert record.findings[0].startswith("Of ranker, text classifier and encoder, each stale alone")
    assert StudyRecord.from_document(record.document()).document() == record.document()
    again = study(**asked)
    assert again.cells_reused == again.cells == record.cells
    assert [p.ndcg10 for p in again.policies] == [p.ndcg10 for p in record.policies]
