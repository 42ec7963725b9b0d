"""A small invented log: sessions with one or more search pages, clicks with a chance that may fall."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from data.schema import CLICK, IMPRESSION, ITEM_UPSERT, SEARCH, canonical, event_table
from infra.clock import DAY_US, SECOND_US

START_US = 1_700_000_000 * SECOND_US
SLOTS, ITEMS = 5, 50


def made_log(
    *, days: float, sessions_per_day: int, chance: Callable[[float], float] = lambda _: 0.5, seed: int = 1
) -> pa.Table:
    """Events from START_US on. A page of 5 has a click with `chance(day)`, on a random place."""
    rng = np.random.default_rng(seed)
    n = int(days * sessions_per_day)
    begin = np.sort(rng.integers(0, int(days * DAY_US), n)) + START_US
    columns: dict[str, list[int]] = {
        name: []
        for name in (
            "event_id",
            "kind",
            "event_time",
            "known_time",
            "session_id",
            "request_id",
            "item_id",
            "position",
            "surface",
        )
    }

    def add(kind: int, at: int, session: int, request: int, item: int, position: int, surface: int) -> None:
        row = (len(columns["kind"]) + 1, kind, at, at, session, request, item, position, surface)
        for values, value in zip(columns.values(), row, strict=True):
            values.append(value)

    for item in range(ITEMS):
        add(ITEM_UPSERT, START_US, -1, -1, item, -1, 0)
    for session, at in enumerate(begin.tolist()):
        for page in range(1 + int(rng.random() < 0.3)):
            shown_at, request = at + page * 60 * SECOND_US, 2 * session + page
            add(SEARCH, shown_at, session, request, -1, -1, 1)
            items = rng.permutation(ITEMS)[:SLOTS].tolist()
            for place, item in enumerate(items):
                add(IMPRESSION, shown_at, session, request, item, place, 1)
            if rng.random() < chance((shown_at - START_US) / DAY_US):
                place = int(rng.integers(SLOTS))
                add(CLICK, shown_at + 20 * SECOND_US, session, request, items[place], place, 0)
    named = [f'{{"title": "item {i}"}}' if k == ITEM_UPSERT else "" for k, i in _kinds_and_items(columns)]
    return canonical(event_table({**columns, "payload": named}))


def _kinds_and_items(columns: dict[str, list[int]]) -> list[tuple[int, int]]:
    return list(zip(columns["kind"], columns["item_id"], strict=True))
