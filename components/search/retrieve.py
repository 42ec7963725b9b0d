"""Where candidates come from: words in three tiers, vectors, the delta, popularity; then fusion.

Each source gives rows, best first; reciprocal-rank fusion (Cormack, Clarke & Büttcher, SIGIR 2009)
merges them: score(item) = sum over sources of weight / (60 + rank), rank from 1. Deleted items never
pass; items out of stock pass only where the shopper asked by words. It ranks nothing finely.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.search.catalogue import Catalogue
from components.search.live import Live
from components.search.recommend import excluded
from components.search.understand import Meaning
from data.shop import Request
from data.state import State
from models.candidate_features import text_match
from models.release import Release

__all__ = [
    "FOUND_BY",
    "NO_TIER",
    "RRF_K",
    "Candidates",
    "RetrieveConfig",
    "Source",
    "found_by",
    "fuse",
    "retrieve",
]

FOUND_BY = ("text", "text_delta", "vector", "vector_delta", "user", "popular", "photo")
TEXT, TEXT_DELTA, VECTOR, VECTOR_DELTA, USER, POPULAR, PHOTO = (1 << i for i in range(len(FOUND_BY)))
NO_TIER = -1
RRF_K = 60
_NEW_TIER = 1  # where a delta item, which has no tier yet, stands among equal text matches


@dataclass(frozen=True)
class RetrieveConfig:
    """How many candidates, and from where."""

    candidates: int = 200
    text: int = 200  # hits asked of the tiers; the next tier is searched while there are fewer
    text_enough: int = 60  # fewer hits with all of the words: one word is enough then
    vectors: int = 150
    user: int = 150
    popular: int = 100
    photo_share: float = 0.8  # of a department's candidates by popularity, the rest the newest
    photo_least: float = 0.02  # a department less likely than this gives no candidates
    in_stock_only: tuple[str, ...] = ("image", "recommend", "similar")


@dataclass(frozen=True)
class Source:
    """Distinct rows int32 [n], best first, that one retriever found; its bit and its weight."""

    rows: NDArray[np.int32]
    bits: NDArray[np.uint8]
    weight: float = 1.0


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


@dataclass(frozen=True)
class _Scene:
    """What every source needs."""

    request: Request
    meaning: Meaning
    release: Release
    live: Live
    state: State
    catalogue: Catalogue
    config: RetrieveConfig
    allowed: NDArray[np.bool_]  # by row
    image_codes: NDArray[np.int32]


def retrieve(
    request: Request,
    meaning: Meaning,
    *,
    release: Release,
    live: Live,
    state: State,
    catalogue: Catalogue,
    config: RetrieveConfig,
    image_codes: NDArray[np.int32],
    with_vectors: bool = True,
) -> Candidates:
    """At most `config.candidates` candidates; `with_vectors=False` leaves the vector index out.

    `image_codes`: `class_codes` of the image classifier.
    """
    allowed = state.alive[: live.n].copy()
    if request.surface in config.in_stock_only:
        allowed &= state.stock[: live.n] > 0
    if request.surface in ("recommend", "similar"):
        item_row = state.item_row(request.item_id) if request.surface == "similar" else -1
        out = excluded(state, meaning.context.user_row, item_row=item_row)
        allowed[out[out < live.n]] = False
    scene = _Scene(request, meaning, release, live, state, catalogue, config, allowed, image_codes)
    tiers: dict[str, NDArray[np.int8]] = {}
    sources = []
    if len(meaning.image_probs):
        sources.append(_by_photo(scene))
    elif meaning.rewritten.words:
        text, of_text = _by_words(scene)
        sources.append(text)
        tiers["text"] = of_text
    if with_vectors and meaning.query_vector is not None:
        sources.append(_by_vector(scene, meaning.query_vector, config.vectors, VECTOR, VECTOR_DELTA))
    nothing_asked = not any(len(s.rows) for s in sources)
    if with_vectors and meaning.user_vector is not None and (nothing_asked or request.surface == "recommend"):
        sources.append(_by_vector(scene, meaning.user_vector, config.user, USER, USER))
    if nothing_asked:
        sources.append(_by_popularity(scene))
    found = fuse(sources, config.candidates)
    if "text" in tiers:
        by_row = np.full(live.n, NO_TIER, np.int8)
        by_row[sources[0].rows] = tiers["text"]
        found = Candidates(found.rows, found.fused, found.found, by_row[found.rows])
    return found


def fuse(sources: list[Source], keep: int) -> Candidates:
    """Reciprocal-rank fusion of the sources, the best `keep` of it; equal scores go by row."""
    rows = np.concatenate([s.rows for s in sources]) if sources else np.empty(0, np.int32)
    if not len(rows):
        return Candidates(rows, np.empty(0, np.float32), np.empty(0, np.uint8), np.empty(0, np.int8))
    parts = [s.weight / (RRF_K + 1 + np.arange(len(s.rows))) for s in sources]
    unique, inverse = np.unique(rows, return_inverse=True)
    fused = np.bincount(inverse, np.concatenate(parts), len(unique))
    found = np.zeros(len(unique), np.uint8)
    start = 0
    for source in sources:
        stop = start + len(source.rows)
        found[inverse[start:stop]] |= source.bits
        start = stop
    best = np.argsort(-fused, kind="stable")[:keep]
    return Candidates(
        unique[best], fused[best].astype(np.float32), found[best], np.full(len(best), NO_TIER, np.int8)
    )


def found_by(bits: int) -> list[str]:
    """The names of the retrievers that the bits stand for."""
    return [name for i, name in enumerate(FOUND_BY) if bits >> i & 1]


def _by_words(scene: _Scene) -> tuple[Source, NDArray[np.int8]]:
    """Base hits of the tiers and delta items, by share of the query's words matched, tier, BM25."""
    live, config = scene.live, scene.config
    words = scene.meaning.rewritten.words
    index = scene.release.lexical_index
    distinct = len(set(words))
    # All words first: else weak hits would fill a popular tier and stop the cascade short of good ones.
    at, scores = index.search_rows(words, config.text, minimum_match=distinct)
    if len(at) < config.text_enough and distinct > 1:
        at, scores = index.search_rows(words, config.text, minimum_match=1)
    rows, tiers = live.text_rows[at], index.tiers[at]
    keep = rows >= 0
    keep[keep] = scene.allowed[rows[keep]] & ~live.stale_text[rows[keep]]
    rows, scores, tiers = rows[keep], scores[keep], tiers[keep]
    delta = live.text_delta[scene.allowed[live.text_delta]]
    both = np.concatenate([rows, delta])
    if not len(both):
        return Source(both, np.empty(0, np.uint8)), tiers
    match = text_match(scene.state, scene.meaning.context.query_tokens, both)
    from_base = np.arange(len(both)) < len(rows)
    keep = from_base | (match > 0)
    bm25 = np.concatenate([scores, np.zeros(len(delta), np.float32)])
    tier = np.concatenate([tiers, np.full(len(delta), _NEW_TIER, np.int8)])
    order = np.lexsort((-bm25, tier, -match))
    order = order[keep[order]][: 2 * config.text]
    bits = np.where(from_base, TEXT, TEXT_DELTA).astype(np.uint8)
    shown = np.where(from_base, tier, NO_TIER).astype(np.int8)
    return Source(both[order], bits[order]), shown[order]


def _by_vector(scene: _Scene, vector: NDArray[np.float32], k: int, base_bit: int, delta_bit: int) -> Source:
    """Nearest items of the base index and of the delta, by inner product."""
    live = scene.live
    at, similar = scene.release.vector_index.search_rows(vector[None], k)
    known = at[0] >= 0
    rows, scores = live.vector_rows[at[0][known]], similar[0][known]
    keep = rows >= 0
    keep[keep] = scene.allowed[rows[keep]] & ~live.stale_vector[rows[keep]]
    rows, scores = rows[keep], scores[keep]
    delta = live.vector_delta[scene.allowed[live.vector_delta]]
    both = np.concatenate([rows, delta])
    all_scores = np.concatenate([scores, live.vectors[delta] @ vector])
    bits = np.where(np.arange(len(both)) < len(rows), base_bit, delta_bit).astype(np.uint8)
    order = np.argsort(-all_scores, kind="stable")[:k]
    return Source(both[order], bits[order])


def _by_popularity(scene: _Scene) -> Source:
    rows = scene.catalogue.lists.popular
    rows = rows[rows < scene.live.n]
    rows = rows[scene.allowed[rows]][: scene.config.popular]
    return Source(rows, np.full(len(rows), POPULAR, np.uint8))


def _by_photo(scene: _Scene) -> Source:
    """Popular and new items of the likely departments, as many of each as it is likely."""
    lists, config = scene.catalogue.lists, scene.config
    codes, probs = scene.image_codes, scene.meaning.image_probs
    rows: list[NDArray[np.int32]] = [np.empty(0, np.int32)]
    ranks: list[NDArray[np.float64]] = [np.empty(0)]
    for i in np.argsort(-probs, kind="stable").tolist():
        share = float(probs[i])
        code = int(codes[i])
        if share < config.photo_least or code not in lists.popular_in:
            continue
        wanted = int(np.ceil(share * config.candidates))
        popular = _allowed(lists.popular_in[code], scene)[: int(np.ceil(wanted * config.photo_share))]
        new = _allowed(lists.newest_in[code], scene)
        new = new[~np.isin(new, popular)][: wanted - len(popular)]
        of_department = np.concatenate([popular, new])
        rows.append(of_department)
        ranks.append(share / (RRF_K + 1 + np.arange(len(of_department))))
    all_rows = np.concatenate(rows)
    order = np.argsort(-np.concatenate(ranks), kind="stable")
    best = all_rows[order]
    _, first = np.unique(best, return_index=True)
    best = best[np.sort(first)]
    return Source(best, np.full(len(best), PHOTO, np.uint8))


def _allowed(rows: NDArray[np.int32], scene: _Scene) -> NDArray[np.int32]:
    rows = rows[rows < scene.live.n]
    return rows[scene.allowed[rows]]
