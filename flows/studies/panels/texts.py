"""What only learners of words read of a panel: texts, which item was clicked after typing what, items' texts.

Texts are numbered. `panel.extra`: text_bytes uint8 and text_starts int64 [t + 1] (UTF-8); of items [m]
item_ids int64 and item_since_us, item_until_us int64 (when the shop had them); of the items' wordings [v],
by item, then time, word_item int32, word_us int64 (since when), word_text, word_title and word_category
int32 (texts; word_category is the class); of clicks [c], by time, click_text and click_item int32 (row of
the items), click_us and click_session int64, click_weight float32 (1 click, 2 cart, 3 order; of the
scorers' sessions only, as every teacher of scorers takes them, and never of held-out ones); of the training
rows row_text int32 [g], row_item int32 [n] and row_recent int32 [g, REMEMBERED] (items, -1 none).
`slice.extra`: text int32 [g], item int32 [n], recent and frozen_recent int32 [g, REMEMBERED]. Queries of
rows and slices are as the speller rewrote them, so that a classifier's word on `text` and the item's
category is the feature `category_prob`, an encoder's on both texts is `vector_score`, and on those of the
items clicked lately `user_score`. It trains nothing.
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

from data.fractions import in_fraction
from data.schema import CART, CLICK, ITEM_DELETE, ITEM_UPSERT, ORDER
from data.state import State
from flows.offline.inputs import asked_at, group_keys
from flows.studies.panels.panel import Panel
from flows.studies.panels.scorers import of_scorers
from models.encoder import item_text
from models.speller import Speller, rewrite

__all__ = ["FOR_EVER_US", "HELD_SALT", "texts_of", "with_texts"]

FOR_EVER_US = np.iinfo(np.int64).max  # when an item goes that never does
HELD_SALT = "study"  # by which sessions are held out of all training


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
    row_recent: NDArray[np.int32],
    slice_queries: Sequence[Sequence[str]],
    held_share: float = 0.0,
) -> Panel:
    """The panel with what learners of words read.

    `events`: canonical, of the whole log; `state`: as of the last; `row_queries` [g], `row_items` int64 ids
    [n] and `row_recent` int32 [g, REMEMBERED]: of the training rows; `slice_queries`: of each slice's
    queries; `held_share`: of the sessions, that are asked and never learned from.
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
        **_items(events, state),
        **_wordings(events, state, texts),
        **_clicks(events, state, texts, held_share),
        "row_text": rewritten(row_queries),
        "row_item": state.item_rows(row_items),
        "row_recent": row_recent,
    }
    slices = tuple(
        replace(part, extra={**part.extra, "text": rewritten(asked), "item": state.item_rows(part.item_ids)})
        for part, asked in zip(panel.slices, slice_queries, strict=True)
    )
    return replace(panel, slices=slices, extra={**panel.extra, **extra, **texts.arrays()})


def _items(events: pa.Table, state: State) -> dict[str, NDArray[Any]]:
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
        "item_since_us": since,
        "item_until_us": until,
    }


def _wordings(events: pa.Table, state: State, texts: _Texts) -> dict[str, NDArray[Any]]:
    """What items said of themselves, and since when: a model of long ago has not read today's titles."""
    came = np.flatnonzero(events["kind"].to_numpy() == ITEM_UPSERT)
    rows = state.item_rows(events["item_id"].to_numpy()[came])
    known = events["known_time"].to_numpy()[came]
    said: list[dict[str, Any]] = [{} for _ in range(state.n_items)]
    last: list[tuple[str, str, str] | None] = [None] * state.n_items
    found: list[tuple[int, int, str, str, str]] = []
    for row, since, payload in zip(
        rows.tolist(), known.tolist(), events["payload"].take(pa.array(came)).to_pylist(), strict=True
    ):
        said[row].update(orjson.loads(payload or "{}"))
        fields = said[row]
        now = (item_text(fields), str(fields.get("title") or ""), str(fields.get("category") or ""))
        if now != last[row]:
            last[row] = now
            found.append((row, since, *now))
    found.sort(key=lambda v: v[:2])
    return {
        "word_item": np.array([v[0] for v in found], np.int32),
        "word_us": np.array([v[1] for v in found], np.int64),
        "word_text": texts.of([v[2] for v in found]),
        "word_title": texts.of([v[3] for v in found]),
        "word_category": texts.of([v[4] for v in found]),
    }


def _clicks(events: pa.Table, state: State, texts: _Texts, held_share: float) -> dict[str, NDArray[Any]]:
    kind, known = events["kind"].to_numpy(), events["known_time"].to_numpy()
    at = np.flatnonzero(np.isin(kind, (CLICK, CART, ORDER)))
    sessions = group_keys(events, at)
    rows = state.item_rows(events["item_id"].to_numpy()[at])
    asked = asked_at(events, at)
    keep = of_scorers(sessions) & (rows >= 0) & (asked >= 0)
    if held_share:
        keep &= ~in_fraction(sessions, held_share, salt=HELD_SALT)
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
