"""What only learners of words read of a panel: texts, which item was clicked after typing what, items' texts.

Texts are numbered. `panel.extra`: text_bytes uint8 and text_starts int64 [t + 1] (UTF-8); of items [m]
item_ids int64, item_text, item_title and item_category int32 (texts; item_category is the class), and
item_since_us, item_until_us int64 (when the shop had them); of clicks [c], by time, click_text and
click_item int32 (row of the items), click_us and click_session int64, click_weight float32 (1 click, 2 cart,
3 order; of the scorers' sessions only, as every teacher of scorers takes them); of the training rows
row_text int32 [g] and row_item int32 [n]. `slice.extra`: text int32 [g] and item int32 [n]. Queries of rows
and slices are as the speller rewrote them, so that a classifier's word on `text` and the item's category
is the feature `category_prob`, and an encoder's on both texts is `vector_score`. It trains nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from data.codes import item_text
from data.schema import CART, CLICK, ITEM_DELETE, ITEM_UPSERT, ORDER
from data.state import State
from flows.inputs import asked_at, group_keys
from flows.studies.panels.panel import Panel
from flows.studies.panels.scorers import of_scorers
from models.speller import Speller, rewrite

__all__ = ["FOR_EVER_US", "texts_of", "with_texts"]

FOR_EVER_US = np.iinfo(np.int64).max  # when an item goes that never does


class _Texts:
    """Numbers of texts, handed out in order of first use."""

    def __init__(self) -> None:
        self._number: dict[str, int] = {}

    def of(self, texts: Sequence[str]) -> NDArray[np.int32]:
        number = self._number
        return np.fromiter((number.setdefault(t, len(number)) for t in texts), np.int32, len(texts))

    def arrays(self) -> dict[str, NDArray[Any]]:
        held = [t.encode("utf-8", "replace") for t in self._number]
        starts = np.concatenate([[0], np.cumsum([len(b) for b in held])]).astype(np.int64)
        return {"text_bytes": np.frombuffer(b"".join(held), np.uint8), "text_starts": starts}


def texts_of(panel: Panel) -> list[str]:
    """The panel's texts by number; none where the source has no words."""
    if "text_starts" not in panel.extra:
        return []
    held, starts = bytes(panel.extra["text_bytes"]), panel.extra["text_starts"].tolist()
    return [held[a:b].decode() for a, b in pairwise(starts)]


def with_texts(
    panel: Panel,
    events: pa.Table,
    state: State,
    speller: Speller | None,
    *,
    row_queries: Sequence[str],
    row_items: NDArray[np.int64],
    slice_queries: Sequence[Sequence[str]],
) -> Panel:
    """The panel with what learners of words read.

    `events`: canonical, of the whole log; `state`: as of the last; `row_queries` [g] and `row_items` int64
    ids [n]: of the training rows; `slice_queries`: of each slice's queries.
    """
    texts = _Texts()
    texts.of([""])
    right: dict[str, str] = {}

    def rewritten(queries: Sequence[str]) -> NDArray[np.int32]:
        for query in queries:
            if query not in right:
                right[query] = rewrite(query, speller).text
        return texts.of([right[q] for q in queries])

    extra = {
        **_items(events, state, texts),
        **_clicks(events, state, texts),
        "row_text": rewritten(row_queries),
        "row_item": state.item_rows(row_items),
    }
    slices = tuple(
        replace(part, extra={**part.extra, "text": rewritten(asked), "item": state.item_rows(part.item_ids)})
        for part, asked in zip(panel.slices, slice_queries, strict=True)
    )
    return replace(panel, slices=slices, extra={**panel.extra, **extra, **texts.arrays()})


def _items(events: pa.Table, state: State, texts: _Texts) -> dict[str, NDArray[Any]]:
    payloads = [orjson.loads(p) for p in state.payloads]
    kind, item, known = (events[n].to_numpy() for n in ("kind", "item_id", "known_time"))
    since, until = np.zeros(state.n_items, np.int64), np.full(state.n_items, FOR_EVER_US, np.int64)
    came, went = np.flatnonzero(kind == ITEM_UPSERT), np.flatnonzero(kind == ITEM_DELETE)
    ids, first = np.unique(item[came], return_index=True)
    since[state.item_rows(ids)] = known[came[first]]
    rows = state.item_rows(item[went])
    until[rows[rows >= 0]] = known[went[rows >= 0]]
    until[state.alive] = FOR_EVER_US  # it came back
    return {
        "item_ids": state.item_ids.copy(),
        "item_text": texts.of([item_text(p) for p in payloads]),
        "item_title": texts.of([str(p.get("title") or "") for p in payloads]),
        "item_category": texts.of([str(p.get("category") or "") for p in payloads]),
        "item_since_us": since,
        "item_until_us": until,
    }


def _clicks(events: pa.Table, state: State, texts: _Texts) -> dict[str, NDArray[Any]]:
    kind, known = events["kind"].to_numpy(), events["known_time"].to_numpy()
    at = np.flatnonzero(np.isin(kind, (CLICK, CART, ORDER)))
    sessions = group_keys(events, at)
    rows = state.item_rows(events["item_id"].to_numpy()[at])
    asked = asked_at(events, at)
    keep = of_scorers(sessions) & (rows >= 0) & (asked >= 0)
    at, sessions, rows, asked = at[keep], sessions[keep], rows[keep], asked[keep]
    queries = events["query"].take(pa.array(asked)).to_pylist()
    typed = np.array([bool(q.strip()) for q in queries], bool)
    at, sessions, rows = at[typed], sessions[typed], rows[typed]
    return {
        "click_text": texts.of([q for q, t in zip(queries, typed.tolist(), strict=True) if t]),
        "click_item": rows,
        "click_us": known[at],
        "click_session": sessions,
        "click_weight": np.select([kind[at] == CART, kind[at] == ORDER], [2.0, 3.0], 1.0).astype(np.float32),
    }
