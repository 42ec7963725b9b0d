"""Synonyms come of clicks that agree, need evidence, and are no words that go together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infra.errors import DataError
from models.speller import Speller, rewrite
from models.synonyms import Synonyms

KINDS = ("sofa", "lamp", "desk", "rug", "chair", "bed")
COLOURS = ("red", "blue", "green")


def _clicks(n: int, *, seed: int = 1, agree: bool = True) -> list[tuple[list[str], int, list[str]]]:
    """Shoppers say couch for half of the sofas, and always `floor lamp`; items say colour and kind."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(n):
        kind, colour = rng.choice(KINDS), rng.choice(COLOURS)
        item = int(rng.integers(20))
        said = {"sofa": "couch" if rng.random() < 0.5 else "sofa", "lamp": "floor lamp"}.get(kind, kind)
        query = [colour, *said.split()]
        if not agree:
            kind, colour = rng.choice(KINDS), rng.choice(COLOURS)
        out.append((query, KINDS.index(kind) * 20 + item, [colour, kind, f"m{item}"]))
    return out


def test_another_word_for_the_same_items_is_found_and_nothing_else() -> None:
    assert dict(Synonyms.fit(_clicks(400)).words) == {"couch": "sofa"}


def test_clicks_that_tell_nothing_teach_nothing() -> None:
    for seed in range(5):
        assert not len(Synonyms.fit(_clicks(400, seed=seed, agree=False)))


def test_little_evidence_is_none() -> None:
    assert not len(Synonyms.fit(_clicks(40)))
    one_item = [(["couch"], 7, ["red", "sofa"])] * 50 + [(["lamp"], 8, ["blue", "lamp"])] * 200
    assert not len(Synonyms.fit(one_item))


def test_words_that_stand_together_are_no_synonyms() -> None:
    clicks = [(["floor", "lamp"], i % 9, ["tall", "lamp"]) for i in range(60)]
    clicks += [(["rug"], 20 + i % 9, ["rug"]) for i in range(300)]
    assert "lamp" not in Synonyms.fit(clicks).words.values()


def test_a_rewritten_query_says_what_else_is_searched(tmp_path: Path) -> None:
    speller = Speller.fit({"sofa": 9, "red": 9, "couch": 9}, synonyms=Synonyms({"couch": "sofa"}))
    assert rewrite("red couches", speller).instead == ("red", "sofa")
    assert rewrite("red sofa", speller).instead == ()
    speller.save(tmp_path)
    assert Speller.load(tmp_path).synonyms == speller.synonyms
    (tmp_path / "synonyms.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match="words to words"):
        Speller.load(tmp_path)
