"""One spelling for one thing: measures, sizes, model numbers, plurals; twice is once."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from data.text import normalise, tokens

SAME = [
    ("24 inch stool", '24" stool', "24in stool", "24-inch stools", "24 in. stool", "24″ stool"),
    ("5x7 rug", "5 x 7 ft rug", "5' x 7' rug", "5’ × 7’ rugs", "5x7ft rug", "5 ft. x 7 ft. rug"),
    ("WD-40", "wd40", "wd 40"),
    ("iphone12", "iPhone 12", "IPHONE-12"),
    ("kpf 2820 sfs", "KPF-2820SFS", "kpf2820sfs"),
    ("e12 bulb", "E-12 bulb"),
    ("60w bulb", "60 watt bulb", "60-watt bulbs"),
    ("5 pc set", "5-piece set", "5 pieces set"),
    ("½ inch pipe", "1/2 inch pipe", '1/2" pipe'),
    ("1,000 lb", "1000 pounds"),
    ("kid's chair", "kids chair", "kid’s chairs"),
    ("vase", "vases"),
    ("bookshelf shelf", "bookshelf shelves"),
    ("cookie", "cookies"),
    ("mattress", "mattresses"),
    ("grey colour", "gray color"),
]


@pytest.mark.parametrize("spellings", SAME, ids=[s[0] for s in SAME])
def test_a_thing_has_one_spelling(spellings: tuple[str, ...]) -> None:
    assert {tuple(tokens(s)) for s in spellings} == {tuple(tokens(spellings[0]))}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3d printer", ["3d", "printer"]),
        ("4k tv, 2nd hand", ["4k", "tv", "2nd", "hand"]),
        ("3/4 size", ["3/4", "size"]),
        ("7.5 ft tree", ["7.5", "ft", "tree"]),
        ("48'' H x 24'' W x 12'' D", ["48x24", "24x12"]),
        ("rug w003096809", ["rug", "w003096809"]),
        ("love it in red", ["love", "it", "in", "red"]),
        ("glass bus canvas", ["glass", "bus", "canvas"]),
    ],
)
def test_what_tells_things_apart_is_kept(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


@pytest.mark.parametrize(
    ("a", "b"), [("5x7", "5x8"), ("24 inch", "24 ft"), ("7.5 ft", "75 ft"), ("gas", "gap")]
)
def test_different_things_stay_different(a: str, b: str) -> None:
    assert tokens(a) != tokens(b)


_SHOP_WORDS = st.lists(
    st.sampled_from(
        ["5", "7.5", "3/4", "x", "×", "in", "ft", '"', "'", "wd", "-", "40", ",", "s", "iphone", " "]
    ),
    max_size=12,
).map("".join)


@settings(deadline=None)
@given(text=st.text(max_size=200) | _SHOP_WORDS)
def test_normalising_twice_is_normalising_once(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    words = tokens(text)
    joined = " ".join(words)
    assume(normalise(joined) == joined)  # "0 ftxs 0": the trimmed plural would be a measure, feet times
    assert tokens(joined) == words


def test_only_the_beginning_counts() -> None:
    assert tokens("a" * 300) == ["a" * 256]
    assert tokens("a" * 300, most=300) == ["a" * 300]


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("运动鞋", "红色运动鞋男款"),
        ("スニーカー", "ｽﾆｰｶｰ 赤い"),
        ("운동화", "남성용 운동화 270"),
        ("รองเท้า", "รองเท้าผ้าใบสีแดง"),
        ("iphone手机", "新款 iPhone 手机 128GB"),
        ("जूते", "लाल जूते"),
        ("Straße", "STRASSE"),
        ("ﬁlter", "FILTER"),
        ("café", "cafe\u0301"),
        ("Ｎｉｋｅ", "nike"),
        ("İstanbul", "istanbul"),
    ],
)
def test_any_script_is_found_within_a_title(query: str, title: str) -> None:
    assert tokens(query)
    assert set(tokens(query)) <= set(tokens(title))


def test_scripts_without_spaces_tell_words_apart() -> None:
    assert not set(tokens("运动鞋")) & set(tokens("红色连衣裙"))
    assert tokens("がき") != tokens("かき")
    assert tokens("가방") != tokens("가구")
    assert tokens("水") == ["水"]


@given(st.text(max_size=60))
@settings(max_examples=300)
def test_normalising_any_text_twice_is_once(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)
