"""A replica of the state: the newest published snapshot, then the journals' tail.

Publishing writes a folder, then moves the pointer, so that a reader finds a whole state or none.
It knows how far each journal is applied, and nothing of requests.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from data.journal import JournalGap, JournalTail
from data.state import State
from infra.errors import DataError, ShelflifeError
from infra.files import clear_unfinished, sync_dir, write_atomic
from infra.settings import Home

__all__ = ["StateReplica", "current_record", "current_state", "current_state_and_record", "publish_state"]

_LOG = logging.getLogger(__name__)
_CHUNK_ROWS = 500  # applied while holding the lock, once requests are answered
_CATCH_UP_ROWS = 20_000
_POLL_ROWS = 50_000


def publish_state(
    layout: Home,
    state: State,
    applied: Mapping[str, int],
    *,
    keep: int = 3,
    notes: Mapping[str, Any] | None = None,
) -> Path:
    """Save a state that holds each journal up to `applied[writer]`, and point at it.

    `notes` (JSON values) go into the pointer: what the caller wants to know of it later. The
    `keep` newest states stay. Returns the folder `states/<newest known_time>`.
    """
    layout.states.mkdir(parents=True, exist_ok=True)
    name = f"{state.as_of_us:020d}"
    taken = {p.name for p in layout.states.iterdir()}
    again = sum(1 for n in taken if n.partition("-")[0] == name)
    folder = layout.states / (f"{name}-{again}" if again else name)
    while folder.exists():
        again += 1
        folder = layout.states / f"{name}-{again}"
    beside = layout.states / f".{folder.name}.{os.getpid()}.tmp"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        state.save(beside)
        for path in beside.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    sync_dir(layout.states)
    record = {
        **dict(notes or {}),
        "folder": folder.name,
        "applied": dict(applied),
        "as_of_us": state.as_of_us,
    }
    write_atomic(layout.states / "current.json", json.dumps(record).encode())
    _prune(layout, keep=max(1, keep), current=folder)
    return folder


def _prune(layout: Home, *, keep: int, current: Path) -> None:
    folders = [p for p in layout.states.iterdir() if p.is_dir()]
    whole = sorted((p for p in folders if p.name[0] != "."), key=_age)
    for folder in [p for p in whole[:-keep] if p != current]:
        shutil.rmtree(folder, ignore_errors=True)
    clear_unfinished(layout.states)


def _age(folder: Path) -> tuple[int, str, int]:
    """What orders states by age; two of one tick of the file system's clock by their names."""
    name, _, again = folder.name.partition("-")
    return folder.stat().st_mtime_ns, name, int(again or 0)


def current_record(layout: Home) -> dict[str, Any] | None:
    """What the pointer says: folder, applied, as_of_us and the publisher's notes; None before the first."""
    path = layout.states / "current.json"
    try:
        record: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DataError(f"{path} is no JSON document ({error}); `shelflife ingest` writes it anew") from None
    return record


def current_state(layout: Home) -> State:
    """The newest published state. Raises DataError where there is none."""
    return current_state_and_record(layout)[0]


def current_state_and_record(layout: Home) -> tuple[State, dict[str, Any]]:
    """The newest published state, and what the pointer to it says. Raises DataError where there is none."""
    found = _load(layout)
    if found is None:
        raise DataError(f"no state is published in {layout.root} yet; run `shelflife ingest`")
    return found


def _load(layout: Home) -> tuple[State, dict[str, Any]] | None:
    """The newest state and its record; a state that is pruned while it is read is tried anew."""
    record = current_record(layout)
    while record is not None:
        try:
            return State.load(layout.states / record["folder"]), record
        except (OSError, DataError) as error:
            newer = current_record(layout)
            if newer == record:
                raise DataError(
                    f"state {layout.states / record['folder']} cannot be read ({error}); "
                    "remove states/current.json and run `shelflife ingest`"
                ) from error
            record = newer
    return None


class StateReplica:
    """The state kept current from the journals.

    `own_writer`: this process's journal. What it left before is read from its files; once `ready`,
    its new events are the caller's to apply (the writer's `on_commit`), and are not read again.
    Hold `lock` while reading the state beside `start_following`; it is held for at most 500 rows.
    """

    def __init__(self, layout: Home, *, own_writer: str | None = None) -> None:
        self.layout, self.own_writer = layout, own_writer
        self.lock = threading.RLock()
        self.ready = False
        self.last_error = ""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.state, self.applied, self._tail = self._open()

    def _open(self) -> tuple[State, dict[str, int], JournalTail]:
        found = _load(self.layout)
        state, applied = (State(), {}) if found is None else (found[0], dict(found[1]["applied"]))
        return state, applied, JournalTail(self.layout.journal, after=dict(applied))

    def read(self, *, max_rows: int = _POLL_ROWS) -> list[tuple[str, int, pa.Table]]:
        """New events that the caller applies itself, noting them in `applied`: (writer, last seq, events)."""
        found = self._tail.poll(max_rows=max_rows)
        if not found and not self.ready:
            if self.own_writer is not None:
                self._tail.skip |= {self.own_writer}
            self.ready = True
        return found

    def poll(self) -> int:
        """Apply new events; how many. `ready` once there was nothing more to catch up with.

        Raises JournalGap where events that are missing here were pruned: `reload`.
        """
        rows = 0
        chunk = _CHUNK_ROWS if self.ready else _CATCH_UP_ROWS
        for writer, last_seq, events in self.read():
            for start in range(0, events.num_rows, chunk):
                with self.lock:
                    self.state.apply(events.slice(start, chunk))
            with self.lock:
                self.applied[writer] = last_seq
            rows += events.num_rows
        return rows

    def apply_own(self, events: pa.Table, last_seq: int) -> None:
        """Apply what this process's writer just committed: give it to `append` as `on_commit`."""
        for start in range(0, events.num_rows, _CHUNK_ROWS):
            with self.lock:
                self.state.apply(events.slice(start, _CHUNK_ROWS))
        if self.own_writer is not None:
            with self.lock:
                self.applied[self.own_writer] = last_seq

    def reload(self) -> None:
        """Start again from the newest published state: it holds events that went through no journal.

        `state` becomes another object, caught up; the old one stays as it is. Not to be called
        while this process's writer commits.
        """
        state, applied, tail = self._open()
        while found := tail.poll(max_rows=_POLL_ROWS):
            for writer, last_seq, events in found:
                state.apply(events)
                applied[writer] = last_seq
        if self.own_writer is not None:
            tail.skip |= {self.own_writer}
        with self.lock:
            self._tail.close()
            self.state, self.applied, self._tail, self.ready = state, applied, tail, True

    def start_following(self, interval_s: float = 0.05) -> None:
        """Poll from a background thread; a gap is closed by reloading, other trouble is in `last_error`."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._follow, args=(interval_s,), name="replica", daemon=True)
        self._thread.start()

    def _follow(self, interval_s: float) -> None:
        while not self._stop.is_set():
            rows = 0
            try:
                rows = self.poll()
                self.last_error = ""
            except JournalGap:
                self._try_reload()
            except (ShelflifeError, OSError) as error:
                self._note(error)
            if not rows:
                self._stop.wait(interval_s)

    def _try_reload(self) -> None:
        try:
            self.reload()
        except (ShelflifeError, OSError) as error:
            self._note(error)

    def _note(self, error: Exception) -> None:
        if str(error) != self.last_error:
            _LOG.warning("the state does not follow the journals: %s", error)
        self.last_error = str(error)

    def stop(self) -> None:
        """Stop following and close the journals' files."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._tail.close()
