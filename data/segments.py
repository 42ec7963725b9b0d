"""Segments: immutable Parquet files of events, by day and hour of known_time.

A segment is written beside and renamed, so that readers see it whole or not at all; the same
events under the same name give the same bytes. Rolls closed journal files into segments.
It knows nothing of the store.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.schema import EVENT_SCHEMA, canonical, event_table
from infra.clock import HOUR_US
from infra.errors import DataError, EnvironmentError_
from infra.files import sync_dir

__all__ = ["REQUIRED", "list_segments", "none_row", "read_segment", "write_segments"]

REQUIRED = ("event_id", "kind", "event_time", "known_time")

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


@lru_cache(maxsize=1)
def none_row() -> dict[str, object]:
    """The value that stands for "none" in each column that is not required."""
    row = event_table(dict.fromkeys(REQUIRED, 0), rows=1).to_pylist()[0]
    return {name: value for name, value in row.items() if name not in REQUIRED}


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
