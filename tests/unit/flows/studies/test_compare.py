"""Studies side by side, and their rankings as TREC files."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.studies.panels.panel import Slice
from flows.studies.telling.compare import compare, compare_records, describe
from flows.studies.telling.record import StudyRecord
from flows.studies.telling.trec import write_trec
from infra.errors import DataError
from tests.unit.flows.studies.sample import around, study


def advised(record: StudyRecord, interval: str, **more: Any) -> StudyRecord:
    assert record.recommendation is not None
    return replace(record, recommendation=replace(record.recommendation, interval=interval, **more))


def test_a_study_agrees_with_itself(tmp_path: Path) -> None:
    record = replace(study(), panel_key="k")
    record.save(tmp_path / "a")
    found = compare(tmp_path / "a", tmp_path / "a" / "study.json")
    assert found["same_queries"]
    assert all(q["agree"] for q in found["questions"])
    assert len(found["policies"]) == 30
    assert all(p["b_minus_a"] == {"mean": 0.0, "low": 0.0, "high": 0.0} for p in found["policies"])
    assert "0 differ by more than chance" in describe(found)


def test_differences_on_the_same_queries_are_paired_and_tighter() -> None:
    a = replace(study(), panel_key="k")
    b = replace(
        a,
        policies=tuple(
            replace(
                p,
                by_slice=None if p.by_slice is None else p.by_slice + 0.005,
                ndcg10=around(p.ndcg10.mean + 0.005, 0.02),
            )
            for p in a.policies
        ),
    )
    paired = compare_records(a, b)["policies"][0]["b_minus_a"]
    apart = compare_records(a, replace(b, panel_key="other"))["policies"][0]["b_minus_a"]
    assert paired["mean"] == pytest.approx(apart["mean"]) == pytest.approx(0.005)
    assert paired["low"] > 0 > apart["low"]
    assert apart["high"] - apart["mean"] == pytest.approx(math.hypot(0.02, 0.02))


def test_what_differs_is_said(tmp_path: Path) -> None:
    a = study()
    b = replace(
        advised(study(), "never", fraction=1.0),
        full_minus_state_fresh=around(0.0), half_life_d=None, finding="flat", policies=a.policies[5:],
    )  # fmt: skip
    found = compare_records(a, b)
    agree = {q["question"]: q["agree"] for q in found["questions"]}
    assert agree["How often to retrain, on how much data?"] is False
    assert agree["What kind of effect is it?"] is False
    assert agree["Is there a gain of fresh weights?"] is False
    assert agree["Is there a gain of fresh state?"] is True
    assert agree["What is the half-life?"] is None
    assert len(found["only_a"]) == 5
    text = describe(found)
    assert "DIFFER" in text
    assert "5 policies are only in A." in text


# TREC


def slice_of(scores: int, rng: np.random.Generator) -> Slice:
    groups = np.array([4, 3, scores - 7], np.int32)
    gains = rng.integers(0, 4, scores) + rng.uniform(-0.3, 0.3, scores)
    features = np.zeros((scores, 1), np.float32)
    return Slice(
        0, 1, groups, rng.permutation(scores).astype(np.int64), gains, np.ones(3), features, features,
        np.ones(scores, bool), np.array([5, 6, 5], np.int64), np.zeros(3, np.int64),
    )  # fmt: skip


def test_trec_files_hold_every_candidate_in_the_order_of_its_score(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    slices = [slice_of(12, rng), slice_of(9, rng)]
    scores = [rng.normal(size=12), rng.normal(size=9)]
    tied = [np.zeros(12), np.full(9, -np.inf)]
    files = write_trec(tmp_path / "out" / "dump", slices, {"ranker 6h, 40 %": scores, "never": tied})
    assert [f.name for f in files] == ["dump.qrels", "dump.ranker_6h_40pct.run", "dump.never.run"]
    qrels = [line.split(" ") for line in files[0].read_text().splitlines()]
    grades = {(q, i): int(g) for q, _, i, g in qrels}
    assert len(qrels) == 21
    for number, part in enumerate(slices):
        whole = np.rint(part.gains).astype(int).tolist()
        names = np.repeat(part.query_ids, part.groups).tolist()
        for query, item, grade in zip(names, part.item_ids.tolist(), whole, strict=True):
            assert grades[f"{number}-{query}", str(item)] == grade
    for file in files[1:]:
        rows = [line.split(" ") for line in file.read_text().splitlines()]
        assert len(rows) == 21
        assert {(q, i) for q, _, i, *_ in rows} == set(grades)
        for before, after in pairwise(rows):
            if int(after[3]) > 1:
                assert int(after[3]) == int(before[3]) + 1
                assert float(after[4]) < float(before[4]), "TREC's tools sort by score"
    kept = [line.split(" ")[2] for line in files[2].read_text().splitlines()]
    assert kept == [str(i) for s in slices for i in s.item_ids.tolist()], "ties keep the given order"


def test_trec_refuses_scores_that_do_not_fit(tmp_path: Path) -> None:
    part = slice_of(9, np.random.default_rng(5))
    with pytest.raises(DataError, match="8 scores for the 9 candidates of slice 0"):
        write_trec(tmp_path / "d", [part], {"p": [np.zeros(8)]})
    with pytest.raises(DataError, match="scores of 2 slices; expected 1"):
        write_trec(tmp_path / "d", [part], {"p": [np.zeros(9)] * 2})
    with pytest.raises(DataError, match="would share a file"):
        write_trec(tmp_path / "d", [part], {"a b": [np.zeros(9)], "a/b": [np.zeros(9)]})
    assert list(tmp_path.iterdir()) == []
