"""Spelling: an unknown word becomes the most frequent known word one edit away.

An edit is an insertion, a deletion, a replacement or a swap of neighbours. Known words are found
by what is left of them when one letter is dropped (SymSpell). An unknown word that reads like a word of the
language is left alone where the known one is rare: it is corrected only if "the known one, mistyped" is the
likelier story (the noisy channel of Kernighan, Church & Gale, 1990). A word that no edit explains may be two
known ones written together. It knows words and counts only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.text import STOP_WORDS, normalise, tokens
from infra.errors import DataError
from infra.files import write_atomic
from models.letters import Letters
from models.synonyms import Synonyms

__all__ = ["Rewritten", "Speller", "rewrite"]

_SHORTEST = 4  # shorter known words have too many neighbours
_EDITS = 27.0  # errors at each letter, evenly likely: one of 26 letters, or a slip
_ENOUGH = 200  # words from which the language's letters can be told; with fewer every neighbour will do
_DOUBT = 2.0  # how much likelier, in logarithms, a typing error has to be than a new word
_SHORTEST_PART = 3
_LONGEST = 32
_FIRST_LETTER = 4.0  # typing errors seldom hit the first letter: such a candidate counts fourfold
_CACHED = 16_384


@dataclass(frozen=True)
class Rewritten:
    """A query put right: `text` and its stemmed `words`; `corrected` if spelling changed a word.

    `instead`: the words with learnt synonyms in their places, empty where there is none.
    """

    text: str
    words: list[str]
    corrected: bool
    instead: tuple[str, ...] = ()


class Speller:
    """`counts`: known stemmed word → how often it occurs; `forms`: other forms of it that occur → the word.

    `synonyms`: what is searched beside the words. Safe to share among threads.
    """

    def __init__(
        self,
        counts: Mapping[str, int],
        forms: Mapping[str, str] | None = None,
        synonyms: Synonyms | None = None,
    ) -> None:
        self.synonyms = synonyms or Synonyms()
        self.counts = dict(counts)
        self.forms = {form: word for form, word in (forms or {}).items() if word in self.counts}
        self._total = sum(self.counts.values())
        words = [w for w in (*self.counts, *self.forms) if w.isalpha()]
        self._letters = Letters(words) if len(words) >= _ENOUGH else None
        self._by_rest: dict[str, list[str]] = {}
        for word in (*self.counts, *self.forms):
            if _SHORTEST - 1 <= len(word) <= _LONGEST and word.isalpha():
                for rest in _rests(word):
                    self._by_rest.setdefault(rest, []).append(word)
        # A dict, as an lru_cache of a method is a circle, which would outlive a dropped release.
        self._corrected: dict[tuple[str, str], tuple[str, ...]] = {}

    @classmethod
    def fit(
        cls,
        counts: Mapping[str, int],
        *,
        min_count: int = 1,
        forms: Mapping[str, str] | None = None,
        synonyms: Synonyms | None = None,
    ) -> Speller:
        """Learn the words that occur `min_count` times or more, as `data.text.tokens` cuts them."""
        known = {word: int(n) for word, n in sorted(counts.items()) if word and n >= min_count}
        return cls(known, dict(sorted((forms or {}).items())), synonyms)

    def __len__(self) -> int:
        return len(self.counts)

    def correct(self, tokens: Sequence[str], typed: Sequence[str] | None = None) -> list[str]:
        """The tokens, each unknown one replaced by a known word one edit away, or by two that it joins.

        `typed`: the words that the tokens are stems of, in which endings are misspelt too.
        """
        counts = self.counts
        pairs = zip(tokens, typed or tokens, strict=True)
        return [w for t, raw in pairs for w in ((t,) if t in counts else self._remembered(t, raw))]

    def _remembered(self, token: str, typed: str) -> tuple[str, ...]:
        found = self._corrected.get((token, typed))
        if found is None:
            found = self._correct(token, typed)
            if len(self._corrected) >= _CACHED:
                self._corrected.clear()
            self._corrected[token, typed] = found
        return found

    def _correct(self, token: str, typed: str) -> tuple[str, ...]:
        for word in dict.fromkeys((typed, token)):
            found = self._neighbour(word)
            if found:
                return (found,)
        return self._parted(token) if token.isalpha() and len(token) <= _LONGEST else (token,)

    def _neighbour(self, typed: str) -> str:
        """The known word of which `typed` is most likely a typing error; empty where it is none."""
        if not _SHORTEST - 1 <= len(typed) <= _LONGEST or not typed.isalpha() or typed in STOP_WORDS:
            return ""
        best, best_rank = "", (0.0, "")
        for word in self._candidates(typed):
            if max(len(word), len(typed)) < _SHORTEST:
                continue
            first = _FIRST_LETTER if word[0] == typed[0] else 1.0
            weight = first * self.counts[self.forms.get(word, word)]
            if best_rank[0] < weight or (best_rank[0] == weight and word < best_rank[1]):
                best, best_rank = word, (weight, word)
        if best and self._letters is not None:
            mistyped = math.log(best_rank[0] / _FIRST_LETTER / self._total / (_EDITS * len(typed)))
            if mistyped < self._letters.log_probability(typed) + _DOUBT:
                return ""
        return self.forms.get(best, best)

    def _parted(self, token: str) -> tuple[str, ...]:
        """The two known words that make the token, whose rarer one is the most frequent; else itself."""
        best: tuple[str, ...] = (token,)
        best_count = 1
        for cut in range(_SHORTEST_PART, len(token) - _SHORTEST_PART + 1):
            pair = token[:cut], token[cut:]
            count = min(self.counts.get(part, 0) for part in pair)
            if count > best_count:
                best, best_count = pair, count
        return best

    def _candidates(self, token: str) -> Iterable[str]:
        seen: set[str] = set()
        for rest in _rests(token):
            for word in self._by_rest.get(rest, ()):
                if word not in seen:
                    seen.add(word)
                    if _one_edit(token, word):
                        yield word

    def save(self, folder: Path) -> None:
        """Write `words.json` and `synonyms.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        document = {"counts": self.counts, "forms": self.forms}
        write_atomic(folder / "words.json", json.dumps(document, ensure_ascii=False).encode())
        self.synonyms.save(folder)

    @classmethod
    def load(cls, folder: Path) -> Speller:
        """Read a saved speller."""
        path = folder / "words.json"
        try:
            document = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise DataError(f"no speller in {folder} ({error}); fit it again") from error
        found: dict[str, Any] = {"counts": document, "forms": {}}  # older releases hold the counts alone
        if isinstance(document, dict) and isinstance(document.get("counts"), dict):
            found = document
        counts, forms = found["counts"], found.get("forms")
        if not (
            isinstance(counts, dict)
            and isinstance(forms, dict)
            and all(isinstance(n, int) for n in counts.values())
            and all(isinstance(word, str) for word in forms.values())
        ):
            raise DataError(f"{path} does not map words to counts; fit it again")
        return cls(counts, forms, Synonyms.load(folder))


def rewrite(query: str, speller: Speller | None) -> Rewritten:
    """The query normalised (256 characters count), stemmed, without stop words and spelled right.

    A query of stop words alone keeps them. The trainer rewrites a logged query in the same way where it
    computes its scores again.
    """
    text = normalise(query)
    words, typed = tokens(text), text.split()
    if len(typed) != len(words):  # scripts without spaces
        typed = words
    told = [(w, t) for w, t in zip(words, typed, strict=True) if w not in STOP_WORDS]
    if told and len(told) < len(words):
        words, typed = [w for w, _ in told], [t for _, t in told]
        text = " ".join(words)
    if speller is None or not words:
        return Rewritten(text, words, False)
    right = speller.correct(words, typed)
    instead = speller.synonyms.instead(right)
    if right == words:
        return Rewritten(text, words, False, instead)
    return Rewritten(" ".join(right), right, True, instead)


def _rests(word: str) -> list[str]:
    """The word, and the word without each one of its letters."""
    return [word, *{word[:i] + word[i + 1 :] for i in range(len(word))}]


def _one_edit(a: str, b: str) -> bool:
    """Whether one insertion, deletion, replacement or swap of neighbours makes `a` into `b`."""
    if len(a) > len(b):
        a, b = b, a
    if len(b) - len(a) > 1:
        return False
    i = 0
    while i < len(a) and a[i] == b[i]:
        i += 1
    if len(a) < len(b):
        return a[i:] == b[i + 1 :]
    return a[i + 1 :] == b[i + 1 :] or (a[i : i + 2] == b[i : i + 2][::-1] and a[i + 2 :] == b[i + 2 :])
