"""A study's page in the docs: it equals what its JSON renders to, and keeps what is written by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flows.studies.telling.page import BEGIN, BULKY, END, LARGEST, main, placed, rendered, trimmed, write
from flows.studies.telling.record import StudyRecord, Timeline, load_document
from infra.errors import DataError
from tests.unit.flows.studies.sample import study

DOCS = Path(__file__).parents[4] / "docs" / "studies"
GENERATED = sorted(p for p in DOCS.glob("*.md") if BEGIN in p.read_text())


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A report's folder, with a picture that is one in name only."""
    folder = tmp_path / "report"
    study().save(folder)
    (folder / "staleness.svg").write_text("<svg/>")
    return folder


def test_a_page_of_a_real_log_is_there() -> None:
    assert "movielens" in {p.stem for p in GENERATED}


@pytest.mark.parametrize("page", GENERATED, ids=lambda p: p.stem)
def test_a_page_of_the_docs_is_what_its_json_renders_to(page: Path) -> None:
    document = load_document(page.with_suffix(".json"), study="interval")
    text = page.read_text()
    assert placed(text, rendered(document, name=page.stem)) == text, (
        "the page and its JSON differ; write it again: python -m flows.studies.telling.page"
    )
    assert page.with_suffix(".json").stat().st_size <= LARGEST
    assert page.with_suffix(".svg").read_text().startswith("<?xml")
    by_hand = text.partition(BEGIN)[0] + text.partition(END)[2]
    assert "## What one learns" in by_hand


@pytest.mark.parametrize("page", GENERATED, ids=lambda p: p.stem)
def test_a_ranker_on_a_real_log_is_not_worse_than_what_it_has_to_beat(page: Path) -> None:
    record = StudyRecord.load(page.with_suffix(".json"))
    if record.source == "world":
        pytest.skip("a world has no baselines")
    assert {b.name for b in record.baselines} >= {"popularity", "reference"}
    for b in record.baselines:
        assert b.ours_minus is not None
        assert b.ours_minus.low > 0, f"{b.name} is as good"


def test_what_is_written_by_hand_stays(report: Path, tmp_path: Path) -> None:
    page = tmp_path / "docs" / "name.md"
    write(report, page)
    first = page.read_text()
    assert first.startswith("# How often does the ranker")
    page.write_text(f"# Mine\n\nBefore.\n{first.partition(chr(10))[2]}\n## What one learns\nAfter.\n")
    record = replace(StudyRecord.load(report), finding="flat", half_life_d=None)
    record.save(report)
    assert main([str(report), str(page)]) == 0
    text = page.read_text()
    assert text.startswith("# Mine\n\nBefore.\n")
    assert text.endswith("## What one learns\nAfter.\n")
    assert "No decay can be shown" in text
    assert "is decay: the older" not in text
    assert text.count(BEGIN) == text.count(END) == 1
    assert json.loads(page.with_suffix(".json").read_text()) == record.document()
    write(page.with_suffix(".json"), page)  # from its own document, as when the words have changed
    assert page.read_text() == text


def test_a_page_shows_the_front_the_advice_the_arms_and_the_beaten() -> None:
    record = study()
    text = rendered(record.document(), name="x")
    assert text.count("| yes |") == sum(p.on_front for p in record.policies)
    assert "| **each 12 hours** | 80 % |" in text
    assert "in the weights | 64 % [60, 67]" in text
    assert "| popularity | 0.250 [0.246, 0.254] | +0.1700 [0.1660, 0.1740] | decayed counts" in text
    assert "Half-life 4.1 d [3.0, 5.6]." in text
    assert "A &lt;surprise>" in text
    assert "[x.json](x.json)" in text


def test_a_page_of_little_is_a_page() -> None:
    record = replace(
        study(), curves=(), baselines=(), findings=(), arms=None, recommendation=None, weights_share=None,
        full_minus_state_fresh=None, state_fresh_minus_frozen=None, half_life_d=None, machine={}, method={},
    )  # fmt: skip
    text = rendered(record.document(), name="x")
    assert "No policy can be recommended" in text
    assert "not measured" in text
    assert "None" not in text


def test_a_large_document_says_what_was_left_out_of_it() -> None:
    record = study()
    days = np.linspace(0, 14, 9_000).astype(np.float64)
    large = replace(record, timelines=(Timeline("each 1d", days, days / 3),)).document()
    small = trimmed(large)
    assert small["timelines"] == []
    assert small["trimmed"] == ["timelines"]
    assert small["heats"] == large["heats"]
    assert trimmed(small) == small
    assert "without its timelines" in rendered(small, name="x")
    assert rendered(small, name="x").replace(" (without its timelines, to keep it small)", "") == rendered(
        large, name="x"
    )
    assert set(BULKY) <= large.keys()


def test_a_broken_page_or_report_is_said(
    report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for page in (f"# A\n{BEGIN}\n", f"# A\n{END}\n{BEGIN}\n"):
        with pytest.raises(DataError, match="expected both"):
            placed(page, "text")
    assert main([str(tmp_path), str(tmp_path / "a.md")]) == 2
    assert "is not there; expected the study.json" in capsys.readouterr().err
    (report / "staleness.svg").unlink()
    with pytest.raises(DataError, match=r"staleness\.svg is not there"):
        write(report, tmp_path / "a.md")
    with pytest.raises(DataError, match="expected at most"):
        trimmed(study().document() | {"command": "x" * LARGEST})
