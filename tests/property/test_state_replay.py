"""The state that a shop's events fold into does not depend on how they were cut, ordered or repeated."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.replica import StateReplica, current_state
from data.schema import CLICK, IMPRESSION, ITEM_DELETE, ITEM_UPSERT, ORDER, SEARCH, USER_UPSERT, event_table
from data.segments import write_segments
from data.state import State
from flows.offline.ingest import ingest
from infra.clock import HOUR_US, ScaledClock
from infra.settings import Home, Settings

T0 = 1_700_000_000_000_000
N, ITEMS, USERS = 240, 12, 5


def history(seed: int) -> pa.Table:
    """Events of all kinds over six hours; items change, go and come back; some known_times are equal."""
    rng = np.random.default_rng(seed)
    kinds = (ITEM_UPSERT, ITEM_DELETE, USER_UPSERT, SEARCH, IMPRESSION, CLICK, ORDER)
    kind = rng.choice(kinds, N, p=[0.2, 0.05, 0.05, 0.1, 0.35, 0.15, 0.1])
    known = np.sort(T0 + HOUR_US + rng.integers(0, 6 * HOUR_US, N))
    known[1::7] = known[:-1:7]
    item, user = rng.integers(0, ITEMS, N), rng.integers(0, USERS, N)
    upserts = [
        {"title": f"shoe {n}", "price": n % 50 + 1.5, "category": f"c{n % 3}"}
        for n in rng.integers(0, 99, N).tolist()
    ]
    users = [{"gender": n % 2, "age": 20 + n, "purchasing_power": n % 7} for n in range(N)]
    payload = [
        orjson.dumps(upserts[i] if k == ITEM_UPSERT else users[i]).decode()
        if k in (ITEM_UPSERT, USER_UPSERT)
        else ""
        for i, k in enumerate(kind.tolist())
    ]
    born = event_table(
        {"event_id": 10_000 + np.arange(ITEMS), "kind": ITEM_UPSERT, "event_time": T0, "known_time": T0,
         "item_id": np.arange(ITEMS), "payload": '{"title": "new", "price": 1.0}'},
        rows=ITEMS,
    )  # fmt: skip
    lived = event_table(
        {"event_id": np.arange(N), "kind": kind, "event_time": known - rng.integers(0, 10**6, N),
         "known_time": known, "item_id": np.where(np.isin(kind, (SEARCH, USER_UPSERT)), -1, item),
         "user_id": user, "session_id": user * 3, "request_id": np.arange(N) // 4, "query": "shoe",
         "position": np.arange(N) % 10, "payload": payload},
        rows=N,
    )  # fmt: skip
    return pa.concat_tables([born, lived])


def folded(batches: list[list[pa.Table]]) -> str:
    """The hash of the state after ingesting these batches of segments one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        layout = Home(Path(folder))
        ScaledClock(T0 + 10 * HOUR_US, 0, 0.0).save(layout.clock)
        for b, batch in enumerate(batches):
            for s, table in enumerate(batch):
                write_segments(table, layout.segments, name=f"p{b}-{s}", durable=False)
            ingest(Settings(home=layout.root))
        replica = StateReplica(layout)
        replica.poll()
        assert replica.state.content_hash() == current_state(layout).content_hash()
        return replica.state.content_hash()


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_any_cut_order_and_repetition_folds_into_the_same_state(data: st.DataObject) -> None:
    table = history(data.draw(st.integers(0, 3), label="seed"))
    rows = table.num_rows
    in_order = data.draw(st.booleans(), label="in order")
    order = np.random.default_rng(data.draw(st.integers(0, 999))).permutation(rows)
    order = np.arange(rows) if in_order else order
    cuts = sorted(data.draw(st.lists(st.integers(0, rows), max_size=5), label="cuts"))
    pieces = [table.take(pa.array(order[a:b])) for a, b in zip([0, *cuts], [*cuts, rows], strict=True)]
    repeated = data.draw(st.lists(st.sampled_from(range(len(pieces))), max_size=2), label="repeated")
    pieces += [pieces[i].slice(0, pieces[i].num_rows // 2 + 1) for i in repeated]
    stops = sorted(data.draw(st.lists(st.integers(0, len(pieces)), max_size=3), label="stops"))
    batches = [pieces[a:b] for a, b in zip([0, *stops], [*stops, len(pieces)], strict=True)]
    assert folded(batches) == folded([[table]])


@pytest.mark.parametrize("seed", [0, 1])
def test_other_events_fold_into_another_state(seed: int) -> None:
    table = history(seed)
    assert folded([[table]]) != folded([[table.slice(0, table.num_rows - 1)]])
    one, other = State(), State()
    one.apply(history(seed))
    other.apply(history(seed + 1))
    assert one.content_hash() != other.content_hash()
