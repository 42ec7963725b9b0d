"""The documented policy that ranked the history: text match, popularity, a few randomised slots.

It reads what a shop may know: titles, who is alive, clicks of earlier days, a photo's department.
A page has ten slots; in `random_slots` of them an item is drawn evenly from the next
`explore_pool` candidates, and only there is a propensity logged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from data.schema import SURFACES
from data.shop import Reply, Request
from data.text import tokens
from data.world.catalogue import Catalogue
from data.world.config import PAGE_SIZE, START_US, WorldConfig
from data.world.draws import hashed_uniform, keyed
from data.world.photos import Photos
from data.world.sessions import DayPlan
from data.world.words import CATEGORIES, COLOURS, MATERIALS, Vocabulary
from infra.clock import DAY_US

__all__ = ["LoggingPolicy", "Shown", "random_places"]

POPULARITY_WEIGHT = 0.3  # beside the text score, both in [0, 1]
POPULARITY_HALF_LIFE_D = 7.0
_BATCH = 256  # queries scored at once


@dataclass(frozen=True)
class Shown:
    """What was shown [n], by request and position: `request` is the index in the plan."""

    request: NDArray[np.int64]
    row: NDArray[np.int64]
    position: NDArray[np.int64]  # over all pages
    propensity: NDArray[np.float32]  # NaN where the slot was not randomised


def random_places(slots: int) -> NDArray[np.int64]:
    """The places of a page that are randomised, evenly spread: int64 [slots]."""
    return np.asarray(((np.arange(slots) + 0.5) * PAGE_SIZE / max(slots, 1)).astype(np.int64))


class LoggingPolicy:
    """The policy and what it remembers: decayed clicks an item, and each user's last clicked category."""

    def __init__(
        self, config: WorldConfig, items: Catalogue, vocabulary: Vocabulary, pictures: Photos, n_users: int
    ) -> None:
        self._config = config
        self._items = items
        self._photos = pictures
        self._words, self._matrix = _title_words(items, vocabulary)
        self._clicks = np.zeros(len(items.born_us))
        self._last_category = np.full(n_users, -1, np.int64)
        self._indexed: tuple[int, Any] | None = None

    def learn(self, clicked_rows: NDArray[np.int64], user_rows: NDArray[np.int64]) -> None:
        """Take in a day's clicks, in order of time; they count from the next day on."""
        self._clicks *= 2.0 ** (-1.0 / POPULARITY_HALF_LIFE_D)
        np.add.at(self._clicks, clicked_rows, 1.0)
        self._last_category[user_rows] = self._items.category[clicked_rows]

    def pages(self, plan: DayPlan) -> Shown:
        """The page of each request of a day."""
        heads, group = np.unique(plan.first.astype(np.int64), return_inverse=True)
        deepest = np.zeros(len(heads), np.int64)
        np.maximum.at(deepest, group, plan.page.astype(np.int64))
        fixed = PAGE_SIZE - self._config.random_slots
        depth = (deepest + 1) * fixed + self._config.explore_pool
        ranked, offsets = self._rank(plan, heads, depth)
        return self._lay_out(plan, group, ranked, offsets, fixed)

    def respond(self, request: Request) -> Reply:
        """The page for one request of a known user: the policy as a Shop, with pages of ten."""
        day = (request.time_us - START_US) // DAY_US
        plan = DayPlan(
            day=day,
            request_id=np.array([request.request_id]),
            session_id=np.array([request.session_id]),
            user_id=np.array([request.user_id]),
            time_us=np.array([request.time_us]),
            surface=np.array([SURFACES.index(request.surface)], np.int8),
            query=[request.query],
            photo=np.array([request.photo], np.int32),
            page=np.array([request.offset // PAGE_SIZE], np.int16),
            first=np.zeros(1, np.int32),
            intent=np.full((1, 6), -1, np.int16),
        )
        shown = self.pages(plan)
        return Reply(request.request_id, "", shown.row + 1, shown.propensity, offset=request.offset)

    def _rank(
        self, plan: DayPlan, heads: NDArray[np.int64], depth: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The best `depth` rows of each query, flat, and the offsets of each query in it."""
        rows, by_word, idf = self._index(plan.day)
        popularity = np.log1p(self._clicks[rows])
        popularity *= POPULARITY_WEIGHT / max(1.0, float(popularity.max(initial=0.0)))
        popularity += 1e-6 * hashed_uniform(keyed(self._config.seed, "ties", rows))
        best = np.argsort(-popularity, kind="stable")
        born = self._items.born_us[rows]
        ranked: list[NDArray[np.int64]] = []
        for at in range(0, len(heads), _BATCH):
            batch = heads[at : at + _BATCH]
            asked = [self._codes(plan.query[i]) for i in batch.tolist()]
            scores = _text_scores(asked, by_word, idf)
            for k, i in enumerate(batch.tolist()):
                a, b = scores.indptr[k], scores.indptr[k + 1]
                found, score = scores.indices[a:b], scores.data[a:b] + popularity[scores.indices[a:b]]
                if a == b:
                    found = best[self._eligible(plan, i, rows[best])]
                    score = popularity[found]
                known = born[found] <= plan.time_us[i]
                ranked.append(rows[_top(found[known], score[known], int(depth[at + k]))])
        sizes = np.array([len(r) for r in ranked], np.int64)
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        return (np.concatenate(ranked) if ranked else np.empty(0, np.int64)), offsets

    def _index(self, day: int) -> tuple[NDArray[np.int64], sp.csr_matrix, NDArray[np.float64]]:
        """The rows in the shop at some time of a day, the words' weights in them, and each word's idf."""
        if self._indexed is None or self._indexed[0] != day:
            rows = np.arange(int(self._items.counts[day + 1]))
            rows = rows[self._items.dead_us[rows] > START_US + day * DAY_US]
            matrix = self._matrix[rows]
            have = np.maximum(1, np.diff(matrix.tocsc().indptr))
            idf = np.log1p(len(rows) / have)
            by_word = (matrix @ sp.diags(idf)).T.tocsr().astype(np.float32)
            self._indexed = (day, (rows, by_word, idf))
        return self._indexed[1]

    def _codes(self, query: str) -> list[int]:
        return sorted({self._words[t] for t in tokens(query) if t in self._words})

    def _eligible(self, plan: DayPlan, i: int, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Where no word tells: the photo's department, else the user's last category, else everything."""
        if plan.photo[i] >= 0:
            return np.asarray(self._items.department[rows] == self._photos.labels[plan.photo[i]])
        category = self._last_category[plan.user_id[i] - 1]
        if plan.query[i] or category < 0:
            return np.ones(len(rows), np.bool_)
        return np.asarray(self._items.category[rows] == category)

    def _lay_out(
        self,
        plan: DayPlan,
        group: NDArray[np.int64],
        ranked: NDArray[np.int64],
        offsets: NDArray[np.int64],
        fixed: int,
    ) -> Shown:
        """Fill the ten slots of each request and leave out what has died since."""
        n = len(plan)
        page = plan.page.astype(np.int64)
        size = (offsets[1:] - offsets[:-1])[group]
        slot = np.full((n, PAGE_SIZE), -1, np.int64)  # rank of the item in each slot
        propensity = np.full((n, PAGE_SIZE), np.nan, np.float32)
        places = random_places(self._config.random_slots)
        kept = np.setdiff1d(np.arange(PAGE_SIZE), places)
        slot[:, kept] = page[:, None] * fixed + np.arange(fixed)
        pool_from = (page + 1) * fixed
        pool = np.minimum(self._config.explore_pool, size - pool_from)
        drawn: list[NDArray[np.int64]] = []
        for k, place in enumerate(places.tolist()):  # evenly, without replacement within the page
            u = hashed_uniform(keyed(self._config.seed, "slot", plan.request_id, k))
            pick = (u * np.maximum(pool - k, 1)).astype(np.int64)
            for earlier in np.sort(np.stack(drawn, 1), axis=1).T if drawn else ():
                pick += pick >= earlier
            drawn.append(pick)
            filled = pool >= len(places)
            slot[filled, place] = (pool_from + pick)[filled]
            propensity[filled, place] = 1.0 / pool[filled]
        slot[slot >= size[:, None]] = -1
        there = slot >= 0
        request, place = np.nonzero(there)
        row = ranked[offsets[group[request]] + slot[there]]
        alive = self._items.alive(row, plan.time_us[request])
        request, row, chance = request[alive], row[alive], propensity[there][alive]
        begins = np.searchsorted(request, np.arange(n))
        position = page[request] * PAGE_SIZE + np.arange(len(request)) - begins[request]
        return Shown(request, row, position, chance)


def _title_words(items: Catalogue, vocabulary: Vocabulary) -> tuple[dict[str, int], sp.csr_matrix]:
    """Codes of the words in titles, and which item has which: bool-like [n_items, n_words]."""
    codes: dict[str, int] = {}

    def table(texts: Sequence[str]) -> list[list[int]]:
        return [[codes.setdefault(t, len(codes)) for t in tokens(text)] for text in texts]

    styles = [vocabulary.style(s) for s in range(int(items.style2.max(initial=0)) + 1)]
    n_base = int(items.style.max(initial=0)) + 1
    styles += [vocabulary.style(s) for s in range(len(styles), n_base)]
    style_words = table(styles)
    fields = (
        (items.brand, table(vocabulary.brands)),
        (items.colour, table(COLOURS)),
        (items.material, table(MATERIALS)),
        (items.style, style_words),
        (items.style2, style_words),
        (items.category, table([c.noun for c in CATEGORIES])),
    )
    where, which = [], []
    for codes_of, words in fields:
        width = max(len(w) for w in words)
        padded = np.array([w + [-1] * (width - len(w)) for w in words] + [[-1] * width], np.int64)
        for column in padded[codes_of].T:  # a code of -1 is the last row: no word
            here = np.flatnonzero(column >= 0)
            where.append(here)
            which.append(column[here])
    shape = (len(items.brand), len(codes))
    ones = np.ones(sum(map(len, where)), np.float32)
    matrix = sp.csr_matrix((ones, (np.concatenate(where), np.concatenate(which))), shape=shape)
    matrix.data[:] = 1.0
    return codes, matrix


def _text_scores(asked: list[list[int]], by_word: sp.csr_matrix, idf: NDArray[np.float64]) -> sp.csr_matrix:
    """The idf-weighted share of each query's words that each item has: sparse [n_queries, n_items]."""
    ends = np.cumsum([0] + [len(c) for c in asked])
    flat = np.array([c for codes in asked for c in codes], np.int64)
    weight = np.array([1.0 / max(idf[codes].sum(), 1e-9) for codes in asked for _ in codes], np.float32)
    return sp.csr_matrix((weight, flat, ends), shape=(len(asked), by_word.shape[0])) @ by_word


def _top(found: NDArray[np.int64], score: NDArray[np.float64], depth: int) -> NDArray[np.int64]:
    if len(found) > depth:
        keep = np.argpartition(-score, depth - 1)[:depth]
        found, score = found[keep], score[keep]
    return np.asarray(found[np.lexsort((found, -score))])
