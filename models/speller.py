"""Spelling: an unknown word becomes the most frequent known word one edit away.

An edit is an insertion, a deletion, a replacement or a swap of neighbours. Known words are found
by what is left of them when one letter is dropped (SymSpell). It knows words and counts only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from data.text import normalise, tokens
from infra.errors import DataError
from infra.files import write_atomic

__all__ = ["Rewritten", "Speller", "rewrite"]

_SHORTEST = 4  # shorter words have too many neighbours
_LONGEST = 32
_FIRST_LETTER = 4.0  # typing errors seldom hit the first letter: such a candidate counts fourfold
_CACHED = 16_384


@dataclass(frozen=True)
class Rewritten:
    """A query put right: `text` and its stemmed `words`; `corrected` if spelling changed a word."""

    text: str
    words: list[str]
    corrected: bool


class Speller:
    """`counts`: known word → how often it occurs. Safe to share among threads."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self.counts = dict(counts)
        self._by_rest: dict[str, list[str]] = {}
        for word in self.counts:
            if _SHORTEST - 1 <= len(word) <= _LONGEST and word.isalpha():
                for rest in _rests(word):
                    self._by_rest.setdefault(rest, []).append(word)
        self._corrected = lru_cache(maxsize=_CACHED)(self._correct)

    @classmethod
    def fit(cls, counts: Mapping[str, int], *, min_count: int = 1) -> Speller:
        """Learn the words that occur `min_count` times or more, as `data.text.tokens` cuts them."""
        return cls({word: int(n) for word, n in sorted(counts.items()) if word and n >= min_count})

    def __len__(self) -> int:
        return len(self.counts)

    def correct(self, tokens: Sequence[str]) -> list[str]:
        """The tokens, each unknown one replaced where a known word is one edit away."""
        counts = self.counts
        return [t if t in counts else self._corrected(t) for t in tokens]

    def _correct(self, token: str) -> str:
        if not _SHORTEST <= len(token) <= _LONGEST or not token.isalpha():
            return token
        best, best_rank = token, (0.0, "")
        for word in self._candidates(token):
            weight = self.counts[word] * (_FIRST_LETTER if word[0] == token[0] else 1.0)
            if best_rank[0] < weight or (best_rank[0] == weight and word < best_rank[1]):
                best, best_rank = word, (weight, word)
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
        """Write `words.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "words.json", json.dumps(self.counts, ensure_ascii=False).encode())

    @classmethod
    def load(cls, folder: Path) -> Speller:
        """Read a saved speller."""
        path = folder / "words.json"
        try:
            counts = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise DataError(f"no speller in {folder} ({error}); fit it again") from error
        if not isinstance(counts, dict) or not all(isinstance(n, int) for n in counts.values()):
            raise DataError(f"{path} does not map words to counts; fit it again")
        return cls(counts)


def rewrite(query: str, speller: Speller | None) -> Rewritten:
    """The query normalised (256 characters count), stemmed and spelled right.

    The trainer rewrites a logged query in the same way where it computes its scores again.
    """
    text = normalise(query)
    words = tokens(text)
    if speller is None or not words:
        return Rewritten(text, words, False)
    right = speller.correct(words)
    if right == words:
        return Rewritten(text, words, False)
    return Rewritten(" ".join(right), right, True)


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
