"""Where a service appends events: acknowledged only once they are durable.

One writer a folder. Callers hand over batches; one thread gathers them for a few milliseconds,
writes one frame, syncs, applies, acknowledges. `data/tail.py` follows what was written.
It knows nothing of what the events mean.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data import frames
from data.frames import read_frames
from data.schema import EVENT_SCHEMA, stable_hash
from data.tail import JournalGap, JournalTail
from infra.clock import Clock, wall_us
from infra.errors import DataError, EnvironmentError_
from infra.files import sync_dir

__all__ = ["JournalGap", "JournalTail", "JournalWriter", "OnCommit", "read_frames"]

OnCommit = Callable[[pa.Table, int], None]

_NAMES = frozenset(EVENT_SCHEMA.names)
_SEQ_BITS = 40  # of an event_id; the 23 bits above them come of the writer's name
_BAD_VALUES = (ValueError, TypeError, OverflowError, pa.ArrowException)
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Batch:
    columns: Mapping[str, Any]
    rows: int
    on_commit: OnCommit | None
    future: Future[int]
    queued_s: float


class JournalWriter:
    """Appends events durably; thread-safe; one background commit thread.

    `commit_ms`: a batch is synced at most this long after it was handed over, while the disk
    keeps up. `roll_s`, `roll_bytes`: when the current file is closed for rolling into segments.
    Raises EnvironmentError_ where another process writes to this folder.
    """

    def __init__(
        self,
        folder: Path,
        *,
        commit_ms: float = 5.0,
        roll_s: float = 2.0,
        roll_bytes: int = 64 << 20,
        clock: Clock,
        max_queued_rows: int = 1_000_000,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.writer = folder.name
        self._lock_fd = _lock(folder)
        try:
            frames.recover(folder)
            position = frames.last_position(folder)
        except BaseException:
            os.close(self._lock_fd)
            raise
        self._next_seq, self._last_known_us = position.next_seq, position.last_known_us
        self._event_prefix = (stable_hash(self.writer) & ((1 << 23) - 1)) << _SEQ_BITS
        self._clock = clock
        self._gather_s = commit_ms / 1e3 * 0.6  # the rest is for the write and the sync
        self._roll_s, self._roll_bytes, self._max_queued = roll_s, roll_bytes, max_queued_rows
        self._fd = -1
        self._path = folder
        self._good = 0  # durable bytes of the current file
        self._opened_s = 0.0
        self._condition = threading.Condition()
        self._queue: deque[_Batch] = deque()
        self._queued_rows = 0
        self._roll_asked: list[Future[None]] = []
        self._closing = False
        # The first conversion loads code for 200 ms: before the first event, not during it.
        frames.columns_to_table({n: [0] for n in frames.REQUIRED} | {"propensity": [None]}, 1)
        self._thread = threading.Thread(target=self._run, name=f"journal-{self.writer}", daemon=True)
        self._thread.start()

    @property
    def last_seq(self) -> int:
        """The last durable sequence number; 0 before the first."""
        return self._next_seq - 1

    def now_us(self) -> int:
        """The shop time that an event appended now would be known at, or a moment before."""
        return self._clock.now_us()

    def append(
        self, columns: Mapping[str, Any], rows: int, *, on_commit: OnCommit | None = None
    ) -> Future[int]:
        """Queue `rows` events; the future resolves to the last one's sequence number once durable.

        `columns`: event column → list, array [rows] or one value for all; not to be changed by the
        caller afterwards. `event_id`, `known_time` (strictly increasing), `wall_time` and
        `event_time` (= known_time) are assigned where absent. The future fails with OSError (disk
        full: nothing of the batch is acknowledged) or DataError (a value that fits no column).
        `on_commit(events, last_seq)` runs on the commit thread after the sync, in order, before the
        future resolves; neighbouring batches with the same callback come as one table.
        """
        unknown = columns.keys() - _NAMES
        if unknown:
            raise DataError(f"unknown event column {sorted(unknown)[0]!r}; expected columns of an event")
        for name, values in columns.items():
            if isinstance(values, list | np.ndarray) and len(values) != rows:
                raise DataError(f"event column {name!r} has {len(values)} values; expected {rows}")
        if rows < 1:
            raise DataError("an empty batch of events; expected at least one row")
        future: Future[int] = Future()
        future.set_running_or_notify_cancel()  # an event that was handed over is written
        batch = _Batch(columns, rows, on_commit, future, time.monotonic())
        with self._condition:
            if self._closing:
                raise EnvironmentError_(f"journal {self.folder} is closed; nothing can be appended")
            if self._queued_rows + rows > self._max_queued:
                future.set_exception(
                    OSError(f"journal {self.folder}: {self._queued_rows} rows wait to be written")
                )
                return future
            self._queue.append(batch)
            self._queued_rows += rows
            if len(self._queue) == 1:
                self._condition.notify()
        return future

    def roll(self) -> None:
        """Close the current file, so that it can become segments; wait until that is done."""
        done: Future[None] = Future()
        with self._condition:
            if self._closing:
                return
            self._roll_asked.append(done)
            self._condition.notify()
        done.result()

    def close(self) -> None:
        """Write what is queued, close the file, release the folder."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        self._thread.join()

    # ---- the commit thread

    def _run(self) -> None:
        while True:
            batches, asked, closing = self._wait()
            if batches:
                self._commit_safely(batches)
            due = self._fd >= 0 and (
                time.monotonic() - self._opened_s >= self._roll_s or self._good >= self._roll_bytes
            )
            if asked or due or closing:
                self._finish_roll(asked)
            if closing and not batches:
                os.close(self._lock_fd)
                return

    def _wait(self) -> tuple[list[_Batch], list[Future[None]], bool]:
        with self._condition:
            while not (self._queue or self._roll_asked or self._closing):
                timeout = None
                if self._fd >= 0:
                    timeout = self._opened_s + self._roll_s - time.monotonic()
                    if timeout <= 0:
                        break
                self._condition.wait(timeout)
            first_s = self._queue[0].queued_s if self._queue and not self._closing else None
        if first_s is not None:
            time.sleep(max(0.0, first_s + self._gather_s - time.monotonic()))
        with self._condition:
            batches, asked = list(self._queue), self._roll_asked
            self._queue.clear()
            self._queued_rows, self._roll_asked = 0, []
            return batches, asked, self._closing

    def _commit_safely(self, batches: list[_Batch]) -> None:
        try:
            self._commit(batches)
        except Exception as error:  # nobody may wait for ever, and later batches must get through
            _LOG.exception("journal %s: cannot commit", self.folder)
            for batch in batches:
                if not batch.future.done():
                    batch.future.set_exception(error)

    def _commit(self, batches: list[_Batch]) -> None:
        try:
            columns, table = self._merge(batches)
        except _BAD_VALUES as error:
            if len(batches) == 1:
                batches[0].future.set_exception(DataError(f"event with a wrong value: {error}"))
                return
            for batch in batches:  # one wrong batch must not spoil its neighbours
                self._commit([batch])
            return
        first_seq, rows = self._next_seq, table.num_rows
        try:
            self._write(frames.encode(first_seq, columns, rows), first_seq)
        except OSError as error:
            for batch in batches:
                batch.future.set_exception(OSError(error.errno, error.strerror, str(self.folder)))
            return
        self._next_seq += rows
        self._last_known_us = max(self._last_known_us, int(np.max(table["known_time"].to_numpy())))
        self._call_back(batches, table, first_seq)
        last = first_seq - 1
        for batch in batches:
            last += batch.rows
            batch.future.set_result(last)

    def _merge(self, batches: list[_Batch]) -> tuple[dict[str, Any], pa.Table]:
        rows = sum(b.rows for b in batches)
        columns: dict[str, Any] = {}
        for name in EVENT_SCHEMA.names:
            if any(name in b.columns for b in batches):
                columns[name] = _joined(name, batches)
        seq = self._next_seq
        first_id = self._event_prefix | seq
        _assign(columns, "event_id", np.arange(first_id, first_id + rows))
        known = max(self._clock.now_us(), self._last_known_us + 1)
        _assign(columns, "known_time", np.arange(known, known + rows))
        _assign(columns, "event_time", columns["known_time"])
        _assign(columns, "wall_time", np.full(rows, wall_us(), np.int64))
        return columns, frames.columns_to_table(columns, rows)

    def _write(self, frame: bytes, first_seq: int) -> None:
        if self._fd < 0:
            self._open(first_seq)
        offset = self._good
        try:
            os.ftruncate(self._fd, offset)  # what a failed write left
            done = 0
            while done < len(frame):
                done += os.pwrite(self._fd, frame[done:] if done else frame, offset + done)
            os.fdatasync(self._fd)
        except OSError:
            os.ftruncate(self._fd, offset)
            raise
        self._good = offset + len(frame)
        with contextlib.suppress(OSError):  # the frame is durable; readers see it with the next one
            os.pwrite(self._fd, frames.header(self._good), 0)

    def _open(self, first_seq: int) -> None:
        path = self.folder / frames.file_name(first_seq)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.pwrite(fd, frames.header(frames.HEADER_BYTES), 0)
            sync_dir(self.folder)
        except OSError:
            os.close(fd)
            path.unlink()
            raise
        self._fd, self._path = fd, path
        self._good, self._opened_s = frames.HEADER_BYTES, time.monotonic()

    def _call_back(self, batches: list[_Batch], table: pa.Table, first_seq: int) -> None:
        start = 0
        while batches:
            callback = batches[0].on_commit
            run = next((i for i, b in enumerate(batches) if b.on_commit != callback), len(batches))
            end = start + sum(b.rows for b in batches[:run])
            batches = batches[run:]
            if callback is not None:
                try:
                    callback(table.slice(start, end - start), first_seq + end - 1)
                except Exception:  # the events are durable: a reader's defect must not stop the journal
                    _LOG.exception("journal %s: on_commit failed at %d", self.folder, first_seq + end - 1)
            start = end

    def _finish_roll(self, asked: list[Future[None]]) -> None:
        try:
            self._seal()
        except OSError as error:
            _LOG.warning("journal %s: cannot close %s now: %s", self.folder, self._path.name, error)
            self._opened_s = time.monotonic()
            for future in asked:
                future.set_exception(error)
            return
        for future in asked:
            future.set_result(None)

    def _seal(self) -> None:
        if self._fd < 0:
            return
        if self._good <= frames.HEADER_BYTES:  # its first write failed
            self._opened_s = time.monotonic()
            return
        os.ftruncate(self._fd, self._good)
        os.pwrite(self._fd, frames.header(self._good, sealed=True), 0)
        os.fdatasync(self._fd)
        self._path.rename(self._path.with_suffix(".log"))
        sync_dir(self.folder)
        os.close(self._fd)
        self._fd = -1


def _joined(name: str, batches: list[_Batch]) -> Any:
    """One column of all batches: an array where each of them has one, else a list."""
    given = [batch.columns.get(name) for batch in batches]
    arrays = [values for values in given if isinstance(values, np.ndarray)]
    if len(arrays) == len(given):
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    joined: list[Any] = []
    for batch, values in zip(batches, given, strict=True):
        if isinstance(values, np.ndarray):
            joined += values.tolist()
        else:
            joined += values if isinstance(values, list) else [values] * batch.rows
    return joined


def _assign(columns: dict[str, Any], name: str, values: NDArray[np.int64] | list[int]) -> None:
    given = columns.get(name)
    if given is None:
        columns[name] = values
    elif isinstance(given, list) and None in given:
        columns[name] = [int(v) if g is None else g for g, v in zip(given, values, strict=True)]


def _lock(folder: Path) -> int:
    until = time.monotonic() + 2.0  # a roll may be closing a dead writer's file
    while (fd := frames.lock_folder(folder)) is None:
        if time.monotonic() > until:
            raise EnvironmentError_(
                f"journal {folder} has a writer already; stop it (`shelflife down`) or use another name"
            )
        time.sleep(0.02)
    return fd
