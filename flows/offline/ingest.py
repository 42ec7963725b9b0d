"""Take new events in, each once, and publish them with the state that they fold into."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from typing import Any

import numpy as np

from data.parts import STARTS
from data.replica import current_record, current_state, publish_state
from data.retention import opening_state
from data.segments import prune_journals, roll_journals
from data.snapshots import Published, published, read_events
from data.state import State
from data.store import Progress, ingest_segments
from flows.offline.retention import retain
from infra.clock import HOUR_US, open_clock
from infra.errors import DataError
from infra.files import write_atomic
from infra.processes import exclusive
from infra.settings import Home, Settings

__all__ = ["ALLOWED_LATENESS_US", "fold_published", "ingest"]

ALLOWED_LATENESS_US = 6 * HOUR_US
_BASE = "base.json"


def ingest(settings: Settings, *, replay: bool = False, progress: Progress | None = None) -> dict[str, Any]:
    """Roll journals into segments, commit what is new, fold the state, publish both.

    Returns counts: rows, duplicates, late, quarantined, events_per_s, lag_s, watermark_us, content_hash,
    items, users, retention. Nothing new gives 0 rows. `replay`: what is in quarantine is judged again.
    Journals are pruned only once the state holds them, events as `flows.offline.retention` says. One
    ingest of a home at a time, from the journals to retention: an older state never follows a newer one.
    """
    with exclusive(settings.layout.run / "ingest", "ingest"):
        return _ingest(settings, replay=replay, progress=progress)


def _ingest(settings: Settings, *, replay: bool, progress: Progress | None) -> dict[str, Any]:
    layout = settings.layout
    roll_journals(layout.journal, layout.segments)
    clock = open_clock(layout.clock)
    done = ingest_segments(
        layout, allowed_lateness_us=ALLOWED_LATENESS_US, clock=clock, replay=replay, progress=progress
    )
    state = fold_published(layout)
    prune_journals(layout.journal, done.applied)
    retained = retain(settings)
    return {
        **asdict(done),
        "items": state.n_items,
        "users": state.n_users,
        "retention": None if retained is None else asdict(retained),
    }


def fold_published(layout: Home) -> State:
    """The state of everything published, and publish it; folds anew only what order demands.

    Writers' events interleave, so what comes next may be older than the newest event folded so far.
    A base lags behind by the allowed lateness: it holds just the events known up to its time, and
    folding goes on from there. Commits that reach back even further make it fold from the first event
    that is kept, so that the state does not depend on when what arrived.
    """
    held = published(layout)
    record = current_record(layout)
    if record is not None and record.get("content_hash") == held.content_hash:
        return current_state(layout)
    state, since_us = _base(layout, held)
    events = read_events(held, since_us=since_us)
    cut_us = held.watermark_us - ALLOWED_LATENESS_US
    upto = int(np.searchsorted(events["known_time"].to_numpy(), cut_us, side="right"))
    state.apply(events.slice(0, upto))
    _keep_base(layout, state, cut_us, commit=held.commit)
    state.apply(events.slice(upto))
    notes = {"commit": held.commit, "content_hash": held.content_hash}
    publish_state(layout, state, held.applied, notes=notes)
    return state


def _base(layout: Home, held: Published) -> tuple[State, int]:
    """The state of just the events known before a time, and that time; that of the floor if none fits."""
    try:
        about = json.loads((layout.snapshots / _BASE).read_bytes())
        since = range(about["commit"] + 1, held.commit + 1)
        if about["cut_us"] >= held.floor_us and _known(held, since) > about["cut_us"]:
            return State.load(layout.snapshots / about["folder"]), about["cut_us"] + 1
    except (FileNotFoundError, ValueError, KeyError, DataError):  # none yet, or damaged: a whole one follows
        pass
    return opening_state(held), held.floor_us


def _known(held: Published, commits: range) -> int:
    """The first known_time of what these commits brought, us; 0 where they are too old to be told."""
    oldest = min(held.starts, default=held.commit + 1)
    if commits and len(held.starts) >= STARTS and commits[0] < oldest:
        return 0
    return min((us for number, us in held.starts.items() if number in commits), default=2**62)


def _keep_base(layout: Home, state: State, cut_us: int, *, commit: int) -> None:
    """Save the base for the next ingest: the folder first, then the record that names it."""
    folder = layout.snapshots / f"base-{cut_us:020d}-{commit}"
    state.save(folder)
    about = {"folder": folder.name, "cut_us": cut_us, "commit": commit}
    write_atomic(layout.snapshots / _BASE, json.dumps(about).encode())
    for old in layout.snapshots.glob("base-*"):
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)
