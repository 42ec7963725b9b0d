"""The compiled walk through a ranker's trees: conditions by tree, for a block of items at a time.

It sees the tables that `compiled.py` makes of a model, and features. After QuickScorer (Lucchese et al.,
SIGIR 2015): the bits of a word are a tree's leaves from left to right, a condition that an item fails clears
those to its left, and the lowest bit that stays is the item's leaf.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numba.cpython.unsafe.numbers import trailing_zeros

__all__ = ["ALL", "scores_into"]

ALL = (1 << 32) - 1
"""The word of a tree whose leaves are all possible."""
_ZERO = np.float32(1e-35)  # LightGBM takes what is no larger for 0
_NOTHING = np.float32(0.0)
_BLOCK = 256  # items at a time: their features and words stay near


@njit(cache=True)
def _categories_into(features: Any, first: int, n: int, tables: Any, words: Any) -> None:
    """words[t, i] = the leaves of tree t that the categories of item first + i leave."""
    trees = len(tables.leaf_starts) - 1
    held = np.empty(trees, np.uint32)
    for i in range(n):
        held[:] = np.uint32(ALL)
        for c in range(len(tables.cat_features)):
            start, stop = tables.slot_starts[c], tables.slot_starts[c + 1]
            value = features[first + i, tables.cat_features[c]]
            code = int(value) if -1.0 < value < stop - start - 1 else -1  # NaN is in no condition
            slot = tables.slots[start + 1 + code]
            for t in range(trees):
                held[t] &= tables.cat_words[slot, t]
        for t in range(trees):
            words[t, i] = held[t]


@njit(cache=True)
def scores_into(features: Any, tables: Any, out: Any) -> None:
    """out float64 [n] = raw scores of features float32 [n, F]."""
    trees = len(tables.leaf_starts) - 1
    width = features.shape[1]
    columns = np.empty((width, _BLOCK), np.float32)
    words = np.full((trees, _BLOCK), np.uint32(ALL), np.uint32)
    for first in range(0, len(out), _BLOCK):
        n = min(_BLOCK, len(out) - first)
        for i in range(n):
            for f in range(width):
                value = features[first + i, f]
                columns[f, i] = _NOTHING if abs(value) <= _ZERO else value
            out[first + i] = 0.0
        if len(tables.cat_features):
            _categories_into(features, first, n, tables, words)
        else:
            words[:] = np.uint32(ALL)
        for t in range(trees):
            held = words[t]
            for k in range(tables.starts[t], tables.starts[t + 1]):
                column = columns[tables.features[k]]
                threshold = tables.thresholds[k]
                word = tables.words[k]
                if tables.nan_right[k]:
                    for i in range(n):
                        held[i] &= np.uint32(ALL) if column[i] <= threshold else word
                else:
                    for i in range(n):
                        held[i] &= word if column[i] > threshold else np.uint32(ALL)
            leaf = tables.leaf_starts[t]
            for i in range(n):
                out[first + i] += tables.leaves[leaf + trailing_zeros(held[i])]
