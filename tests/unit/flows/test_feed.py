"""Changes of a catalogue told before their time are made now: nothing of them is lost at ingest."""

from __future__ import annotations

import numpy as np

from data.journal import JournalWriter
from data.schema import IMPRESSION, ITEM_DELETE, ITEM_UPSERT, event_table
from data.segments import roll_journals
from data.snapshots import published, read_events
from data.store import ingest_segments
from flows.live.rehearsal import feed
from infra.clock import DAY_US, HOUR_US, ManualClock
from infra.settings import Home

NOW = 1_700_000_000_000_000 + DAY_US


def test_changes_of_the_day_to_come_are_known_at_once_in_their_order(home: Home) -> None:
    times = NOW + np.array([-2, 0, 8, 9, 20]) * HOUR_US
    kinds = [ITEM_UPSERT, ITEM_UPSERT, ITEM_UPSERT, ITEM_UPSERT, ITEM_DELETE]
    day = event_table(
        {"event_id": np.arange(5), "kind": kinds, "event_time": times, "known_time": NOW,
         "item_id": [1, 2, 3, 1, 2], "payload": ['{"title": "shoe"}'] * 4 + [""]},
        rows=5,
    )  # fmt: skip
    clock = ManualClock(NOW)
    writer = JournalWriter(home.journal / "catalogue", clock=clock)
    feed(writer, day)
    shown = {"kind": [IMPRESSION], "event_time": [NOW + 1], "item_id": [3], "session_id": [5]}
    writer.append(shown, 1).result()
    writer.close()
    clock.time_us = NOW + HOUR_US
    roll_journals(home.journal, home.segments)
    report = ingest_segments(home, allowed_lateness_us=HOUR_US, clock=clock)
    assert (report.rows, report.quarantined) == (6, 0)
    events = read_events(published(home)).sort_by([("event_time", "ascending")])
    assert events["item_id"].to_pylist() == [1, 2, 3, 1, 2, 3]
    assert events["event_time"].to_pylist()[0] == times[0]
    assert max(events["event_time"].to_pylist()[:5]) == NOW
