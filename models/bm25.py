"""What each word adds to the score of an item that has it: BM25, each tier with frequencies of its own.

Robertson & Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), in float32 and with
lengths rounded to what one byte holds, as Lucene and tantivy do: scores are theirs. It knows numbers only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LENGTHS", "scores_of"]

_K1, _B = np.float32(1.2), np.float32(0.75)
_HALF, _ONE = np.float32(0.5), np.float32(1.0)

LENGTHS: NDArray[np.int64] = np.array(
    [*range(32), *(24 + ((8 | i & 7) << ((i >> 3) - 1)) for i in range(8, 232))], np.int64
)
"""Lengths of texts that a byte can hold, ascending: int64 [256]. A text's is the last one not above it."""


def scores_of(
    firsts: NDArray[np.int64],
    starts: NDArray[np.int64],
    items: NDArray[np.int32],
    counts: NDArray[np.integer[Any]],
    lengths: NDArray[np.int64],
) -> NDArray[np.float32]:
    """The scores of postings laid out as `lexical_kernel.Postings` says: float32 [postings].

    `counts` [postings]: how often the item has the word; `lengths` [items]: words of each, repeats counted.
    """
    held = np.diff(firsts)
    total = np.add.reduceat(np.append(lengths, 0), np.minimum(firsts[:-1], len(lengths))) * (held > 0)
    mean = np.maximum(total, 1).astype(np.float32) / np.maximum(held, 1).astype(np.float32)
    rounded = LENGTHS[np.searchsorted(LENGTHS, lengths, side="right") - 1].astype(np.float32)
    norm = _K1 * (_ONE - _B + _B * rounded / np.repeat(mean, held))
    holders = np.diff(starts)
    weights = _rarity(np.tile(held, len(holders) // len(held)), holders) * (_ONE + _K1)
    count = counts.astype(np.float32)
    share = count / (count + norm[items])
    return np.asarray(np.repeat(weights, holders) * share, np.float32)


def _rarity(items: NDArray[np.int64], holders: NDArray[np.int64]) -> NDArray[np.float32]:
    """ln(1 + (n - h + 1/2) / (h + 1/2)); never 0, so that every hit has a score."""
    share = ((items - holders).astype(np.float32) + _HALF) / (holders.astype(np.float32) + _HALF)
    rarity = np.log((_ONE + share).astype(np.float64)).astype(np.float32)
    return np.maximum(rarity, np.float32(1e-12))
