"""How long a home keeps its events: as long as it was told to, and as long as anybody still reads them.

The setting `retention_d` (0: for ever) is raised to what the gate, the windows of recent trainings and the
snapshots of the releases that can be rolled back to need. It knows what reads events, not how they lie.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from data.retention import Expired, expire
from data.snapshots import Published, published
from infra.clock import DAY_US, open_clock
from infra.errors import DataError
from infra.settings import Home, Settings
from models.release import champion_record, list_releases, read_manifest

__all__ = ["KEPT_RELEASES", "needed_since_us", "retain", "windows_since_us"]

KEPT_RELEASES = 3  # newest releases, besides the champion, whose trainings stay repeatable
_STEP_US = DAY_US  # the floor goes up by whole days: each time, parts are written anew
_LEAST_US = 2 * DAY_US  # what the gate's slice, late events and the day in progress need


def retain(settings: Settings) -> Expired | None:
    """Remove what nobody needs any more; None where all is kept, or there is not a day to remove."""
    if settings.retention_d <= 0:
        return None
    layout = settings.layout
    held = published(layout)
    wanted = held.watermark_us - max(settings.retention_d * DAY_US, _LEAST_US)
    floor_us = min(wanted, needed_since_us(layout, held)) // _STEP_US * _STEP_US
    first_us = min((first for first, _ in held.spans), default=floor_us)
    if floor_us <= held.floor_us or floor_us <= first_us:
        return None
    return expire(layout, before_us=floor_us, clock=open_clock(layout.clock))


def needed_since_us(layout: Home, held: Published) -> int:
    """The known_time from which the next trainings and repeated ones read, us: where the oldest begins."""
    return windows_since_us(_snapshots(layout), held.watermark_us)


def windows_since_us(snapshots: Iterable[Mapping[str, Any]], watermark_us: int) -> int:
    """Where the oldest of the windows of these snapshots begins, us; the watermark where there is none.

    Each is also needed as long as it was asked for, up to the watermark: the next training has it, even
    where retention had cut the last one short. A cumulative one begins at what was kept when it was read.
    """
    since = [watermark_us]
    for snapshot in snapshots:
        asked, floor_us = int(snapshot.get("since_us", 0)), int(snapshot.get("floor_us", 0))
        begin = max(asked, floor_us)
        length_us = int(snapshot.get("watermark_us", begin)) - (asked if asked > 0 else begin)
        since += [begin, watermark_us - length_us]
    return min(since)


def _snapshots(layout: Home) -> list[dict[str, Any]]:
    """Of the artifacts of the champion, the release before it, and the newest ones."""
    kept = list_releases(layout)[-KEPT_RELEASES:]
    record = champion_record(layout) or {}
    there = {m.release_id for m in kept}
    for name in {record.get("release_id"), record.get("previous")} - there - {None}:
        with contextlib.suppress(DataError):  # removed or damaged: nobody can go back to it
            kept.append(read_manifest(layout, str(name)))
    return [a.snapshot for m in kept for a in m.artifacts.values() if a.snapshot]
