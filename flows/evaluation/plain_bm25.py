"""What a search has to beat: plain BM25 over title and description, by tantivy as it comes.

Its default tokenizer (lower case, runs of letters and digits), one field, k1 1.2, b 0.75, any word
matches. It shares nothing with the service's own index but the library.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NAME", "PlainBM25", "plain_bm25"]

NAME = "bm25_title_description"


@dataclass(frozen=True)
class PlainBM25:
    """An index in a folder; `item_ids` int64 [n] in order of indexing."""

    item_ids: NDArray[np.int64]
    _index: Any
    _searcher: Any

    def search(self, query: str, k: int) -> NDArray[np.int64]:
        """Item ids int64 [≤ k], best first."""
        from tantivy import Occur, Query, TextAnalyzerBuilder, Tokenizer

        words = TextAnalyzerBuilder(Tokenizer.simple()).build().analyze(query.lower())
        terms = [Query.term_query(self._index.schema, "text", word) for word in dict.fromkeys(words)]
        if not terms or not len(self.item_ids):
            return np.empty(0, np.int64)
        hits = self._searcher.search(Query.boolean_query([(Occur.Should, t) for t in terms]), k, False).hits
        rows = self._searcher.fast_field_values("row", [address for _, address in hits]) if hits else []
        return self.item_ids[np.array(rows, np.int64)]


@contextmanager
def plain_bm25(items: Iterable[tuple[int, Mapping[str, Any]]]) -> Iterator[PlainBM25]:
    """An index of (id, fields) of items, in a temporary folder that goes with it."""
    import tantivy

    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field("row", stored=False, indexed=False, fast=True)
    builder.add_text_field("text", stored=False, tokenizer_name="default", index_option="freq")
    ids: list[int] = []
    with tempfile.TemporaryDirectory(prefix="shelflife-bm25-") as folder:
        index = tantivy.Index(builder.build(), path=str(Path(folder)))
        writer = index.writer(heap_size=64 << 20, num_threads=1)
        for item_id, fields in items:
            document = tantivy.Document()
            document.add_unsigned("row", len(ids))
            document.add_text("text", f"{fields.get('title') or ''} {fields.get('description') or ''}")
            writer.add_document(document)
            ids.append(item_id)
        writer.commit()
        writer.wait_merging_threads()
        index.reload()
        yield PlainBM25(np.array(ids, np.int64), index, index.searcher())
