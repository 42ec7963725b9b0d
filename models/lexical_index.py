"""Items by words: three inverted indexes (tantivy) in tiers of popularity, searched in cascade.

The tiers and their sizes follow the published e-commerce search scenario (REFERENCE.md):
excellent 15 %, good 35 %, bad 50 % by click and purchase rate. Without clicks there is one tier. Texts
and queries are cut into words by `data.text.tokens`. It knows ids and words, not why an item is popular.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.text import tokens
from infra.errors import DataError

__all__ = ["TIERS", "TIER_SHARES", "LexicalHits", "LexicalIndex", "assign_tiers"]

TIERS = ("excellent", "good", "bad")
TIER_SHARES = (0.15, 0.35, 0.50)
MAX_QUERY_TOKENS = 64
_HEAP_BYTES = 64 << 20
_FREQUENCIES = 100_000  # words whose frequency is remembered
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
    """`item_ids` int64 [n] and `tiers` int8 [n] by row; one searcher a tier, safe to share among threads."""

    item_ids: NDArray[np.int64]
    tiers: NDArray[np.int8]
    _schema: Any = field(repr=False, compare=False)
    _searchers: tuple[Any, ...] = field(repr=False, compare=False)
    _frequency: dict[str, int] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def build(
        cls,
        folder: Path,
        item_ids: Sequence[int] | NDArray[np.int64],
        texts: Sequence[str | Sequence[str]],
        tiers: NDArray[np.int8],
    ) -> LexicalIndex:
        """Index `texts` [n] of distinct `item_ids` [n] under `folder`, which is emptied first.

        A text may be given as its words, repeated by their weight.
        """
        ids = np.ascontiguousarray(item_ids, np.int64)
        tiers = np.ascontiguousarray(tiers, np.int8)
        if not len(ids) == len(texts) == len(tiers):
            raise DataError(f"{len(ids)} ids, {len(texts)} texts, {len(tiers)} tiers; expected one number")
        if len(np.unique(ids)) != len(ids):
            raise DataError("item ids repeat; expected one text an item")
        if len(tiers) and not (tiers.min() >= 0 and tiers.max() < len(TIERS)):
            raise DataError(f"tiers from {tiers.min()} to {tiers.max()}; expected 0 to {len(TIERS) - 1}")
        shutil.rmtree(folder, ignore_errors=True)
        for tier, name in enumerate(TIERS):
            _build_tier(folder / name, np.flatnonzero(tiers == tier), texts)
        np.save(folder / "ids.npy", ids, allow_pickle=False)
        np.save(folder / "tiers.npy", tiers, allow_pickle=False)
        return cls.load(folder)

    @classmethod
    def load(cls, folder: Path) -> LexicalIndex:
        """Open the three indexes; they stay memory-mapped."""
        import tantivy

        try:
            # Plain views of the mapped files: picking from a `memmap` makes one, in Python.
            ids = np.asarray(np.load(folder / "ids.npy", mmap_mode="r", allow_pickle=False))
            tiers = np.asarray(np.load(folder / "tiers.npy", mmap_mode="r", allow_pickle=False))
            searchers = []
            for name in TIERS:
                index = tantivy.Index.open(str(folder / name))
                index.config_reader("manual")  # a release never changes: no thread that watches the folder
                index.reload()
                searchers.append(index.searcher())
        except (OSError, ValueError) as error:
            raise DataError(f"no lexical index in {folder} ({error}); build it again") from error
        found = sum(s.num_docs for s in searchers)
        if not len(ids) == len(tiers) == found:
            raise DataError(f"{folder} holds {len(ids)} ids and {found} documents; build it again")
        return cls(ids, tiers, _schema(), tuple(searchers))

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def flat(self) -> bool:
        """Whether all items are of one tier: then scores of any two items may be compared."""
        return sum(1 for searcher in self._searchers if searcher.num_docs) <= 1

    def search_rows(
        self, query_tokens: Sequence[str], k: int, *, minimum_match: int = 1
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows of `item_ids` and BM25 scores of items with at least `minimum_match` of the tokens.

        The excellent tier comes first, best first; the next tier is searched while there are fewer
        than k hits, and every hit is kept: between k and 2k - 1 where there are as many. Scores
        are comparable within a tier only (each has its own word frequencies).
        """
        wanted = list(dict.fromkeys(query_tokens))[:MAX_QUERY_TOKENS]
        rows: list[int] = []
        scores: list[float] = []
        if wanted and k > 0:
            query = self._query(wanted, min(max(minimum_match, 1), len(wanted)))
            for searcher in self._searchers:
                if len(rows) >= k:
                    break
                hits = searcher.search(query, k, False).hits
                if hits:
                    rows += searcher.fast_field_values("row", [address for _, address in hits])
                    scores += [score for score, _ in hits]
        return np.fromiter(rows, np.int64, len(rows)), np.fromiter(scores, np.float32, len(scores))

    def search_all_then_any(
        self, query_tokens: Sequence[str], k: int, *, enough: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """`search_rows` with all of the tokens or, where that finds fewer than `enough`, with any.

        The first search is left out where a token is too rare for it to find enough. In a flat index
        both are made, unless all of the tokens find k: the more of them an item has the better.
        """
        wanted = list(dict.fromkeys(query_tokens))[:MAX_QUERY_TOKENS]
        if self.flat and len(wanted) > 1:
            return self._all_and_any(wanted, k)
        if len(wanted) > 1 and min(map(self._holders, wanted)) >= enough:
            rows, scores = self.search_rows(wanted, k, minimum_match=len(wanted))
            if len(rows) >= enough:
                return rows, scores
        return self.search_rows(wanted, k)

    def _all_and_any(self, wanted: Sequence[str], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        rows, scores = self.search_rows(wanted, k, minimum_match=len(wanted))
        if len(rows) >= k:
            return rows, scores
        some, some_scores = self.search_rows(wanted, k)
        new = ~np.isin(some, rows)
        rows = np.concatenate([rows, some[new]])
        scores = np.concatenate([scores * _ALL_BONUS, some_scores[new]])
        order = np.argsort(-scores, kind="stable")
        return rows[order], scores[order]

    def _holders(self, token: str) -> int:
        """How many items have the token; asked for once, as an index never changes."""
        found = self._frequency.get(token)
        if found is None:
            found = sum(searcher.doc_freq("text", token) for searcher in self._searchers)
            if len(self._frequency) < _FREQUENCIES:
                self._frequency[token] = found
        return found

    def search(self, query_tokens: Sequence[str], k: int, *, minimum_match: int = 1) -> LexicalHits:
        """As `search_rows`: (ids int64 [h], scores float32 [h], tiers int8 [h])."""
        rows, scores = self.search_rows(query_tokens, k, minimum_match=minimum_match)
        return self.item_ids[rows], scores, self.tiers[rows]

    def _query(self, wanted: Sequence[str], minimum_match: int) -> Any:
        # Built from terms: a query parser would give meaning to what shoppers type.
        from tantivy import Occur, Query

        terms = [Query.term_query(self._schema, "text", token) for token in wanted]
        if len(terms) == 1:
            return terms[0]
        if minimum_match == len(terms):
            return Query.boolean_query([(Occur.Must, term) for term in terms])
        pairs = [(Occur.Should, term) for term in terms]
        if minimum_match == 1:
            return Query.boolean_query(pairs)
        return Query.boolean_query(pairs, minimum_match)


def _schema() -> Any:
    from tantivy import SchemaBuilder

    builder = SchemaBuilder()
    builder.add_unsigned_field("row", stored=False, indexed=False, fast=True)  # ids may exceed 2^62
    builder.add_text_field("text", stored=False, tokenizer_name="whitespace", index_option="freq")
    return builder.build()


def _build_tier(folder: Path, rows: NDArray[np.intp], texts: Sequence[str | Sequence[str]]) -> None:
    import tantivy

    folder.mkdir(parents=True)
    index = tantivy.Index(_schema(), path=str(folder))
    writer = index.writer(heap_size=_HEAP_BYTES, num_threads=1)  # one thread: document order is row order
    for row in rows.tolist():
        document = tantivy.Document()
        document.add_unsigned("row", row)
        text = texts[row]
        document.add_text("text", " ".join(tokens(text) if isinstance(text, str) else text))
        writer.add_document(document)
    writer.commit()
    writer.wait_merging_threads()
    for lock in folder.glob(".*.lock"):
        lock.unlink()
