"""The words by which an item is found, each repeated by the weight of the field that it stands in.

BM25 over the repeated words is BM25F (Robertson, Zaragoza and Taylor, CIKM 2004): one saturation and one
length for all fields. Words that some write together and others apart are given both ways. It knows
fields and a catalogue's own titles, no queries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from data.text import STOP_WORDS, tokens

__all__ = ["WEIGHTS", "Compounds", "item_words", "known_words"]

# A title names the thing, so it counts most; what a description mentions may be anything.
WEIGHTS: Mapping[str, int] = {
    "title": 5, "category": 3, "brand": 2, "colour": 2, "material": 2, "tags": 1, "description": 1,
}  # fmt: skip
_LONG_CHARS = 2_000  # of a description or the tags together
_LONG = ("tags", "description")
_SHORTEST_PART = 3  # letters of a part of a compound: shorter ones stand beside each other by chance
_FEWEST = 2  # titles that write a compound apart


@dataclass(frozen=True)
class Compounds:
    """Words that the catalogue's titles write both together and apart, such as nightstand.

    `joined`: (first, second) → the one word; `parts`: the one word → its two parts.
    """

    joined: Mapping[tuple[str, str], str] = field(default_factory=dict)
    parts: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, titles: Iterable[Sequence[str]]) -> Compounds:
        """What the titles, cut into tokens, write in both ways."""
        words: Counter[str] = Counter()
        pairs: Counter[tuple[str, str]] = Counter()
        for title in titles:
            words.update(title)
            pairs.update((a, b) for a, b in pairwise(title) if _may_join(a, b))
        joined = {p: p[0] + p[1] for p, n in pairs.items() if n >= _FEWEST and p[0] + p[1] in words}
        return cls(joined, {word: pair for pair, word in joined.items()})

    def other_ways(self, words: Sequence[str]) -> list[str]:
        """The words that stand for some of these, written the other way."""
        found = [joined for pair in pairwise(words) if (joined := self.joined.get(pair))]
        for word in words:
            found += self.parts.get(word, ())
        return found


def item_words(payload: Mapping[str, Any], compounds: Compounds | None = None) -> list[str]:
    """All words of the item, stemmed, in no order that means anything."""
    words: list[str] = []
    for name in ("title", "category", "brand", "colour", "material"):
        found = tokens(str(payload.get(name) or ""))
        if compounds is not None and name in ("title", "category"):
            found += compounds.other_ways(found)
        words += WEIGHTS[name] * found
    for name in _LONG:
        # Each word once: who repeats a word in a long text does not sell it any more.
        found = list(dict.fromkeys(tokens(_long_text(payload, name), most=_LONG_CHARS)))
        words += WEIGHTS[name] * found
    return words


def known_words(payload: Mapping[str, Any]) -> tuple[list[str], set[str]]:
    """Words that name the item, repeats kept, and all others that its texts hold."""
    names = ("title", "category", "brand", "colour", "material")
    naming = [t for name in names for t in tokens(str(payload.get(name) or ""))]
    others = {t for name in _LONG for t in tokens(_long_text(payload, name), most=_LONG_CHARS)}
    return naming, others - set(naming)


def _long_text(payload: Mapping[str, Any], name: str) -> str:
    value = payload.get(name)
    if isinstance(value, list | tuple):
        return " | ".join(_told(str(v)) for v in value)
    return str(value or "")


def _told(tag: str) -> str:
    """What a tag says: the value of `name: value`, the name where the value is yes, nothing where no."""
    name, colon, value = tag.partition(":")
    if not colon:
        return tag
    plain = value.strip().lower()
    if plain in ("yes", "true"):
        return name
    return "" if plain in ("no", "false", "not applicable", "n/a", "none") else value


def _may_join(a: str, b: str) -> bool:
    if a in STOP_WORDS or b in STOP_WORDS:
        return False
    return len(a) >= _SHORTEST_PART and len(b) >= _SHORTEST_PART and a.isalpha() and b.isalpha()
