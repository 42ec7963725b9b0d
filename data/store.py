"""The store: every event once, in one DuckDB file that only ingest opens.

Set-based (no primary key: it costs five times); each commit is one transaction, then one
immutable Parquet part, then the status document: a crash between any two is made good by the
next run. `data/snapshots.py` reads what is published here. It knows nothing of models.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq

from data import store_sql as sql
from data.content import content_sum, hash_text
from data.frames import lock_folder
from data.segment_check import Found, check_segments, contiguous, first_unreadable, found_table
from data.segments import list_segments
from data.snapshots import published, read_status
from infra.clock import Clock
from infra.errors import EnvironmentError_
from infra.files import sync_dir, write_atomic
from infra.settings import Home

__all__ = ["IngestReport", "Progress", "ingest_segments"]

Progress = Callable[[str, int, int], None]  # (what, done, of)

BATCH_ROWS = 2_000_000  # rows of segments a transaction


@dataclass(frozen=True)
class IngestReport:
    """What one ingest did. Times in us of shop time; `rows` are those newly held."""

    rows: int = 0
    duplicates: int = 0
    late: int = 0
    quarantined: int = 0
    reasons: dict[str, int] = field(default_factory=dict)  # of the newly quarantined
    released: int = 0  # rows that left quarantine
    out_of_order: int = 0
    segments: int = 0
    corrupt: tuple[str, ...] = ()  # segment files that were left, and why
    events_per_s: float = 0.0
    watermark_us: int = 0
    commit: int = 0
    content_hash: str = ""
    applied: dict[str, int] = field(default_factory=dict)
    total_rows: int = 0
    seconds: float = 0.0


def ingest_segments(
    layout: Home, *, allowed_lateness_us: int, clock: Clock, progress: Progress | None = None
) -> IngestReport:
    """Bring every new segment into the store once, and publish.

    An event counts as late where it happened more than `allowed_lateness_us` before the shop had
    already heard of later ones; late events are kept. A time further than that in the future, an
    unknown kind or item, a missing item or user, a value of a wrong type: the row goes into quarantine
    with the reason (an unknown item's rows come out once the item is known). A corrupt segment
    file is reported and left. Raises EnvironmentError_ where another ingest runs or the disk is full.
    """
    folder = layout.store.parent
    folder.mkdir(parents=True, exist_ok=True)
    lock = lock_folder(folder)
    if lock is None:
        raise EnvironmentError_(
            f"another ingest of {layout.root} is running; wait for it to end, then try again"
        )
    try:
        return _ingest(layout, allowed_lateness_us, clock, progress or _silent)
    except OSError as error:
        raise EnvironmentError_(
            f"ingest cannot write to {layout.root}: {error}; free space and try again"
        ) from error
    except duckdb.IOException as error:
        raise EnvironmentError_(f"the store {layout.store} cannot be used: {_line(error)}") from error
    except duckdb.OutOfMemoryException as error:
        raise EnvironmentError_(f"ingest ran out of memory: {_line(error)}; give it more") from error
    finally:
        os.close(lock)


def _silent(_what: str, _done: int, _of: int) -> None:
    return None


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _ingest(layout: Home, lateness_us: int, clock: Clock, progress: Progress) -> IngestReport:
    started = perf_counter()
    with duckdb.connect(str(layout.store)) as store:
        store.execute(sql.SETTINGS)
        store.execute(sql.TABLES)
        known = set(store.execute(sql.KNOWN_FILES).fetchall())
        hashes = {row[0] for row in store.execute(sql.KNOWN_HASHES).fetchall()}
        check = check_segments(layout.segments, list_segments(layout.segments), known=known, hashes=hashes)
        corrupt = list(check.corrupt)
        total, done, counts = sum(f.rows for f in check.new), 0, _Counts()
        before_us = store.execute(sql.LAST_COMMIT).fetchall()[0][1]
        for batch in _batches(check.new):
            progress("ingest", done, total)
            done += sum(f.rows for f in batch)
            counts = counts.plus(_commit_readable(store, batch, lateness_us, clock.now_us(), corrupt))
        if check.same:
            _note_segments(store, check.same, 0)
        _publish(layout, store)
        progress("ingest", total, total)
    status = read_status(layout)
    new_parts = [p for p in published(layout).parts if p.name in {part_name(n) for n in counts.commits}]
    seconds = perf_counter() - started
    return IngestReport(
        rows=counts.rows,
        duplicates=counts.duplicates,
        late=counts.late,
        quarantined=sum(counts.reasons.values()),
        reasons=dict(counts.reasons),
        released=counts.released,
        out_of_order=sum(_out_of_order(p, before_us) for p in new_parts),
        segments=counts.segments,
        corrupt=tuple(corrupt),
        events_per_s=done / seconds if done else 0.0,
        watermark_us=status["watermark_us"],
        commit=status["commit"],
        content_hash=status["content_hash"],
        applied=status["applied"],
        total_rows=status["rows"],
        seconds=seconds,
    )


def _batches(found: Sequence[Found]) -> list[list[Found]]:
    batches: list[list[Found]] = []
    rows = BATCH_ROWS
    for one in found:
        if rows + one.rows > BATCH_ROWS and rows:
            batches.append([])
            rows = 0
        batches[-1].append(one)
        rows += one.rows
    return batches


@dataclass(frozen=True)
class _Counts:
    rows: int = 0
    duplicates: int = 0
    late: int = 0
    released: int = 0
    segments: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    commits: tuple[int, ...] = ()

    def plus(self, other: _Counts) -> _Counts:
        return _Counts(
            self.rows + other.rows,
            self.duplicates + other.duplicates,
            self.late + other.late,
            self.released + other.released,
            self.segments + other.segments,
            self.reasons + other.reasons,
            self.commits + other.commits,
        )


def _commit_readable(
    store: Any, batch: list[Found], lateness_us: int, now_us: int, corrupt: list[str]
) -> _Counts:
    """Commit a batch, without the files in it that turn out to be damaged inside."""
    while batch:
        try:
            return _commit(store, batch, lateness_us, now_us)
        except duckdb.Error as error:
            with contextlib.suppress(duckdb.TransactionException):  # a full disk has ended it already
                store.execute("ROLLBACK")
            bad = first_unreadable(batch)
            if bad is None:
                raise
            corrupt.append(f"{bad.path}: {_line(error)}")
            batch = [f for f in batch if f is not bad]
    return _Counts()


def _commit(store: Any, batch: list[Found], lateness_us: int, now_us: int) -> _Counts:
    """One transaction: stage, set aside, insert what is not held, note. All of it or nothing."""
    store.execute("BEGIN")
    last, watermark_us, held, hash_sum = store.execute(sql.LAST_COMMIT).fetchall()[0]
    commit = {"commit": last + 1}
    store.execute(sql.STAGE_TABLE)
    for columns, files in _by_columns(batch).items():
        store.execute(sql.stage(columns), {"files": files, "now": now_us, "lateness": lateness_us})
    store.execute(sql.ADD_ITEMS, commit)
    released = store.execute(sql.RELEASE).fetchall()[0][0]
    if released:
        store.execute(sql.RELEASED_GO)
    store.execute(sql.UNKNOWN_ITEMS)
    store.execute(sql.SET_ASIDE, commit)
    reasons = Counter(dict(store.execute(sql.SET_ASIDE_COUNTS, commit).fetchall()))
    good, distinct, released = store.execute(sql.COUNT_GOOD).fetchall()[0]
    staged = sum(f.rows for f in batch) + released
    store.execute(sql.new_rows(filtered=good < staged, repeated=distinct < good), commit)
    new = store.sql(sql.COMMITTED, params=commit).to_arrow_table()
    happened, known = new["event_time"].to_numpy(), new["known_time"].to_numpy()
    rows, first_us, last_us = len(known), int(known.min(initial=2**62)), int(known.max(initial=0))
    late = int(np.count_nonzero(happened < np.maximum(known, watermark_us) - lateness_us))
    total = (int(hash_sum) + content_sum(new)) % 2**64
    _note_segments(store, batch, last + 1)
    watermark_us = max(watermark_us, last_us)
    store.execute(sql.ADD_COMMIT, [last + 1, held + rows, rows, first_us, last_us, watermark_us, str(total)])
    store.execute(sql.DROP_STAGED)
    store.execute("COMMIT")
    return _Counts(rows, good - rows, late, released, len(batch), reasons, (last + 1,))


def _note_segments(store: Any, found: Sequence[Found], commit: int) -> None:
    store.register("found", found_table(found, commit=commit))
    store.execute(sql.ADD_SEGMENTS)
    store.unregister("found")


def _out_of_order(part: Path, before_us: int) -> int:
    """Events of a part that came behind: known before what was held, or happened before an earlier one."""
    table = pq.read_table(part, columns=["event_time", "known_time"])
    happened, known = table["event_time"].to_numpy(), table["known_time"].to_numpy()
    behind = happened < np.maximum.accumulate(happened)
    return int(np.count_nonzero(behind | (known < before_us)))


def _by_columns(batch: list[Found]) -> dict[tuple[tuple[str, str], ...], list[str]]:
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for found in batch:
        groups.setdefault(found.columns, []).append(str(found.path))
    return groups


# ---- publishing


def part_name(commit: int) -> str:
    """The file name of a commit's part."""
    return f"part-{commit:08d}.parquet"


def _publish(layout: Home, store: Any) -> None:
    """Write the parts that are not there yet, then the status document."""
    events = layout.snapshots / "events"
    events.mkdir(parents=True, exist_ok=True)
    for stale in events.glob(".*.tmp"):
        stale.unlink()
    parts = []
    for number, rows, first_us, last_us in store.execute(sql.COMMITS).fetchall():
        path = events / part_name(number)
        if not path.exists():
            beside = events / f".{path.name}.tmp"
            store.execute(sql.write_part(str(beside), number))
            with beside.open("rb") as file:
                os.fsync(file.fileno())
            beside.rename(path)
            sync_dir(events)
        parts.append({"file": path.name, "rows": rows, "first_us": first_us, "last_us": last_us})
    number, watermark_us, held, hash_sum = store.execute(sql.LAST_COMMIT).fetchall()[0]
    status = {
        "commit": number,
        "watermark_us": watermark_us,
        "rows": held,
        "content_hash": hash_text(held, int(hash_sum)),
        "parts": parts,
        "applied": contiguous(store.execute(sql.WRITERS).fetchall()),
        "kinds": dict(store.execute(sql.KIND_COUNTS).fetchall()),
        "quarantine": dict(store.execute(sql.QUARANTINE_COUNTS).fetchall()),
        "segments": store.execute(sql.SEGMENT_COUNT).fetchall()[0][0],
    }
    write_atomic(layout.snapshots / "status.json", json.dumps(status, indent=1).encode())
