"""Files that are whole or absent: written beside, synced, renamed into place; and records of bounded size."""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import shutil
from pathlib import Path

__all__ = ["append_line", "clear_unfinished", "sha256_file", "sync_dir", "write_atomic"]

RECORD_BYTES = 8 << 20


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that readers see the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    sync_dir(path.parent)


def clear_unfinished(folder: Path) -> int:
    """Remove `.name.PID.tmp` of writers that were killed, in a folder and below; how many."""
    removed = 0
    for path in list(folder.rglob(".*.tmp")):
        numbers = [part for part in path.name.split(".") if part.isdecimal()]
        if numbers and not any(Path(f"/proc/{number}").exists() for number in numbers):
            removed += 1
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    return removed


def append_line(path: Path, line: bytes, *, most_bytes: int = RECORD_BYTES) -> None:
    """Add a line to a record; beyond `most_bytes` its older half goes. Writers of all processes take turns.

    What a crash left of an earlier line stays a line of its own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with path.open("ab+") as record:
            size = record.tell()
            if size:
                record.seek(size - 1)
                line = line if record.read(1) == b"\n" else b"\n" + line
            record.write(line + b"\n")
        if path.stat().st_size > most_bytes:
            whole = path.read_bytes()
            write_atomic(path, whole[whole.index(b"\n", -(most_bytes // 2) - 1) + 1 :])


def sync_dir(path: Path) -> None:
    """Make renames in a folder durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's content: mapped and read in one go, so that other threads run meanwhile."""
    with path.open("rb", buffering=0) as f:
        if not os.fstat(f.fileno()).st_size:
            return hashlib.sha256().hexdigest()
        with mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return hashlib.sha256(content).hexdigest()
