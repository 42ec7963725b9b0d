"""Items by words: posting lists in tiers of popularity, searched in cascade by BM25.

The tiers and their sizes follow the published e-commerce search scenario (REFERENCE.md):
excellent 15 %, good 35 %, bad 50 % by click and purchase rate. Without clicks there is one tier. Texts
and queries are cut into words by `data.text.tokens`. It knows ids and words, not why an item is popular.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.schema import stable_hash, stable_hashes
from data.text import tokens
from infra.arrays import mapped
from infra.errors import DataError
from models.bm25 import scores_of
from models.lexical_kernel import KEYS, Postings, hits_of, keys_into

__all__ = ["TIERS", "TIER_SHARES", "LexicalHits", "LexicalIndex", "assign_tiers"]

TIERS = ("excellent", "good", "bad")
TIER_SHARES = (0.15, 0.35, 0.50)
MAX_QUERY_TOKENS = 64
_KNOWN_WORDS = 100_000  # words whose number is remembered
_ALL_BONUS = np.float32(1.15)  # of an item with all of the words, where those with some are found beside it
LexicalHits = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int8]]


def assign_tiers(click_purchase_rate: NDArray[np.floating[Any]]) -> NDArray[np.int8]:
    """The tier (0 excellent, 1 good, 2 bad) of each item [n] by its rank; NaN ranks last, ties by order."""
    rate = np.nan_to_num(np.asarray(click_purchase_rate, np.float64), nan=-np.inf)
    bounds = np.rint(np.cumsum(TIER_SHARES)[:2] * len(rate))
    tiers = np.empty(len(rate), np.int8)
    tiers[np.argsort(-rate, kind="stable")] = np.searchsorted(bounds, np.arange(len(rate)), side="right")
    return tiers


@dataclass(frozen=True)
class LexicalIndex:
    """`item_ids` int64 [n] and `tiers` int8 [n] by row, tier by tier; safe to share among threads.

    `words` int64 [w]: the stable hashes of all words, ascending; a word's place is its number.
    """

    item_ids: NDArray[np.int64]
    words: NDArray[np.int64] = field(repr=False)
    postings: Postings = field(repr=False, compare=False)
    _numbers: dict[str, int] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def build(
        cls,
        folder: Path,
        item_ids: Sequence[int] | NDArray[np.int64],
        texts: Sequence[str | Sequence[str]],
        tiers: NDArray[np.int8],
    ) -> LexicalIndex:
        """Index `texts` [n] of distinct `item_ids` [n] under `folder`, which is emptied first.

        A text may be given as its words, repeated by their weight. Within a tier, rows are as given.
        """
        ids = np.ascontiguousarray(item_ids, np.int64)
        tiers = np.ascontiguousarray(tiers, np.int8)
        if not len(ids) == len(texts) == len(tiers):
            raise DataError(f"{len(ids)} ids, {len(texts)} texts, {len(tiers)} tiers; expected one number")
        if len(np.unique(ids)) != len(ids):
            raise DataError("item ids repeat; expected one text an item")
        if len(tiers) and not (tiers.min() >= 0 and tiers.max() < len(TIERS)):
            raise DataError(f"tiers from {tiers.min()} to {tiers.max()}; expected 0 to {len(TIERS) - 1}")
        order = np.argsort(tiers, kind="stable")
        firsts = np.searchsorted(tiers[order], np.arange(len(TIERS) + 1)).astype(np.int64)
        words, postings = _postings((texts[row] for row in order.tolist()), firsts)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, array in {"ids": ids[order], "words": words, **postings._asdict()}.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        return cls.load(folder)

    @classmethod
    def load(cls, folder: Path) -> LexicalIndex:
        """Open a built index; its arrays stay memory-mapped."""
        try:
            ids, words, *lists = (mapped(folder / f"{n}.npy") for n in ("ids", "words", *Postings._fields))
        except (OSError, ValueError) as error:
            raise DataError(f"no lexical index in {folder} ({error}); build it again") from error
        held = Postings(*lists)
        whole = (
            len(held.firsts) == len(TIERS) + 1
            and len(ids) == held.firsts[-1]
            and len(held.starts) == len(TIERS) * len(words) + 1
            and len(held.items) == len(held.scores) == held.starts[-1]
        )
        if not whole:
            raise DataError(
                f"{folder} holds {len(ids)} ids and {len(held.items)} postings of {len(words)} words, "
                "which do not belong together; build it again"
            )
        return cls(ids, words, held)

    def __len__(self) -> int:
        return len(self.item_ids)

    @cached_property
    def tiers(self) -> NDArray[np.int8]:
        """int8 [n]: the tier of each row."""
        return np.repeat(np.arange(len(TIERS), dtype=np.int8), np.diff(self.postings.firsts))

    @cached_property
    def flat(self) -> bool:
        """Whether all items are of one tier: then scores of any two items may be compared."""
        return int(np.count_nonzero(np.diff(self.postings.firsts))) <= 1

    def search_rows(
        self, query_tokens: Sequence[str], k: int, *, every: bool = False
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows of `item_ids` and BM25 scores of items with any of the tokens, or with `every` one.

        The excellent tier comes first, best first, equal scores by row; the next tier is searched while
        there are fewer than k hits, and every hit is kept: between k and 2k - 1 where there are as many.
        Scores are comparable within a tier only (each has its own word frequencies).
        """
        return self._hits(self._terms(query_tokens), k, every=every)

    def search_all_then_any(
        self, query_tokens: Sequence[str], k: int, *, enough: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """`search_rows` with all of the tokens or, where that finds fewer than `enough`, with any.

        The first search is left out where a token is too rare for it to find enough. In a flat index
        both are made, unless all of the tokens find k: the more of them an item has the better.
        """
        terms = self._terms(query_tokens)
        if self.flat and len(terms) > 1:
            return self._all_and_any(terms, k)
        if len(terms) > 1 and min(map(self._holders, terms)) >= enough:
            rows, scores = self._hits(terms, k, every=True)
            if len(rows) >= enough:
                return rows, scores
        return self._hits(terms, k)

    def search(self, query_tokens: Sequence[str], k: int, *, every: bool = False) -> LexicalHits:
        """As `search_rows`: (ids int64 [h], scores float32 [h], tiers int8 [h])."""
        rows, scores = self.search_rows(query_tokens, k, every=every)
        return self.item_ids[rows], scores, self.tiers[rows]

    def _all_and_any(self, terms: list[int], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        rows, scores = self._hits(terms, k, every=True)
        if len(rows) >= k:
            return rows, scores
        some, some_scores = self._hits(terms, k)
        new = ~np.isin(some, rows)
        rows = np.concatenate([rows, some[new]])
        scores = np.concatenate([scores * _ALL_BONUS, some_scores[new]])
        order = np.argsort(-scores, kind="stable")
        return rows[order], scores[order]

    def _hits(
        self, terms: list[int], k: int, *, every: bool = False
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        known = [term for term in terms if term >= 0]
        if not known or k <= 0 or (every and len(known) < len(terms)):
            return np.empty(0, np.int64), np.empty(0, np.float32)
        numbers, room = np.array(known, np.int64), np.empty(KEYS + k, np.uint64)
        best: list[NDArray[np.uint64]] = []
        found = 0
        for tier in range(len(TIERS)):
            if found >= k:
                break
            n = keys_into(self.postings, numbers, tier, every, k, room)
            if n > k:
                best.append(np.sort(np.partition(room[:n], n - k)[n - k :])[::-1])
            elif n:
                best.append(np.sort(room[:n])[::-1])
            found += min(n, k)
        return hits_of(best[0] if len(best) == 1 else np.concatenate([room[:0], *best]))

    def _terms(self, query_tokens: Sequence[str]) -> list[int]:
        """The numbers of the distinct tokens, -1 for one that no item has."""
        return [self._number(t) for t in list(dict.fromkeys(query_tokens))[:MAX_QUERY_TOKENS]]

    def _number(self, token: str) -> int:
        """The token's number; looked up once, as an index never changes."""
        found = self._numbers.get(token)
        if found is None:
            wanted = stable_hash(token.encode("utf-8", "replace").decode())
            at = int(np.searchsorted(self.words, wanted))
            found = at if at < len(self.words) and self.words[at] == wanted else -1
            if len(self._numbers) < _KNOWN_WORDS:
                self._numbers[token] = found
        return found

    def _holders(self, term: int) -> int:
        """How many items have the term."""
        starts, tiers = self.postings.starts, len(TIERS)
        return 0 if term < 0 else int(starts[tiers * (term + 1)] - starts[tiers * term])


def _postings(
    texts: Iterator[str | Sequence[str]], firsts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Postings]:
    """The hashes of all words, ascending, and the posting lists of texts that come tier by tier."""
    number: dict[str, int] = {}
    n, ids = int(firsts[-1]), []
    totals = np.zeros(n, np.int64)
    for at, text in enumerate(texts):
        cut = tokens(text) if isinstance(text, str) else text
        ids.append(np.fromiter((number.setdefault(w, len(number)) for w in cut), np.int32, len(cut)))
        totals[at] = len(cut)
    hashes = stable_hashes(list(number))
    words, place = np.unique(hashes, return_inverse=True)
    if len(words) != len(number):
        raise DataError(f"{len(number)} words have {len(words)} hashes; expected one each: change a word")
    term = place.astype(np.int64)[np.concatenate(ids)] if ids else np.empty(0, np.int64)
    item = np.repeat(np.arange(n), totals)
    # Tiers are runs of items, so that ordered by word and item a word's items lie tier by tier.
    pairs, counts = np.unique(term * max(n, 1) + item, return_counts=True)
    bounds = (np.arange(len(words))[:, None] * max(n, 1) + firsts[None, :-1]).ravel()
    starts = np.append(np.searchsorted(pairs, bounds), len(pairs)).astype(np.int64)
    items = (pairs % max(n, 1)).astype(np.int32)
    return words, Postings(firsts, starts, items, scores_of(firsts, starts, items, counts, totals))
