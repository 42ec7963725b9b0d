"""The order of text hits in a catalogue that nobody has clicked in, where all that is known is the text.

BM25F says how well an item's words fit. Raised by it: the share of the query's words that the item's
title and category hold, words that stand side by side there as in the query, and the category: that of
most of the best hits (pseudo-relevance feedback), and the classifier's. It sees arrays, never strings.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from components.search.retrieve_kernel import NO_TIER, offered_rows, ordered
from data.codes import CODES
from models.candidate_kernel import match_into

__all__ = ["scored_text_rows"]

# Each says by how much of its BM25F an item may gain; none can make a poor match a good one.
_TITLE = np.float32(0.6)
_BESIDE = np.float32(0.2)
_FEEDBACK = np.float32(0.4)
_CLASSIFIED = np.float32(0.3)
_BEST = 30  # hits that say what category is meant


@njit(cache=True)
def _beside(tokens: Any, query: Any) -> Any:
    """The share of the query's pairs of neighbours that are neighbours among an item's tokens too."""
    pairs = len(query) - 1
    if pairs < 1:
        return np.float32(0.0)
    found = 0
    for q in range(pairs):
        for t in range(len(tokens) - 1):
            if tokens[t] == 0:
                break
            if tokens[t] == query[q] and tokens[t + 1] == query[q + 1]:
                found += 1
                break
    return np.float32(found) / np.float32(pairs)


@njit(cache=True)
def scored_text_rows(
    at: Any,
    scores: Any,
    row_of: Any,
    stale: Any,
    delta: Any,
    alive: Any,
    stock: Any,
    in_stock: bool,
    left_out: Any,
    tokens: Any,
    frequency: Any,
    documents: int,
    query: Any,
    category: Any,
    slots: Any,
    probs: Any,
    keep: int,
    base_bit: int,
    delta_bit: int,
) -> Any:
    """Base hits and delta items by score, best first: (rows int32, bits uint8, tiers int8) [≤ keep].

    A delta item counts as a base hit of the same share of words would, and only if a word matches.
    `category` int32 by row; `slots` and `probs`: of `CodeProbs`, empty without a classifier.
    """
    rows, hit = offered_rows(at, row_of, stale, delta, alive, stock, in_stock, left_out)
    n, base = len(rows), len(hit)
    score = np.zeros(n, np.float32)
    for i in range(base):
        score[i] = scores[hit[i]]
    match = np.empty(n, np.float32)
    match_into(tokens, frequency, documents, query, rows, match)
    whole = np.float32(0.0)  # the BM25F of a hit whose title holds every word
    for i in range(base):
        if match[i] > 0:
            whole = max(whole, score[i] / max(match[i], np.float32(0.5)))
    for i in range(base, n):
        score[i] = match[i] * (whole if whole > 0 else np.float32(1.0))
    for i in range(n):
        score[i] *= np.float32(1.0) + _TITLE * match[i] + _BESIDE * _beside(tokens[rows[i]], query)
    order = ordered(-score, rows)
    _raise_category(score, rows, order, category, slots, probs)
    order = ordered(-score, rows)
    found = np.empty(min(n, keep), np.int32)
    bits = np.empty(len(found), np.uint8)
    tiers = np.empty(len(found), np.int8)
    m = 0
    for i in order:
        if m < keep and (i < base or match[i] > 0):
            found[m] = rows[i]
            bits[m] = base_bit if i < base else delta_bit
            tiers[m] = 0 if i < base else NO_TIER
            m += 1
    return found[:m], bits[:m], tiers[:m]


@njit(cache=True)
def _raise_category(score: Any, rows: Any, order: Any, category: Any, slots: Any, probs: Any) -> None:
    """Raise items of the categories that the best hits and the classifier name, in place."""
    share = np.zeros(CODES, np.float32)
    top = np.float32(0.0)
    for k in range(min(_BEST, len(order))):
        i = order[k]
        code = category[rows[i]]
        if code > 0:
            share[code] += score[i] * score[i]
            top = max(top, share[code])
    for k in range(len(order)):
        i = order[k]
        code = category[rows[i]]
        gain = np.float32(1.0)
        if code > 0 and top > 0:
            gain += _FEEDBACK * share[code] / top
        if code > 0 and len(probs):
            gain += _CLASSIFIED * probs[slots[code]]
        score[i] *= gain
