"""Follows the journals of all writers, in the writers' order, up to what is durable.

Keeps one open file a writer; a closed file names its successor, so that nothing is listed while
it keeps up. It knows nothing of what the events mean.
"""

from __future__ import annotations

import os
import time
import zlib
from pathlib import Path

import pyarrow as pa

from data import frames
from infra.errors import DataError

__all__ = ["JournalGap", "JournalTail"]

_LIST_S = 1.0


class JournalGap(DataError):
    """Events after the asked position were pruned: start again from a newer state snapshot."""


class JournalTail:
    """Reads the frames of `root/<writer>/` after the sequence numbers `after`; not thread-safe.

    `skip`: writers to leave out. Writers that appear later are followed from their beginning.
    """

    def __init__(self, root: Path, *, after: dict[str, int], skip: frozenset[str] = frozenset()) -> None:
        self._root, self.skip = root, skip
        self.position = dict(after)  # writer → last sequence number that poll returned
        self._files: dict[str, _Follow] = {}

    def poll(self, *, max_rows: int | None = None) -> list[tuple[str, int, pa.Table]]:
        """New durable frames: (writer, last sequence number, events); about `max_rows` rows at most.

        Raises JournalGap where events that were not yet read have been pruned.
        """
        found: list[tuple[str, int, pa.Table]] = []
        rows = 0
        for writer in self._writers():
            follow = self._files.get(writer)
            if follow is None:
                follow = self._files[writer] = _Follow(self._root / writer)
            done = self.position.get(writer, 0)
            while max_rows is None or rows < max_rows:
                payload = follow.next_frame(done)
                if payload is None:
                    break
                first, events = frames.decode(payload)
                last = first + events.num_rows - 1
                if last <= done:
                    continue
                events = events.slice(max(0, done + 1 - first))
                done = self.position[writer] = last
                rows += events.num_rows
                found.append((writer, last, events))
        return found

    def close(self) -> None:
        """Close the files."""
        for follow in self._files.values():
            follow.close()
        self._files.clear()

    def _writers(self) -> list[str]:
        if not self._root.is_dir():
            return []
        with os.scandir(self._root) as entries:
            return sorted(
                e.name for e in entries if e.is_dir() and e.name[0] != "." and e.name not in self.skip
            )


class _Follow:
    """One writer's files, one after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd = -1
        self._offset = 0
        self._list_at = 0.0

    def next_frame(self, done: int) -> bytes | None:
        """The next frame's payload, or None while there is none; `done`: the last event read."""
        while True:
            if self._fd < 0 and not self._begin(done):
                return None
            # The header is read before the frames: what it calls committed is all there.
            committed, sealed = frames.sealed_header(os.pread(self._fd, frames.HEADER_BYTES, 0))
            if self._offset < committed:
                return self._read()
            if not sealed and os.fstat(self._fd).st_nlink:
                return None
            if not self._next(done):
                return None

    def _begin(self, done: int) -> bool:
        """Open the first file; look into the folder once a second at most (dead writers add nothing)."""
        if self._try(self._folder / frames.file_name(done + 1)):
            return True
        if time.monotonic() < self._list_at:
            return False
        self._list_at = time.monotonic() + _LIST_S
        return self._open(done)

    def _next(self, done: int) -> bool:
        """Go on to the file after a closed (or removed) one; list the folder once a second at most."""
        old, offset = self._fd, self._offset
        found = self._try(self._folder / frames.file_name(done + 1))
        if not found and time.monotonic() >= self._list_at:
            self._list_at = time.monotonic() + _LIST_S
            found = self._open(done)
        if found:
            os.close(old)
        else:
            self._fd, self._offset = old, offset
        return found

    def _read(self) -> bytes:
        length, crc = frames.FRAME.unpack(os.pread(self._fd, frames.FRAME.size, self._offset))
        payload = os.pread(self._fd, length, self._offset + frames.FRAME.size)
        if len(payload) != length or zlib.crc32(payload) != crc:
            raise DataError(f"a journal file in {self._folder} is damaged at byte {self._offset}")
        self._offset += frames.FRAME.size + length
        return payload

    def _open(self, done: int) -> bool:
        """Open the file that holds event `done + 1`; False where it is not there yet."""
        if self._try(self._folder / frames.file_name(done + 1)):
            return True
        files = frames.journal_files(self._folder)
        holding = [p for p in files if frames.first_seq_of(p) <= done + 1]
        if not holding:
            if files:
                raise JournalGap(
                    f"journal {self._folder} begins at event {frames.first_seq_of(files[0])}, after "
                    f"{done + 1}; load a newer state snapshot"
                )
            return False
        newest = holding[-1]
        try:
            with newest.open("rb") as file:
                ended = frames.sealed_header(file.read(frames.HEADER_BYTES))[1]
        except FileNotFoundError:  # closed (renamed) since the folder was listed: look again
            return False
        if not ended:
            return self._try(newest)
        return self._after_sealed(newest, files, done)

    def _after_sealed(self, newest: Path, files: list[Path], done: int) -> bool:
        try:
            end = frames.last_seq_in(newest)
        except FileNotFoundError:  # closed (renamed) or pruned since the folder was listed: look again
            return False
        if end > done:
            return self._try(newest)
        later = [p for p in files if frames.first_seq_of(p) > done + 1]
        if later:
            raise JournalGap(f"journal {self._folder} has no event {done + 1}; load a newer state snapshot")
        return False

    def _try(self, path: Path) -> bool:
        for candidate in (path, path.with_suffix(".log")):  # it may be closed between listing and opening
            try:
                self._fd = os.open(candidate, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            self._offset = frames.HEADER_BYTES
            return True
        return False

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._offset = -1, 0
