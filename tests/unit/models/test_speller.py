"""Known words stay, unknown ones move by one edit to the most frequent neighbour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors import DataError
from models.speller import Rewritten, Speller, rewrite

COUNTS = {"shirt": 50, "skirt": 20, "short": 5, "lamp": 9, "cotton": 30, "красный": 4, "a4": 7, "desk": 3}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("shrit", "shirt"),  # swap
        ("shirtt", "shirt"),  # insertion
        ("coton", "cotton"),  # deletion
        ("coston", "cotton"),  # replacement
        ("красныи", "красный"),
        ("dekc", "dekc"),  # two edits
        ("lmp", "lamp"),
        ("lm", "lm"),  # too short
        ("xyzzy", "xyzzy"),
        ("", ""),
    ],
)
def test_one_edit_is_mended(typed: str, meant: str) -> None:
    assert Speller.fit(COUNTS).correct([typed]) == [meant]


def test_the_frequent_neighbour_wins_and_the_first_letter_counts() -> None:
    assert Speller.fit({"shirt": 50, "skirt": 20}).correct(["srirt"]) == ["shirt"]
    assert Speller.fit({"shirt": 20, "skirt": 50}).correct(["srirt"]) == ["skirt"]
    assert Speller.fit({"boots": 10, "roots": 30}).correct(["bootsx", "oots"]) == ["boots", "roots"]


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.sampled_from(sorted(COUNTS))))
def test_known_words_never_change(words: list[str]) -> None:
    assert Speller.fit(COUNTS).correct(words) == words


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.text(max_size=40)))
def test_the_number_and_order_of_words_stay(words: list[str]) -> None:
    out = Speller.fit(COUNTS).correct(words)
    assert len(out) == len(words)
    assert all(a == b or b in COUNTS for a, b in zip(words, out, strict=True))


@settings(deadline=None)  # the machine may be busy
@given(st.sampled_from(["shirt", "cotton", "skirt"]), st.integers(0, 4), st.sampled_from("qxz"))
def test_each_single_letter_replaced_is_found(word: str, at: int, letter: str) -> None:
    typed = word[:at] + letter + word[at + 1 :]
    assert Speller.fit({word: 3, "unrelated": 100}).correct([typed]) == [word]


def test_a_word_that_reads_like_one_is_not_taken_for_a_rare_neighbour() -> None:
    rng = np.random.default_rng(1)
    syllables = [c + v for c in "bdklmnprst" for v in "aeiou"]
    words = sorted({"".join(rng.choice(syllables, 3)) for _ in range(400)})
    rare, common = words[::2], words[1::2]
    speller = Speller.fit(dict.fromkeys(rare, 1) | dict.fromkeys(common, 300))
    pronounced = ["".join(rng.choice(syllables, 3)) for _ in range(500)]
    new = [w for w in pronounced if w not in speller.counts]
    taken = [speller.correct([w])[0] for w in new]
    assert sum(t in rare for t in taken) == 0
    mistyped = [w[:2] + "xq"[i % 2] + w[3:] for i, w in enumerate(common)]  # no such letters in a word
    right = np.mean([speller.correct([t]) == [w] for t, w in zip(mistyped, common, strict=True)])
    assert right > 0.9


def test_endings_are_misspelt_too(tmp_path: Path) -> None:
    speller = Speller.fit({"accessory": 9, "lamp": 20}, forms={"accessories": "accessory", "gone": "absent"})
    assert speller.forms == {"accessories": "accessory"}
    assert rewrite("accessoires lamps", speller) == Rewritten("accessory lamp", ["accessory", "lamp"], True)
    speller.save(tmp_path)
    assert rewrite("accessoires", Speller.load(tmp_path)).words == ["accessory"]


def test_rare_words_can_be_left_out_and_the_rest_survives_disk(tmp_path: Path) -> None:
    speller = Speller.fit(COUNTS, min_count=10)
    assert set(speller.counts) == {"shirt", "skirt", "cotton"}
    speller.save(tmp_path)
    loaded = Speller.load(tmp_path)
    assert loaded.counts == speller.counts
    typed = ["shrit", "skirtt", "lamp", "coton"]
    assert loaded.correct(typed) == speller.correct(typed) == ["shirt", "skirt", "lamp", "cotton"]


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no speller"):
        Speller.load(tmp_path)
    (tmp_path / "words.json").write_text('{"a": "b"}')
    with pytest.raises(DataError, match="words to counts"):
        Speller.load(tmp_path)
