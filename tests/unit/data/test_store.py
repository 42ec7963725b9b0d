"""Exactly once: whatever comes twice, late, broken or during a crash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.frames import lock_folder
from data.journal import JournalWriter
from data.parts import merges
from data.schema import CLICK, ITEM_UPSERT, ORDER, SEARCH, USER_UPSERT, event_table
from data.segments import roll_journals, write_segments
from data.snapshots import as_of, content_hash, published, read_events
from data.store import IngestReport, ingest_segments
from infra.clock import HOUR_US, ManualClock
from infra.errors import DataError, EnvironmentError_
from infra.settings import Home

ROOT = Path(__file__).resolve().parents[3]
T0 = 1_700_000_000_000_000
NOW = T0 + 48 * HOUR_US


def upserts(items: range, at: int = T0, first_id: int = 10**6) -> pa.Table:
    n = len(items)
    return event_table(
        {"event_id": np.arange(n) + first_id + items.start, "kind": ITEM_UPSERT, "event_time": at,
         "known_time": at, "item_id": np.array(items), "payload": '{"title": "shoe"}'},
        rows=n,
    )  # fmt: skip


def clicks(ids: range, *, items: int = 10, at: int = T0 + HOUR_US) -> pa.Table:
    n = len(ids)
    times = at + np.array(ids) * 1000
    return event_table(
        {"event_id": np.array(ids), "kind": CLICK, "event_time": times - 10, "known_time": times,
         "item_id": np.array(ids) % items, "session_id": np.array(ids) // 5},
        rows=n,
    )  # fmt: skip


def ingest(layout: Home, *, now: int = NOW) -> IngestReport:
    return ingest_segments(layout, allowed_lateness_us=HOUR_US, clock=ManualClock(now))


@pytest.fixture
def layout(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    write_segments(upserts(range(10)), home.segments, name="items")
    return home


def test_everything_is_held_once_and_published(layout: Home) -> None:
    table = clicks(range(100))
    write_segments(table, layout.segments, name="a")
    first = ingest(layout)
    assert (first.rows, first.duplicates, first.quarantined, first.late) == (110, 0, 0, 0)
    assert first.watermark_us == T0 + HOUR_US + 99_000
    again = ingest(layout)
    assert (again.rows, again.segments, again.commit, again.content_hash) == (0, 0, 1, first.content_hash)
    events = read_events(published(layout))
    assert events.num_rows == 110 == published(layout).rows
    assert content_hash(events) == first.content_hash
    assert events.slice(10)["event_id"].to_pylist() == list(range(100))


def test_duplicates_in_a_batch_across_batches_and_of_whole_files_count_once(layout: Home) -> None:
    write_segments(clicks(range(50)), layout.segments, name="a")
    write_segments(clicks(range(25, 75)), layout.segments, name="b")
    first = ingest(layout)
    assert (first.rows, first.duplicates) == (85, 25)
    write_segments(clicks(range(60, 100)), layout.segments, name="c")
    (copied,) = layout.segments.glob("*/*/a.parquet")
    copied.with_name("copy.parquet").write_bytes(copied.read_bytes())
    second = ingest(layout)
    assert (second.rows, second.duplicates, second.segments) == (25, 15, 1)
    ids = read_events(published(layout), kinds=[CLICK])["event_id"].to_pylist()
    assert ids == list(range(100))


def test_late_and_out_of_order_events_are_kept_and_counted(layout: Home) -> None:
    write_segments(clicks(range(10), at=T0 + 10 * HOUR_US), layout.segments, name="a")
    assert ingest(layout).out_of_order == 0
    write_segments(clicks(range(10, 15), at=T0 + HOUR_US), layout.segments, name="b")  # heard of late
    late = event_table(
        {
            "event_id": [20],
            "kind": CLICK,
            "event_time": [T0],
            "known_time": [T0 + 11 * HOUR_US],
            "item_id": [1],
        }
    )  # journalled late
    write_segments(late, layout.segments, name="c")
    report = ingest(layout)
    assert (report.rows, report.late, report.out_of_order) == (6, 6, 6)
    assert read_events(published(layout)).num_rows == 26


def test_bad_rows_go_into_quarantine_with_their_reason(layout: Home) -> None:
    at = T0 + HOUR_US
    bad = {
        "unknown kind": {"kind": 77},
        "missing item": {"item_id": -1},
        "unknown item": {"item_id": 555},
        "time in the future": {"known_time": NOW + 2 * HOUR_US},
        "no time": {"event_time": None},
        "missing user": {"kind": USER_UPSERT, "payload": "{}"},
        "payload is no JSON object": {"kind": ITEM_UPSERT, "payload": "[1"},
        "unknown surface": {"surface": 99},
    }
    rows = [
        {
            "event_id": i,
            "kind": CLICK,
            "event_time": at,
            "known_time": at,
            "item_id": 1,
            "payload": "",
            "surface": 0,
        }
        | row
        for i, row in enumerate([*bad.values(), {}])
    ]
    rows.append({**rows[-1], "event_id": 99, "known_time": at - 1, "event_time": at + 2 * HOUR_US})
    folder = layout.segments / "2023-11-14" / "00"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "bad.parquet")
    report = ingest(layout)
    assert report.rows == 11
    assert report.reasons == {**dict.fromkeys(bad, 1), "time in the future": 2}
    assert published(layout).quarantine == report.reasons
    assert ingest(layout).quarantined == 0


def test_values_of_a_wrong_type_go_into_quarantine_and_others_do_not(layout: Home) -> None:
    at = T0 + HOUR_US
    folder = layout.segments / "2023-11-14" / "00"
    folder.mkdir(parents=True)
    base = {"event_time": [at] * 3, "known_time": [at] * 3, "kind": [CLICK] * 3}
    pq.write_table(
        pa.table({"event_id": [1, 2, 3], **base, "item_id": ["4", "shoe", "5"]}), folder / "a.parquet"
    )
    pq.write_table(
        pa.table({"event_id": [4, 5, 6], **base, "item_id": [1.0, 2.5, float("nan")]}), folder / "b.parquet"
    )
    report = ingest(layout)
    assert report.reasons == {"wrong type: item_id": 3}
    assert read_events(published(layout), kinds=[CLICK])["item_id"].to_pylist() == [4, 5, 1]
    with duckdb.connect(str(layout.store), read_only=True) as held:
        raw = [r[0] for r in held.execute("SELECT raw FROM quarantine ORDER BY event_id").fetchall()]
    assert "shoe" in raw[0]
    assert "2.5" in raw[1]


def test_an_unknown_items_events_come_in_once_it_is_known(layout: Home) -> None:
    write_segments(clicks(range(20), items=20), layout.segments, name="a")
    first = ingest(layout)
    assert (first.rows, first.reasons) == (20, {"unknown item": 10})
    write_segments(upserts(range(10, 15), at=T0 + 2 * HOUR_US), layout.segments, name="more")
    second = ingest(layout)
    assert (second.rows, second.released) == (10, 5)
    assert published(layout).quarantine == {"unknown item": 5}
    assert read_events(published(layout), kinds=[CLICK]).num_rows == 15
    assert ingest(layout).released == 0


def test_corrupt_segments_are_reported_and_the_others_taken(layout: Home) -> None:
    write_segments(clicks(range(50)), layout.segments, name="a")
    (truncated,) = write_segments(clicks(range(50, 60)), layout.segments, name="b")
    whole = truncated.read_bytes()
    truncated.write_bytes(whole[:-100])
    (inside,) = write_segments(clicks(range(1000, 3000)), layout.segments, name="c")
    good = inside.read_bytes()
    inside.write_bytes(good[:40] + bytes(3000) + good[3040:])
    (foreign,) = write_segments(clicks(range(1)), layout.segments, name="d")
    pq.write_table(pa.table({"a": [1]}), foreign)
    report = ingest(layout)
    assert report.rows == 60
    assert len(report.corrupt) == 3
    truncated.write_bytes(whole)
    inside.write_bytes(good)
    assert ingest(layout).rows == 2010


def test_a_second_ingest_at_once_is_refused_in_one_line(layout: Home) -> None:
    layout.store.parent.mkdir(parents=True)
    lock = lock_folder(layout.store.parent)
    assert lock is not None
    with pytest.raises(EnvironmentError_, match="another ingest"):
        ingest(layout)
    os.close(lock)
    assert ingest(layout).rows == 10


@pytest.mark.parametrize(
    "step",
    ["store._note_segments", "store.content_sum", "parts.sync_dir", "parts.write_atomic", "store.publish"],
)
def test_a_crash_at_any_step_is_made_good_by_the_next_run(
    layout: Home, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_segments(clicks(range(100)), layout.segments, name="a")
    sound = Home(tmp_path / "sound")
    for table, name in (
        (upserts(range(10)), "items"),
        (clicks(range(100)), "a"),
        (clicks(range(100, 150)), "b"),
    ):
        write_segments(table, sound.segments, name=name)
    expected = ingest(sound)

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for _ in range(1 if step == "parts.sync_dir" else 2):  # that step is behind it the second time
        with monkeypatch.context() as patch:
            patch.setattr(f"data.{step}", crash)
            with pytest.raises(KeyboardInterrupt):
                ingest(layout)
    write_segments(clicks(range(100, 150)), layout.segments, name="b")
    report = ingest(layout)
    assert report.content_hash == expected.content_hash
    assert content_hash(read_events(published(layout))) == expected.content_hash
    assert not list(layout.snapshots.rglob("*.tmp"))


def test_kill_9_in_the_middle_loses_and_doubles_nothing(layout: Home) -> None:
    write_segments(clicks(range(20_000)), layout.segments, name="a")
    code = f"""
import os, signal, sys
from pathlib import Path
from data import parts, store
from infra.clock import ManualClock
from infra.settings import Home
def kill(*a, **k):
    os.kill(os.getpid(), signal.SIGKILL)
setattr({{"parts": parts, "store": store}}[sys.argv[1]], sys.argv[2], kill)
home = Home(Path({str(layout.root)!r}))
store.ingest_segments(home, allowed_lateness_us={HOUR_US}, clock=ManualClock({NOW}))
"""
    for step in (("store", "content_sum"), ("parts", "sync_dir")):
        done = subprocess.run([sys.executable, "-c", code, *step], cwd=ROOT, check=False)
        assert done.returncode == -signal.SIGKILL
    assert ingest(layout).total_rows == 20_010
    assert sorted(read_events(published(layout), kinds=[CLICK])["event_id"].to_pylist()) == list(
        range(20_000)
    )


def test_lost_parts_and_status_are_written_anew(layout: Home) -> None:
    write_segments(clicks(range(10)), layout.segments, name="a")
    report = ingest(layout)
    before = pq.read_table(published(layout).parts[0])
    published(layout).parts[0].unlink()
    (layout.snapshots / "status.json").write_text("{")
    assert ingest(layout).content_hash == report.content_hash
    assert pq.read_table(published(layout).parts[0])["event_id"].equals(before["event_id"])
    assert content_hash(read_events(published(layout))) == report.content_hash


def test_how_far_each_journal_is_in(layout: Home) -> None:
    journal = JournalWriter(
        layout.journal / "r1", clock=ManualClock((T0 // HOUR_US + 1) * HOUR_US - 3), roll_s=99.0
    )
    journal.append({"kind": [SEARCH] * 6}, 6).result(60)  # over the hour: two segments
    journal.roll()
    first, second = roll_journals(layout.journal, layout.segments).paths
    hidden = second.with_name(".hidden")
    second.rename(hidden)
    report = ingest(layout)
    assert (report.rows, report.applied) == (13, {})
    hidden.rename(second)
    assert ingest(layout).applied == {"r1": 6}
    journal.append({"kind": ORDER, "item_id": 3}, 1).result(60)
    journal.close()
    roll_journals(layout.journal, layout.segments)
    assert ingest(layout).applied == {"r1": 7}
    assert first.exists()


def test_nothing_to_ingest(tmp_path: Path) -> None:
    report = ingest(Home(tmp_path))
    assert (report.rows, report.commit, report.corrupt) == (0, 0, ())
    assert read_events(published(Home(tmp_path))).num_rows == 0


def test_of_two_tellings_of_an_event_the_one_known_first_counts_whichever_came_first(layout: Home) -> None:
    first, later = clicks(range(20)), clicks(range(10), at=T0 + 2 * HOUR_US)
    write_segments(later, layout.segments, name="later")
    before = ingest(layout)
    write_segments(first, layout.segments, name="first")
    report = ingest(layout)
    assert (report.rows, report.duplicates, report.total_rows) == (10, 10, 30)
    held = published(layout)
    assert content_hash(read_events(held)) == report.content_hash
    assert read_events(held, kinds=[CLICK])["known_time"].equals(first["known_time"])
    snapshot = {
        "commit": 1,
        "content_hash": before.content_hash,
        "rows": 20,
        "watermark_us": 0,
        "since_us": 0,
    }
    then = read_events(as_of(held, snapshot), kinds=[CLICK])
    assert then["known_time"].equals(later["known_time"])
    assert set(held.kinds) == {"click", "item_upsert"}


def test_small_parts_are_merged_and_an_earlier_commit_can_still_be_read(layout: Home) -> None:
    reports = []
    for i in range(20):
        write_segments(clicks(range(10 * i, 10 * i + 10)), layout.segments, name=f"s{i}")
        reports.append(ingest(layout))
    held = published(layout)
    assert len(held.parts) < 8
    assert sum(r.compacted for r in reports) > 10
    assert content_hash(read_events(held)) == reports[-1].content_hash
    for r in (reports[0], reports[10], reports[-1]):
        about = {"commit": r.commit, "content_hash": r.content_hash, "rows": r.total_rows,
                 "watermark_us": r.watermark_us, "since_us": 0}  # fmt: skip
        assert content_hash(read_events(as_of(held, about))) == r.content_hash
    with pytest.raises(DataError, match="cannot be repeated"):
        as_of(held, about | {"content_hash": reports[3].content_hash})
    folder = layout.snapshots / "events"
    assert len(list(folder.glob("*.parquet"))) > len(held.parts)  # readers may still be at them
    status = json.loads((layout.snapshots / "status.json").read_text())
    status["retired"] = dict.fromkeys(status["retired"], 0)
    (layout.snapshots / "status.json").write_text(json.dumps(status))
    ingest(layout)
    assert {p.name for p in folder.glob("*.parquet")} == {p.name for p in held.parts}


def test_plans_of_merges_are_runs_of_eight_that_stay_below_a_size() -> None:
    assert merges([10] * 7) == []
    assert merges([10] * 8) == [(0, 8)]
    assert merges([10**6, *[10] * 9, 10**6]) == [(1, 10)]
    assert merges([1_000_000] * 10) == []  # two would make a whole one: there is nothing to gain
    sizes: list[int] = []
    for _ in range(2_000):
        sizes.append(500)
        while plan := merges(sizes):
            for start, end in reversed(plan):
                sizes[start:end] = [sum(sizes[start:end])]
    assert len(sizes) < 40


def test_quarantine_can_be_replayed(layout: Home) -> None:
    early = clicks(range(5), at=NOW + 2 * HOUR_US)
    write_segments(early, layout.segments, name="early")
    write_segments(clicks(range(100, 103), items=200), layout.segments, name="unknown")
    assert ingest(layout).reasons == {"time in the future": 5, "unknown item": 3}
    assert ingest(layout, now=NOW + 3 * HOUR_US).released == 0
    later = ManualClock(NOW + 3 * HOUR_US)
    report = ingest_segments(layout, allowed_lateness_us=HOUR_US, clock=later, replay=True)
    assert (report.rows, report.released, report.quarantined) == (5, 5, 0)
    assert published(layout).quarantine == {"unknown item": 3}
    again = ingest_segments(layout, allowed_lateness_us=HOUR_US, clock=later, replay=True)
    assert (again.rows, again.released, again.commit) == (0, 0, report.commit)
    assert again.lag_s == pytest.approx((later.time_us - again.watermark_us) / 1e6)


def test_a_segment_with_more_columns_or_without_optional_ones_is_taken(layout: Home) -> None:
    table = clicks(range(4))
    (folder,) = {p.parent for p in write_segments(table, layout.segments, name="a")}
    narrow = table.slice(0, 2).select(["event_id", "kind", "event_time", "known_time", "item_id"])
    pq.write_table(narrow.set_column(0, "event_id", pa.array([50, 51])), folder / "narrow.parquet")
    wide = table.slice(2, 2).set_column(0, "event_id", pa.array([60, 61]))
    pq.write_table(wide.append_column("dwell_ms", pa.array([None, 7], pa.int32())), folder / "wide.parquet")
    report = ingest(layout)
    assert (report.rows, report.quarantined, report.corrupt) == (18, 0, ())
    assert read_events(published(layout), kinds=[CLICK]).num_rows == 8


def test_a_home_of_a_newer_shelflife_is_refused_before_anything_changes(layout: Home) -> None:
    ingest(layout)
    status = (layout.snapshots / "status.json").read_text()
    (layout.snapshots / "status.json").write_text(status.replace('"schema": 1', '"schema": 9'))
    with pytest.raises(DataError, match="newer Shelflife"):
        published(layout)
    with duckdb.connect(str(layout.store)) as held:
        held.execute("UPDATE store_schema SET number = 9")
    write_segments(clicks(range(9)), layout.segments, name="b")
    with pytest.raises(DataError, match="newer Shelflife"):
        ingest(layout)
