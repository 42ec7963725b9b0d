"""What follows from the words of a query and the release alone, remembered for the next who asks.

Spelling, category probabilities, vector, and the hits of the base indexes: none of it changes while a
release lives, so a common query costs it once. It knows neither shoppers nor state.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from data.codes import CODES, code_of
from data.schema import stable_hash
from data.text import normalise, token_hashes
from models.lexical_index import LexicalIndex
from models.release import Release
from models.speller import Rewritten, rewrite
from models.vector_index import VectorIndex

__all__ = [
    "CodeProbs",
    "KnownQuery",
    "MadeOf",
    "QueryMemory",
    "TextHits",
    "VectorHits",
    "class_codes",
    "nearest",
    "normalised",
]

_REMEMBERED = 8_192  # about 6 kB each; of a Zipf-like log a quarter more hits than of 2,048
_EARLIER = 3  # releases whose queries are looked up; those of more go twice as fast

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


class MadeOf(NamedTuple):
    """What is known of a query follows from these artifacts of a release: their contents' hashes."""

    speller: str
    text_classifier: str
    encoder: str
    lexical_index: str
    vector_index: str

    @classmethod
    def of(cls, release: Release) -> MadeOf:
        """Those of a release, empty for what it lacks; what its manifest does not name is like no other."""
        return cls(*(_content(release, name) for name in cls._fields))


def _content(release: Release, name: str) -> str:
    if getattr(release, name) is None:
        return ""
    artifact = release.manifest.artifacts.get(name)
    return uuid4().hex if artifact is None else artifact.content


@dataclass(slots=True)
class KnownQuery:
    """A query as one release understands it; hits are looked up when they are first asked for.

    `tokens`: uint32 hashes of the rewritten words; `key`: of the query as typed, 0 without a word;
    `class_probs` float32 [C] and `code_probs`: None without words or without a classifier; `vector`
    float32 [dim], None without words; `other`: the query with learnt synonyms in place of its words, for
    the tiers alone, None where there is none. It holds no part of the release: that may go before it.
    """

    made_of: MadeOf
    rewritten: Rewritten
    tokens: NDArray[np.uint32]
    key: int
    class_probs: NDArray[np.float32] | None = None
    code_probs: CodeProbs | None = None
    vector: NDArray[np.float32] | None = None
    other: KnownQuery | None = None
    _text: tuple[tuple[int, int], TextHits] | None = None
    _nearest: tuple[int, VectorHits] | None = None

    def text_hits(self, index: LexicalIndex, k: int, *, enough: int) -> TextHits:
        """Items of the release's index with all of the words; with any, where fewer than `enough` do."""
        held = self._text
        if held is None or held[0] != (k, enough):
            # All words first: else weak hits would fill a popular tier and stop the cascade short.
            at, scores = index.search_all_then_any(self.rewritten.words, k, enough=enough)
            held = self._text = ((k, enough), TextHits(at, scores, np.asarray(index.tiers[at])))
        return held[1]

    def nearest(self, index: VectorIndex, k: int) -> VectorHits:
        """The k items of its release's index nearest to the query's vector."""
        held = self._nearest
        if held is None or held[0] != k:
            assert self.vector is not None, "a query without words has no vector"
            held = self._nearest = (k, nearest(index, self.vector, k))
        return held[1]


class QueryMemory:
    """The last queries that a release was asked; safe to share among threads.

    `before`: of the release that this one takes over from. What was known of a query and follows from an
    artifact that did not change is not found out again. With what earlier releases knew it holds at most
    `capacity`; those asked for longest ago make room one by one, as thousands freed at once, when a release
    goes, would hold up a request for 20 ms.
    """

    def __init__(
        self, release: Release, *, capacity: int = _REMEMBERED, before: QueryMemory | None = None
    ) -> None:
        self._know = partial(_know, release, MadeOf.of(release), _slots(release))
        self._capacity = capacity
        # Each operation on these is a single one for other threads; no lock for a request to wait at.
        self._known: OrderedDict[str, KnownQuery] = OrderedDict()
        self._earlier: tuple[OrderedDict[str, KnownQuery], ...] = ()  # of earlier releases, the last first
        if before is not None:
            self._earlier = (before._known, *(known for known in before._earlier if known))
        self._hits = self._misses = 0

    def of(self, query: str) -> KnownQuery:
        """What the query means to the release."""
        text = normalised(query)
        known = self._known.get(text)
        if known is None:
            self._misses += 1
            old = next(filter(None, (found.get(text) for found in self._earlier)), None)
            known = self._known[text] = self._know(text, old)
            self._make_room()
            return known
        self._hits += 1
        try:  # noqa: SIM105 - a suppress would cost seven times the look
            self._known.move_to_end(text)
        except KeyError:  # another thread needed its place
            pass
        return known

    def _make_room(self) -> None:
        """Forget up to two, of the earliest release first."""
        for _ in range(2):
            earlier = self._earlier
            held = len(self._known) + sum(map(len, earlier))
            if held <= self._capacity and len(earlier) <= _EARLIER:
                return
            _pop(earlier[-1] if earlier else self._known)
            if earlier and not earlier[-1]:
                self._earlier = earlier[:-1]

    @property
    def counts(self) -> tuple[int, int]:
        """How many queries were known already, and how many were not."""
        return self._hits, self._misses

    @property
    def size(self) -> int:
        """How many queries are remembered, those of earlier releases left aside."""
        return len(self._known)


def _pop(known: OrderedDict[str, KnownQuery]) -> None:
    """Forget what was asked for longest ago, if there is anything."""
    with suppress(KeyError):
        known.popitem(last=False)


def class_codes(classes: tuple[str, ...]) -> NDArray[np.int32]:
    """The state's categorical code of each class of a classifier: int32 [C]."""
    return np.array([code_of(label) for label in classes], np.int32)


def nearest(index: VectorIndex, vector: NDArray[np.float32], k: int) -> VectorHits:
    """The k items of a vector index nearest to a vector float32 [dim]."""
    at, scores = index.search_rows(vector[None], k)
    return VectorHits(at[0], scores[0])


class _Slots(NamedTuple):
    """Where a classifier's probabilities go: `of_class` int64 [C], `of_code` int16 [CODES], how many."""

    of_class: NDArray[np.intp]
    of_code: NDArray[np.int16]
    n: int


def _slots(release: Release) -> _Slots:
    """Classes that share a code share a slot; the last one is of all other codes."""
    text = release.text_classifier
    found, of_class = np.unique(class_codes(text.classes if text else ()), return_inverse=True)
    of_code = np.full(CODES, len(found), np.int16)
    of_code[found] = np.arange(len(found))
    return _Slots(of_class, of_code, len(found) + 1)


def _know(release: Release, made_of: MadeOf, slots: _Slots, text: str, old: KnownQuery | None) -> KnownQuery:
    """What a text means to a release; `old`: what it meant to an earlier one."""
    if old is not None and old.made_of.speller == made_of.speller:
        rewritten = old.rewritten
    else:
        rewritten = rewrite(text, release.speller)
        if old is not None and old.rewritten != rewritten:
            old = None
    if old is None:
        key = (stable_hash(text) or 1) if text else 0
        known = KnownQuery(made_of, rewritten, token_hashes(rewritten.text), key)
        if rewritten.instead:
            said = Rewritten(" ".join(rewritten.instead), list(rewritten.instead), True)
            known.other = KnownQuery(made_of, said, token_hashes(said.text), key)
    else:
        known = _taken_over(made_of, rewritten, old)
    words = [rewritten.text]
    if rewritten.words and known.vector is None:
        known.vector = release.encoder.encode_queries(words)[0]
    if rewritten.words and known.class_probs is None and release.text_classifier is not None:
        known.class_probs = release.text_classifier.predict(words)[0]
        of_slot = np.bincount(slots.of_class, known.class_probs, slots.n)
        known.code_probs = CodeProbs(slots.of_code, of_slot.astype(np.float32))
    return known


def _taken_over(made_of: MadeOf, rewritten: Rewritten, old: KnownQuery) -> KnownQuery:
    """What follows from artifacts that are still the same ones, for the same words."""
    known = KnownQuery(made_of, rewritten, old.tokens, old.key)
    theirs = old.made_of
    if theirs.text_classifier == made_of.text_classifier:
        known.class_probs, known.code_probs = old.class_probs, old.code_probs
    if theirs.encoder == made_of.encoder:
        known.vector = old.vector
        if theirs.vector_index == made_of.vector_index:
            known._nearest = old._nearest
    if theirs.lexical_index == made_of.lexical_index:
        known._text = old._text
    if old.other is not None:
        known.other = _taken_over(made_of, old.other.rewritten, old.other)
    return known
