"""Write a world: its history day by day into segments, its truth, its public description.

Everything is made in a folder beside and moved into place; `world.json` comes last and says that
the world is whole, so that a killed generation is simply made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.schema import CLICK, EVENT_SCHEMA, IMPRESSION, KINDS, SEARCH, canonical, event_table
from data.segments import write_segments
from data.world.config import START_US, WorldConfig
from data.world.logging_policy import Shown
from data.world.reactions import Reaction
from data.world.sessions import RECOMMENDED, DayPlan
from data.world.shop import World, build_world, public_path
from data.world.truth import save_truth
from infra.clock import DAY_US
from infra.errors import DataError
from infra.files import write_atomic
from infra.settings import Home

__all__ = ["WorldSummary", "generate", "history_days", "read_summary"]

_IMPRESSION_DELAY_US = 1_000  # impressions are known a little after the search


@dataclass(frozen=True)
class WorldSummary:
    """What was generated. `content_hash` covers all events and the truth."""

    config: dict[str, Any]
    rows: dict[str, int]  # events by kind
    events: int
    requests: int
    sessions: int
    items: int
    users: int
    start_us: int
    end_us: int
    click_through: float  # clicks an impression
    clicks_per_request: float
    content_hash: str
    labels_hash: str
    seconds: float
    events_per_s: float


def history_days(world: World, *, days: int | None = None) -> Iterator[tuple[DayPlan, Shown, pa.Table]]:
    """Each day's plan, what the logging policy showed, and all events in canonical order."""
    policy = world.logging_policy()
    for day in range(world.config.days if days is None else days):
        plan = world.day(day)
        shown = policy.pages(plan)
        reaction = world.react_batch(plan, shown.request, shown.row + 1, shown.position)
        events = _events(plan, shown, reaction)
        kinds, at, times = reaction.rows()
        order = np.lexsort((at, times))
        order = order[kinds[order] == CLICK]
        policy.learn(shown.row[at[order]], plan.user_id[shown.request[at[order]]] - 1)
        yield plan, shown, canonical(pa.concat_tables([world.catalogue_events(day), events]))


def generate(
    config: WorldConfig,
    layout: Home,
    *,
    labels: NDArray[np.uint8] | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> WorldSummary:
    """Write the segments, the truth and the description of a world into a home.

    `labels`: uint8 [70000], the department of each photo (None: synthetic ones). `progress(done, days)`
    is called after each day. A world of the same config is left as it is. Raises DataError where the
    home holds another world and `force` is not given.
    """
    began = time.perf_counter()
    world = build_world(config, labels)
    labels_hash = hashlib.sha256(world.photos.labels.tobytes()).hexdigest()
    old = read_summary(layout)
    if old is not None and not force:
        if old.config == config.to_json() and old.labels_hash == labels_hash:
            return old
        differing = [k for k, v in config.to_json().items() if old.config.get(k) != v] or ["photo labels"]
        raise DataError(
            f"{layout.world} holds another world (it differs in {', '.join(differing)}); "
            "expected none: use another --home, or replace it with --force"
        )
    beside = layout.root / f".world.{os.getpid()}.tmp"
    _clear(layout)
    try:
        counts = np.zeros(len(KINDS), np.int64)
        digest = hashlib.sha256(world.truth.content_hash().encode())
        requests = sessions = 0
        for plan, _, events in history_days(world):
            _digest(digest, events)
            counts += np.bincount(events["kind"].to_numpy(), minlength=len(KINDS))
            requests += len(plan)
            sessions += len(np.unique(plan.session_id))
            write_segments(events, beside, name=f"world-{plan.day:04d}", durable=False)
            if progress is not None:
                progress(plan.day + 1, config.days)
        rows = dict(zip(KINDS, counts.tolist(), strict=True))
        seconds = time.perf_counter() - began
        summary = WorldSummary(
            config=config.to_json(),
            rows=rows,
            events=int(counts.sum()),
            requests=requests,
            sessions=sessions,
            items=int(world.items.counts[config.days]),
            users=len(world.users),
            start_us=START_US,
            end_us=START_US + config.days * DAY_US,
            click_through=rows["click"] / max(1, rows["impression"]),
            clicks_per_request=rows["click"] / max(1, requests),
            content_hash=digest.hexdigest(),
            labels_hash=labels_hash,
            seconds=round(seconds, 3),
            events_per_s=round(int(counts.sum()) / seconds, 1),
        )
        save_truth(world.truth, layout.truth)
        write_atomic(layout.truth / "labels.bin", world.photos.labels.tobytes())
        _move(beside, layout.segments)
        write_atomic(public_path(layout), json.dumps(asdict(summary), indent=1).encode())
        return summary
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def read_summary(layout: Home) -> WorldSummary | None:
    """The public description of the world in a home; None where there is none that is whole."""
    try:
        return WorldSummary(**json.loads(public_path(layout).read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{public_path(layout)} is no description of a world ({error}); expected what "
            "`shelflife world generate` wrote: generate the world again after removing it"
        ) from error


def _clear(layout: Home) -> None:
    """Remove what an earlier or a killed generation left."""
    public_path(layout).unlink(missing_ok=True)
    for left in layout.root.glob(".world.*.tmp"):
        if not _runs(int(left.name.split(".")[2])):
            shutil.rmtree(left, ignore_errors=True)
    for segment in layout.segments.glob("*/*/world-*.parquet"):
        segment.unlink()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _move(beside: Path, segments: Path) -> None:
    for path in sorted(beside.glob("*/*/*.parquet")):
        to = segments / path.relative_to(beside)
        to.parent.mkdir(parents=True, exist_ok=True)
        path.replace(to)


def _digest(digest: Any, events: pa.Table) -> None:
    """Feed the columns of a table: numbers as bytes, strings as dictionary and indices."""
    for field in EVENT_SCHEMA:
        column = events[field.name].combine_chunks()
        if pa.types.is_string(field.type):
            coded = column.dictionary_encode()
            digest.update("\x00".join(coded.dictionary.to_pylist()).encode())
            column = coded.indices
        digest.update(column.to_numpy(zero_copy_only=False).tobytes())


def _events(plan: DayPlan, shown: Shown, reaction: Reaction) -> pa.Table:
    """Searches, impressions and reactions of a day; ids follow the order of time."""
    searches = np.flatnonzero(plan.surface != RECOMMENDED)
    kinds, at, times = reaction.rows()
    none = np.full(len(searches), -1, np.int64)
    request = np.concatenate([searches, shown.request, shown.request[at]])
    kind = np.concatenate([np.full(len(searches), SEARCH), np.full(len(shown.row), IMPRESSION), kinds])
    due = plan.time_us[request]
    tail = np.r_[due[: len(searches) + len(shown.row)], times]
    known = tail + np.where(kind == IMPRESSION, _IMPRESSION_DELAY_US, 0)
    item = np.concatenate([none, shown.row + 1, shown.row[at] + 1])
    position = np.concatenate([none, shown.position, shown.position[at]])
    missing = np.full(len(searches), np.nan, np.float32)
    propensity = np.concatenate([missing, shown.propensity, np.full(len(at), np.nan, np.float32)])
    order = np.lexsort((position, request, kind, known))
    request, kind = request[order], kind[order]
    described = kind <= IMPRESSION
    query = pa.array(plan.query, pa.string()).dictionary_encode()
    words = np.where(described, query.indices.to_numpy()[request], len(query.dictionary))
    texts = pa.concat_arrays([query.dictionary, pa.array([""], pa.string())])
    return event_table(
        {
            "event_id": ((plan.day + 1) << 32) + (1 << 31) + np.arange(len(order), dtype=np.int64),
            "kind": kind.astype(np.int8),
            "event_time": tail[order],
            "known_time": known[order],
            "user_id": plan.user_id[request],
            "session_id": plan.session_id[request],
            "request_id": plan.request_id[request],
            "surface": plan.surface[request],
            "query": texts.take(pa.array(words)),
            "photo": np.where(described, plan.photo[request], -1).astype(np.int32),
            "page": plan.page[request],
            "item_id": item[order],
            "position": position[order].astype(np.int16),
            "propensity": propensity[order],
            "state_time": np.where(kind == IMPRESSION, due[order], 0),
        }
    )
