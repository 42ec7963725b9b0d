"""Ingest split anywhere, in any order, with anything twice, gives the same content.

A day's events: late ones, ones that come again as they were or heard of later (another writer took the
same event), bad ones, and ones about items that only a later piece makes known.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from data.content import content_hash
from data.schema import CLICK, IMPRESSION, ITEM_UPSERT, SEARCH, event_table
from data.segments import write_segments
from data.snapshots import published, read_events
from data.store import ingest_segments
from infra.clock import HOUR_US, ManualClock
from infra.settings import Home

T0 = 1_700_000_000_000_000
N = 200


def history(seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    kind = rng.choice([SEARCH, IMPRESSION, CLICK, ITEM_UPSERT], N, p=[0.2, 0.4, 0.3, 0.1])
    known = T0 + rng.integers(0, 3 * HOUR_US, N)
    return event_table(
        {"event_id": np.arange(N), "kind": kind, "event_time": known - rng.integers(0, 10**6, N),
         "known_time": known,
         "item_id": np.where(kind == SEARCH, -1, rng.integers(0, 30, N)), "query": "shoe",
         "payload": np.where(kind == ITEM_UPSERT, "{}", ""), "vector_score": rng.random(N, np.float32)},
        rows=N,
    )  # fmt: skip


def delivered(seed: int) -> pa.Table:
    """The history, with every fifth event told again by another writer, a little later or else."""
    table = history(seed)
    rng = np.random.default_rng(seed + 100)
    again = table.take(pa.array(rng.permutation(N)[: N // 5]))
    known = again["known_time"].to_numpy() + rng.integers(-5, 10**7, again.num_rows)
    again = again.set_column(3, "known_time", pa.array(known))
    other = again.set_column(17, "vector_score", pa.array(rng.random(again.num_rows, np.float32)))
    return pa.concat_tables([table, again, other])


def held(pieces: list[list[pa.Table]]) -> tuple[str, int]:
    """(content hash, rows in quarantine) after ingesting these batches of segments one by one."""
    with tempfile.TemporaryDirectory() as folder:
        layout = Home(Path(folder))
        for b, batch in enumerate(pieces):
            for s, table in enumerate(batch):
                write_segments(table, layout.segments, name=f"p{b}-{s}", durable=False)
            report = ingest_segments(
                layout, allowed_lateness_us=HOUR_US, clock=ManualClock(T0 + 10 * HOUR_US)
            )
        assert content_hash(read_events(published(layout))) == report.content_hash
        return report.content_hash, sum(published(layout).quarantine.values())


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_any_split_order_and_repetition_gives_the_same_content(data: st.DataObject) -> None:
    table = delivered(data.draw(st.integers(0, 3)))
    expected = held([[table]])
    n = table.num_rows
    order = np.random.default_rng(data.draw(st.integers(0, 999))).permutation(n)
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=4)))
    pieces = [table.take(pa.array(order[a:b])) for a, b in zip([0, *cuts], [*cuts, n], strict=True)]
    repeated = data.draw(st.lists(st.sampled_from(range(len(pieces))), max_size=2))
    pieces += [pieces[i].slice(0, pieces[i].num_rows // 2 + 1) for i in repeated]
    batches = data.draw(st.lists(st.integers(1, 3), min_size=len(pieces), max_size=len(pieces)))
    grouped = [[p for p, b in zip(pieces, batches, strict=True) if b == g] for g in (1, 2, 3)]
    assert held(grouped) == expected
