"""The two towers learn from clicks which items a query means, also where no word is shared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import ConfigError, DataError
from models.encoder import Encoder, item_text
from models.vector_index import VectorIndex

SYNONYMS = {"couch": "sofa", "trainers": "sneaker", "rucksack": "backpack", "jumper": "sweater"}
COLOURS = ["red", "blue", "green", "black", "white", "grey"]
ITEMS = [f"{colour} {noun} {i}" for noun in SYNONYMS.values() for colour in COLOURS for i in range(5)]


def clicks(n: int, *, seed: int) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(seed)
    queries, clicked = [], []
    for _ in range(n):
        word, noun = list(SYNONYMS.items())[rng.integers(len(SYNONYMS))]
        colour = COLOURS[rng.integers(len(COLOURS))]
        queries.append(f"{colour} {word}")
        clicked.append(f"{colour} {noun} {rng.integers(5)}")
    return queries, clicked


def precision(encoder: Encoder, queries: list[str], wanted: list[str]) -> float:
    """Share of the five nearest items that are of the colour and the noun that were meant."""
    index = VectorIndex.build(np.arange(len(ITEMS)), encoder.encode_items(ITEMS))
    ids, _ = index.search(encoder.encode_queries(queries), 5)
    stems = [w.rsplit(" ", 1)[0] for w in wanted]
    return float(np.mean([[ITEMS[i].startswith(s) for i in row] for row, s in zip(ids, stems, strict=True)]))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    queries, clicked = clicks(4_000, seed=1)
    return Encoder.fit(queries, clicked, np.ones(4_000), seed=1, epochs=6)


def test_clicks_teach_synonyms(encoder: Encoder) -> None:
    queries, clicked = clicks(200, seed=2)
    untrained = Encoder.fit([], [], [], seed=1)
    assert precision(encoder, queries, clicked) > 0.95
    assert precision(untrained, queries, clicked) < 0.5


def test_shuffled_clicks_teach_no_synonyms() -> None:
    queries, clicked = clicks(4_000, seed=1)
    shuffled = [str(c) for c in np.random.default_rng(0).permutation(clicked)]
    fooled = Encoder.fit(queries, shuffled, np.ones(4_000), seed=1, epochs=3)
    assert precision(fooled, *clicks(200, seed=2)) < 0.3


def test_pairs_without_weight_teach_nothing() -> None:
    good, bad = clicks(2_000, seed=1), clicks(2_000, seed=3)
    wrong = [str(c) for c in np.random.default_rng(0).permutation(bad[1])]
    weights = np.concatenate([np.ones(2_000), np.zeros(2_000)])
    right = Encoder.fit(good[0] + bad[0], good[1] + wrong, weights, seed=1, epochs=6)
    assert precision(right, *clicks(200, seed=2)) > 0.9


def test_untrained_it_matches_like_with_like() -> None:
    encoder = Encoder.fit([], [], [], seed=3)
    scores = encoder.encode_queries(["red sofa"]) @ encoder.encode_items(["red sofa 1", "blue backpack"]).T
    assert scores[0, 0] > 0.5 > scores[0, 1]


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.text(max_size=80), min_size=2, max_size=8))
def test_vectors_are_units_or_zeros_and_the_same_alone(encoder: Encoder, texts: list[str]) -> None:
    for encode in (encoder.encode_queries, encoder.encode_items):
        together = encode(texts)
        assert together.dtype == np.float32
        assert together.shape == (len(texts), encoder.dim)
        norms = np.linalg.norm(together, axis=1)
        assert (np.isclose(norms, 1, atol=1e-5) | (norms == 0)).all()
        assert np.allclose(together, np.concatenate([encode([t]) for t in texts]), atol=1e-5)
    assert encoder.encode_items([]).shape == (0, encoder.dim)


def test_save_load_encode_is_identical_and_so_is_the_space(encoder: Encoder, tmp_path: Path) -> None:
    encoder.save(tmp_path)
    loaded = Encoder.load(tmp_path)
    assert loaded.space_id == encoder.space_id
    assert np.array_equal(loaded.encode_items(ITEMS), encoder.encode_items(ITEMS))
    assert np.array_equal(loaded.encode_queries(["red couch"]), encoder.encode_queries(["red couch"]))


def test_the_space_is_named_after_the_weights(encoder: Encoder) -> None:
    queries, clicked = clicks(300, seed=4)
    once, again, other = (
        Encoder.fit(queries, clicked, np.ones(300), seed=s, init=encoder, epochs=1) for s in (5, 5, 6)
    )
    assert once.space_id == again.space_id
    assert len({once.space_id, other.space_id, encoder.space_id}) == 3
    assert Encoder.fit([], [], [], seed=5, init=encoder).space_id == encoder.space_id


def test_a_warm_start_keeps_what_it_knew(encoder: Encoder) -> None:
    warm = Encoder.fit(["red lamp"] * 50, ["red lantern"] * 50, np.ones(50), seed=1, init=encoder, epochs=1)
    assert precision(warm, *clicks(200, seed=2)) > 0.9


def test_item_text_takes_what_describes_and_survives_gaps() -> None:
    payload = {
        "title": "Oak desk",
        "category": "desks",
        "brand": "Nord",
        "colour": None,
        "material": "oak",
        "price": 3,
    }
    assert item_text(payload) == "Oak desk desks Nord oak"
    assert item_text({}) == ""
    long = item_text({"title": "x" * 500, "category": "desks", "material": "oak"})
    assert len(long) < 256
    assert long.endswith("desks oak")


def test_what_is_wrong_is_said(encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected one number"):
        Encoder.fit(["a"], ["b", "c"], [1.0], seed=1)
    with pytest.raises(DataError, match="negative or not finite"):
        Encoder.fit(["a"], ["b"], [-1.0], seed=1)
    with pytest.raises(ConfigError, match="start cold"):
        Encoder.fit(["a"], ["b"], [1.0], seed=1, dim=8, init=encoder)
    with pytest.raises(DataError, match="no encoder"):
        Encoder.load(tmp_path)
