"""The cascade fills up from the popular tier and keeps every hit; scores are tantivy's; any query is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.text import tokens
from infra.errors import DataError
from models.lexical_index import LexicalIndex, assign_tiers
from models.lexical_kernel import KEYS

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


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("query", [["red"], ["wool", "shirt"], ["lamp", "desk", "chair"], ["boot", "boot"]])
def test_all_and_only_what_matches_is_found(
    index: LexicalIndex, texts: list[str], query: list[str], every: bool
) -> None:
    ids, _, _ = index.search(query, 1_000, every=every)
    assert len(set(ids.tolist())) == len(ids)
    assert set(ids.tolist()) == matching(texts, query, len(set(query)) if every else 1)
    assert len(index.search([*query, "absent"], 1_000, every=True)[0]) == 0


def by_tantivy(texts: list[list[str]], query: list[str], k: int, *, every: bool) -> tuple[list[int], Any]:
    """The k best texts and their scores, as tantivy sees it."""
    from tantivy import Document, Index, Occur, Query, SchemaBuilder

    schema = (
        SchemaBuilder()
        .add_unsigned_field("row", fast=True)
        .add_text_field("text", tokenizer_name="whitespace", index_option="freq")
        .build()
    )
    held = Index(schema)
    writer = held.writer(heap_size=15_000_000, num_threads=1)
    for row, words in enumerate(texts):
        document = Document()
        document.add_unsigned("row", row)
        document.add_text("text", " ".join(words))
        writer.add_document(document)
    writer.commit()
    writer.wait_merging_threads()
    held.reload()
    searcher = held.searcher()
    occur = Occur.Must if every else Occur.Should
    terms = [(occur, Query.term_query(schema, "text", word)) for word in query]
    hits = searcher.search(Query.boolean_query(terms), k, False).hits
    rows = searcher.fast_field_values("row", [address for _, address in hits])
    return rows, np.array([score for score, _ in hits], np.float32)


@pytest.mark.parametrize("every", [False, True])
def test_hits_and_scores_are_tantivys(tmp_path: Path, every: bool) -> None:
    rng = np.random.default_rng(5)
    share = 1 / np.arange(1, 41)  # some words in most texts, some in few; texts of 1 to 120 words
    words = [f"w{i}" for i in range(40)]
    texts = [rng.choice(words, int(n), p=share / share.sum()).tolist() for n in rng.integers(1, 121, 600)]
    index = LexicalIndex.build(tmp_path / "x", np.arange(600), texts, np.zeros(600, np.int8))
    for query in (["w0"], ["w1", "w30"], ["w39", "w2", "w17"], ["w3", "w0", "w25", "w8"]):
        for k in (7, 50, 600):
            rows, scores, _ = index.search(query, k, every=every)
            told, their_scores = by_tantivy(texts, query, k, every=every)
            assert scores == pytest.approx(their_scores, rel=1e-6)
            # Scores that rounding alone tells apart may come in another order.
            if len(query) < 3:
                assert rows.tolist() == told
                assert np.array_equal(scores, their_scores)


@pytest.mark.parametrize("every", [False, True])
def test_the_best_are_found_where_more_match_than_there_is_room_for(tmp_path: Path, every: bool) -> None:
    n = 3 * KEYS
    rng = np.random.default_rng(6)
    texts = [["a", "b", *["c"] * int(extra)] for extra in rng.integers(0, 40, n)]
    index = LexicalIndex.build(tmp_path / "x", np.arange(n), texts, np.zeros(n, np.int8))
    all_rows, all_scores = index.search_rows(["a", "b"], n, every=every)
    order = np.lexsort((all_rows, -all_scores))
    assert np.array_equal(order, np.arange(n))
    for k in (1, 200, KEYS, KEYS + 1):
        rows, scores = index.search_rows(["a", "b"], k, every=every)
        assert np.array_equal(rows, all_rows[:k])
        assert np.array_equal(scores, all_scores[:k])


def test_a_word_rare_beside_common_ones_is_looked_into(tmp_path: Path) -> None:
    n = 5_000
    texts = [["common", *(["rare"] if i % 997 == 5 else [])] for i in range(n)]
    index = LexicalIndex.build(tmp_path / "x", np.arange(n), texts, np.arange(n) % 3)
    found, _, _ = index.search(["common", "rare"], 50, every=True)
    assert sorted(found.tolist()) == [5, 1002, 1999, 2996, 3993, 4990]


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
    assert np.array_equal(tiers, assign_tiers(np.random.default_rng(2).random(400))[ids - BIG])
    assert np.array_equal(np.sort(index.tiers), index.tiers)
    for tier in range(3):  # as they were given
        assert (np.diff(index.item_ids[index.tiers == tier]) > 0).all()


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
    LexicalIndex.build(tmp_path / "x", [1, 2], ["a", "b"], np.array([0, 1], np.int8))
    np.save(tmp_path / "x" / "words.npy", np.arange(3))
    with pytest.raises(DataError, match="do not belong together"):
        LexicalIndex.load(tmp_path / "x")
