"""How much memory the processes of a home hold, how much disk its folders, and how that goes on over cycles.

A trend is a robust slope with its interval over the second half of the cycles. Parts and states that were
replaced stay for ten wall minutes, and come and go several at a time: steps, of which a slope says nothing.
Of them it is looked whether any is still there that should have gone. It judges nothing else.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from scipy.stats import theilslopes

from data.parts import RETIRE_US
from data.snapshots import read_status
from infra import cluster, processes
from infra.clock import SECOND_US, wall_us
from infra.ray_scratch import scratch_of
from infra.settings import Home, Settings

__all__ = ["REPLACED", "Left", "Sample", "broken_bounds", "left_of", "look", "overdue", "runs", "trend"]

_KINDS = (
    ("ray::ServeReplica", "replica"),
    ("ray::ServeController", "controller"),
    ("raylet", "raylet"),
    ("gcs_server", "gcs"),
    ("haproxy", "haproxy"),
    ("components.serving.host", "host"),
    ("flows.policies.runner", "runner"),
    ("prefect", "prefect"),
)
"""What a command line holds, and the name of the process; flow runs and Ray's agents are not counted."""

FEWEST = 8  # cycles of a half without which a trend says nothing
GROWTH = {"memory": 0.001, "disk": 0.002}  # share of its level that each may gain a cycle
LEAST_MB = 0.1  # a cycle, that each may gain however small it is
RECORDS_MB = 1.0  # a cycle, that records may grow by: the registry, Prefect's runs, logs
RECORDS = ("mlflow", "prefect", "run")
REPLACED = "replaced"
"""What of the snapshots' folder counts no more: told as if it were a folder of its own."""
UNDER_WAY_US = 10 * SECOND_US  # that a publication may take from its first file to its last removal


@dataclass(frozen=True)
class Sample:
    """Megabytes: resident memory by process, and what lies on the disk by folder of the home.

    `overdue`: what was replaced and should have gone; None where that could not be told just then.
    """

    memory_mb: Mapping[str, float]
    disk_mb: Mapping[str, float]
    overdue: tuple[str, ...] | None = None


def look(settings: Settings) -> Sample:
    """What is there now."""
    layout = settings.layout
    return Sample(_memory(layout), _disk(layout), overdue(layout))


def overdue(layout: Home) -> tuple[str, ...] | None:
    """What should have gone of the snapshots' folder: what nothing names, and what has waited long enough.

    That is ten wall minutes, for parts by the last publication, for states of earlier floors by the last
    rise of the floor. None where a publication may be under way.
    """
    folder, status = layout.snapshots, read_status(layout)
    told_us = _changed_us(folder / "status.json")
    if wall_us() - max(told_us, _changed_us(folder / "base.json")) < UNDER_WAY_US:
        return None
    current = status.get("floor", {}).get("state", "")
    # Which may still wait; the floor just before the current one always stays.
    waits = {name: us + RETIRE_US + UNDER_WAY_US > told_us for name, us in status.get("retired", {}).items()}
    floors = sorted(p.name for p in folder.glob("floor-*") if p.name < current)
    waits |= dict.fromkeys(floors[-1:], True)
    for name, following in pairwise(floors):
        replaced_us = _changed_us(folder / following)
        waits[name] = replaced_us + RETIRE_US + UNDER_WAY_US > _changed_us(folder / current)
    kept = _kept(layout) | {"events"} | {name for name, may in waits.items() if may}
    there = [*folder.iterdir(), *(folder / "events").iterdir()]
    return tuple(sorted(p.name for p in there if p.name not in kept and _changed_us(p) <= told_us))


def _kept(layout: Home) -> set[str]:
    """Names of what counts in the snapshots' folder: documents, and the parts and states that they name."""
    status, base = read_status(layout), layout.snapshots / "base.json"
    states = {status.get("floor", {}).get("state", "")}
    if base.exists():
        states.add(json.loads(base.read_bytes())["folder"])
    return {"status.json", base.name, *states, *(p["file"] for p in status["parts"])}


def _changed_us(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns // 1_000
    except FileNotFoundError:  # removed meanwhile
        return wall_us()


def trend(values: Sequence[float | None]) -> dict[str, Any]:
    """First and last value, the largest, and the slope a cycle over the second half with its 95 % interval.

    Theil and Sen's: the median of all slopes between two cycles. The slope is None where cycles are too few.
    """
    known = np.array([np.nan if v is None else v for v in values], np.float64)
    half = known[len(known) // 2 :]
    at = np.flatnonzero(~np.isnan(half))
    found: dict[str, Any] = {
        "first": _round(known[0]), "last": _round(known[-1]), "max": _round(float(np.nanmax(known))),
        "slope": None, "low": None, "high": None, "by_cycle": [_round(v) for v in known.tolist()],
    }  # fmt: skip
    if len(at) >= FEWEST:
        slope, _, low, high = theilslopes(half[at], at)
        found |= {"slope": float(slope), "low": float(low), "high": float(high)}
        found["level"] = _round(float(np.median(half[at])))
    return found


def broken_bounds(
    memory: Mapping[str, Mapping[str, Any]], disk: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Which trends are surely above their bound, in words. Records grow with what they record.

    Not of `REPLACED`, nor of the total, which holds it.
    """
    found = []
    for what, trends in (("memory", memory), ("disk", disk)):
        for name, t in trends.items():
            if t["low"] is None or (what == "disk" and name in ("total", REPLACED)):
                continue
            bound = (
                RECORDS_MB if what == "disk" and name in RECORDS else max(LEAST_MB, GROWTH[what] * t["level"])
            )
            if t["low"] > bound:
                told = f"{t['slope']:+.3f} MB a cycle [{t['low']:+.3f}, {t['high']:+.3f}]"
                found.append(f"{what} of {name} grows by {told}; at most {bound:.3f} is expected")
    return found


@dataclass(frozen=True, order=True)
class Left:
    """A process: `begun` tells it from another one that got its pid."""

    pid: int
    begun: float
    line: str


def runs(one: Left) -> bool:
    """Whether it is still there, and no zombie that nobody waited for."""
    try:
        process = psutil.Process(one.pid)
        return bool(process.create_time() == one.begun and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def left_of(home: Path) -> set[Left]:
    """Processes that work for a home: by what they were called with, their environment or their session."""
    words = (str(home), str(scratch_of(Settings(home=home))))
    sessions = {p.pid for p in processes.records(Home(home).run)}
    ours_above = {os.getpid(), *(p.pid for p in psutil.Process().parents())}
    found = set()
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
            about = " ".join([line, *process.environ().values()])
            ours = any(w in about for w in words) or os.getsid(process.pid) in sessions
            if ours and process.pid not in ours_above and process.status() != psutil.STATUS_ZOMBIE:
                found.add(Left(process.pid, process.create_time(), line))
        except (psutil.Error, OSError):
            continue
    return found


def _memory(layout: Home) -> dict[str, float]:
    found: defaultdict[str, float] = defaultdict(float)
    for record in processes.records(layout.run):
        try:
            main = psutil.Process(record.pid)
            family = [main] if record.name == cluster.RUNNER else [main, *main.children(recursive=True)]
        except psutil.Error:
            continue
        for process in family:
            try:
                line, size = " ".join(process.cmdline()), process.memory_info().rss
            except psutil.Error:  # it has just ended
                continue
            name = next((name for word, name in _KINDS if word in line), None)
            if name is not None:
                found[name] += size / 1e6
    return dict(found)


def _disk(layout: Home) -> dict[str, float]:
    """What each folder takes, files with several names once; `REPLACED` apart from what counts."""
    kept = _kept(layout)
    seen: set[int] = set()
    found: defaultdict[str, float] = defaultdict(float)
    for folder, _, names in os.walk(layout.root):
        top, *below = Path(folder).relative_to(layout.root).parts or (".",)
        for name in names:
            try:
                about = os.lstat(os.path.join(folder, name))  # noqa: PTH118 (thousands of files)
            except OSError:  # removed meanwhile
                continue
            if about.st_ino in seen:
                continue
            seen.add(about.st_ino)
            counts = top != "snapshots" or not kept.isdisjoint((*below, name))
            found[top if counts else REPLACED] += about.st_blocks * 512 / 1e6
    return dict(found)


def _round(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 3)
