"""Take new events in, each once, and publish them with the state that they fold into."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from data.replica import current_record, current_state, publish_state
from data.segments import prune_journals, roll_journals
from data.snapshots import Published, published, read_events
from data.state import State
from data.store import Progress, ingest_segments
from infra.clock import HOUR_US, open_clock
from infra.errors import DataError
from infra.settings import Home, Settings

__all__ = ["ALLOWED_LATENESS_US", "fold_published", "ingest"]

ALLOWED_LATENESS_US = 6 * HOUR_US


def ingest(settings: Settings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Roll journals into segments, commit what is new, fold the state, publish both.

    Returns counts: rows, duplicates, late, quarantined, events_per_s, watermark_us, content_hash,
    items, users. Nothing new gives 0 rows. Journals are pruned only once the state holds them.
    """
    layout = settings.layout
    roll_journals(layout.journal, layout.segments)
    clock = open_clock(layout.clock)
    done = ingest_segments(layout, allowed_lateness_us=ALLOWED_LATENESS_US, clock=clock, progress=progress)
    state = fold_published(layout)
    prune_journals(layout.journal, done.applied)
    return {**asdict(done), "items": state.n_items, "users": state.n_users}


def fold_published(layout: Home) -> State:
    """The state of everything published, and publish it; folds only what is new where order allows.

    Parts that hold events older than what is folded already (late segments) make it fold anew
    from the first event, so that the state does not depend on when what arrived.
    """
    held = published(layout)
    record = current_record(layout)
    if record is not None and record.get("content_hash") == held.content_hash:
        return current_state(layout)
    state, new = _continued(layout, held, record)
    if state is None:
        state, new = State(), held
    state.apply(read_events(new))
    publish_state(
        layout,
        state,
        held.applied,
        notes={"commit": held.commit, "content_hash": held.content_hash, "parts": len(held.parts)},
    )
    return state


def _continued(
    layout: Home, held: Published, record: dict[str, Any] | None
) -> tuple[State | None, Published]:
    """The published state and the parts that come after it, or None where it has to be folded anew."""
    if record is None or not 0 < record.get("parts", 0) <= len(held.parts):
        return None, held
    folded = record["parts"]
    spans = held.spans[folded:]
    if any(first <= record["as_of_us"] for first, _ in spans):
        return None, held
    try:
        state = current_state(layout)
    except DataError:  # damaged: folding anew makes a whole one
        return None, held
    return state, replace(held, parts=held.parts[folded:], spans=spans)
