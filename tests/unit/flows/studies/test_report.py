"""A study asked for and told: options, the record, the report, comparisons, TREC files, errors in "
"one line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.report.words import num, signed
from flows.studies.telling import words
from flows.studies.telling.record import Curve, StudyRecord, from_plain, plain, save_document
from flows.studies.telling.report import report_folder, write_report
from infra.errors import DataError
from models.metrics import Interval
from tests.unit.flows.studies.sample import around, study

NAN = float("nan")
PICTURES = ("staleness", "cost", "attribution", "heat", "age")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyRecord, Path]:
    record = study(components=("ranker", "text_classifier"))
    folder = tmp_path_factory.mktemp("reports") / "study"
    assert write_report(record, folder) == folder / "report.html"
    return record, folder


# The record


def test_the_document_has_what_was_promised() -> None:
    document = study().document()
    interval = {"mean", "low", "high"}
    assert set(document["arms"]) == {"frozen", "state_fresh", "full"}
    assert set(document["full_minus_state_fresh"]) == set(document["half_life_d"]) == interval
    assert {"component", "interval", "fraction", "start", "ndcg10", "cpu_s_per_day"} <= set(
        document["policies"][0]
    )
    assert {"interval", "fraction", "why"} <= set(document["recommendation"])
    for name in ("cells", "train_cpu_s", "each_policy_alone_cpu_s", "exact_grid_cpu_s", "seed"):
        assert isinstance(document[name], int | float)
    assert len(document["policies"]) == 30


def unknown(record: StudyRecord) -> StudyRecord:
    """As little measured as can be: NaN in every figure."""
    nothing = Interval(NAN, NAN, NAN)
    return replace(
        record,
        policies=tuple(replace(p, ndcg10=nothing, cpu_s_per_day=NAN, by_slice=None) for p in record.policies),
        curves=tuple(replace(c, mean=c.mean * NAN, truth=None) for c in record.curves),
        heats=tuple(replace(h, ndcg=h.ndcg * NAN) for h in record.heats),
        timelines=(), baselines=(), findings=(), finding="", recommendation=None, arms=None,
        full_minus_state_fresh=nothing, state_fresh_minus_frozen=None, half_life_d=None, weights_share=None,
        train_cpu_s=NAN, each_policy_alone_cpu_s=NAN, exact_grid_cpu_s=math.inf, wall_s=NAN,
    )  # fmt: skip


@pytest.mark.parametrize("change", [lambda r: r, unknown], ids=["whole", "unknown"])
def test_a_record_survives_its_json(tmp_path: Path, change: Callable[[StudyRecord], StudyRecord]) -> None:
    record = change(study(components=("ranker", "encoder")))
    path = record.save(tmp_path / "a")
    again = StudyRecord.load(path)
    assert again.document() == record.document() == StudyRecord.load(path.parent).document()
    assert type(again.curves[0].ages_d) is np.ndarray
    np.testing.assert_array_equal(again.heats[0].ndcg, record.heats[0].ndcg)
    assert again.policies[3].ndcg10.mean == pytest.approx(record.policies[3].ndcg10.mean, nan_ok=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is no study"),
        ('{"study": "volume"}', "is of a volume study"),
        ('{"study": "interval"}', "document has no 'question'"),
    ],
)
def test_what_is_no_study_is_said(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(DataError, match=re.escape(message)):
        StudyRecord.load(tmp_path)


def test_a_wrong_field_is_named() -> None:
    document = study().document()
    document["policies"][2]["ndcg10"] = 3
    with pytest.raises(DataError, match=re.escape("document.policies[2].ndcg10 is int, expected a Interval")):
        StudyRecord.from_document(document)


def test_infinity_and_nan_are_null() -> None:
    assert plain({"a": [NAN, math.inf, np.float64(1.5), np.int64(2), Path("x")]}) == {
        "a": [None, None, 1.5, 2, "x"]
    }
    assert math.isnan(from_plain(float, None))


def test_a_curve_of_a_loss_is_turned_round() -> None:
    ages = np.array([1.0, 2.0])
    found = Curve.of_loss("ranker", ages, np.array([0, 0.3]), np.array([0, 0.2]), np.array([0, 0.5]))
    assert (found.mean[1], found.low[1], found.high[1]) == (-0.3, -0.5, -0.2)


# The report


def test_the_page_opens_offline_and_holds_its_document(written: tuple[StudyRecord, Path]) -> None:
    record, folder = written
    page = (folder / "report.html").read_text()
    assert (
        re.findall(r"""(?:src|href)\s*=\s*["']?(?!#|data:|study\.json|\w+\.(?:svg|png)["'])[^"'\s>]+""", page)
        == []
    )
    assert not re.search(r"https?://", page)
    embedded = re.search(r'<script type="application/json" id="study">(.*?)</script>', page, re.S)
    assert embedded is not None
    assert json.loads(embedded[1]) == json.loads((folder / "study.json").read_text()) == record.document()
    assert "<surprise>" not in page, "text is escaped"


def test_each_picture_is_a_file_too_and_says_what_it_shows(written: tuple[StudyRecord, Path]) -> None:
    _, folder = written
    page = (folder / "report.html").read_text()
    for name in PICTURES:
        assert (folder / f"{name}.svg").read_text().startswith("<?xml")
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f'id="{name}-alt"' in page
    assert {p.name for p in folder.iterdir()} == {
        "report.html", "study.json", *(f"{n}.{e}" for n in PICTURES for e in ("svg", "png"))
    }  # fmt: skip


def test_each_policy_and_figure_stands_on_the_page(written: tuple[StudyRecord, Path]) -> None:
    record, folder = written
    page = (folder / "report.html").read_text()
    for p in record.policies:
        assert num(p.ndcg10.mean, 4) in page
        assert num(p.cpu_s_per_day, 2) in page
    for figure in (record.each_policy_alone_cpu_s, record.exact_grid_cpu_s, record.publish_delay_s):
        assert num(figure, 1) in page
    assert signed(record.full_minus_state_fresh.mean if record.full_minus_state_fresh else NAN) in page
    assert record.command in page
    assert page.count('class="front"') + page.count('class="front chosen"') == sum(
        p.on_front for p in record.policies
    )
    assert len(re.findall(r'<tr class="[a-z ]*chosen"', page)) == 1


def test_a_report_with_nothing_measured_is_still_a_page(tmp_path: Path) -> None:
    page = write_report(unknown(study()), tmp_path / "r").read_text()
    assert "No policy can be recommended" in page
    assert not list((tmp_path / "r").glob("*.svg"))
    assert "nan" not in re.sub(r"<style>.*?</style>", "", page, flags=re.S).lower().split()


def test_a_report_replaces_an_older_one_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    (folder / "old").mkdir(parents=True)
    write_report(unknown(study()), folder)
    assert {p.name for p in folder.iterdir()} == {"report.html", "study.json"}
    assert [p.name for p in tmp_path.iterdir()] == ["r"], "nothing is left beside it"


def test_reports_never_share_a_folder(tmp_path: Path) -> None:
    first = report_folder(tmp_path, "interval")
    first.mkdir()
    assert report_folder(tmp_path, "interval") != first


# The words


def advised(record: StudyRecord, interval: str, **more: Any) -> StudyRecord:
    assert record.recommendation is not None
    return replace(record, recommendation=replace(record.recommendation, interval=interval, **more))


def test_rarely_is_an_answer_like_any_other() -> None:
    record = study()
    for interval in ("7d", "never"):
        rare = advised(record, interval, fraction=1.0)
        assert words.verdict(rare).startswith("Retrain rarely")
        assert words.answer(rare)[0].startswith("Retrain rarely: ")
    assert "rarely" not in " ".join([words.verdict(record), *words.answer(record)])


def test_no_gain_is_claimed_where_the_interval_holds_zero() -> None:
    record = replace(study(), full_minus_state_fresh=around(0.003), finding="flat", half_life_d=None)
    _, worth, effect = words.answer(record)
    assert "no gain of theirs can be shown" in worth
    assert "No decay can be shown" in effect


def test_a_claim_that_failed_on_the_other_half_is_not_called_within() -> None:
    assert ", within the margin" in words.answer(study())[0]
    assert "not surely within the margin" in words.answer(advised(study(), "12h", holds=False))[0]


def test_halves_of_the_slices_that_disagree_settle_nothing() -> None:
    lost = Interval(0.05, 0.04, 0.06)
    record = advised(study(), "never", fraction=1.0, difference=lost, holds=False)
    assert words.verdict(record).startswith("Not settled: half of the slices say that never is soon enough")
    assert "rarely" not in words.answer(record)[0]
    assert "more than the margin" in words.answer(record)[0]
    within = advised(record, "never", difference=Interval(0.001, -0.04, 0.06))
    assert words.verdict(within).startswith("Retrain rarely")


def test_the_shortest_interval_for_want_of_evidence_is_called_that() -> None:
    kept = advised(study(), "6h", fraction=1.0, difference=Interval(0.0, 0.0, 0.0))
    assert words.verdict(kept) == "Retrain each 6 hours, on all of the data."
    unsure = replace(kept, full_minus_state_fresh=around(0.001), finding="flat")
    assert words.verdict(unsure).startswith("Too little is known to tell: retrain each 6 hours")
    assert "is itself the shortest interval" in words.answer(unsure)[0]


@pytest.mark.parametrize("kind", ["flat", "decay", "shift", "weekly", "growth"])
def test_each_kind_of_effect_has_its_own_sentence(kind: str) -> None:
    sentence = words.answer(replace(study(), finding=kind))[2]
    others = {words.answer(replace(study(), finding=k))[2] for k in words.FINDINGS if k != kind}
    assert sentence not in others
    assert sentence.endswith(".")


def test_every_kind_that_can_be_found_has_words() -> None:
    from flows.studies.statistics.shape import KINDS

    assert set(KINDS) <= set(words.FINDINGS)


@pytest.mark.parametrize(
    ("days", "name"), [(1 / 1440, "1 min"), (0.25, "6 h"), (1, "1 d"), (1.54, "1.5 d"), (24.0, "24 d")]
)
def test_ages_are_named_shortly(days: float, name: str) -> None:
    assert words.age_name(days) == name


def test_a_document_is_whole_or_absent(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        save_document({"study": "interval", "x": NAN}, tmp_path)
    assert list(tmp_path.iterdir()) == []
