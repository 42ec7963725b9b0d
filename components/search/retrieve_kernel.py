"""The compiled inner loops of retrieval: which hits may be offered, in what order, fused into one list.

A hit may be offered if the state knows it, it is alive, and (where asked) in stock and not among the
rows left out. It sees arrays, never strings; `retrieve.py` says what they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from models.candidate_kernel import match_into

__all__ = ["NO_TIER", "fuse_rows", "offered_rows", "ordered", "passing_mask", "text_rows", "vector_rows"]

NO_TIER = -1


@njit(cache=True)
def offered(row: int, alive: Any, stock: Any, in_stock: bool, left_out: Any) -> bool:
    """Whether a hit may be offered."""
    if not alive[row] or (in_stock and stock[row] <= 0):
        return False
    for other in left_out:  # noqa: SIM110 (compiled)
        if other == row:
            return False
    return True


@njit(cache=True)
def ordered(keys: Any, ties: Any) -> Any:
    """Places by ascending key, equal keys by ascending tie: int64 [n]."""
    order = np.argsort(keys)
    for i in range(1, len(order)):
        at = order[i]
        j = i - 1
        while j >= 0 and keys[order[j]] == keys[at] and ties[order[j]] > ties[at]:
            order[j + 1] = order[j]
            j -= 1
        order[j + 1] = at
    return order


@njit(cache=True)
def offered_rows(
    at: Any, row_of: Any, stale: Any, delta: Any, alive: Any, stock: Any, in_stock: bool, left_out: Any
) -> Any:
    """Rows of base hits and then of delta items that may be offered, int32 [n]; which hits, int32 [≤ n].

    `stale` bool [n]: base hits to pass over, by row.
    """
    rows = np.empty(len(at) + len(delta), np.int32)
    hit = np.empty(len(at), np.int32)
    n = 0
    for i in range(len(at)):
        row = row_of[at[i]]
        if 0 <= row < len(stale) and not stale[row] and offered(row, alive, stock, in_stock, left_out):
            rows[n] = row
            hit[n] = i
            n += 1
    base = n
    for row in delta:
        if offered(row, alive, stock, in_stock, left_out):
            rows[n] = row
            n += 1
    return rows[:n], hit[:base]


@njit(cache=True)
def text_rows(
    at: Any,
    scores: Any,
    tiers: Any,
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
    keep: int,
    base_bit: int,
    delta_bit: int,
    new_tier: int,
) -> Any:
    """Base hits and delta items by share of the words matched, tier, BM25: (rows, bits, tiers) [≤ keep].

    Delta items count with `new_tier` and BM25 0, and only if a word matches; `stale` bool [n]: base hits
    to pass over, by row.
    """
    rows, hit = offered_rows(at, row_of, stale, delta, alive, stock, in_stock, left_out)
    n, base = len(rows), len(hit)
    bm25 = np.zeros(n, np.float32)
    tier = np.full(n, new_tier, np.int8)
    for i in range(base):
        bm25[i] = scores[hit[i]]
        tier[i] = tiers[hit[i]]
    match = np.empty(n, np.float32)
    match_into(tokens, frequency, documents, query, rows, match)
    # One integer orders by match, tier and BM25: the bits of non-negative floats order as they do.
    match_bits = match.view(np.uint32)
    bm25_bits = bm25.view(np.uint32)
    keys = np.empty(n, np.uint64)
    held = np.empty(n, np.int64)
    m = 0
    for i in range(n):
        if i < base or match[i] > 0:
            weight = np.uint64(0x3FFFFFFF - match_bits[i]) << np.uint64(34)
            weight |= np.uint64(tier[i]) << np.uint64(32)
            keys[m] = weight | np.uint64(0xFFFFFFFF - bm25_bits[i])
            held[m] = i
            m += 1
    order = ordered(keys[:m], held[:m])[:keep]
    found = np.empty(len(order), np.int32)
    bits = np.empty(len(order), np.uint8)
    shown = np.empty(len(order), np.int8)
    for k in range(len(order)):
        i = held[order[k]]
        found[k] = rows[i]
        bits[k] = base_bit if i < base else delta_bit
        shown[k] = tier[i] if i < base else NO_TIER
    return found, bits, shown


@njit(cache=True)
def vector_rows(
    at: Any,
    scores: Any,
    row_of: Any,
    stale: Any,
    delta: Any,
    alive: Any,
    stock: Any,
    in_stock: bool,
    left_out: Any,
    vectors: Any,
    vector: Any,
    keep: int,
    base_bit: int,
    delta_bit: int,
) -> Any:
    """Base hits (best first, padded with -1) and delta items by inner product: (rows, bits) [≤ keep]."""
    most = len(at) + len(delta)
    rows = np.empty(most, np.int32)
    keys = np.empty(most, np.float32)
    n = 0
    for i in range(len(at)):
        row = row_of[at[i]] if at[i] >= 0 else -1
        if 0 <= row < len(stale) and not stale[row] and offered(row, alive, stock, in_stock, left_out):
            rows[n] = row
            keys[n] = -scores[i]
            n += 1
    base = n
    for row in delta:
        if row < len(vectors) and offered(row, alive, stock, in_stock, left_out):
            product = np.float32(0.0)
            for d in range(vectors.shape[1]):
                product += vectors[row, d] * vector[d]
            rows[n] = row
            keys[n] = -product
            n += 1
    order: Any = np.arange(n)
    if n > base:
        order = ordered(keys[:n], order)
    order = order[:keep]
    bits = np.empty(len(order), np.uint8)
    for k in range(len(order)):
        bits[k] = base_bit if order[k] < base else delta_bit
    return rows[:n][order], bits


@njit(cache=True)
def fuse_rows(
    rows: Any,
    bits: Any,
    tiers: Any,
    starts: Any,
    weights: Any,
    constant: int,
    out_rows: Any,
    out_fused: Any,
    out_found: Any,
    out_tiers: Any,
) -> Any:
    """Reciprocal-rank fusion of sources laid end to end; source s is [starts[s], starts[s + 1]).

    Fills rows int32, fused float32, bits uint8, tiers int8, best first, equal scores by row; returns how
    many there are, at most as many as the out arrays hold.
    """
    n = len(rows)
    size = 16
    while size < 2 * n:
        size *= 2
    table = np.full(size, -1, np.int32)  # open addressing: where a row stands in `found`
    found = np.empty(n, np.int32)
    fused = np.zeros(n)
    of = np.zeros(n, np.uint8)
    tier = np.full(n, NO_TIER, np.int8)
    m = 0
    for s in range(len(weights)):
        for i in range(starts[s], starts[s + 1]):
            row = rows[i]
            slot = (row * 2654435761) & (size - 1)
            while table[slot] >= 0 and found[table[slot]] != row:
                slot = (slot + 1) & (size - 1)
            place = table[slot]
            if place < 0:
                place = table[slot] = m
                found[m] = row
                m += 1
            fused[place] += weights[s] / (constant + 1 + i - starts[s])
            of[place] |= bits[i]
            if tiers[i] != NO_TIER:
                tier[place] = tiers[i]
    order = ordered(-fused[:m], found[:m])[: len(out_rows)]
    for k in range(len(order)):
        place = order[k]
        out_rows[k], out_fused[k] = found[place], fused[place]
        out_found[k], out_tiers[k] = of[place], tier[place]
    return len(order)


@njit(cache=True)
def passing_mask(
    alive: Any,
    stock: Any,
    price: Any,
    category: Any,
    department: Any,
    wanted: int,
    priced: bool,
    low: Any,
    high: Any,
    in_stock: bool,
) -> Any:
    """Which rows pass a filter: bool [len(alive)]. `wanted`: a label of category or department, -1 any."""
    out = np.zeros(len(alive), np.bool_)
    for row in range(len(alive)):
        if not alive[row] or (in_stock and stock[row] <= 0):
            continue
        if priced and not (price[row] > 0 and low <= price[row] <= high):
            continue
        out[row] = wanted < 0 or category[row] == wanted or department[row] == wanted
    return out
