"""Words and character n-grams hashed into a table of vectors (fastText, arXiv 1607.04606).

A word's vector is its own row plus the mean of its n-grams' rows; a text's is the mean of its
words'. Both text models read their text this way. NumPy only; it knows nothing of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from data.text import tokens

__all__ = ["MAX_GRAMS", "TokenTable", "TokenisedTexts", "token_buckets", "tokenise"]

_GRAM_LENGTHS = (3, 4)
MAX_GRAMS = 32
_CACHED_TOKENS = 16_384


def token_buckets(token: str, buckets: int) -> list[int]:
    """The row of the word, then of each of its n-grams (at most 32), out of `buckets`."""
    rows = [crc32(b"\0" + token.encode()) % buckets]
    marked = f"<{token}>"
    grams = (marked[i : i + n] for n in _GRAM_LENGTHS for i in range(len(marked) - n + 1))
    rows += [crc32(gram.encode()) % buckets for gram, _ in zip(grams, range(MAX_GRAMS), strict=False)]
    return rows


@dataclass(frozen=True)
class TokenisedTexts:
    """Texts as numbers: `ids` int32 [sum of lengths] into `vocabulary`, `lengths` int64 [n]."""

    vocabulary: list[str]
    ids: NDArray[np.int32]
    lengths: NDArray[np.int64]

    def padded(self, width: int) -> NDArray[np.int64]:
        """The first `width` tokens of each text: int64 [n, width], padded with len(vocabulary)."""
        out = np.full((len(self.lengths), width), len(self.vocabulary), np.int64)
        starts = np.cumsum(self.lengths) - self.lengths
        column = np.arange(len(self.ids)) - np.repeat(starts, self.lengths)
        row = np.repeat(np.arange(len(self.lengths)), self.lengths)
        kept = column < width
        out[row[kept], column[kept]] = self.ids[kept]
        return out


def tokenise(texts: Sequence[str]) -> TokenisedTexts:
    """Cut each distinct text into words once."""
    known: dict[str, int] = {}
    cut: dict[str, list[int]] = {}
    ids: list[int] = []
    lengths = np.empty(len(texts), np.int64)
    for i, text in enumerate(texts):
        row = cut.get(text)
        if row is None:
            row = cut[text] = [known.setdefault(token, len(known)) for token in tokens(text)]
        ids += row
        lengths[i] = len(row)
    return TokenisedTexts(list(known), np.array(ids, np.int32), lengths)


class TokenTable:
    """`rows` float32 [buckets, dim] and a bounded cache of word vectors. Safe to share among threads."""

    def __init__(self, rows: NDArray[np.float32]) -> None:
        self.rows = np.ascontiguousarray(rows, np.float32)
        # No reference to this object from its cache: that circle would outlive a dropped release.
        self._vector = lru_cache(maxsize=_CACHED_TOKENS)(partial(_token_vector, self.rows))

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self.rows.shape[1])

    def text_vector(self, text: str) -> NDArray[np.float32]:
        """The mean vector of a text's words: float32 [dim]; zeros for a text without words."""
        words = tokens(text)
        if not words:
            return np.zeros(self.dim, np.float32)
        total = self._vector(words[0])
        for word in words[1:]:
            total = total + self._vector(word)
        return total / np.float32(len(words)) if len(words) > 1 else total

    def text_vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """`text_vector` of each: float32 [n, dim]; each distinct word is looked up once."""
        if len(texts) == 1:
            return self.text_vector(texts[0])[None, :]
        cut = tokenise(texts)
        out = np.zeros((len(texts), self.dim), np.float32)
        if len(cut.ids):
            words = self._token_vectors(cut.vocabulary)
            filled = np.flatnonzero(cut.lengths)
            starts = (np.cumsum(cut.lengths) - cut.lengths)[filled]
            out[filled] = np.add.reduceat(words[cut.ids], starts, axis=0)
            out[filled] /= cut.lengths[filled, None].astype(np.float32)
        return out

    def _token_vectors(self, vocabulary: Sequence[str]) -> NDArray[np.float32]:
        hashed = [token_buckets(token, len(self.rows)) for token in vocabulary]
        counts = np.array([len(h) - 1 for h in hashed])
        grams = np.array([b for h in hashed for b in h[1:]])
        sums = np.add.reduceat(self.rows[grams], np.cumsum(counts) - counts, axis=0)
        sums /= counts[:, None].astype(np.float32)
        return np.asarray(self.rows[[h[0] for h in hashed]] + sums, np.float32)


def _token_vector(rows: NDArray[np.float32], token: str) -> NDArray[np.float32]:
    found = rows.take(_buckets_of(token, len(rows)), axis=0)
    mean = np.add.reduce(found[1:], axis=0) / np.float32(len(found) - 1)
    return np.asarray(found[0] + mean, np.float32)


@lru_cache(maxsize=_CACHED_TOKENS)  # of all tables: what a new encoder is asked first is known already
def _buckets_of(token: str, buckets: int) -> NDArray[np.intp]:
    return np.array(token_buckets(token, buckets), np.intp)
