"""A training's events and state are of one commit, and its window is what it says."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from data.retention import expire
from data.segments import write_segments
from data.snapshots import Published, published, read_events
from data.state import State
from data.store import ingest_segments
from flows.offline import inputs as offline_inputs
from flows.offline.ingest import ALLOWED_LATENESS_US, fold_published, ingest
from flows.offline.inputs import Inputs, load_inputs
from flows.offline.retention import windows_since_us
from infra.clock import DAY_US, ScaledClock, open_clock
from infra.settings import Home, Settings
from tests.unit.data.test_state import random_events


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A home in which half of the events are in, and the other half waits in a segment."""
    found = Settings(home=tmp_path)
    events = random_events(1)
    half = events.num_rows // 2
    ScaledClock(int(events["known_time"].to_numpy().max()) + 1, 0, 0.0).save(found.layout.clock)
    write_segments(events.slice(0, half), found.layout.segments, name="a")
    ingest(found)
    write_segments(events.slice(half), found.layout.segments, name="b")
    return found


def commit_events_only(layout: Home) -> None:
    """As far as an ingest has come when its state is still to be published."""
    clock = open_clock(layout.clock)
    assert ingest_segments(layout, allowed_lateness_us=ALLOWED_LATENESS_US, clock=clock).rows > 0


def check_one_commit(found: Inputs, layout: Home) -> None:
    held = published(layout)
    assert found.snapshot["commit"] == held.commit == 2
    assert found.events.num_rows == held.rows
    folded = State()
    folded.apply(read_events(held))
    assert found.state.content_hash() == folded.content_hash()


def test_a_state_that_is_behind_the_events_is_folded_anew(settings: Settings) -> None:
    commit_events_only(settings.layout)
    check_one_commit(load_inputs(settings.layout, window_d=None), settings.layout)


def test_events_that_are_behind_the_state_are_read_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []

    def slow(layout: Home) -> Published:  # an ingest ends between the first look and the state's
        held = published(layout)
        told.append(held.commit)
        if len(told) == 1:
            commit_events_only(layout)
            fold_published(layout)
        return held

    monkeypatch.setattr(offline_inputs, "published", slow)
    check_one_commit(load_inputs(settings.layout, window_d=None), settings.layout)
    assert told == [1, 2]


def test_a_window_that_retention_cut_short_is_told_and_kept_whole_from_then_on(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    layout = settings.layout
    watermark = published(layout).watermark_us
    expire(layout, before_us=watermark - DAY_US, clock=open_clock(layout.clock))
    with caplog.at_level(logging.WARNING, logger="shelflife.inputs"):
        load_inputs(layout, window_d=0.5)
        load_inputs(layout, window_d=None)
        assert not caplog.messages
        cut = load_inputs(layout, window_d=1.75)
    (line,) = caplog.messages
    assert "a window of 1.75 days, but retention left 1.0" in line
    assert cut.events["known_time"].to_numpy().min() >= watermark - DAY_US


def test_retention_keeps_as_long_a_window_as_was_asked_for_and_of_all_what_there_was() -> None:
    now, floor = 100 * DAY_US, 97 * DAY_US
    whole = {"watermark_us": now, "since_us": 0, "floor_us": floor}
    assert windows_since_us([], now + DAY_US) == now + DAY_US
    assert windows_since_us([whole], now + DAY_US) == floor
    cut = whole | {"since_us": now - 14 * DAY_US}
    assert windows_since_us([cut, whole], now + DAY_US) == now - 13 * DAY_US
    assert windows_since_us([cut, whole], now + 20 * DAY_US) == floor  # what it read can be read again
