"""What an item is found by, and how much each field counts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from data.text import tokens
from models.item_words import WEIGHTS, Compounds, item_words, known_words
from models.lexical_index import LexicalIndex


def test_every_field_counts_by_its_weight_and_long_ones_once() -> None:
    words = Counter(
        item_words(
            {
                "title": "Oak desk",
                "category": "Desks",
                "brand": "Nord",
                "description": "a desk, a desk, a large desk " + "x" * 300,
                "tags": ["seat height: 24 inches", "waterproof: yes", "swivel: no", "modern"],
            }
        )
    )
    assert words["oak"] == WEIGHTS["title"]
    assert words["desk"] == WEIGHTS["title"] + WEIGHTS["category"] + WEIGHTS["description"]
    assert words["nord"] == WEIGHTS["brand"]
    assert words["24"] == words["inch"] == words["waterproof"] == words["modern"] == words["large"] == 1
    assert "swivel" not in words
    assert "height" not in words
    assert item_words({}) == []


def test_words_written_together_and_apart_find_each_other() -> None:
    titles = [
        tokens(t)
        for t in ("oak night stand", "pine night stand", "nightstand white", "a bed room", "bedroom rug")
    ]
    compounds = Compounds.of(titles)
    assert compounds.other_ways(["night", "stand"]) == ["nightstand"]
    assert compounds.other_ways(["nightstand"]) == ["night", "stand"]
    assert compounds.other_ways(["bedroom"]) == []  # one title may have it by chance
    assert "nightstand" in item_words({"title": "night stand"}, compounds)


def test_all_words_of_an_item_are_known() -> None:
    naming, others = known_words(
        {"title": "Red lamp", "description": "lamp by Vantagio", "tags": ["base: brass"]}
    )
    assert naming == ["red", "lamp"]
    assert others == {"by", "vantagio", "brass"}


def test_without_clicks_all_words_come_before_some_and_titles_before_mentions(tmp_path: Path) -> None:
    payloads = [
        {"title": "red chair", "description": "stands beside any lamp"},
        {"title": "red lamp"},
        {"title": "blue lamp", "description": "of a red house"},
        {"title": "green sofa", "description": "goes with a red lamp"},
    ]
    index = LexicalIndex.build(
        tmp_path / "x", np.arange(4), [item_words(p) for p in payloads], np.zeros(4, np.int8)
    )
    assert index.flat
    rows, scores = index.search_all_then_any(["red", "lamp"], 10, enough=60)
    assert rows[0] == 1
    assert set(rows.tolist()) == {0, 1, 2, 3}
    assert (np.diff(scores) <= 0).all()
    rows, _ = index.search_all_then_any(["red", "sofa"], 10, enough=60)
    assert rows[0] == 3


def test_an_index_of_several_tiers_is_not_flat(tmp_path: Path) -> None:
    assert not LexicalIndex.build(tmp_path / "x", [1, 2], ["a", "b"], np.array([0, 2], np.int8)).flat
