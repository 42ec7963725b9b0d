"""A replica is the published state plus every journal's tail, each event once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from data.journal import JournalGap, JournalWriter
from data.replica import StateReplica, current_record, current_state, publish_state
from data.schema import CLICK, ITEM_DELETE, ITEM_UPSERT, SEARCH
from data.segments import prune_journals, roll_journals
from data.state import State
from infra.clock import ManualClock
from infra.errors import DataError
from infra.settings import Home

T0 = 1_700_000_000_000_000


class Writer:
    """A journal writer that waits for each append."""

    def __init__(self, layout: Home, name: str) -> None:
        self.journal = JournalWriter(layout.journal / name, clock=ManualClock(T0), commit_ms=1.0, roll_s=99.0)

    def upsert(self, items: list[int]) -> int:
        return self.journal.append(
            {"kind": ITEM_UPSERT, "item_id": items, "payload": [f'{{"title": "shoe {i}"}}' for i in items]},
            len(items),
        ).result(60)

    def click(self, item: int, times: int = 1) -> int:
        return self.journal.append(
            {"kind": CLICK, "item_id": item, "user_id": 7, "session_id": 1}, times
        ).result(60)


@pytest.fixture
def layout(tmp_path: Path) -> Home:
    return Home(tmp_path)


def settled(replica: StateReplica) -> StateReplica:
    while not replica.ready or replica.poll():
        replica.poll()
    return replica


def test_snapshot_and_tail_equal_the_whole_journal(layout: Home) -> None:
    one, two = Writer(layout, "one"), Writer(layout, "two")
    one.upsert([1, 2, 3])
    whole = settled(StateReplica(layout))
    assert publish_state(layout, whole.state, whole.applied).name == current_record(layout)["folder"]  # type: ignore[index]
    two.upsert([4])
    one.click(2, times=1500)
    resumed, again = settled(StateReplica(layout)), settled(whole)
    assert resumed.applied == again.applied == {"one": 1503, "two": 1}
    assert resumed.state.content_hash() == again.state.content_hash()
    assert resumed.state.item_ids.tolist() == [1, 2, 3, 4]
    assert current_state(layout).n_items == 3
    for open_ in (one.journal, two.journal):
        open_.close()
    whole.stop()
    resumed.stop()


def test_own_events_are_applied_once(layout: Home) -> None:
    writer = Writer(layout, "me")
    writer.upsert([1, 2])
    replica = settled(StateReplica(layout, own_writer="me"))
    assert replica.applied == {"me": 2}
    counted = State.apply
    rows: list[int] = []

    def apply(state: State, events: object) -> None:
        rows.append(events.num_rows)  # type: ignore[attr-defined]
        counted(state, events)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(State, "apply", apply)
        writer.journal.append({"kind": ITEM_DELETE, "item_id": 1}, 1, on_commit=replica.apply_own).result(60)
        assert not replica.state.alive[replica.state.item_row(1)]  # when acknowledged it is applied here
        assert replica.poll() == 0
    assert rows == [1]
    assert replica.applied == {"me": 3}
    writer.journal.close()
    replica.stop()


def test_following_keeps_up_and_holds_the_lock_for_few_rows(
    layout: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer(layout, "other")
    writer.upsert([1])
    replica = settled(StateReplica(layout))
    largest = 0
    apply = State.apply

    def watch(state: State, events: object) -> None:
        nonlocal largest
        largest = max(largest, events.num_rows)  # type: ignore[attr-defined]
        apply(state, events)  # type: ignore[arg-type]

    monkeypatch.setattr(State, "apply", watch)
    replica.start_following(0.005)
    last = writer.click(1, times=1800)
    until = time.monotonic() + 60
    while replica.applied["other"] < last and time.monotonic() < until:
        time.sleep(0.005)
    replica.stop()
    assert replica.applied == {"other": last}
    assert 0 < largest <= 500
    writer.journal.close()


def test_a_gap_is_an_error_and_reloading_closes_it(layout: Home) -> None:
    writer = Writer(layout, "w")
    behind = StateReplica(layout)
    for items in ([1], [2], [3]):
        writer.upsert(items)
        writer.journal.roll()
    ahead = settled(StateReplica(layout))
    publish_state(layout, ahead.state, ahead.applied)
    roll_journals(layout.journal, layout.segments)
    assert prune_journals(layout.journal, ahead.applied, keep_s=0) == 2
    with pytest.raises(JournalGap, match="newer state snapshot"):
        behind.poll()
    behind.reload()
    assert behind.state.content_hash() == ahead.state.content_hash()
    writer.upsert([4])
    assert behind.poll() == 1
    writer.journal.close()
    behind.stop()
    ahead.stop()


def test_publishing_keeps_the_newest_and_survives_a_crash(
    layout: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert current_record(layout) is None
    with pytest.raises(DataError, match="shelflife ingest"):
        current_state(layout)
    names = [publish_state(layout, State(), {"w": i}, keep=2, notes={"commit": i}).name for i in range(4)]
    assert len(set(names)) == 4
    folders = {p.name for p in layout.states.iterdir() if p.is_dir()}
    assert folders == set(names[-2:])
    with monkeypatch.context() as patch:
        patch.setattr("data.replica.write_atomic", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            publish_state(layout, State(), {"w": 9})
    record = current_record(layout)
    assert record is not None
    assert (record["applied"], record["commit"]) == ({"w": 3}, 3)
    assert StateReplica(layout).applied == {"w": 3}


def test_a_damaged_pointer_or_state_is_one_clear_error(layout: Home) -> None:
    folder = publish_state(layout, State(), {})
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"current\.json"):
        StateReplica(layout)
    (layout.states / "current.json").write_text("{")
    with pytest.raises(DataError, match="JSON"):
        current_record(layout)


def test_searches_of_nobody_change_no_catalogue(layout: Home) -> None:
    writer = Writer(layout, "w")
    writer.journal.append({"kind": SEARCH, "query": "shoe"}, 5).result(60)
    replica = settled(StateReplica(layout))
    assert replica.state.n_items == 0
    assert replica.applied == {"w": 5}
    writer.journal.close()
    replica.stop()
