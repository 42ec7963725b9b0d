"""Readers see what was published, in order, and damage in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data.schema import CLICK, EVENT_SCHEMA, ITEM_UPSERT, SEARCH, event_table
from data.segments import write_segments
from data.snapshots import Published, published, read_events
from data.store import ingest_segments
from infra.clock import HOUR_US, ManualClock
from infra.errors import ConfigError, DataError
from infra.settings import Home

T0 = 1_700_000_000_000_000
N = 3000


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    rng = np.random.default_rng(2)
    known = T0 + rng.permutation(N) * 10_000_000
    kind = rng.choice([SEARCH, CLICK], N)
    kind[known < T0 + 50 * 10_000_000] = ITEM_UPSERT
    table = event_table(
        {"event_id": np.arange(N), "kind": kind, "event_time": known, "known_time": known,
         "item_id": np.where(kind == ITEM_UPSERT, (known - T0) // 10_000_000, rng.integers(0, 50, N)),
         "session_id": rng.integers(0, 300, N), "query": "shoe",
         "payload": np.where(kind == ITEM_UPSERT, "{}", "")},
        rows=N,
    )  # fmt: skip
    for i in range(3):  # parts that overlap in time
        write_segments(table.slice(i * 1000, 1000), home.segments, name=f"s{i}")
        ingest_segments(home, allowed_lateness_us=HOUR_US, clock=ManualClock(T0 + 10**12))
    return home


@pytest.fixture
def held(layout: Home) -> Published:
    return published(layout)


def test_events_come_in_canonical_order_from_all_parts(held: Published) -> None:
    assert len(held.parts) == 3
    events = read_events(held)
    assert events.schema.equals(EVENT_SCHEMA)
    assert (np.diff(events["known_time"].to_numpy()) > 0).all()
    assert events.num_rows == held.rows == sum(held.kinds.values())


def test_filters_keep_what_they_say(held: Published) -> None:
    whole = read_events(held)
    since, until = T0 + 5_000_000_000, T0 + 20_000_000_000
    part = read_events(held, since_us=since, until_us=until, kinds=[CLICK], columns=["event_id", "kind"])
    known, kind = whole["known_time"].to_numpy(), whole["kind"].to_numpy()
    wanted = whole["event_id"].to_numpy()[(known >= since) & (known < until) & (kind == CLICK)]
    assert part["event_id"].to_pylist() == wanted.tolist()
    assert part.column_names == ["event_id", "kind"]
    assert read_events(held, until_us=T0).num_rows == 0
    with pytest.raises(ConfigError, match="itm"):
        read_events(held, columns=["itm"])


def test_nothing_published_and_damage_are_data_errors(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with pytest.raises(DataError, match="shelflife ingest"):
        published(home)
    table = event_table({"event_id": [1], "kind": [SEARCH], "event_time": [T0], "known_time": [T0]})
    write_segments(table, home.segments, name="a")
    ingest_segments(home, allowed_lateness_us=HOUR_US, clock=ManualClock(T0 + 10))
    held = published(home)
    held.parts[0].write_bytes(held.parts[0].read_bytes()[:100])
    with pytest.raises(DataError, match="published part"):
        read_events(held)
    (home.snapshots / "status.json").write_text("{")
    with pytest.raises(DataError, match="JSON"):
        published(home)
