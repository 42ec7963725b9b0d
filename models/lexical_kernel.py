"""The compiled search of posting lists: the scores of a tier's items added up, as keys to sort.

It sees numbers of terms and items, never words, and what a term adds to an item's score as given.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["KEYS", "Postings", "hits_of", "keys_into"]

_LOW = np.uint64(0xFFFFFFFF)
KEYS = 8_192
"""Keys that a search needs room for; of more hits the best are picked out meanwhile."""
_SPARSE = 16  # a list is looked into item by item where it is so many times longer than the shortest


class Postings(NamedTuple):
    """Items by term. Items are numbered tier by tier: tier t holds `firsts[t]` to `firsts[t + 1]`.

    Term w in tier t: `starts[tiers w + t]` to the next of `items` (ascending) and `scores`, what the term
    adds to the item's score, above 0.
    """

    firsts: NDArray[np.int64]  # [tiers + 1]
    starts: NDArray[np.int64]  # [tiers × terms + 1]
    items: NDArray[np.int32]
    scores: NDArray[np.float32]


@njit(cache=True)
def _key(score: Any, item: int) -> Any:
    """Greater for a better hit: the bits of its score, which is above 0, then the earlier item."""
    return (np.uint64(np.float32(score).view(np.uint32)) << np.uint64(32)) | (_LOW - np.uint64(item))


@njit(cache=True)
def _kept(key: Any, keys: Any, found: int, least: Any, keep: int) -> Any:
    """The keys with one more that is above `least`: (how many, what the next has to be above)."""
    keys[found] = key
    if found + 1 < len(keys):
        return found + 1, least
    keys[:keep] = np.partition(keys, len(keys) - keep)[len(keys) - keep :]  # the least of them comes first
    return keep, keys[0]


@njit(cache=True)
def _advanced(items: Any, at: int, stop: int, wanted: int) -> int:
    """The first place from `at` on whose item is `wanted` or a later one, by doubling steps."""
    step = 1
    low = at
    while at < stop and items[at] < wanted:
        low = at + 1
        at += step
        step += step
    high = min(at, stop)
    while low < high:
        middle = (low + high) >> 1
        if items[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True)
def _with_all(postings: Any, starts: Any, stops: Any, keep: int, keys: Any) -> int:
    """Keys of the items that stand in every list, the best `keep` among them; how many.

    Scores are added from the shortest list on, those from the third on among themselves first.
    """
    items, scores = postings.items, postings.scores
    order = np.argsort(stops - starts, kind="mergesort")
    a, b = starts[order[0]], stops[order[0]]
    passed = items[a:b].copy()
    sums, rest = scores[a:b].copy(), np.zeros(b - a, np.float32)
    n = len(passed)
    for i in range(1, len(starts)):
        a, b = starts[order[i]], stops[order[i]]
        into = sums if i == 1 else rest
        sparse = b - a > _SPARSE * n
        m = 0
        for k in range(n):
            item = passed[k]
            if sparse:
                a = _advanced(items, a, b, item)
            else:
                while a < b and items[a] < item:
                    a += 1
            if a < b and items[a] == item:
                passed[m], sums[m], rest[m] = item, sums[k], rest[k]
                into[m] += scores[a]
                m += 1
        n = m
    found, least = 0, np.uint64(0)
    for k in range(n):
        key = _key(sums[k] + rest[k], passed[k])
        if key > least:
            found, least = _kept(key, keys, found, least, keep)
    return found


@njit(cache=True)
def _with_any(postings: Any, starts: Any, stops: Any, first: int, held: int, keep: int, keys: Any) -> int:
    """Keys of the items that stand in one of the lists or more, the best `keep` among them; how many."""
    items, scores = postings.items, postings.scores
    sums = np.zeros(held, np.float32)
    met = np.empty(held + 1, np.int32)  # the items in any list, each once
    n = 0
    for i in range(len(starts)):
        for p in range(starts[i], stops[i]):
            item = items[p] - first
            met[n] = item
            n += sums[item] == 0.0  # counted without a branch, which nothing could foretell
            sums[item] += scores[p]
    found, least = 0, np.uint64(0)
    for k in range(n):
        key = _key(sums[met[k]], first + met[k])
        if key > least:
            found, least = _kept(key, keys, found, least, keep)
    return found


@njit(cache=True)
def keys_into(postings: Any, terms: Any, tier: int, every: bool, keep: int, keys: Any) -> int:
    """Fill keys uint64 [more than keep] with hits of a tier, the best `keep` among them; how many.

    `terms` int64 [q]: distinct; `every`: of items that have all of them, else any. A greater key is a
    better hit; equal scores go by item. `hits_of` takes keys apart.
    """
    tiers = len(postings.firsts) - 1
    first = postings.firsts[tier]
    starts = postings.starts[tiers * terms + tier]
    stops = postings.starts[tiers * terms + tier + 1]
    if every:
        found: int = _with_all(postings, starts, stops, keep, keys)
    else:
        found = _with_any(postings, starts, stops, first, postings.firsts[tier + 1] - first, keep, keys)
    return found


def hits_of(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The items and scores of keys."""
    items = (_LOW - (keys & _LOW)).astype(np.int64)
    return items, (keys >> np.uint64(32)).astype(np.uint32).view(np.float32)
