"""The cascade fills up from the popular tier and keeps every hit; any query is a query."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.text import tokens
from infra.errors import DataError
from models.lexical_index import LexicalIndex, assign_tiers

WORDS = ["red", "blue", "cotton", "wool", "shirt", "skirt", "boots", "lamp", "desk", "chair"]
BIG = 1 << 62


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = np.random.default_rng(1)
    return [" ".join(rng.choice(WORDS, 3, replace=False)) for _ in range(400)]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> LexicalIndex:
    tiers = assign_tiers(np.random.default_rng(2).random(400))
    ids = np.arange(400, dtype=np.int64) + BIG
    return LexicalIndex.build(tmp_path_factory.mktemp("lexical") / "index", ids, texts, tiers)


def matching(texts: list[str], query: list[str], minimum: int = 1) -> set[int]:
    return {BIG + i for i, t in enumerate(texts) if len(set(query) & set(tokens(t))) >= minimum}


@settings(deadline=None)  # the machine may be busy
@given(n=st.integers(0, 500), seed=st.integers(0, 99))
def test_tiers_are_15_35_50_percent_by_rank(n: int, seed: int) -> None:
    rate = np.random.default_rng(seed).random(n)
    tiers = assign_tiers(rate)
    counts = np.bincount(tiers, minlength=3)
    assert counts.sum() == n
    assert abs(counts[0] - 0.15 * n) <= 1
    assert abs(counts[:2].sum() - 0.5 * n) <= 1
    for better in (0, 1):
        if counts[better] and (tiers > better).any():
            assert rate[tiers == better].min() >= rate[tiers > better].max()


def test_tiers_put_unknown_rates_last_and_break_ties_by_order() -> None:
    assert assign_tiers(np.array([np.nan, 0.0, 0.0, 0.0, 9.0, 0.0, 0.0])).tolist() == [2, 1, 1, 1, 0, 2, 2]


@pytest.mark.parametrize("minimum", [1, 2, 3])
@pytest.mark.parametrize("query", [["red"], ["wool", "shirt"], ["lamp", "desk", "chair"], ["boot", "boot"]])
def test_all_and_only_what_matches_is_found(
    index: LexicalIndex, texts: list[str], query: list[str], minimum: int
) -> None:
    ids, _, _ = index.search(query, 1_000, minimum_match=minimum)
    assert len(set(ids.tolist())) == len(ids)
    assert set(ids.tolist()) == matching(texts, query, min(minimum, len(set(query))))


@pytest.mark.parametrize("k", [1, 5, 20, 60, 150, 400])
def test_the_cascade_stops_when_there_are_enough_and_keeps_every_hit(index: LexicalIndex, k: int) -> None:
    every, _, all_tiers = index.search(["red", "lamp"], 400)
    per_tier = np.bincount(all_tiers, minlength=3)
    ids, scores, tiers = index.search(["red", "lamp"], k)
    assert (np.diff(tiers) >= 0).all()
    expected = []
    for count in per_tier:
        if sum(expected) >= k:
            expected.append(0)
        else:
            expected.append(min(int(count), k))
    assert np.bincount(tiers, minlength=3).tolist() == expected
    assert set(ids.tolist()) <= set(every.tolist())
    for tier in range(3):
        assert (np.diff(scores[tiers == tier]) <= 0).all()


def test_tiers_in_hits_are_those_given(index: LexicalIndex) -> None:
    ids, _, tiers = index.search(["wool"], 400)
    assert np.array_equal(tiers, index.tiers[ids - BIG])


def test_matching_more_words_scores_higher_within_a_tier(index: LexicalIndex, texts: list[str]) -> None:
    ids, scores, tiers = index.search(["red", "lamp"], 400)
    both = np.isin(ids, list(matching(texts, ["red", "lamp"], 2)))
    assert both.any()
    for tier in range(3):
        here = tiers == tier
        assert scores[here & both].min() > scores[here & ~both].max()


@settings(deadline=None)  # the machine may be busy
@given(query=st.text(max_size=300))
def test_any_text_is_a_query(index: LexicalIndex, texts: list[str], query: str) -> None:
    words = tokens(query)
    assert set(index.search(words, 400)[0].tolist()) == matching(texts, words)
    uncut = [query, '"', "AND", "red:blue", "(", "", "*"]
    assert set(index.search(uncut, 400)[0].tolist()) == matching(texts, uncut)


def test_every_script_is_found(tmp_path: Path) -> None:
    texts = ["красная лампа", "赤い ランプ", "Crème brûlée", "مصباح أحمر", "🦊 fox", "naïve-co_op 5,5 cm"]
    index = LexicalIndex.build(tmp_path / "x", np.arange(6), texts, np.zeros(6, np.int8))
    for i, text in enumerate(texts):
        assert index.search(tokens(text.upper()), 1)[0].tolist() == [i]


def test_nothing_is_found_for_nothing(index: LexicalIndex) -> None:
    for words, k in (([], 10), (["absent"], 10), (["red"], 0)):
        ids, scores, tiers = index.search(words, k)
        assert len(ids) == len(scores) == len(tiers) == 0


def test_loaded_index_answers_the_same_while_tiers_may_be_empty(tmp_path: Path, texts: list[str]) -> None:
    for tiers in (np.zeros(400, np.int8), np.full(400, 2, np.int8)):
        built = LexicalIndex.build(tmp_path / "x", np.arange(400), texts, tiers)
        loaded = LexicalIndex.load(tmp_path / "x")
        for a, b in zip(built.search(["red", "desk"], 30), loaded.search(["red", "desk"], 30), strict=True):
            assert np.array_equal(a, b)
    empty = LexicalIndex.build(tmp_path / "none", [], [], np.empty(0, np.int8))
    assert len(empty.search(["red"], 5)[0]) == 0


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 ids, 1 texts"):
        LexicalIndex.build(tmp_path / "x", [1, 2], ["a"], np.zeros(2, np.int8))
    with pytest.raises(DataError, match="repeat"):
        LexicalIndex.build(tmp_path / "x", [1, 1], ["a", "b"], np.zeros(2, np.int8))
    with pytest.raises(DataError, match="tiers from 0 to 3"):
        LexicalIndex.build(tmp_path / "x", [1, 2], ["a", "b"], np.array([0, 3], np.int8))
    with pytest.raises(DataError, match="no lexical index"):
        LexicalIndex.load(tmp_path / "nowhere")
