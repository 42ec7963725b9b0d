"""What the journal acknowledged is there once; what it could not write is not; readers see it all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data.journal import JournalGap, JournalTail, JournalWriter, read_frames
from data.schema import CLICK, EVENT_SCHEMA, IMPRESSION
from data.segments import list_segments, prune_journals, read_segment, roll_journals
from infra.clock import ManualClock, WallClock, wall_us
from infra.errors import DataError, EnvironmentError_

ROOT = Path(__file__).resolve().parents[3]


def writer(tmp_path: Path, name: str = "w", **options: object) -> JournalWriter:
    return JournalWriter(tmp_path / name, **{"clock": ManualClock(1000), "commit_ms": 1.0, **options})  # type: ignore[arg-type]


def everything(folder: Path) -> list[tuple[int, int]]:
    """(sequence number, item_id) of each event in a writer's files."""
    found = []
    for path in sorted(folder.glob("0*")):
        for first, events in read_frames(path):
            found += list(
                zip(range(first, first + events.num_rows), events["item_id"].to_pylist(), strict=True)
            )
    return found


def test_what_is_appended_is_read_back_with_everything_assigned(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    journal = writer(tmp_path, roll_s=99.0)
    futures = [
        journal.append(
            {
                "kind": IMPRESSION,
                "item_id": np.arange(3) + 10 * i,
                "query": ["é", "b", None],
                "propensity": [0.5, None, 1],
            },
            3,
            on_commit=lambda t, last: seen.append((t.num_rows, last)),
        )
        for i in range(40)
    ]
    assert [f.result(60) for f in futures] == [3 * (i + 1) for i in range(40)]
    assert sum(rows for rows, _ in seen) == 120
    assert [last for _, last in seen] == sorted(last for _, last in seen)
    assert seen[-1][1] == 120 == journal.last_seq
    journal.close()
    (path,) = (tmp_path / "w").glob("*.log")
    events = pa.concat_tables([t for _, t in read_frames(path)])
    assert events.schema.equals(EVENT_SCHEMA)
    assert events["query"].to_pylist()[:3] == ["é", "b", ""]
    assert np.isnan(events["propensity"].to_numpy()[1])
    known = events["known_time"].to_numpy()
    assert known[0] >= 1000
    assert (np.diff(known) > 0).all()
    assert len(set(events["event_id"].to_pylist())) == 120
    assert (events["event_time"].to_numpy() == known).all()
    assert abs(int(events["wall_time"][0].as_py()) - wall_us()) < 60_000_000


def test_numbers_and_known_time_go_on_after_a_restart(tmp_path: Path) -> None:
    journal = writer(tmp_path, clock=ManualClock(5_000))
    journal.append({"kind": CLICK, "item_id": 1}, 2).result(60)
    journal.close()
    journal = writer(tmp_path, clock=ManualClock(10))  # a clock that was set back
    assert journal.append({"kind": CLICK, "item_id": 2}, 1).result(60) == 3
    journal.close()
    events = pa.concat_tables([t for p in sorted((tmp_path / "w").glob("*.log")) for _, t in read_frames(p)])
    assert (np.diff(events["known_time"].to_numpy()) > 0).all()
    assert len(set(events["event_id"].to_pylist())) == 3


def test_a_wrong_batch_does_not_spoil_its_neighbours(tmp_path: Path) -> None:
    journal = writer(tmp_path, commit_ms=200.0)  # all in one group
    good = journal.append({"kind": CLICK, "item_id": 1}, 1)
    bad = journal.append({"kind": CLICK, "item_id": ["shoe"]}, 1)
    huge = journal.append({"kind": 1000, "item_id": 1}, 1)
    last = journal.append({"kind": CLICK, "item_id": 3}, 1)
    assert (good.result(60), last.result(60)) == (1, 2)
    for future in (bad, huge):
        with pytest.raises(DataError, match="wrong value"):
            future.result(60)
    with pytest.raises(DataError, match="unknown event column"):
        journal.append({"kind": CLICK, "itme": 1}, 1)
    with pytest.raises(DataError, match="2 values"):
        journal.append({"kind": CLICK, "item_id": [1, 2]}, 1)
    journal.close()
    assert everything(tmp_path / "w") == [(1, 1), (2, 3)]
    with pytest.raises(EnvironmentError_, match="closed"):
        journal.append({"kind": CLICK, "item_id": 1}, 1)


@pytest.mark.parametrize("garbage", [b"\0" * 500, b"\x05\x00\x00\x00\x01\x02\x03\x04hello", b"\xff" * 3])
def test_a_torn_tail_is_cut_and_the_rest_kept(tmp_path: Path, garbage: bytes) -> None:
    journal = writer(tmp_path, roll_s=99.0)
    journal.append({"kind": CLICK, "item_id": [1, 2]}, 2).result(60)
    (path,) = (tmp_path / "w").glob("*.open")
    left = path.read_bytes() + garbage
    journal.close()
    (closed,) = (tmp_path / "w").glob("*.log")
    closed.unlink()
    path.write_bytes(left)
    journal = writer(tmp_path)
    assert journal.append({"kind": CLICK, "item_id": 3}, 1).result(60) == 3
    journal.close()
    assert everything(tmp_path / "w") == [(1, 1), (2, 2), (3, 3)]


def test_one_writer_a_folder(tmp_path: Path) -> None:
    journal = writer(tmp_path)
    with pytest.raises(EnvironmentError_, match="has a writer already"):
        writer(tmp_path)
    journal.close()
    writer(tmp_path).close()


def test_full_disk_fails_the_batch_and_later_ones_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = writer(tmp_path, roll_s=99.0)
    journal.append({"kind": CLICK, "item_id": 1}, 1).result(60)
    real = os.pwrite
    full = threading.Event()

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        if full.is_set():
            if len(data) > 40:
                return real(fd, data[:40], offset)  # some of it went to the disk
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    full.set()
    for _ in range(3):
        with pytest.raises(OSError, match="No space left"):
            journal.append({"kind": CLICK, "item_id": 2}, 1).result(60)
    full.clear()
    assert journal.append({"kind": CLICK, "item_id": 3}, 1).result(60) == 2
    journal.close()
    assert everything(tmp_path / "w") == [(1, 1), (2, 3)]


def test_a_callback_that_raises_stops_nothing(tmp_path: Path) -> None:
    def fail(_table: pa.Table, _last: int) -> None:
        raise RuntimeError("reader's defect")

    journal = writer(tmp_path)
    assert journal.append({"kind": CLICK, "item_id": 1}, 1, on_commit=fail).result(60) == 1
    assert journal.append({"kind": CLICK, "item_id": 2}, 1).result(60) == 2
    journal.close()


_CHILD = """
import sys
from pathlib import Path
from data.journal import JournalWriter
from infra.clock import WallClock
journal = JournalWriter(Path(sys.argv[1]), clock=WallClock(), roll_s=0.05, commit_ms=2)
def say(future, value):
    sys.stdout.write(f"{value} {future.result()}\\n"); sys.stdout.flush()
import time
value = int(sys.argv[2])
while True:
    journal.append({"kind": 2, "item_id": value}, 1).add_done_callback(lambda f, v=value: say(f, v))
    value += 1
    time.sleep(0.0005)
"""


def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path: Path) -> None:
    acknowledged: dict[int, int] = {}
    tail = JournalTail(tmp_path / "journal", after={})
    followed: list[int] = []
    for life in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(tmp_path / "journal" / "w"), str(life * 1_000_000)],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(150)]
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read()
        child.stdout.close()
        child.wait()
        for line in "".join([*lines, rest]).splitlines(keepends=True):
            if line.endswith("\n"):
                value, seq = line.split()
                acknowledged[int(value)] = int(seq)
        followed += [i for _, _, t in tail.poll() for i in t["item_id"].to_pylist()]
    rolled = roll_journals(tmp_path / "journal", tmp_path / "segments")  # the dead writer's file too
    followed += [i for _, _, t in tail.poll() for i in t["item_id"].to_pylist()]
    tail.close()
    stored = pa.concat_tables([read_segment(p) for p in rolled.paths])
    items = stored["item_id"].to_pylist()
    assert len(acknowledged) >= 450
    assert len(items) == len(set(items))
    assert set(acknowledged) <= set(items)
    assert sorted(followed) == sorted(items)
    assert len(set(stored["event_id"].to_pylist())) == len(items)
    by_id = dict(everything(tmp_path / "journal" / "w"))
    assert all(by_id[seq] == value for value, seq in acknowledged.items())


def test_tail_follows_writers_over_rolls_from_any_position(tmp_path: Path) -> None:
    root = tmp_path / "journal"
    one, two = writer(root, "one", roll_s=0.02), writer(root, "two", roll_s=99.0)
    tail = JournalTail(root, after={"one": 4}, skip=frozenset({"two"}))
    both = JournalTail(root, after={})
    got: list[tuple[str, int]] = []
    for i in range(1, 30):
        one.append({"kind": CLICK, "item_id": [2 * i - 1, 2 * i]}, 2).result(60)
        two.append({"kind": CLICK, "item_id": i}, 1).result(60)
        time.sleep(0.004)
        got += [(w, x) for w, _, t in both.poll(max_rows=3) for x in t["item_id"].to_pylist()]
    one.roll()
    one.append({"kind": CLICK, "item_id": 59}, 1).result(60)
    time.sleep(0.01)
    got += [(w, x) for _ in range(20) for w, _, t in both.poll() for x in t["item_id"].to_pylist()]
    assert [x for w, x in got if w == "one"] == list(range(1, 60))
    assert [x for w, x in got if w == "two"] == list(range(1, 30))
    late = tail.poll()
    assert [x for w, _, t in late for x in t["item_id"].to_pylist()] == list(range(5, 60))
    assert {w for w, _, _ in late} == {"one"}
    assert both.position == {"one": 59, "two": 29}
    for open_ in (one, two, tail, both):
        open_.close()


def test_rolling_twice_or_after_a_crash_gives_the_same_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, segments = tmp_path / "journal", tmp_path / "segments"
    journal = writer(root, roll_s=0.01)
    for i in range(20):
        journal.append({"kind": CLICK, "item_id": i}, 1).result(60)
        time.sleep(0.003)
    journal.roll()
    with monkeypatch.context() as patch:  # crash after the segments, before the progress is noted
        patch.setattr("data.segments.write_atomic", _second_call_fails())
        with pytest.raises(KeyboardInterrupt):
            roll_journals(root, segments)
    journal.append({"kind": CLICK, "item_id": 20}, 1).result(60)
    journal.roll()
    assert roll_journals(root, segments).rows == 21
    assert roll_journals(root, segments).rows == 0
    assert sorted(x for p in list_segments(segments) for x in read_segment(p)["item_id"].to_pylist()) == list(
        range(21)
    )
    logs = len(list((root / "w").glob("*.log")))
    assert prune_journals(root, {"w": 5}, keep_s=0) < logs - 1
    assert prune_journals(root, {"w": 21}) == 0  # they are too young
    prune_journals(root, {"w": 21}, keep_s=0)
    assert len(list((root / "w").glob("*.log"))) == 1
    with pytest.raises(JournalGap):
        JournalTail(root, after={"w": 2}).poll()
    assert JournalTail(root, after={"w": 21}).poll() == []
    journal.close()
    journal = writer(root)
    assert journal.append({"kind": CLICK, "item_id": 21}, 1).result(60) == 22
    journal.close()


def _second_call_fails():  # type: ignore[no-untyped-def]
    from infra.files import write_atomic

    calls = iter((write_atomic,))

    def call(path: Path, data: bytes) -> None:
        step = next(calls, None)
        if step is None:
            raise KeyboardInterrupt
        step(path, data)

    return call


def test_a_damaged_closed_file_is_reported_and_the_events_before_it_kept(tmp_path: Path) -> None:
    root = tmp_path / "journal"
    journal = writer(root, roll_s=99.0)
    for i in range(6):
        journal.append({"kind": CLICK, "item_id": i}, 1).result(60)
    journal.close()
    (path,) = (root / "w").glob("*.log")
    raw = bytearray(path.read_bytes())
    raw[-20] ^= 255
    path.write_bytes(raw)
    rolled = roll_journals(root, tmp_path / "segments")
    assert rolled.rows == 5
    assert "damaged" in rolled.damaged[0]
    journal = writer(root)
    assert journal.append({"kind": CLICK, "item_id": 9}, 1).result(60) > 6  # numbers are not given twice
    journal.close()


def test_appending_costs_its_caller_little(tmp_path: Path) -> None:
    journal = JournalWriter(tmp_path / "w", clock=WallClock())
    columns = {"kind": [1] * 10, "item_id": list(range(10)), "position": list(range(10)), "user_id": 4}
    costs = []
    for _ in range(300):
        start = time.perf_counter()
        future = journal.append(columns, 10)
        costs.append(time.perf_counter() - start)
    future.result(60)
    journal.close()
    assert np.median(costs) < 4e-3  # the disk takes five
