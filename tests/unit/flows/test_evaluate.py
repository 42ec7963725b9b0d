"""Metrics of judged lists, and the truth as a judge on a tiny world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flows.evaluation.judgements import Judged, measure, write_trec

IDS = np.arange(10, 20)
GRADES = np.array([3, 0, 0, 1, 0, 0, 0, 0, 2, 0], np.int8)


def judged(*lists: list[int], query: str = "q1", cluster: int = 1) -> Judged:
    names = ("served", "other")
    found = {n: np.array(ids, np.int64) for n, ids in zip(names, lists, strict=False)}
    return Judged(query, cluster, IDS, 2.0**GRADES - 1, GRADES, found)


def test_the_ideal_order_scores_one_and_its_reverse_less() -> None:
    best = [10, 18, 13, 11, 12]
    assert judged(best).scores("served") == pytest.approx((1.0, 1.0, 0.3, 1.0, 1.0, 1.0))
    worse = judged(best[::-1]).scores("served")
    assert worse[0] < 1.0
    assert worse[2:5] == pytest.approx((0.3, 1.0, 1.0))
    assert worse[5] == pytest.approx(1 / 3)


def test_unjudged_items_count_as_wrong_in_one_and_are_passed_over_in_the_other() -> None:
    lenient, strict, *_ = judged([99, 98, 10, 18, 13]).scores("served")
    assert lenient == pytest.approx(1.0)
    assert strict < 0.7


def test_a_retriever_that_found_nothing_scores_nothing() -> None:
    assert judged([10]).scores("absent") == (0.0,) * 6
    assert judged([]).scores("served") == (0.0,) * 6


def test_queries_without_anything_relevant_say_nothing() -> None:
    nothing = Judged("q2", 2, IDS, np.zeros(10), np.zeros(10, np.int8), {"served": IDS})
    assert np.isnan(nothing.scores("served")).all()
    found = measure([judged([10, 18, 13]), nothing], seed=1)["served"]
    assert found["ndcg10_all"].mean == pytest.approx(1.0)
    assert measure([nothing], seed=1)["served"] == {}


def test_where_only_the_relevant_is_known_no_order_of_it_is_judged() -> None:
    click = Judged("q", 1, np.array([10]), np.ones(1), np.ones(1, np.int8), {"served": IDS})
    assert set(measure([click], seed=1)["served"]) == {"ndcg10_all", "p10", "recall10", "recall100", "mrr"}


def test_trec_files_have_a_line_an_item_and_no_spaces_in_names(tmp_path: Path) -> None:
    files = write_trec(
        [judged([10, 18], [13])], tmp_path / "sub" / "x", key_of=lambda item_id: f"item {item_id}"
    )
    assert {f.name for f in files} == {"x.qrels", "x.run", "x.served.run", "x.other.run"}
    run = (tmp_path / "sub" / "x.run").read_text().splitlines()
    assert run == [
        "q1 Q0 item_10 1 1.000000 shelflife-served",
        "q1 Q0 item_18 2 0.500000 shelflife-served",
    ]
    qrels = (tmp_path / "sub" / "x.qrels").read_text().splitlines()
    assert len(qrels) == 10
    assert qrels[0] == "q1 0 item_10 3"
