"""Nothing from below the floor comes back, and what readers began with stays."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from data import store_sql as sql
from data.content import content_hash
from data.retention import expire, opening_state
from data.segments import write_segments
from data.snapshots import floor_folder, published, read_events
from data.state import State
from data.store import IngestReport, ingest_segments
from infra.clock import HOUR_US, ManualClock
from infra.settings import Home
from tests.unit.data.test_store import NOW, T0, clicks, ingest, upserts

FLOOR = T0 + 10 * HOUR_US
CLOCK = ManualClock(NOW)


@pytest.fixture
def layout(tmp_path: Path) -> Home:
    """Ten items; clicks on either side of what will be the floor, some of items that are not known yet."""
    home = Home(tmp_path)
    write_segments(upserts(range(10)), home.segments, name="items")
    write_segments(clicks(range(30), items=15), home.segments, name="early")
    write_segments(clicks(range(30, 45), items=15, at=T0 + 20 * HOUR_US), home.segments, name="later")
    report = ingest(home)
    assert (report.rows, report.reasons) == (40, {"unknown item": 15})
    return home


def bring_items(layout: Home) -> IngestReport:
    write_segments(upserts(range(10, 15), at=T0 + 21 * HOUR_US), layout.segments, name="more")
    return ingest(layout)


def check_floor_holds(layout: Home) -> None:
    held = published(layout)
    events = read_events(held)
    assert held.floor_us == FLOOR
    assert events.num_rows == held.rows
    assert events["known_time"].to_numpy().min() >= FLOOR
    assert content_hash(events) == held.content_hash


def test_quarantine_goes_by_the_rows_own_time_and_the_rest_comes_in(layout: Home) -> None:
    expire(layout, before_us=FLOOR, clock=CLOCK)
    assert published(layout).quarantine == {"unknown item": 5}
    report = bring_items(layout)
    assert (report.rows, report.released, report.expired) == (10, 5, 0)
    assert published(layout).quarantine == {}
    check_floor_holds(layout)


def test_what_an_earlier_version_left_below_the_floor_does_not_come_back(
    layout: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sql, "EXPIRE_QUARANTINE", "SELECT $floor")
        expire(layout, before_us=FLOOR, clock=CLOCK)
    assert published(layout).quarantine == {"unknown item": 15}
    report = bring_items(layout)
    assert (report.rows, report.released, report.expired) == (10, 5, 10)
    assert published(layout).quarantine == {}
    check_floor_holds(layout)


def test_a_replay_brings_nothing_back_from_below_the_floor(layout: Home) -> None:
    expire(layout, before_us=FLOOR, clock=CLOCK)
    ahead = clicks(range(50, 53))
    at = ahead.column_names.index("event_time")
    times = ahead["known_time"].to_numpy() + 3 * HOUR_US
    write_segments(ahead.set_column(at, "event_time", pa.array(times)), layout.segments, name="ahead")
    assert ingest(layout).reasons == {"time in the future": 3}
    patient = ingest_segments(layout, allowed_lateness_us=5 * HOUR_US, clock=CLOCK, replay=True)
    assert (patient.rows, patient.expired) == (0, 3)
    assert published(layout).quarantine == {"unknown item": 5}
    check_floor_holds(layout)


def test_the_state_of_the_floor_and_what_is_kept_are_the_state_of_all(layout: Home) -> None:
    whole = State()
    whole.apply(read_events(published(layout)))
    expire(layout, before_us=FLOOR, clock=CLOCK)
    held = published(layout)
    state = opening_state(held)
    state.apply(read_events(held))
    assert state.content_hash() == whole.content_hash()


def floors(layout: Home) -> list[int]:
    return sorted(int(p.name.removeprefix("floor-")) for p in layout.snapshots.glob("floor-*"))


def test_the_floor_that_a_reader_began_with_stays_for_a_while(layout: Home) -> None:
    steps = [T0 + h * HOUR_US for h in (5, 10, 15)]
    for step in steps:
        began = published(layout)
        expire(layout, before_us=step, clock=CLOCK)
        opening_state(began)
        read_events(began)
    assert floors(layout) == steps
    for folder in layout.snapshots.glob("floor-*"):  # all of it long ago
        os.utime(folder, ns=(0, 0))
    began = published(layout)
    shutil.copytree(str(began.floor_state), layout.snapshots / floor_folder(NOW))
    expire(layout, before_us=T0 + 18 * HOUR_US, clock=CLOCK)
    assert floors(layout) == [steps[-1], T0 + 18 * HOUR_US]
    opening_state(began)
