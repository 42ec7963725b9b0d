"""Segments: immutable Parquet files of events, by day and hour of known_time.

A segment is written beside and renamed, so that readers see it whole or not at all; the same
events under the same name give the same bytes. Rolls closed journal files into segments.
It knows nothing of the store.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data import frames
from data.frames import REQUIRED, none_row
from data.schema import EVENT_SCHEMA, canonical, event_table
from infra.clock import HOUR_US
from infra.errors import DataError, EnvironmentError_
from infra.files import sync_dir, write_atomic

__all__ = [
    "REQUIRED",
    "Rolled",
    "list_segments",
    "prune_journals",
    "read_segment",
    "roll_journals",
    "write_segments",
]

_ROLL_BYTES = 128 << 20  # journal bytes that one set of segments is made of

_OPTIONS: dict[str, object] = {"compression": "zstd", "compression_level": 1, "write_page_checksum": True}


def write_segments(
    events: pa.Table,
    root: Path,
    *,
    name: str,
    metadata: Mapping[str, str] | None = None,
    durable: bool = True,
) -> list[Path]:
    """Write `events` as `root/YYYY-MM-DD/HH/<name>.parquet`, one file an hour of known_time.

    `name` must be unique a set of events: a file of that name is replaced by the new one.
    `metadata` goes into each file, with `part` ("1/3": the first of three files). With
    `durable=False` the files are whole but not synced: for data that can be made again.
    Returns the paths in order of time. Raises EnvironmentError_ where the disk is full.
    """
    if not name or "/" in name or name.startswith("."):
        raise ValueError(f"segment name {name!r} is no plain file name")
    if events.num_rows == 0:
        return []
    try:
        return list(_write(_ordered(events), root, name, dict(metadata or {}), durable))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise EnvironmentError_(
                f"cannot write segments to {root}: {error.strerror}; free some space there and run it again"
            ) from error
        raise


def _write(
    events: pa.Table, root: Path, name: str, metadata: dict[str, str], durable: bool
) -> Iterator[Path]:
    hours = events["known_time"].to_numpy() // HOUR_US
    starts = np.flatnonzero(np.r_[True, hours[1:] != hours[:-1]])
    ends = np.r_[starts[1:], len(hours)]
    for part, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True), 1):
        day, hour = str(np.datetime64(int(hours[start]), "h")).split("T")
        folder = root / day / hour[:2]
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.parquet"
        beside = folder / f".{name}.{os.getpid()}.tmp"
        notes = {f"shelflife.{k}": v for k, v in {**metadata, "part": f"{part}/{len(starts)}"}.items()}
        table = events.slice(start, end - start).replace_schema_metadata(notes)
        try:
            pq.write_table(table, beside, **_OPTIONS)
            if durable:
                _sync(beside)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        if durable:
            for made in (folder, folder.parent, root):
                sync_dir(made)
        yield path


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _ordered(events: pa.Table) -> pa.Table:
    if events.schema.equals(EVENT_SCHEMA):
        return canonical(events)
    return canonical(event_table({n: events[n] for n in events.column_names}, rows=events.num_rows))


def list_segments(root: Path) -> list[Path]:
    """All segments under `root`, in order of path; half-written ones are not among them."""
    return sorted(p for p in root.glob("*/*/*.parquet") if not p.name.startswith("."))


def read_segment(path: Path) -> pa.Table:
    """The events of one segment; columns that it lacks get their "none", unknown ones are left out.

    Raises DataError where the file is truncated, no Parquet, or holds other columns or types.
    """
    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
    except FileNotFoundError:
        raise DataError(f"segment {path} does not exist") from None
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"segment {path} is no whole Parquet file ({_first_line(error)}); write it again or remove it"
        ) from error
    missing = [n for n in REQUIRED if n not in table.column_names]
    if missing:
        raise DataError(f"segment {path} has no column {missing[0]!r}; expected the columns of an event")
    try:
        known = {n: table[n] for n in EVENT_SCHEMA.names if n in table.column_names}
        for column, none in none_row().items():
            if column in known and known[column].null_count:
                known[column] = known[column].fill_null(none)
        events = event_table(known, rows=table.num_rows)
    except pa.ArrowException as error:
        raise DataError(f"segment {path} holds a column of a wrong type: {_first_line(error)}") from error
    for column in REQUIRED:
        if events[column].null_count:
            raise DataError(f"segment {path} has rows without {column!r}; ingest keeps those in quarantine")
    return events


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@dataclass(frozen=True)
class Rolled:
    """What a roll did: the segments written, their rows, and what could not be read."""

    paths: tuple[Path, ...] = ()
    rows: int = 0
    damaged: tuple[str, ...] = ()


def roll_journals(journal_root: Path, segments_root: Path) -> Rolled:
    """Turn closed journal files, and what a dead writer left open, into segments.

    The files stay until `prune_journals`. Running it twice, or again after a crash at any point,
    gives the same segments. A damaged file gives the events before the damage, is named in
    `damaged` and kept as `.damaged`. Raises EnvironmentError_ where another roll is running.
    """
    done = Rolled()
    for folder in _writers(journal_root):
        lock = frames.lock_folder(folder)
        if lock is not None:
            try:
                frames.recover(folder)
            finally:
                os.close(lock)
    if not _writers(journal_root):
        return done
    roller = frames.lock_folder(journal_root)
    if roller is None:
        raise EnvironmentError_(f"another roll of {journal_root} is running; wait for it to end")
    try:
        for folder in _writers(journal_root):
            while (part := _roll_some(folder, segments_root)) is not None:
                done = Rolled(done.paths + part.paths, done.rows + part.rows, done.damaged + part.damaged)
    finally:
        os.close(roller)
    return done


def prune_journals(journal_root: Path, through: Mapping[str, int], *, keep_s: float = 60.0) -> int:
    """Delete rolled files all of whose events are at most `through[writer]`; how many went.

    The newest closed file of a writer stays: the writer's position is in it. So do files of the
    last `keep_s` seconds of wall time: replicas may still be reading them.
    """
    before_s = time.time() - keep_s
    gone = 0
    for folder in _writers(journal_root):
        limit = min(through.get(folder.name, 0), _progress(folder)["through"])
        files = frames.journal_files(folder)
        closed = [p for p in files if p.suffix == ".log"]
        for path in closed[:-1]:
            later = frames.first_seq_of(files[files.index(path) + 1])
            if later - 1 > limit or path.stat().st_mtime > before_s:
                break
            path.unlink()
            gone += 1
    return gone


def _writers(journal_root: Path) -> list[Path]:
    return sorted(p for p in journal_root.glob("[!.]*") if p.is_dir())


def _progress(folder: Path) -> dict[str, int]:
    """through: last sequence number rolled; covered: last in a segment; intent: last file of a begun roll."""
    none = {"through": 0, "covered": 0, "intent": 0}
    path = folder / "rolled.json"
    return {**none, **json.loads(path.read_bytes())} if path.exists() else none


def _roll_some(folder: Path, segments_root: Path) -> Rolled | None:
    progress = _progress(folder)
    logs = [p for p in frames.journal_files(folder) if p.suffix == ".log"]
    logs = [p for p in logs if frames.first_seq_of(p) > progress["through"]]
    if progress["intent"]:  # a roll that was cut short: the very same files again
        logs = [p for p in logs if frames.first_seq_of(p) <= progress["intent"]]
    else:
        sizes = np.cumsum([p.stat().st_size for p in logs])
        logs = logs[: max(1, int(np.searchsorted(sizes, _ROLL_BYTES)))]
    if not logs:
        return None
    progress["intent"] = frames.first_seq_of(logs[-1])
    write_atomic(folder / "rolled.json", json.dumps(progress).encode())
    tables, damaged = [], []
    last = progress["intent"] - 1
    for path in logs:
        try:
            for first, events in frames.read_frames(path):
                tables.append(events)
                last = max(last, first + events.num_rows - 1)
        except DataError as error:
            damaged.append((path, str(error)))
    name = f"journal-{folder.name}-{frames.first_seq_of(logs[0]):012d}-{last:012d}"
    notes = {"writer": folder.name, "first_seq": str(progress["covered"] + 1), "last_seq": str(last)}
    events = pa.concat_tables(tables) if tables else EVENT_SCHEMA.empty_table()
    paths = write_segments(events, segments_root, name=name, metadata=notes)
    progress |= {"through": max(last, progress["intent"]), "intent": 0}
    progress["covered"] = last if paths else progress["covered"]
    write_atomic(folder / "rolled.json", json.dumps(progress).encode())
    for path, _ in damaged:
        path.rename(path.with_suffix(".damaged"))
    return Rolled(tuple(paths), events.num_rows, tuple(text for _, text in damaged))
