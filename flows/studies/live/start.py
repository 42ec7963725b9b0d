"""Where each policy of a live study begins: one home with the world's history and a first release, copied.

The whole world is generated, and what comes after the history is left out of the log: so the study's panel
and the live shop are of one world, day by day. What is made stays for a study that goes on.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from data.world.config import START_US
from data.world.history import generate
from flows.live.first_release import first_release
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
    for day in range(ask.first_day, ask.config.days):
        for segment in layout.segments.glob(f"*/*/world-{day:04d}*.parquet"):
            segment.unlink()
    ScaledClock(START_US + ask.first_day * DAY_US, wall_us(), 0.0).save(layout.clock)
    progress(f"first release, on {ask.first_day} days of history")
    first_release(replace(settings, home=beside, seed=ask.seed), window_d=ask.window_d)
    beside.rename(start)
    sync_dir(folder)
    return Home(start)


def copied(start: Home, home: Path) -> Home:
    """A fresh copy of the start home, in place of whatever is there."""
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(start.root, home)
    return Home(home)
