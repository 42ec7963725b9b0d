"""Forgets events from before a floor, and keeps what they folded into.

The state of all that was known before the floor is published beside the events, so that a fold of what
is left, begun from it, ends where a fold of everything would. It removes Parquet parts, rows of the
store and segment files; how far back anybody still has to read is the caller's to know.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data import store_sql as sql
from data.content import content_sum
from data.parts import RETIRE_US, publish, rewrite, stored_parts
from data.segments import list_segments
from data.snapshots import Published, floor_folder, published, read_events
from data.state import State
from data.store import open_store
from infra.clock import Clock, wall_us
from infra.settings import Home

__all__ = ["Expired", "expire", "opening_state"]


@dataclass(frozen=True)
class Expired:
    """What one call removed: events, segment files and their bytes; `floor_us` from which all is kept."""

    rows: int = 0
    segments: int = 0
    segment_bytes: int = 0
    floor_us: int = 0


def opening_state(held: Published) -> State:
    """The state that the first published event meets: empty, or that of all before the floor."""
    return State() if held.floor_state is None else State.load(held.floor_state)


def expire(layout: Home, *, before_us: int, clock: Clock) -> Expired:
    """Remove what was known before `before_us` (us of shop time); the floor never goes back.

    Events that come in later from before the floor are left out and counted. A crash at any point is
    made good by the next ingest or call. Raises what `ingest_segments` does.
    """
    with open_store(layout) as store:
        held = published(layout)
        if before_us > held.floor_us:
            _raise_floor(layout, store, held, before_us)
            publish(layout, store, now_us=clock.now_us())
        floor_us = max(before_us, held.floor_us)
        files, size = _remove_segments(layout, store, floor_us)
        _remove_floors(layout, floor_us)
        return Expired(held.rows - published(layout).rows, files, size, floor_us)


def _raise_floor(layout: Home, store: Any, held: Published, floor_us: int) -> None:
    """The state first, then the rows, in one transaction; the parts that hold such rows are made anew."""
    state = opening_state(held)
    state.apply(read_events(held, until_us=floor_us))
    state.save(layout.snapshots / floor_folder(floor_us))
    store.execute("BEGIN")
    gone = store.sql(sql.BEFORE_FLOOR, params={"floor": floor_us}).to_arrow_table()
    number, _, rows, total = store.execute(sql.LAST_COMMIT).fetchall()[0]
    _, expired, expired_sum = store.execute(sql.LAST_FLOOR).fetchall()[0]
    lost = content_sum(gone)
    store.execute(sql.EXPIRE_EVENTS, [floor_us])
    store.execute(sql.EXPIRE_QUARANTINE, {"floor": floor_us})
    for part in stored_parts(store):
        if part.first_us < floor_us:
            rewrite(store, part.first_commit, part.last_commit)
    store.execute(sql.LESS_HELD, [rows - gone.num_rows, str((int(total) - lost) % 2**64), number])
    floor = [floor_us, expired + gone.num_rows, str((int(expired_sum) + lost) % 2**64)]
    store.execute(sql.ADD_FLOOR, floor)
    store.execute("COMMIT")
    store.execute("CHECKPOINT")


def _remove_floors(layout: Home, floor_us: int) -> None:
    """Delete states of earlier floors, as parts: once readers who began before the next one are through.

    The floor just before this one stays in any case: a long training loads its state late.
    """
    floors = sorted(layout.snapshots.glob("floor-*"))
    current = layout.snapshots / floor_folder(floor_us)
    for folder, following in pairwise([*(f for f in floors if f < current), current]):
        if following != current and wall_us() - following.stat().st_mtime_ns // 1000 >= RETIRE_US:
            shutil.rmtree(folder, ignore_errors=True)
    for folder in (f for f in floors if f > current):  # a crash kept it from becoming one
        shutil.rmtree(folder, ignore_errors=True)


def _remove_segments(layout: Home, store: Any, floor_us: int) -> tuple[int, int]:
    """Delete segment files that are in and hold nothing from the floor on: (files, bytes)."""
    known = {row[0] for row in store.execute(sql.KNOWN_FILES).fetchall()}
    files = size = 0
    for path in list_segments(layout.segments):
        if str(path.relative_to(layout.segments)) in known and _newest_us(path) < floor_us:
            size += path.stat().st_size
            path.unlink()
            files += 1
            for folder in (path.parent, path.parent.parent):
                with contextlib.suppress(OSError):  # others are in it
                    folder.rmdir()
    return files, size


def _newest_us(path: Path) -> int:
    """The newest known_time in a file by its footer; beyond all time where that does not tell."""
    newest = -1
    with contextlib.suppress(Exception), pq.ParquetFile(path) as file:
        column = file.schema_arrow.get_field_index("known_time")
        for group in range(file.num_row_groups):
            told = file.metadata.row_group(group).column(column).statistics
            if told is None or not told.has_min_max or not isinstance(told.max, int):
                return 2**62
            newest = max(newest, told.max)
        return newest
    return 2**62
