"""What follows from the words of a query and the release alone, remembered for the next who asks.

Spelling, category probabilities, vector, and the hits of the base indexes: none of it changes while a
release lives, so a common query costs it once. It knows neither shoppers nor state.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from data.codes import CODES, code_of
from data.schema import stable_hash
from data.text import normalise, token_hashes
from models.release import Release
from models.speller import Rewritten, rewrite

__all__ = ["CodeProbs", "KnownQuery", "QueryMemory", "TextHits", "VectorHits", "class_codes", "normalised"]

_REMEMBERED = 8_192  # about 6 kB each; of a Zipf-like log a quarter more hits than of 2,048

normalised = lru_cache(maxsize=8_192)(normalise)
"""`data.text.normalise`, with the last few thousand texts remembered."""


@dataclass(frozen=True)
class CodeProbs:
    """A probability for every category or department code, by slots that few codes have.

    slots int16 [CODES]; probs float32 [s]: the probability of code c is probs[slots[c]].
    """

    slots: NDArray[np.int16]
    probs: NDArray[np.float32]

    def of(self, codes: NDArray[np.int32]) -> NDArray[np.float32]:
        """float32 [n]: the probability of each code."""
        return self.probs.take(self.slots.take(codes))


@dataclass(frozen=True)
class TextHits:
    """Hits of the tiers: positions in the lexical index int64 [h], BM25 float32 [h], tiers int8 [h]."""

    at: NDArray[np.int64]
    scores: NDArray[np.float32]
    tiers: NDArray[np.int8]


@dataclass(frozen=True)
class VectorHits:
    """Nearest of the vector index, best first: positions int64 [h], inner products float32 [h]."""

    at: NDArray[np.int64]
    scores: NDArray[np.float32]


@dataclass(slots=True)
class KnownQuery:
    """A query as one release understands it; hits are looked up when they are first asked for.

    `tokens`: uint32 hashes of the rewritten words; `key`: of the query as typed, 0 without a word;
    `class_probs` float32 [C] and `code_probs`: None without words or without a classifier; `vector`
    float32 [dim], None without words; `other`: the query with learnt synonyms in place of its words, for
    the tiers alone, None where there is none.
    """

    release: Release
    rewritten: Rewritten
    tokens: NDArray[np.uint32]
    key: int
    class_probs: NDArray[np.float32] | None
    code_probs: CodeProbs | None
    vector: NDArray[np.float32] | None
    other: KnownQuery | None = None
    _text: tuple[tuple[int, int], TextHits] | None = None
    _nearest: tuple[int, VectorHits] | None = None

    def text_hits(self, k: int, *, enough: int) -> TextHits:
        """Items with all of the words; with any of them, where fewer than `enough` have all."""
        held = self._text
        if held is None or held[0] != (k, enough):
            index, words = self.release.lexical_index, self.rewritten.words
            # All words first: else weak hits would fill a popular tier and stop the cascade short.
            at, scores = index.search_all_then_any(words, k, enough=enough)
            held = self._text = ((k, enough), TextHits(at, scores, np.asarray(index.tiers[at])))
        return held[1]

    def nearest(self, k: int) -> VectorHits:
        """The k items nearest to the query's vector."""
        held = self._nearest
        if held is None or held[0] != k:
            assert self.vector is not None, "a query without words has no vector"
            held = self._nearest = (k, nearest(self.release, self.vector, k))
        return held[1]


class QueryMemory:
    """The last queries that a release was asked; safe to share among threads.

    `before`: of the release that this one takes over from. Each query makes it forget two of its own: freed
    all at once, when that release goes, thousands would hold up a request for 20 ms.
    """

    def __init__(
        self, release: Release, *, capacity: int = _REMEMBERED, before: QueryMemory | None = None
    ) -> None:
        text = release.text_classifier
        codes = class_codes(text.classes if text else ())
        found, of_class = np.unique(codes, return_inverse=True)
        slots = np.full(CODES, len(found), np.int16)
        slots[found] = np.arange(len(found))
        self._know = partial(_know, release, slots, of_class)
        self._capacity = capacity
        # Each operation on it is a single one for other threads; no lock for a request to wait at.
        self._known: OrderedDict[str, KnownQuery] = OrderedDict()
        self._outgoing = None if before is None else before._known
        self._hits = self._misses = 0

    def of(self, query: str) -> KnownQuery:
        """What the query means to the release."""
        text = normalised(query)
        if self._outgoing is not None:
            self._forget_two()
        known = self._known.get(text)
        if known is None:
            self._misses += 1
            known = self._known[text] = self._know(text)
            if len(self._known) > self._capacity:
                _pop(self._known)
            return known
        self._hits += 1
        try:  # noqa: SIM105 - a suppress would cost seven times the look
            self._known.move_to_end(text)
        except KeyError:  # another thread needed its place
            pass
        return known

    def clear(self) -> None:
        """Forget all at once: of a release that is dropped before it was forgotten bit by bit."""
        self._known.clear()

    def _forget_two(self) -> None:
        outgoing = self._outgoing
        if outgoing is not None and _pop(outgoing) and _pop(outgoing):
            return
        self._outgoing = None

    @property
    def counts(self) -> tuple[int, int]:
        """How many queries were known already, and how many were not."""
        return self._hits, self._misses

    @property
    def size(self) -> int:
        """How many queries are remembered."""
        return len(self._known)


def _pop(known: OrderedDict[str, KnownQuery]) -> bool:
    """Forget what was asked for longest ago; whether there was anything."""
    try:
        known.popitem(last=False)
    except KeyError:
        return False
    return True


def class_codes(classes: tuple[str, ...]) -> NDArray[np.int32]:
    """The state's categorical code of each class of a classifier: int32 [C]."""
    return np.array([code_of(label) for label in classes], np.int32)


def nearest(release: Release, vector: NDArray[np.float32], k: int) -> VectorHits:
    """The k items of the release's vector index nearest to a vector float32 [dim]."""
    at, scores = release.vector_index.search_rows(vector[None], k)
    return VectorHits(at[0], scores[0])


def _know(release: Release, slots: NDArray[np.int16], of_class: NDArray[np.intp], text: str) -> KnownQuery:
    rewritten = rewrite(text, release.speller)
    key = (stable_hash(text) or 1) if text else 0
    class_probs = code_probs = vector = None
    if rewritten.words:
        vector = release.encoder.encode_queries([rewritten.text])[0]
        if release.text_classifier is not None:
            class_probs = release.text_classifier.predict([rewritten.text])[0]
            # Classes that share a code share its probability; the last slot is of all other codes.
            of_slot = np.bincount(of_class, class_probs, int(slots.max()) + 1)
            code_probs = CodeProbs(slots, of_slot.astype(np.float32))
    other = None
    if rewritten.instead:
        said = Rewritten(" ".join(rewritten.instead), list(rewritten.instead), True)
        other = KnownQuery(release, said, token_hashes(said.text), key, None, None, None)
    tokens = token_hashes(rewritten.text)
    return KnownQuery(release, rewritten, tokens, key, class_probs, code_probs, vector, other)
