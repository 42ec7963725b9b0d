"""Small batches take a shorter way to the same rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import event_batch
from data.event_batch import Batch
from data.schema import CLICK, ITEM_DELETE, ITEM_UPSERT, SEARCH, USER_UPSERT, event_table

KIND = st.sampled_from([SEARCH, CLICK, ITEM_UPSERT, ITEM_DELETE, USER_UPSERT])
EVENT = st.tuples(
    KIND, st.integers(-1, 12), st.integers(-1, 12), st.sampled_from(["", "red boots", "Red  BOOTS"])
)


def table(events: list[tuple[int, int, int, str]]) -> pa.Table:
    kinds, items, users, queries = zip(*events, strict=True)
    ids = np.arange(len(events))
    return event_table({
        "event_id": ids, "kind": kinds, "event_time": 1, "known_time": ids,
        "item_id": items, "user_id": users, "query": list(queries), "payload": "{}",
    })  # fmt: skip


@settings(deadline=None)  # the first call loads code
@given(st.lists(EVENT, min_size=1, max_size=40), st.sets(st.integers(0, 12)), st.sets(st.integers(0, 12)))
def test_small_and_large_batches_give_the_same_rows(
    events: list[tuple[int, int, int, str]], items: set[int], users: set[int]
) -> None:
    known = [{i: row for row, i in enumerate(sorted(ids))} for ids in (items, users)]
    small = Batch(table(events))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_batch, "_SMALL", 0)
        large = Batch(table(events))
        expected = large.rows_in(*known)
    found = small.rows_in(*known)
    assert (small.query_key == large.query_key).all()
    for name in ("item_row", "user_row", "new_users", "new_users_at"):
        a, b = getattr(found, name), getattr(expected, name)
        assert a.dtype == b.dtype
        assert a.tolist() == b.tolist(), name
