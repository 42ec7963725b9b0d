"""How likely a word's letters are in a vocabulary: trigrams, smoothed by shorter ones (Witten & Bell, 1991).

The speller asks it whether an unknown word reads like a word of the language or like a typing error. It
knows letters only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

__all__ = ["Letters"]

_LETTERS = 30  # letters that a place may hold, for those never seen
_PRIOR = 4.0  # what a shorter context counts for beside a longer one


class Letters:
    """Counts of letters, pairs and triples over distinct words."""

    def __init__(self, words: Iterable[str]) -> None:
        self._grams: Counter[str] = Counter()
        self._contexts: Counter[str] = Counter()
        for word in words:
            marked = _marked(word)
            for i in range(2, len(marked)):
                self._grams.update((marked[i], marked[i - 1 : i + 1], marked[i - 2 : i + 1]))
                self._contexts.update(("", marked[i - 1], marked[i - 2 : i]))

    def log_probability(self, word: str) -> float:
        """The natural logarithm of the probability of the word's letters and its end."""
        total = 0.0
        marked = _marked(word)
        grams, contexts = self._grams, self._contexts
        for i in range(2, len(marked)):
            p = (grams[marked[i]] + 1) / (contexts[""] + _LETTERS)
            for n in (1, 2):
                context = marked[i - n : i]
                p = (grams[context + marked[i]] + _PRIOR * p) / (contexts[context] + _PRIOR)
            total += math.log(p)
        return total


def _marked(word: str) -> str:
    return f"^^{word}$"
