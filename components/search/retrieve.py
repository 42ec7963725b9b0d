"""Where candidates come from: words in three tiers, vectors, the delta, popularity; then fusion.

Each source gives rows, best first; `fusion.py` merges them. Deleted items never pass; items out of stock
pass only where the shopper asked by words. It ranks nothing finely.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from components.search.catalogue import Catalogue
from components.search.filters import Passing, passing
from components.search.fusion import FOUND_BY, NO_TIER, RRF_K, Candidates, Source, found_by, fuse
from components.search.live import Live
from components.search.live_photos import PhotoLive
from components.search.queries import KnownQuery, TextHits, VectorHits, nearest
from components.search.recommend import excluded, user_vector
from components.search.retrieve_kernel import text_rows, vector_rows
from components.search.text_order import scored_text_rows
from components.search.understand import Meaning
from data.shop import Request
from data.state import State
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

TEXT, TEXT_DELTA, VECTOR, VECTOR_DELTA, USER, POPULAR, PHOTO, LOOK = (1 << i for i in range(len(FOUND_BY)))
_Found = tuple[NDArray[np.int32], NDArray[np.uint8], NDArray[np.int8]]  # rows, bits, tiers
_NO_ROWS: NDArray[np.int32] = np.empty(0, np.int32)
_NO_SCORES = np.empty(0, np.float32)
_NO_SLOTS = np.empty(0, np.int16)
_NO_HITS = VectorHits(np.empty(0, np.int64), _NO_SCORES)
_NEW_TIER = 1  # where a delta item, which has no tier yet, stands among equal text matches


@dataclass(frozen=True)
class RetrieveConfig:
    """How many candidates, and from where."""

    candidates: int = 200
    text: int = 200  # hits asked of the tiers; the next tier is searched while there are fewer
    text_enough: int = 60  # fewer hits with all of the words: one word is enough then
    vectors: int = 150
    unlearnt_weight: float = 1e-6  # of vectors of an encoder that no click taught: they only fill up
    user: int = 150
    look: int = 150
    synonym_weight: float = 0.5  # of hits by learnt synonyms, beside 1 of hits by the shopper's own words
    popular: int = 100
    popular_weight: float = 0.5  # beside the user's own: his first 60 stand before the first popular one
    photo_share: float = 0.8  # of a department's candidates by popularity, the rest the newest
    photo_least: float = 0.02  # a department less likely than this gives no candidates
    in_stock_only: tuple[str, ...] = ("image", "recommend", "similar")


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
    in_stock: bool
    left_out: NDArray[np.int32]  # rows never to offer
    image_codes: NDArray[np.int32]
    alive: NDArray[np.bool_]  # by row: not deleted, and passes the filter
    narrowed: Passing | None  # what passes the filter; None without one

    def offered(self, rows: NDArray[np.int32]) -> NDArray[np.int32]:
        """Those of the rows that may be offered."""
        rows = rows[rows < self.live.n]
        keep = self.alive[rows]
        if self.in_stock:
            keep &= self.state.stock[rows] > 0
        rows = rows[keep]
        return rows[~np.isin(rows, self.left_out)] if len(self.left_out) else rows


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
    """At most `config.candidates` candidates.

    `with_vectors=False` leaves the vector index out; `image_codes`:
    `class_codes` of the image classifier.
    """
    narrowed = None
    if request.filters is not None:
        narrowed = passing(request.filters, state, catalogue, live.n)
        if not len(narrowed.rows):
            return fuse([], config.candidates)
    left_out = _NO_ROWS
    if request.surface in ("recommend", "similar"):
        item_row = state.item_row(request.item_id) if request.surface == "similar" else -1
        left_out = excluded(state, meaning.context.user_row, item_row=item_row)
    in_stock = request.surface in config.in_stock_only
    alive = state.items.alive if narrowed is None else narrowed.mask
    scene = _Scene(
        request, meaning, release, live, state, catalogue, config, in_stock, left_out, image_codes,
        alive, narrowed,
    )  # fmt: skip
    sources = []
    if len(meaning.image_probs):
        sources.append(_by_photo(scene))
        if meaning.image_vector is not None and live.photos is not None:
            sources.append(_by_look(scene, meaning.image_vector, live.photos))
    elif meaning.rewritten.words:
        sources.append(_by_words(scene))
        if meaning.known.other is not None:
            sources.append(_by_synonyms(scene, meaning.known.other))
    if with_vectors and meaning.query_vector is not None:
        of_words = meaning.query_vector is meaning.known.vector
        known = meaning.known if of_words else None
        by_vector = _by_vector(scene, meaning.query_vector, config.vectors, VECTOR, VECTOR_DELTA, known)
        if of_words and not release.learnt_from_clicks:
            by_vector = replace(by_vector, weight=config.unlearnt_weight)
        sources.append(by_vector)
    nothing_asked = not any(len(s.rows) for s in sources)
    if with_vectors and (nothing_asked or request.surface == "recommend"):
        user = user_vector(state, meaning.context, live.vectors)
        if user is not None:
            sources.append(_by_vector(scene, user, config.user, USER, USER))
    if nothing_asked:
        popular = _by_popularity(scene)
        if sources and len(sources[-1].rows):
            # Beside what suits the user, what suits everybody only fills up: a shop may have no ranker.
            new = ~np.isin(popular.rows, sources[-1].rows)
            popular = Source(popular.rows[new], popular.bits[new], config.popular_weight)
        sources.append(popular)
    return fuse(sources, config.candidates)


def _by_words(scene: _Scene) -> Source:
    """Base hits of the tiers and delta items, by share of the query's words matched, tier, BM25."""
    live, config = scene.live, scene.config
    known = scene.meaning.known
    hits = known.text_hits(scene.release.lexical_index, config.text, enough=config.text_enough)
    delta = live.text_delta
    if scene.narrowed is not None:
        hits, delta = _narrowed_text(scene, hits)
    order = _scored if scene.release.lexical_index.flat else _tiered
    rows, bits, tiers = order(scene, hits, delta)
    if delta is not live.text_delta:
        bits[~live.stale_text[rows]] = TEXT
    return Source(rows, bits, tiers=tiers)


def _tiered(scene: _Scene, hits: TextHits, delta: NDArray[np.int32]) -> _Found:
    """Hits and delta items by share of the query's words, tier and BM25."""
    live, config, state = scene.live, scene.config, scene.state
    found: _Found = text_rows(
        hits.at,
        hits.scores,
        hits.tiers,
        live.text_rows,
        live.stale_text,
        delta,
        scene.alive,
        state.items.stock,
        scene.in_stock,
        scene.left_out,
        state.items.tokens,
        state.document_frequency,
        state.documents,
        scene.meaning.context.query_tokens,
        2 * config.text,
        TEXT,
        TEXT_DELTA,
        _NEW_TIER,
    )
    return found


def _scored(scene: _Scene, hits: TextHits, delta: NDArray[np.int32]) -> _Found:
    """Hits and delta items by BM25F and what else the texts tell: no item has been clicked yet."""
    live, state = scene.live, scene.state
    likely = scene.meaning.code_probs
    found: _Found = scored_text_rows(
        hits.at,
        hits.scores,
        live.text_rows,
        live.stale_text,
        delta,
        scene.alive,
        state.items.stock,
        scene.in_stock,
        scene.left_out,
        state.items.tokens,
        state.document_frequency,
        state.documents,
        scene.meaning.context.query_tokens,
        state.items.category,
        _NO_SLOTS if likely is None else likely.slots,
        _NO_SCORES if likely is None else likely.probs,
        2 * scene.config.text,
        TEXT,
        TEXT_DELTA,
    )
    return found


def _by_synonyms(scene: _Scene, other: KnownQuery) -> Source:
    """As `_by_words` for the catalogue's words in place of the shopper's, at a lower weight."""
    meaning = scene.meaning
    context = replace(meaning.context, query_tokens=other.tokens)
    said = replace(scene, meaning=replace(meaning, known=other, context=context))
    return replace(_by_words(said), weight=scene.config.synonym_weight)


def _narrowed_text(scene: _Scene, hits: TextHits) -> tuple[TextHits, NDArray[np.int32]]:
    """Hits and rows to search one by one, where a filter leaves too few of the usual hits.

    All rows that pass, where these are few; else the tiers are asked for more hits.
    """
    live, config, narrowed = scene.live, scene.config, scene.narrowed
    assert narrowed is not None, "without a filter the usual hits are enough"
    rows = live.text_rows[hits.at]
    rows = rows[(rows >= 0) & (rows < live.n)]
    passed = rows[narrowed.mask[rows] & ~live.stale_text[rows]]
    if len(passed) >= config.candidates:
        return hits, live.text_delta
    if narrowed.few:
        return hits, np.setdiff1d(narrowed.rows, passed, assume_unique=True)
    index = scene.release.lexical_index
    words, more = scene.meaning.rewritten.words, config.text * narrowed.times
    at, scores = index.search_all_then_any(words, more, enough=config.text_enough * narrowed.times)
    return TextHits(at, scores, np.asarray(index.tiers[at])), live.text_delta


def _by_vector(
    scene: _Scene,
    vector: NDArray[np.float32],
    k: int,
    base_bit: int,
    delta_bit: int,
    known: KnownQuery | None = None,
) -> Source:
    """The k nearest items of the base index and of the delta, by inner product.

    `known`: the query whose vector it is, for its hits are remembered. Behind a filter that few rows
    pass, all of these are compared; behind a wider one the index is asked for more.
    """
    live, items, narrowed = scene.live, scene.state.items, scene.narrowed
    delta = live.vector_delta
    if narrowed is None:
        index = scene.release.vector_index
        hits = nearest(index, vector, k) if known is None else known.nearest(index, k)
    elif narrowed.few:
        hits, delta = _NO_HITS, narrowed.rows
    else:
        hits = nearest(scene.release.vector_index, vector, k * narrowed.times)
    rows, bits = vector_rows(
        hits.at,
        hits.scores,
        live.vector_rows,
        live.stale_vector,
        delta,
        scene.alive,
        items.stock,
        scene.in_stock,
        scene.left_out,
        live.vectors,
        vector,
        k,
        base_bit,
        delta_bit,
    )
    if delta is not live.vector_delta:
        bits[~live.stale_vector[rows]] = base_bit
    return Source(rows, bits)


def _by_popularity(scene: _Scene) -> Source:
    most = scene.config.popular
    rows = scene.offered(_popular(scene, None, most=most))[:most]
    return Source(rows, np.full(len(rows), POPULAR, np.uint8))


def _popular(scene: _Scene, code: int | None, *, most: int) -> NDArray[np.int32]:
    """The most popular rows, if a code is given of that department or category, best first.

    Behind a filter: of those that pass and may be offered, at least `most`, ties and new items included.
    """
    lists, narrowed = scene.catalogue.lists, scene.narrowed
    if narrowed is None:
        return lists.popular if code is None else lists.popular_in.get(code, _NO_ROWS)
    rows = narrowed.rows
    if code is not None:
        department, category = scene.catalogue.department, scene.state.category
        rows = rows[(department[rows] == code) | (category[rows] == code)]
    rows = scene.offered(rows)
    known = rows[rows < len(lists.popularity)]
    fresh = rows[len(known) :]
    worth = lists.popularity[known]
    if len(known) > most:
        least = np.partition(worth, len(known) - most)[len(known) - most]
        known, worth = known[worth >= least], worth[worth >= least]
    return np.concatenate([known[np.argsort(-worth, kind="stable")], fresh])


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
        # Behind a filter the other departments may have nothing to give.
        wanted = int(np.ceil(share * config.candidates)) if scene.narrowed is None else config.candidates
        most = int(np.ceil(wanted * config.photo_share))
        popular = scene.offered(_popular(scene, code, most=most))[:most]
        new = scene.offered(lists.newest_in[code])
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


def _by_look(scene: _Scene, seen: NDArray[np.float32], photos: PhotoLive) -> Source:
    """Items whose photos look alike, nearest first."""
    k, narrowed = scene.config.look, scene.narrowed
    if narrowed is None:
        rows = photos.nearest(seen, 2 * k)  # some are out of stock
    elif narrowed.few:
        rows = photos.nearest(seen, k, among=narrowed.rows)
    else:
        rows = photos.nearest(seen, k * narrowed.times)
    rows = scene.offered(rows)[:k]
    return Source(rows, np.full(len(rows), LOOK, np.uint8))
