"""The store: every event once, in one DuckDB file that only ingest opens.

Set-based (no primary key: it costs five times); each commit is one transaction, then one
immutable Parquet part, then the status document (`data/parts.py`): a crash between any two is made
good by the next run. `data/snapshots.py` reads what is published. It knows nothing of models.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import duckdb
import numpy as np

from data import store_sql as sql
from data.content import content_sum
from data.frames import lock_folder
from data.parts import add_part, compact, publish, rewrite, stored_parts
from data.payloads import object_of
from data.segment_check import Found, check_segments, first_unreadable, found_table
from data.segments import list_segments
from data.snapshots import read_status
from infra.clock import SECOND_US, Clock
from infra.errors import DataError, EnvironmentError_
from infra.settings import Home

__all__ = ["IngestReport", "Progress", "ingest_segments", "open_store"]

Progress = Callable[[str, int, int], None]  # (what, done, of)

BATCH_ROWS = 2_000_000  # rows of segments a transaction
_JUDGED = 10_000  # payloads that are looked at at once


@dataclass(frozen=True)
class IngestReport:
    """What one ingest did. Times in us of shop time; `rows` are those newly held.

    `events_per_s`: rows read, duplicates included, from the first read to the last commit. `lag_s`: how
    far the newest event held is behind the shop clock. `expired`: rows from before what retention keeps.
    """

    rows: int = 0
    duplicates: int = 0
    late: int = 0
    expired: int = 0
    quarantined: int = 0
    reasons: dict[str, int] = field(default_factory=dict)  # of the newly quarantined
    released: int = 0  # rows that left quarantine
    out_of_order: int = 0
    segments: int = 0
    corrupt: tuple[str, ...] = ()  # segment files that were left, and why
    events_per_s: float = 0.0
    lag_s: float = 0.0
    compacted: int = 0  # parts fewer than before
    watermark_us: int = 0
    commit: int = 0
    content_hash: str = ""
    applied: dict[str, int] = field(default_factory=dict)
    total_rows: int = 0
    seconds: float = 0.0


def ingest_segments(
    layout: Home,
    *,
    allowed_lateness_us: int,
    clock: Clock,
    replay: bool = False,
    progress: Progress | None = None,
) -> IngestReport:
    """Bring every new segment into the store once, and publish.

    An event counts as late where it happened more than `allowed_lateness_us` before the shop had
    already heard of later ones; late events are kept. A time further than that in the future, an
    unknown kind or item, a missing item or user, a value of a wrong type: the row goes into quarantine
    with the reason (an unknown item's rows come out once the item is known); with `replay` all of it is
    judged again. Of two rows of one event the one that was known first counts, whichever came first. A
    corrupt segment file is reported and left. Raises EnvironmentError_ where another ingest runs or the
    disk is full, DataError where a newer Shelflife made the store.
    """
    with open_store(layout) as store:
        return _ingest(layout, store, allowed_lateness_us, clock, replay, progress or _silent)


@contextlib.contextmanager
def open_store(layout: Home) -> Iterator[Any]:
    """The store, opened by this process alone. Raises what `ingest_segments` does."""
    folder = layout.store.parent
    folder.mkdir(parents=True, exist_ok=True)
    lock = lock_folder(folder)
    if lock is None:
        raise EnvironmentError_(
            f"another ingest of {layout.root} is running; wait for it to end, then try again"
        )
    try:
        with duckdb.connect(str(layout.store)) as store:
            _check_schema(layout, store)
            store.execute(sql.SETTINGS)
            store.execute(sql.TABLES)
            yield store
    except OSError as error:
        raise EnvironmentError_(
            f"ingest cannot write to {layout.root}: {error}; free space and try again"
        ) from error
    except duckdb.IOException as error:
        raise EnvironmentError_(f"the store {layout.store} cannot be used: {_line(error)}") from error
    except duckdb.OutOfMemoryException as error:
        raise EnvironmentError_(f"ingest ran out of memory: {_line(error)}; give it more") from error
    finally:
        os.close(lock)


def _silent(_what: str, _done: int, _of: int) -> None:
    return None


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _check_schema(layout: Home, store: Any) -> None:
    """Refuse what a newer Shelflife wrote, before anything is changed."""
    if "store_schema" in {row[0] for row in store.execute("SHOW TABLES").fetchall()}:
        held = store.execute(sql.SCHEMA_HELD).fetchall()[0][0] or 0
        if held > sql.SCHEMA:
            raise DataError(
                f"{layout.root} is of a newer Shelflife (store schema {held}, this one knows {sql.SCHEMA}); "
                "update Shelflife or choose another --home"
            )


def _ingest(
    layout: Home, store: Any, lateness_us: int, clock: Clock, replay: bool, progress: Progress
) -> IngestReport:
    started = perf_counter()
    known = set(store.execute(sql.KNOWN_FILES).fetchall())
    hashes = {row[0] for row in store.execute(sql.KNOWN_HASHES).fetchall()}
    check = check_segments(layout.segments, list_segments(layout.segments), known=known, hashes=hashes)
    corrupt = list(check.corrupt)
    total, done, counts = sum(f.rows for f in check.new), 0, _Counts()
    before, before_us = store.execute(sql.LAST_COMMIT).fetchall()[0][:2]
    for batch in _batches(check.new):
        progress("ingest", done, total)
        done += sum(f.rows for f in batch)
        counts = counts.plus(_commit_readable(store, batch, lateness_us, clock.now_us(), corrupt))
    if replay:
        counts = counts.plus(_commit(store, [], lateness_us, clock.now_us(), replay=True))
    committed_s = perf_counter() - started
    if check.same:
        _note_segments(store, check.same, 0)
    compacted = compact(store)
    now_us = clock.now_us()
    publish(layout, store, now_us=now_us)
    progress("ingest", total, total)
    status = read_status(layout)
    return IngestReport(
        rows=counts.rows,
        duplicates=counts.duplicates,
        late=counts.late,
        expired=counts.expired,
        quarantined=sum(counts.reasons.values()),
        reasons=dict(counts.reasons),
        released=counts.released,
        out_of_order=_out_of_order(store, before, before_us),
        segments=counts.segments,
        corrupt=tuple(corrupt),
        events_per_s=done / committed_s if done else 0.0,
        lag_s=max(0, now_us - status["watermark_us"]) / SECOND_US if status["rows"] else 0.0,
        compacted=compacted,
        watermark_us=status["watermark_us"],
        commit=status["commit"],
        content_hash=status["content_hash"],
        applied=status["applied"],
        total_rows=status["rows"],
        seconds=perf_counter() - started,
    )


def _batches(found: Sequence[Found]) -> list[list[Found]]:
    batches: list[list[Found]] = []
    rows = BATCH_ROWS
    for one in found:
        if rows + one.rows > BATCH_ROWS and rows:
            batches.append([])
            rows = 0
        batches[-1].append(one)
        rows += one.rows
    return batches


@dataclass(frozen=True)
class _Counts:
    rows: int = 0
    duplicates: int = 0
    late: int = 0
    expired: int = 0
    released: int = 0
    segments: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def plus(self, other: _Counts) -> _Counts:
        return _Counts(
            self.rows + other.rows,
            self.duplicates + other.duplicates,
            self.late + other.late,
            self.expired + other.expired,
            self.released + other.released,
            self.segments + other.segments,
            self.reasons + other.reasons,
        )


def _commit_readable(
    store: Any, batch: list[Found], lateness_us: int, now_us: int, corrupt: list[str]
) -> _Counts:
    """Commit a batch, without the files in it that turn out to be damaged inside."""
    while batch:
        try:
            return _commit(store, batch, lateness_us, now_us)
        except duckdb.Error as error:
            with contextlib.suppress(duckdb.TransactionException):  # a full disk has ended it already
                store.execute("ROLLBACK")
            bad = first_unreadable(batch)
            if bad is None:
                raise
            corrupt.append(f"{bad.path}: {_line(error)}")
            batch = [f for f in batch if f is not bad]
    return _Counts()


def _commit(
    store: Any, batch: list[Found], lateness_us: int, now_us: int, *, replay: bool = False
) -> _Counts:
    """One transaction: stage, set aside, insert what is not held, note. All of it or nothing.

    `replay`: what is in quarantine is staged, too.
    """
    store.execute("BEGIN")
    last, watermark_us, held, hash_sum = store.execute(sql.LAST_COMMIT).fetchall()[0]
    commit, times = {"commit": last + 1}, {"now": now_us, "lateness": lateness_us}
    store.execute(sql.STAGE_TABLE)
    for columns, files in _by_columns(batch).items():
        store.execute(sql.stage(columns), {"files": files, **times})
    floor, left = {"floor": _one(store, sql.FLOOR)}, 0
    if replay:
        left = store.execute(sql.REPLAYED_GO).fetchall()[0][0]
        store.execute(sql.REPLAY, times)
        store.execute(sql.CLEAR_QUARANTINE)
    _judge_payloads(store)
    expired = store.execute(sql.EXPIRED_GO, floor).fetchall()[0][0]
    store.execute(sql.ADD_ITEMS, commit)
    if store.execute(sql.RELEASE).fetchall()[0][0]:
        store.execute(sql.RELEASED_GO)
        expired += store.execute(sql.EXPIRED_GO, floor).fetchall()[0][0]
    store.execute(sql.UNKNOWN_ITEMS)
    aside = store.execute(sql.SET_ASIDE, {"commit": last + (not replay)}).fetchall()[0][0]
    reasons = Counter({} if replay else dict(store.execute(sql.SET_ASIDE_COUNTS, commit).fetchall()))
    if aside or _one(store, sql.COUNT_BAD):
        store.execute(sql.BAD_GO)
    good, released = store.execute(sql.COUNT_STAGED).fetchall()[0]
    better = _keep_best(store, commit)
    new = store.sql(sql.STAGED).to_arrow_table()
    store.execute(sql.NEW_ROWS, commit)
    total = int(hash_sum) + content_sum(new)
    if better:
        total -= content_sum(store.sql(sql.SUPERSEDED, params=commit).to_arrow_table())
    happened, known = new["event_time"].to_numpy(), new["known_time"].to_numpy()
    rows, first_us, last_us = len(known), int(known.min(initial=2**62)), int(known.max(initial=0))
    late = int(np.count_nonzero(happened < np.maximum(known, watermark_us) - lateness_us))
    _note_segments(store, batch, last + 1)
    watermark_us, held = max(watermark_us, last_us), held + rows - better
    if batch or rows or better:
        total %= 2**64
        noted = [last + 1, held, rows, first_us, last_us, watermark_us, str(total)]
        store.execute(sql.ADD_COMMIT, noted)
    if rows:
        add_part(store, last + 1, rows, first_us, last_us)
    store.execute(sql.DROP_STAGED)
    store.execute("COMMIT")
    new_ids = rows - better
    return _Counts(new_ids, good - new_ids, late, expired, released + left, len(batch), reasons)


def _judge_payloads(store: Any) -> None:
    """Give staged upserts whose payload the state could not read their reason to be set aside."""
    found = store.execute(sql.UPSERTS)
    bad: list[int] = []
    while some := found.fetchmany(_JUDGED):
        bad += [spot for spot, text in some if object_of(text) is None]
    if bad:
        store.execute(sql.NO_OBJECT, {"rows": bad})


def _one(store: Any, query: str) -> int:
    return int(store.execute(query).fetchall()[0][0])


def _keep_best(store: Any, commit: dict[str, int]) -> int:
    """Leave one staged row an event, and only where it is better than the one held; how many replace one."""
    store.execute(sql.TWICE)
    if _one(store, sql.COUNT_TWICE):
        store.execute(sql.REPEATED_GO)
    store.execute(sql.AGAIN)
    if not _one(store, sql.COUNT_AGAIN):
        return 0
    store.execute(sql.BETTER)
    store.execute(sql.AGAIN_GO)
    better = _one(store, sql.COUNT_BETTER)
    if better:
        store.execute(sql.SUPERSEDE, commit)
        touched = {row[0] for row in store.execute(sql.TOUCHED_COMMITS, commit).fetchall()}
        for part in stored_parts(store):
            if any(part.first_commit <= number <= part.last_commit for number in touched):
                rewrite(store, part.first_commit, part.last_commit)
    return better


def _note_segments(store: Any, found: Sequence[Found], commit: int) -> None:
    store.register("found", found_table(found, commit=commit))
    store.execute(sql.ADD_SEGMENTS)
    store.unregister("found")


def _out_of_order(store: Any, before: int, before_us: int) -> int:
    """New events that came behind: known before what was held, or happened before an earlier one.

    `before`, `before_us`: the last commit and the newest known_time before this ingest.
    """
    behind = 0
    for number in range(before + 1, _one(store, sql.LAST_COMMIT) + 1):
        table = store.sql(sql.TIMES, params={"commit": number}).to_arrow_table()
        happened, known = table["event_time"].to_numpy(), table["known_time"].to_numpy()
        jumped = happened < np.maximum.accumulate(happened)
        behind += int(np.count_nonzero(jumped | (known < before_us)))
    return behind


def _by_columns(batch: list[Found]) -> dict[tuple[tuple[str, str], ...], list[str]]:
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for found in batch:
        groups.setdefault(found.columns, []).append(str(found.path))
    return groups
