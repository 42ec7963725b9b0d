"""The journal's file format: a header, then frames of events.

Header (32 bytes): magic, committed length (readers go no further), sealed flag, reserved.
Frame: length u32, crc32 u32, payload: JSON {"seq", "rows", "columns"}, columns by name, those that
hold only their "none" left out. A file is named by its first sequence number (one an event):
`.open` while a writer has it, `.log` once closed. It knows files, not writers or readers.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from data.plain import arrow_of
from data.schema import EVENT_SCHEMA, event_table
from infra.errors import DataError
from infra.files import sync_dir

__all__ = [
    "FRAME",
    "HEADER",
    "HEADER_BYTES",
    "LOCK",
    "REQUIRED",
    "columns_to_table",
    "decode",
    "encode",
    "file_name",
    "first_seq_of",
    "frames_end",
    "header",
    "journal_files",
    "last_position",
    "last_seq_in",
    "lock_folder",
    "none_row",
    "read_frames",
    "recover",
    "sealed_header",
    "walk",
]

MAGIC = b"SLJRNL01"
HEADER = struct.Struct("<8sQQQ")
HEADER_BYTES = HEADER.size
FRAME = struct.Struct("<II")
LOCK = ".lock"
_DAMAGE_GAP = 1 << 20
REQUIRED = ("event_id", "kind", "event_time", "known_time")


@cache
def none_row() -> dict[str, object]:
    """The value that stands for "none" in each column that is not required."""
    row = event_table(dict.fromkeys(REQUIRED, 0), rows=1).to_pylist()[0]
    return {name: value for name, value in row.items() if name not in REQUIRED}


@cache
def _none(name: str) -> pa.Scalar:
    """`none_row`'s value for a column."""
    return pa.scalar(none_row()[name], EVENT_SCHEMA.field(name).type)


def header(committed: int, *, sealed: bool = False) -> bytes:
    """The header of a file of which `committed` bytes are durable."""
    return HEADER.pack(MAGIC, committed, int(sealed), 0)


def sealed_header(data: bytes) -> tuple[int, bool]:
    """(committed length, sealed) of a header; (0, False) where it is none yet."""
    if len(data) < HEADER_BYTES:
        return 0, False
    magic, committed, sealed, _ = HEADER.unpack(data[:HEADER_BYTES])
    return (committed, bool(sealed)) if magic == MAGIC else (0, False)


def file_name(first_seq: int, *, closed: bool = False) -> str:
    """The name of the file whose first event has this sequence number."""
    return f"{first_seq:020d}.{'log' if closed else 'open'}"


def first_seq_of(path: Path) -> int:
    """The first sequence number in a journal file, by its name."""
    try:
        return int(path.stem)
    except ValueError:
        raise DataError(f"{path} is no journal file: its name is no sequence number; remove it") from None


def journal_files(folder: Path, *, kinds: tuple[str, ...] = (".log", ".open")) -> list[Path]:
    """The `.log` files and the `.open` file of a writer, oldest first."""
    return sorted((p for p in folder.glob("*") if p.suffix in kinds), key=first_seq_of)


def encode(first_seq: int, columns: Mapping[str, Any], rows: int) -> bytes:
    """One frame of `rows` events; `columns`: name → list or array of values."""
    payload = orjson.dumps(
        {"seq": first_seq, "rows": rows, "columns": columns}, option=orjson.OPT_SERIALIZE_NUMPY
    )
    return FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def decode(payload: bytes) -> tuple[int, pa.Table]:
    """(first sequence number, events) of a frame's payload."""
    frame = orjson.loads(payload)
    return int(frame["seq"]), columns_to_table(frame["columns"], int(frame["rows"]))


def columns_to_table(columns: Mapping[str, Any], rows: int) -> pa.Table:
    """Events from columns of plain values; None and absent columns become the column's "none".

    Raises ValueError, TypeError or OverflowError for a value that does not fit its column.
    """
    arrays = []
    none = none_row()
    for field in EVENT_SCHEMA:
        values = columns.get(field.name)
        if values is None:
            if field.name not in none:
                raise ValueError(f"event column {field.name!r} is required")
            arrays.append(pa.repeat(_none(field.name), rows))
            continue
        plain = arrow_of(values, field.type)
        if plain is not None:
            arrays.append(plain)
            continue
        array = pa.array(values, field.type)
        if array.null_count:
            if field.name not in none:
                raise ValueError(f"event column {field.name!r} has an empty value")
            array = pc.fill_null(array, _none(field.name))
        arrays.append(array)
    return pa.table(arrays, schema=EVENT_SCHEMA)


def walk(file: IO[bytes], *, limit: int | None = None) -> Iterator[tuple[int, bytes]]:
    """(end offset, payload) of each whole frame of an open file; stops at the first that is not."""
    start = file.read(HEADER_BYTES)
    if not sealed_header(start)[0]:
        return
    offset = HEADER_BYTES
    while limit is None or offset < limit:
        head = file.read(FRAME.size)
        if len(head) < FRAME.size:
            return
        length, crc = FRAME.unpack(head)
        payload = file.read(length) if length else b""
        if not length or len(payload) < length or zlib.crc32(payload) != crc:
            return
        offset += FRAME.size + length
        yield offset, payload


def read_frames(path: Path) -> Iterator[tuple[int, pa.Table]]:
    """(first sequence number, events) of each frame of a file, in order.

    Stops at the torn tail of an `.open` file. A closed `.log` is whole: anything else in it
    raises DataError, after the frames before it.
    """
    with path.open("rb") as file:
        end = HEADER_BYTES
        for offset, payload in walk(file):
            end = offset
            yield decode(payload)
        if path.suffix == ".log" and end != os.fstat(file.fileno()).st_size:
            raise DataError(f"journal file {path} is damaged at byte {end}; later events in it are lost")


@dataclass(frozen=True)
class Position:
    """Where a writer goes on: the next sequence number, and the newest known_time so far (us)."""

    next_seq: int = 1
    last_known_us: int = 0


def last_position(folder: Path) -> Position:
    """Where the closed files of a writer end."""
    position = Position()
    rolled = folder / "rolled.json"
    if rolled.exists():
        position = Position(next_seq=int(orjson.loads(rolled.read_bytes())["through"]) + 1)
    for path in reversed(journal_files(folder, kinds=(".log", ".damaged"))):
        last = _last_frame(path)
        if last is not None:
            first, events = last
            known = int(np.max(events["known_time"].to_numpy()))
            next_seq = max(position.next_seq, first + events.num_rows)
            if frames_end(path) != path.stat().st_size:
                next_seq += _DAMAGE_GAP  # the lost events had numbers, which must not be given again
            return Position(next_seq, known)
    return position


def frames_end(path: Path) -> int:
    """The offset after the last whole frame of a file."""
    with path.open("rb") as file:
        return max((offset for offset, _ in walk(file)), default=HEADER_BYTES)


def last_seq_in(path: Path) -> int:
    """The last sequence number in a file; the one before its first where it has no events."""
    last = _last_frame(path)
    return first_seq_of(path) - 1 if last is None else last[0] + last[1].num_rows - 1


def _last_frame(path: Path) -> tuple[int, pa.Table] | None:
    payload = None
    with path.open("rb") as file:
        for _, payload in walk(file):  # noqa: B007 (the last one is what is wanted)
            pass
    return None if payload is None else decode(payload)


def recover(folder: Path) -> None:
    """Close what a dead writer left: cut the torn tail, seal, rename. The caller holds the lock."""
    for path in journal_files(folder):
        if path.suffix != ".open":
            continue
        with path.open("r+b") as file:
            end = max((offset for offset, _ in walk(file)), default=0)
            if end:
                file.truncate(end)
                file.seek(0)
                file.write(header(end, sealed=True))
                file.flush()
                os.fsync(file.fileno())
        if end:
            path.rename(path.with_suffix(".log"))
        else:
            path.unlink()
        sync_dir(folder)


def lock_folder(folder: Path) -> int | None:
    """An exclusive lock on a writer's folder, as a file descriptor; None where another holds it."""
    fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return fd
