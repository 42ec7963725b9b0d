"""Ranked lists of several retrievers merged into one: reciprocal-rank fusion.

score(item) = sum over sources of weight / (60 + rank), rank from 1 (Cormack, Clarke & Büttcher, SIGIR
2009). It knows rows and ranks, not who found them or why.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from components.search.retrieve_kernel import NO_TIER, fuse_rows

__all__ = ["FOUND_BY", "NO_TIER", "RRF_K", "Candidates", "Source", "found_by", "fuse"]

FOUND_BY = ("text", "text_delta", "vector", "vector_delta", "user", "popular", "photo", "look")
RRF_K = 60


@dataclass(frozen=True)
class Source:
    """Distinct rows int32 [n], best first, that one retriever found; its bits and its weight.

    `tiers` int8 [n]: where the retriever is the tiers.
    """

    rows: NDArray[np.int32]
    bits: NDArray[np.uint8]
    weight: float = 1.0
    tiers: NDArray[np.int8] | None = None


@dataclass(frozen=True)
class Candidates:
    """Distinct rows int32 [n], best fused score first.

    fused float32 [n]; found uint8 [n]: bits of FOUND_BY; tiers int8 [n]: 0 excellent, 1 good, 2 bad,
    -1 not found by the tiers.
    """

    rows: NDArray[np.int32]
    fused: NDArray[np.float32]
    found: NDArray[np.uint8]
    tiers: NDArray[np.int8]


def fuse(sources: list[Source], keep: int) -> Candidates:
    """Reciprocal-rank fusion of the sources, the best `keep` of it; equal scores go by row."""
    if not sources:
        return Candidates(
            np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.uint8), np.empty(0, np.int8)
        )
    lengths = [len(s.rows) for s in sources]
    tiers = [np.full(len(s.rows), NO_TIER, np.int8) if s.tiers is None else s.tiers for s in sources]
    rows, fused = np.empty(keep, np.int32), np.empty(keep, np.float32)
    found, tier = np.empty(keep, np.uint8), np.empty(keep, np.int8)
    n = fuse_rows(
        np.concatenate([s.rows for s in sources]),
        np.concatenate([s.bits for s in sources]),
        np.concatenate(tiers),
        np.array([0, *accumulate(lengths)], np.int64),
        np.array([s.weight for s in sources], np.float64),
        RRF_K,
        rows,
        fused,
        found,
        tier,
    )
    return Candidates(rows[:n], fused[:n], found[:n], tier[:n])


def found_by(bits: int) -> list[str]:
    """The names of the retrievers that the bits stand for."""
    return [name for i, name in enumerate(FOUND_BY) if bits >> i & 1]
