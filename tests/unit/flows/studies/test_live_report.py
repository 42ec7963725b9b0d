"""What a trial left and what is told of it: the record, the words, the page."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.policies.policy import parse_policy
from flows.studies.live import words
from flows.studies.live.ask import CONTROL, live_ask
from flows.studies.live.freshness import STAGES, Stage
from flows.studies.live.keepers import ProcessRuns
from flows.studies.live.measure import lived as lived_of
from flows.studies.live.measure import over_control
from flows.studies.live.predict import HINDCAST, every_of
from flows.studies.live.record import LiveRecord, Over
from flows.studies.live.report import write_report
from flows.studies.live.verdict import AGREES
from infra.clock import DAY_US
from infra.settings import Settings
from models.metrics import Interval
from tests.unit.flows.studies.lived import (
    days,
    kept,
    lived,
    predicted,
    record,
)


def test_a_policy_is_held_against_never_on_the_same_queries() -> None:
    never = days(0.0, spread=0.01, seed=1)
    daily = [replace(s, queries=s.queries - [0, 0, -0.03]) for s in never]
    found = over_control(daily, [replace(s, fresh=False) for s in never], seed=7)
    assert found is not None
    assert found.mean == pytest.approx(0.03)
    others = [replace(s, sessions=s.sessions + 1) for s in never]
    assert over_control(daily, others, seed=7) is None


def test_the_sentence_has_its_figures() -> None:
    told = words.sentence(lived("daily", 0.05, 0.05))
    found = re.search(r"(\d+) % comes from fresh state and (\d+) % from fresh weights", told)
    assert found is not None
    assert abs(int(found[1]) - 67) <= 1
    assert int(found[1]) + int(found[2]) in (99, 100, 101)
    assert "cost 12.0 CPU-seconds a day" in told
    assert "confirmed live" in told
    assert "not confirmed" not in told


@pytest.mark.parametrize(
    ("gain", "said", "spread", "has", "has_not"),
    [
        (0.05, 0.12, 0.02, "not confirmed live", "not settled"),
        (0.05, 0.05, 0.9, "not settled live", "confirmed live"),
        (0.0, 0.0, 0.02, "no shares can be told", "% comes from"),
        (0.05, None, 0.02, "Not predicted", "confirmed live"),
    ],
)
def test_nothing_is_claimed_that_is_not_shown(
    gain: float, said: float | None, spread: float, has: str, has_not: str
) -> None:
    told = words.sentence(lived("daily", gain, said, spread=spread))
    assert has in told
    assert has_not not in told


def test_a_failed_request_is_a_broken_promise() -> None:
    assert record(lived("daily", 0.05, 0.05)).promises == ()
    (said,) = record(lived("daily", 0.05, 0.05, failed=2)).promises
    assert "2 of" in said


def test_the_document_comes_back_and_the_report_stands_alone(tmp_path: Path) -> None:
    ahead = Interval(0.05, 0.04, 0.06)
    stages = tuple(Stage(name, 2.0, 9.0, 20.0, 90.0, 50) for name in STAGES)
    daily = lived("daily", 0.05, 0.05, over_control=ahead, freshness=stages)
    found = record(daily, lived(CONTROL, 0.0, None))
    page = write_report(found, tmp_path / "live")
    text = page.read_text()
    assert found.sentences[0].split(";")[0] in text.replace("&#39;", "'")
    assert '<link rel="stylesheet"' not in text
    assert 'src="http' not in text
    for name in ("latency", "cost", "verdict", "freshness", "quality", "attribution"):
        assert (tmp_path / "live" / f"{name}.svg").exists()
        assert (tmp_path / "live" / f"{name}.png").stat().st_size > 1_000
    back = LiveRecord.load(tmp_path / "live")
    assert back.document() == found.document()
    assert back.main.verdict.word == AGREES
    said = words.summary(found, str(page))
    assert "agrees" in said
    assert str(page) in said


def test_a_study_in_which_nothing_was_measured_has_a_page_too(tmp_path: Path) -> None:
    empty = Over(1.0, np.empty(0), np.empty(0), np.empty(0))
    none: dict[str, Any] = dict.fromkeys(("days", "full", "state_fresh"), np.empty(0))
    nothing = lived(CONTROL, 0.0, None, over=empty, **none)
    assert write_report(record(nothing, sentences=()), tmp_path / "live").exists()


def test_a_trial_is_told_from_what_it_left(tmp_path: Path) -> None:
    ask = live_ask(days=3)
    kept(tmp_path, ask)
    told = lived_of(ask, ask.trials[0], tmp_path, predicted(0.04, n=3))
    assert (told.requests, told.failed, told.load) == (9_000, 0, "VALID")
    assert (told.refreshes, told.refused, told.failed_runs, told.swaps) == (2, 0, 1, 2)
    assert told.releases_served == 3
    assert told.cpu_s_per_day == pytest.approx(4.0)
    assert told.run_s == pytest.approx(10.0)
    assert told.full_minus_state_fresh.mean == pytest.approx(0.04)  # of the days with a release of its own
    assert told.state_fresh_minus_frozen.mean == pytest.approx(0.1)
    assert told.predicted.tolist() == [0.04] * 3
    assert told.verdict.days == 2
    quiet, training = (told.tail.by_condition[c]["p99"] for c in ("quiet", "training"))
    assert quiet < 5.1 < 10 < training
    assert [s.name for s in told.freshness] == list(STAGES)
    assert told.freshness[-1].whole_p95_s < 86_400 + 60
    assert any("4 s of wall time behind" in n for n in told.notes)
    assert any("no luck" in n for n in told.notes)
    assert {b.condition for b in told.over.bands} == {"training", "installing", "shopping"}


def test_what_the_log_of_the_live_shop_tells_stands_beside_the_prediction(tmp_path: Path) -> None:
    ask = live_ask(days=3)
    kept(tmp_path, ask)
    assert lived_of(ask, ask.trials[0], tmp_path, predicted(0.0, n=3)).afterwards is None
    told = {"interval": "1d", "weights": [0.0, 0.03, 0.05], "state": [0.1] * 3, "error": 0.001}
    policies = {"daily": told | {"gain": [0.04, 0.03, 0.05]}}
    document = {"declared_wall_us": 1, "margin": 0.015, "policies": policies}
    (tmp_path / HINDCAST).write_text(json.dumps(document))
    found = lived_of(ask, ask.trials[0], tmp_path, predicted(0.0, n=3))
    assert found.verdict.difference is not None
    assert found.verdict.difference.mean == pytest.approx(0.04)  # by the prediction, as before
    assert found.hindcast.tolist() == [0.0, 0.03, 0.05]
    assert found.afterwards is not None
    assert found.afterwards.difference is not None
    assert found.afterwards.difference.mean == pytest.approx(0.0, abs=1e-9)
    said = " ".join(words.answer(record(found)))
    assert "from the log that daily itself wrote" in said
    assert "+0.040 to what it said beforehand" in said


@pytest.mark.parametrize(
    ("trigger", "every_us", "noted"),
    [
        ("{kind: interval, every: 12h}", DAY_US // 2, False),
        ("{kind: interval, every: 60d}", 10 * DAY_US, False),
        ("{kind: never}", None, False),
        ("{kind: cron, at: '0 6,18 * * *'}", DAY_US // 2, True),
        ("{kind: amount, events: 500}", None, True),
    ],
)
def test_a_policy_is_predicted_by_how_often_its_clock_fires(
    trigger: str, every_us: int | None, noted: bool
) -> None:
    text = f"name: a\ningest: 6h\ncomponents: {{ranker: {{trigger: {trigger}}}}}"
    found, note = every_of(parse_policy(text), 10)
    assert found == every_us
    assert bool(note) == noted


def test_a_run_of_a_study_that_is_gone_is_tried_again(tmp_path: Path) -> None:
    outcome = ProcessRuns(Settings(home=tmp_path)).outcome("17-1")
    assert outcome is not None
    assert outcome.kind == "again"
