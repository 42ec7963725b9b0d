"""Where each policy of a live study begins: one home with the world's history and a release, copied.

The whole world is generated, and what comes after the history is left out of the log: so the study's panel
and the live shop are of one world, day by day. The release is that of a shop under way: encoder and
classifier learned up to a window before the first day, ranker and indexes after. A ranker that learned from
the very days of its scorers trusts them too much, and what replaces it would gain by that, not by freshness.
What is made stays for a study that goes on.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from data.world.config import START_US
from data.world.history import generate
from flows.live.first_release import first_release, younger_ranker
from flows.studies.live.ask import LiveAsk
from infra.clock import DAY_US, ScaledClock, wall_us
from infra.files import sync_dir
from infra.machine import require_disk
from infra.settings import Home, Settings

__all__ = ["copied", "start_home"]

_MB = 1_500


def start_home(settings: Settings, ask: LiveAsk, folder: Path, progress: Callable[..., None]) -> Home:
    """The home in `folder`/start, made where it is not there; the shop clock stands at the first live day."""
    start = folder / "start"
    if start.is_dir():
        return Home(start)
    require_disk(settings.home, mb=_MB)
    beside = folder / ".start.tmp"
    shutil.rmtree(beside, ignore_errors=True)
    layout = Home(beside)
    progress(f"generating a shop of {ask.config.n_items:,} items and {ask.config.days} days")
    generate(ask.config, layout)
    for segment in _days(layout.segments, ask.first_day, ask.config.days):
        segment.unlink()
    own = replace(settings, home=beside, seed=ask.seed)
    taught = ask.first_day - math.ceil(ask.window_d)  # the day on which the scorers' history ends
    later = _days(layout.segments, taught, ask.first_day)
    for segment in later:
        segment.rename(_aside(segment))
    _stand(layout, taught)
    progress(f"first release, on {taught} days of history")
    first_release(own, window_d=ask.window_d)
    for segment in later:
        _aside(segment).rename(segment)
    _stand(layout, ask.first_day)
    progress(f"its ranker and indexes anew, on {ask.first_day} days")
    younger_ranker(own, window_d=ask.window_d)
    beside.rename(start)
    sync_dir(folder)
    return Home(start)


def _days(segments: Path, since: int, until: int) -> list[Path]:
    """The world's segments of the days [since, until)."""
    return [s for day in range(since, until) for s in segments.glob(f"*/*/world-{day:04d}*.parquet")]


def _aside(segment: Path) -> Path:
    return segment.with_name(f".{segment.name}.later")


def _stand(layout: Home, day: int) -> None:
    """Have the shop clock stand at the beginning of a day."""
    ScaledClock(START_US + day * DAY_US, wall_us(), 0.0).save(layout.clock)


def copied(start: Home, home: Path) -> Home:
    """A fresh copy of the start home, in place of whatever is there."""
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(start.root, home)
    return Home(home)
