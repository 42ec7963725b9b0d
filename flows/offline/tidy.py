"""What a home keeps of its past: the newest releases, those one may go back to, and no leavings of a crash.

Registry and records go on naming what was removed. Events are `flows/offline/retention.py`'s.
"""

from __future__ import annotations

import logging
import shutil
import time
from typing import Any

from flows.offline.crown import barred, promoting
from infra.errors import ShelflifeError
from infra.files import clear_unfinished
from infra.settings import Settings
from models.release import champion_record, list_releases, prune

__all__ = ["tidy"]

_LEFT_S = 86_400.0  # a scratch folder of another command is left over when it is as old as this

log = logging.getLogger("shelflife.tidy")


def tidy(settings: Settings) -> dict[str, Any]:
    """Remove releases that nobody goes back to, files that none refers to, and what crashes left beside them.

    Kept: the champion, the one before it, those that were rolled back, and the newest `kept_releases`,
    refused ones too. Call it with the home's refresh lock held: nobody else then makes artifacts. Returns
    what was removed: {"releases", "blobs", "bytes", "leavings"}, with "failed" where it did not come to an
    end: a refresh is none the worse for it.
    """
    layout = settings.layout
    done: dict[str, Any] = {"releases": 0, "blobs": 0, "bytes": 0, "leavings": 0}
    try:
        with promoting(settings, "refresh"):
            there = [m.release_id for m in list_releases(layout)]
            record = champion_record(layout) or {}
            wanted = {*there[-settings.kept_releases :], str(record.get("previous")), *barred(layout)} & set(
                there
            )
            done["leavings"] = _leavings(settings)
            done |= prune(layout, wanted, grace_s=0.0)
    except (OSError, ShelflifeError) as error:
        log.warning("not all that is old could be removed: %s", error)
        done["failed"] = str(error)
    return done


def _leavings(settings: Settings) -> int:
    """Remove what killed commands left half made; how many."""
    layout = settings.layout
    found = list(layout.releases.glob(".r-*.tmp")) + list(layout.making.glob("*"))
    before = time.time() - _LEFT_S
    found += [p for p in layout.run.glob("tmp*") if p.is_dir() and p.stat().st_mtime < before]
    for path in found:
        shutil.rmtree(path, ignore_errors=True)
    written = (layout.releases, layout.blobs, layout.checkpoints, layout.snapshots, layout.segments)
    return len(found) + sum(clear_unfinished(folder) for folder in written)
