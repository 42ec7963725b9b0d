"""Ingest goes on from where it was, and ends where folding everything anew ends."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import flows.offline.ingest as ingest_flow
from data.segments import write_segments
from data.snapshots import published, read_events
from data.state import State
from flows.offline.ingest import fold_published, ingest
from infra.clock import ScaledClock
from infra.errors import EnvironmentError_
from infra.settings import Home, Settings
from tests.unit.data.test_state import random_events


def whole(layout: Home) -> str:
    state = State()
    state.apply(read_events(published(layout)))
    return state.content_hash()


def current(layout: Home) -> str:
    return ingest_flow.current_state(layout).content_hash()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = Settings(home=tmp_path)
    last = int(random_events(1)["known_time"].to_numpy().max())
    ScaledClock(last + 1, 0, 0.0).save(found.layout.clock)
    return found


def bring(settings: Settings, events: pa.Table, name: str) -> None:
    write_segments(events, settings.layout.segments, name=name)
    ingest(settings)


def test_a_part_that_reaches_back_a_little_goes_on_from_the_base(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = random_events(1)
    n = events.num_rows
    bring(settings, events.slice(0, n - 60), "a")
    read: list[int | None] = []

    def spied(*arguments: object, since_us: int | None = None) -> pa.Table:
        read.append(since_us)
        return read_events(*arguments, since_us=since_us)  # type: ignore[arg-type]

    monkeypatch.setattr(ingest_flow, "read_events", spied)
    late = pa.array([i % 2 == 0 for i in range(60)])
    bring(settings, events.slice(n - 60).filter(late), "b")
    bring(settings, events.slice(n - 60).filter(pc.invert(late)), "c")
    assert read[0]
    assert current(settings.layout) == whole(settings.layout)


def test_a_part_that_reaches_back_far_is_folded_from_the_first_event(settings: Settings) -> None:
    events = random_events(1)
    early = pa.array([100 <= i < 130 for i in range(events.num_rows)])
    bring(settings, events.filter(pc.invert(early)), "a")
    bring(settings, events.filter(early), "b")
    assert current(settings.layout) == whole(settings.layout)


def test_a_damaged_base_is_no_loss(settings: Settings) -> None:
    events = random_events(1)
    half = events.num_rows // 2
    bring(settings, events.slice(0, half), "a")
    (settings.layout.snapshots / "base.json").write_text("{")
    bring(settings, events.slice(half), "b")
    assert current(settings.layout) == whole(settings.layout)


def test_a_second_ingest_is_refused_until_the_first_has_published_its_state(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = random_events(1)
    half = events.num_rows // 2

    def beside(layout: Home) -> State:  # the store is committed and free, the state not published yet
        before = published(layout).rows
        write_segments(events.slice(half), layout.segments, name="b")
        with pytest.raises(EnvironmentError_, match=r"`shelflife ingest` \(pid \d+\) is at work"):
            ingest(settings)
        assert published(layout).rows == before > 0
        return fold_published(layout)

    with monkeypatch.context() as patch:
        patch.setattr(ingest_flow, "fold_published", beside)
        bring(settings, events.slice(0, half), "a")
    assert ingest(settings)["rows"] > 0
    assert current(settings.layout) == whole(settings.layout)
