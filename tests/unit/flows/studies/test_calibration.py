"""A small version of `make calibrate`: worlds with known answers, and what must not matter."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flows.studies.calibration.cases import CASES
from flows.studies.calibration.run import calibrate, judge, summary, table
from flows.studies.calibration.runs import Measured, Setting, measured
from flows.studies.calibration.worlds import SmallWorldConfig, small_world
from flows.studies.cells.asks import IntervalAsk
from flows.studies.statistics.choice import MARGIN
from infra.clock import DAY_US

_TINY = SmallWorldConfig(days=34, burn_in_d=17, slices=6, queries=40, requests_a_day=350)
_YEAR_US = 365 * DAY_US


def _tiny(**knobs: object) -> Measured:
    found = measured(Setting(replace(_TINY, **knobs)))  # type: ignore[arg-type]
    assert found is not None
    return found


@pytest.fixture(scope="module")
def drifting() -> Measured:
    return _tiny(value_half_life_d=3.0)


@pytest.mark.slow
def test_drift_in_values_is_found_and_attributed_to_weights(drifting: Measured) -> None:
    told = judge(drifting)
    assert told["source"] == "weights"
    assert told["kind"] == "decay"
    assert told["covers"]
    assert told["regret"] <= 0.1
    assert told["interval"] in {"12 h", "1 d"}


@pytest.mark.slow
def test_models_lose_what_the_truth_loses(drifting: Measured) -> None:
    """The curve of the log's models follows the true one, though they learn from clicks."""
    told = judge(drifting)
    assert np.corrcoef(told["loss"], told["true_loss"])[0, 1] > 0.95


@pytest.mark.slow
def test_drift_in_tastes_is_attributed_to_state() -> None:
    told = judge(_tiny(taste_half_life_d=2.0, tastes=1.8, churn=0.03, slices=10))
    assert told["source"] == "state"


@pytest.mark.slow
def test_shuffled_clicks_teach_nothing() -> None:
    """Values drift, but clicks do not tell: fresh weights are worth nothing at every age."""
    told = judge(_tiny(value_half_life_d=3.0, shuffled=True))
    assert told["nothing_learned"]
    assert told["source"] == "neither"
    assert told["interval"] == "never"


@pytest.mark.slow
def test_what_must_not_matter_does_not(drifting: Measured) -> None:
    """All dates a year later, ids renamed, the log folded in other pieces: the same scores and findings."""
    other = _tiny(value_half_life_d=3.0, later_us=_YEAR_US, renamed=True, pieces=3)
    assert np.array_equal(other.scores.ndcg, drifting.scores.ndcg)
    assert np.array_equal(other.frozen, drifting.frozen)
    assert other.scores.starts_us is not None
    assert drifting.scores.starts_us is not None
    assert set((other.scores.starts_us - drifting.scores.starts_us).tolist()) == {_YEAR_US}
    told, same = judge(other), judge(drifting)
    for key in ("kind", "source", "interval", "half_life_d", "loss"):
        assert told[key] == same[key], key


@pytest.mark.slow
def test_finished_worlds_are_not_run_again(tmp_path: Path) -> None:
    config = replace(_TINY, days=32, slices=3, queries=10, requests_a_day=150)
    case = replace(CASES[0], setting=Setting(config))
    first = calibrate(tmp_path, worlds=2, workers=1, niceness=0, cases=[case])
    kept = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    again = calibrate(tmp_path, worlds=2, workers=1, niceness=0, cases=[case])
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == kept
    assert len(kept) == 2
    assert again == first
    late = calibrate(tmp_path, worlds=3, workers=1, niceness=0, cases=[case], seconds=-1.0)
    assert late["cases"][0]["worlds"] == 2  # what is kept is judged, nothing is begun
    assert f"| {first['cases'][0]['right']} of 2 |" in table(first)


def test_a_case_fails_where_too_few_come_out_right() -> None:
    case = next(c for c in CASES if c.name == "smooth decay")

    def passed(kinds: list[str]) -> bool:
        told = [{"kind": k, "seed": i} for i, k in enumerate(kinds)]
        return bool(summary([case], {case.setting: told})["cases"][0]["passed"])

    assert passed(["decay"] * 17 + ["flat"] * 3)
    assert not passed(["decay"] * 16 + ["flat"] * 4)
    assert not passed([])


def test_the_page_tells_what_was_run() -> None:
    """The committed table is that of the committed findings, of all cases, by their rules."""
    docs = Path(__file__).parents[4] / "docs" / "studies"
    document = json.loads((docs / "calibration.json").read_text())
    assert table(document) in (docs / "calibration.md").read_text()
    assert [r["case"] for r in document["cases"]] == [c.name for c in CASES]
    assert document["margin"] == MARGIN == IntervalAsk().margin
    results = {w["setting"]: w["results"] for w in document["worlds"]}
    for case, row in zip(CASES, document["cases"], strict=True):
        found = results[repr(case.setting)]
        assert len({r["seed"] for r in found}) == row["worlds"] > 0
        assert all(r["seed"] >= case.first for r in found)
        assert sum(bool(case.right(r)) for r in found) == row["right"]


def test_worlds_drift_as_they_say() -> None:
    """Values a half-life apart correlate by a half; seeds differ, equal seeds do not; weeks return."""
    config = SmallWorldConfig(days=400, burn_in_d=10, slices=1, queries=1, requests_a_day=1)
    values = small_world(replace(config, value_half_life_d=5.0)).values
    x = values - values.mean(0)
    apart = 5 * 8
    found = (x[apart:] * x[:-apart]).mean() / (x**2).mean()
    assert found == pytest.approx(0.5, abs=0.1)
    still = small_world(config).values
    assert np.array_equal(still[0], still[-1])
    week = small_world(replace(config, weekly=0.5)).values
    assert week[:-56] == pytest.approx(week[56:])
    shifted = small_world(replace(config, shift_d=200.0)).values
    jumps = np.flatnonzero(np.abs(np.diff(shifted, axis=0)).max(1))
    assert jumps.tolist() == [200 * 8 - 1]
    assert not np.array_equal(values, small_world(replace(config, value_half_life_d=5.0, seed=8)).values)


def test_a_small_world_is_a_sound_panel() -> None:
    world = small_world(replace(_TINY, churn=0.05, taste_half_life_d=3.0))
    panel = world.panel
    assert panel.rows.features.shape == (34 * 350 * 10, len(panel.names))
    assert (np.diff(panel.rows.time_us) >= 0).all()
    assert (panel.label_us > panel.rows.time_us).all()
    part = panel.slices[-1]
    assert not part.known.all()
    assert part.ndcg(part.gains) == pytest.approx(1.0)
    assert np.array_equal(part.fresh[:, :17], part.frozen[:, :17])  # the state moves, items do not
    assert not np.array_equal(part.fresh, part.frozen)
    clicked = panel.rows.labels > 0
    assert 0.05 < clicked.mean() < 0.3
    random = np.isfinite(panel.rows.propensity).reshape(-1, 10)
    assert random.sum(1).tolist() == [2] * len(random)
