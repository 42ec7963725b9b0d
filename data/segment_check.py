"""Which segment files are new, which are broken, and how far each journal has come in.

Looks at the files' footers and hashes; reads no events. It knows nothing of the store.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.frames import REQUIRED
from data.schema import EVENT_SCHEMA
from infra.files import sha256_file

__all__ = ["Check", "Found", "check_segments", "contiguous", "first_unreadable", "found_table"]


@dataclass(frozen=True)
class Found:
    """A segment file: where, what it holds, which part of which journal's events it is."""

    path: Path
    name: str  # relative to the segments' folder
    size: int
    mtime_ns: int
    hash: str
    rows: int
    columns: tuple[tuple[str, str], ...]  # (event column, how its type fits)
    writer: str = ""
    first_seq: int = 0
    last_seq: int = 0
    part: int = 0
    parts: int = 0


@dataclass(frozen=True)
class Check:
    """New files, copies of files that are in already, and broken ones with the reason."""

    new: tuple[Found, ...]
    same: tuple[Found, ...]
    corrupt: tuple[str, ...]


def check_segments(
    root: Path, paths: Iterable[Path], *, known: set[tuple[str, int, int]], hashes: set[str]
) -> Check:
    """Sort the files. `known`: (name, size, mtime_ns) of those taken in; `hashes`: of their contents."""
    new: list[Found] = []
    same: list[Found] = []
    corrupt: list[str] = []
    seen = set(hashes)
    for path in paths:
        name = str(path.relative_to(root))
        try:
            stat = path.stat()
            if (name, stat.st_size, stat.st_mtime_ns) in known:
                continue
            found = _look(path, name, stat.st_size, stat.st_mtime_ns)
        except (pa.ArrowException, OSError, ValueError) as error:
            corrupt.append(f"{path}: {(str(error).splitlines() or ['unreadable'])[0]}")
            continue
        (same if found.hash in seen else new).append(found)
        seen.add(found.hash)
    return Check(tuple(new), tuple(same), tuple(corrupt))


def _look(path: Path, name: str, size: int, mtime_ns: int) -> Found:
    with pq.ParquetFile(path) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
    missing = [n for n in REQUIRED if n not in schema.names]
    if missing:
        raise ValueError(f"no column {missing[0]!r}; expected the columns of an event")
    columns = tuple(
        (f.name, _fit(f, schema.field(f.name).type)) for f in EVENT_SCHEMA if f.name in schema.names
    )
    notes = {
        k.decode(): v.decode() for k, v in (schema.metadata or {}).items() if k.startswith(b"shelflife.")
    }
    part, _, parts = notes.get("shelflife.part", "1/1").partition("/")
    return Found(
        path,
        name,
        size,
        mtime_ns,
        sha256_file(path),
        rows,
        columns,
        notes.get("shelflife.writer", ""),
        int(notes.get("shelflife.first_seq", 0)),
        int(notes.get("shelflife.last_seq", 0)),
        int(part),
        int(parts),
    )


def _fit(field: Any, found: Any) -> str:
    if pa.types.is_dictionary(found):
        found = found.value_type
    if pa.types.is_nested(found):
        raise ValueError(f"column {field.name!r} is of type {found}; expected {field.type}")
    if found == field.type or (field.type == pa.string() and pa.types.is_large_string(found)):
        return "same"
    if pa.types.is_timestamp(found) and field.type == pa.int64():
        return "time"
    return "float" if pa.types.is_floating(found) else "cast"


def found_table(found: Iterable[Found], *, commit: int) -> pa.Table:
    """Rows of the store's table of segments."""
    rows = list(found)
    names = ("size", "mtime_ns", "hash", "rows", "writer", "first_seq", "last_seq", "part", "parts")
    columns: dict[str, list[Any]] = {n: [getattr(f, n) for f in rows] for n in names}
    return pa.table({"path": [f.name for f in rows], **columns, "commit_number": [commit] * len(rows)})


def first_unreadable(batch: Iterable[Found]) -> Found | None:
    """The first file whose pages cannot all be read."""
    for found in batch:
        try:
            with pq.ParquetFile(found.path, page_checksum_verification=True) as file:
                for group in range(file.num_row_groups):
                    file.read_row_group(group)
        except (pa.ArrowException, OSError):
            return found
    return None


def contiguous(rows: Iterable[tuple[str, int, int, int, int]]) -> dict[str, int]:
    """The sequence number up to which all of each writer's events are in.

    `rows`: (writer, first_seq, last_seq, part, parts) of the segments that are in.
    """
    parts: dict[tuple[str, int, int], set[int]] = {}
    wanted: dict[tuple[str, int, int], int] = {}
    for writer, first, last, part, of in rows:
        parts.setdefault((writer, first, last), set()).add(part)
        wanted[writer, first, last] = of
    through: dict[str, int] = {}
    for (writer, first, last), have in sorted(parts.items()):
        if len(have) == wanted[writer, first, last] and first <= through.get(writer, 0) + 1:
            through[writer] = max(through.get(writer, 0), last)
    return through
