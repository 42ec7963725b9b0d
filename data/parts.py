"""Publishes what the store holds: immutable Parquet parts, and the status document that names them.

Each commit gives one part; small ones are merged, so that their number grows with the logarithm of the
commits. A part that is no longer named stays for a while: readers may still be at it. It knows
nothing of segments, and decides nothing about which events count.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data import store_sql as sql
from data.content import hash_text
from data.segment_check import contiguous
from data.snapshots import STATUS_SCHEMA, floor_folder
from infra.clock import SECOND_US, wall_us
from infra.files import sync_dir, write_atomic
from infra.settings import Home

__all__ = [
    "RETIRE_US",
    "Part",
    "add_part",
    "compact",
    "merges",
    "part_name",
    "publish",
    "rewrite",
    "stored_parts",
]

FAN_IN = 8  # neighbours of a size that are merged into one part
SMALL_ROWS = 4_096  # parts up to here are of one size; each size after it is eight times the last
MOST_ROWS = 2_000_000  # of a merged part
RETIRE_US = 600 * SECOND_US  # of wall time that a part stays once it is named no more
STARTS = 256  # newest commits whose first known_time the status document tells


@dataclass(frozen=True)
class Part:
    """A file of the events of a range of commits; `gone`: how many of its rows a better one replaced."""

    file: str
    first_commit: int
    last_commit: int
    rows: int
    gone: int
    first_us: int
    last_us: int


def part_name(commit: int) -> str:
    """The file name of a commit's part."""
    return f"part-{commit:08d}.parquet"


def stored_parts(store: Any) -> list[Part]:
    """The parts that count, in order of their commits."""
    return [Part(*row) for row in store.execute(sql.PARTS).fetchall()]


def add_part(store: Any, commit: int, rows: int, first_us: int, last_us: int) -> None:
    """Note the part of a new commit, within its transaction."""
    store.execute(sql.ADD_PART, [part_name(commit), commit, commit, rows, 0, first_us, last_us])


def rewrite(store: Any, first: int, last: int) -> None:
    """Put one new file, with what the store holds of these commits now, in place of theirs.

    Within a transaction; `publish` writes the file. Commits without events are left without one.
    """
    store.execute(sql.REMOVE_PARTS, [first, last])
    rows, gone, first_us, last_us = store.execute(sql.OF_COMMITS, [first, last]).fetchall()[0]
    if rows:
        generation = store.execute(sql.GENERATION).fetchall()[0][0]
        name = f"part-{first:08d}-{last:08d}-{generation}.parquet"
        store.execute(sql.ADD_PART, [name, first, last, rows, gone, first_us, last_us])


def merges(rows: Sequence[int]) -> list[tuple[int, int]]:
    """Which neighbours to merge: [start, end) of parts of these sizes, in order and without overlap.

    Eight or more in a row that are of one size or smaller become one, the smallest first.
    """
    found: list[tuple[int, int]] = []
    sizes = [_size(r) for r in rows]
    for size in range(_size(MOST_ROWS) + 1):
        start = 0
        for at in range(len(rows) + 1):
            taken = at < len(rows) and any(a <= at < b for a, b in found)
            fits = at < len(rows) and sizes[at] <= size and not taken
            if fits and sum(rows[start : at + 1]) <= MOST_ROWS:
                continue
            if at - start >= FAN_IN:
                found.append((start, at))
            start = at if fits else at + 1
    return sorted(found)


def _size(rows: int) -> int:
    size = 0
    while rows > SMALL_ROWS * FAN_IN**size:
        size += 1
    return size


def compact(store: Any) -> int:
    """Merge small neighbours in one transaction; how many parts there are fewer."""
    before = parts = stored_parts(store)
    while plan := merges([p.rows for p in parts]):
        store.execute("BEGIN")
        for start, end in plan:
            rewrite(store, parts[start].first_commit, parts[end - 1].last_commit)
        store.execute("COMMIT")
        parts = stored_parts(store)
    return len(before) - len(parts)


def publish(layout: Home, store: Any, *, now_us: int) -> None:
    """Write the parts that are not there yet, then the status document; `now_us` shop time."""
    events = layout.snapshots / "events"
    events.mkdir(parents=True, exist_ok=True)
    for stale in events.glob(".*.tmp"):
        stale.unlink()
    parts = stored_parts(store)
    for part in parts:
        path = events / part.file
        if not path.exists():
            beside = events / f".{path.name}.tmp"
            store.execute(sql.write_part(str(beside), part.first_commit, part.last_commit))
            with beside.open("rb") as file:
                os.fsync(file.fileno())
            beside.rename(path)
            sync_dir(events)
    number, watermark_us, held, hash_sum = store.execute(sql.LAST_COMMIT).fetchall()[0]
    floor_us, expired, expired_sum = store.execute(sql.LAST_FLOOR).fetchall()[0]
    retired = _retired(layout, {p.file for p in parts})
    status = {
        "schema": STATUS_SCHEMA,
        "commit": number,
        "watermark_us": watermark_us,
        "published_us": now_us,
        "rows": held,
        "content_hash": hash_text(held, int(hash_sum)),
        "parts": [
            {"file": p.file, "rows": p.rows, "gone": p.gone, "first_us": p.first_us, "last_us": p.last_us,
             "commits": [p.first_commit, p.last_commit]}
            for p in parts
        ],
        "starts": dict(store.execute(sql.COMMIT_STARTS, {"most": STARTS}).fetchall()),
        "floor": {
            "us": floor_us,
            "expired": hash_text(expired, int(expired_sum)),
            "state": floor_folder(floor_us) if floor_us else "",
        },
        "applied": contiguous(store.execute(sql.WRITERS).fetchall()),
        "kinds": dict(store.execute(sql.KIND_COUNTS).fetchall()),
        "quarantine": dict(store.execute(sql.QUARANTINE_COUNTS).fetchall()),
        "segments": store.execute(sql.SEGMENT_COUNT).fetchall()[0][0],
        "retired": retired,
    }  # fmt: skip
    write_atomic(layout.snapshots / "status.json", json.dumps(status, indent=1).encode())
    for path in events.glob("part-*.parquet"):  # none that the old or the new document names
        if path.name not in retired and path.name not in {p.file for p in parts}:
            path.unlink()


def _retired(layout: Home, named: set[str]) -> dict[str, int]:
    """Files that are named no more, and since when (us of wall time), less those whose time is up."""
    path = layout.snapshots / "status.json"
    try:
        known: dict[str, int] = json.loads(path.read_bytes()).get("retired", {})
    except (FileNotFoundError, ValueError):
        known = {}
    now_us = wall_us()
    there = {p.name for p in Path(layout.snapshots / "events").glob("part-*.parquet")}
    since = {name: known.get(name, now_us) for name in sorted(there - named)}
    return {name: us for name, us in since.items() if now_us - us < RETIRE_US}
