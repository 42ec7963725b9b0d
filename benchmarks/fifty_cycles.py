"""Scheduled refreshes in accelerated time, beside a service under load, with nobody there.

    python benchmarks/fifty_cycles.py [--cycles 50] [--home DIR] [--qps 40] [--day-s 12] [--policy FILE]

A world of a thousand items with a first release is made (in DIR, which then stays, else in a folder that is
removed) and started with `shelflife up --policy`. A shop day lasts `--day-s` seconds; shoppers ask in open
loop and react, suppliers change the catalogue, the policy refreshes each shop day, and events older than
three days go, as do all but a few releases. Memory and disk are looked at after each cycle. Promised: no
failed request and no failed run, memory flat, disk bounded, nothing left after `down`. The last line of
standard output is one JSON document; exit 3 if a promise broke. It does not know how good the models are.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.home_watch import Left, Sample, broken_bounds, left_of, look, runs, trend
from components.load.process import DriveProcess
from components.load.result import LoadResult
from components.load.verdict import judge
from data.journal import JournalWriter
from data.snapshots import published
from data.world.shop import World
from flows.live.rehearsal import feed
from flows.live.traffic import live_trace, make_reactor
from flows.offline.refresh import read_refreshes
from flows.offline.refusals import refusals
from flows.policies.home import read_state
from infra import cluster
from infra.clock import DAY_US, ScaledClock, open_clock, wall_us
from infra.errors import InputError, PromiseBroken
from infra.machine import describe_machine, source_commit
from infra.registry import open_registry
from infra.settings import REPOSITORY, Settings

_EVERY = {"ranker": (1, 12), "indexes": (1, 12), "text_classifier": (10, 60), "encoder": (10, 60)}
"""Days from run to run, and hours until the first."""
POLICY = "name: fifty\ncomponents:\n" + "".join(
    f"  {name}:\n"
    f"    trigger: {{kind: interval, every: {days}d, after: {hours}h}}\n"
    "    window: 3d\n"
    "    gate: {margin: 0.1, segment_margin: 0.5}\n"  # a day of a tiny shop has too few clicks for less
    for name, (days, hours) in _EVERY.items()
)
RETENTION_D, KEPT_RELEASES = 3, 5  # so few that what is kept is soon as much as it will ever be
WORLD_DAYS = 115  # that a world goes on after its history, less a few
_LONGEST = 3.0  # shop days that a cycle may take on average, before the load ends


def main() -> int:
    """Run it; 0, or 3 if a promise broke."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cycles", type=int, default=50)
    parser.add_argument("--home", type=Path, help="a new folder, which stays; by default one that is removed")
    parser.add_argument("--qps", type=float, default=40.0, help="requests a second")
    parser.add_argument(
        "--day-s", type=float, default=12.0, help="seconds of a shop day, and from run to run"
    )
    parser.add_argument("--policy", type=Path, help="another policy, a YAML file")
    parser.add_argument("--seed", type=int, default=7)
    asked = parser.parse_args()
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shelflife-fifty-")))
        home = (asked.home or scratch / "home").resolve()
        if home.exists() and any(home.iterdir()):
            raise SystemExit(f"{home} is not empty; expected a new folder")
        policy = asked.policy or scratch / "policy.yaml"
        if asked.policy is None:
            policy.write_text(POLICY)
        report = run(
            home, policy.resolve(), cycles=asked.cycles, qps=asked.qps, day_s=asked.day_s, seed=asked.seed
        )
    sys.stdout.write(json.dumps(report) + "\n")
    return 3 if report["broken"] else 0


def run(home: Path, policy: Path, *, cycles: int, qps: float, day_s: float, seed: int) -> dict[str, Any]:
    """All of it, in a home that is made; what came of it."""
    began = time.monotonic()
    shelf = partial(_shelflife, home, seed)
    say(f"making a shop in {home}")
    shelf("world", "generate", "--scale", "0.1", "--days", "3", "--activity", "0.3", "--drift", "strong")
    settings = Settings(home=home, cache=home / "cache", seed=seed)
    world = World.open(settings.layout)
    first_day = world.config.days
    ScaledClock(world.start_of(first_day), wall_us(), 0.0).save(
        settings.layout.clock
    )  # it stands until the load
    shelf("refresh")
    say("up")
    try:
        shelf("up", "--policy", str(policy), "--http-port", "0", "--prefect-port", "0")
        seconds = min(WORLD_DAYS * day_s, max(600.0, _LONGEST * cycles * day_s))
        watched = _Watched(settings, world, cycles, say)
        result = _under_load(watched, qps=qps, seconds=seconds, day_s=day_s)
        status = shelf("status")
        alive = left_of(home)
    finally:
        say("down")
        shelf("down")
    left = sorted({told for told in alive | left_of(home) if runs(told)})
    return _told(watched, result, status, left, day_s=day_s, began=began)


class _Watched:
    """What is seen of a home while it runs by itself: a sample after each cycle."""

    def __init__(self, settings: Settings, world: World, cycles: int, say: Callable[[str], None]) -> None:
        self.settings, self.world, self.cycles, self._say = settings, world, cycles, say
        self.first = len(read_refreshes(settings.layout))
        self.samples: list[Sample] = [look(settings)]
        self.ended: dict[int, dict[str, Any]] = {}  # runs of the policy, by number and try
        self.began_us = 0
        self.stopped_early = ""

    @property
    def done(self) -> list[dict[str, Any]]:
        """The documents of the cycles."""
        return read_refreshes(self.settings.layout)[self.first :]

    def until_done(self, clock: ScaledClock, catalogue: JournalWriter, driver: DriveProcess) -> None:
        """Look on until the cycles are over, or nothing can come any more."""
        day = self.world.config.days
        while (count := len(self.done)) < self.cycles:
            if not driver.running:
                self.stopped_early = "the load ended before the cycles did"
                return
            if missing := {cluster.PREFECT, cluster.SERVE, cluster.RUNNER} - set(
                cluster.running(self.settings)
            ):
                self.stopped_early = f"{', '.join(sorted(missing))} died"
                return
            while self.world.start_of(day) <= clock.now_us():
                feed(catalogue, self.world.catalogue_events(day))
                day += 1
            self._take(count)
            time.sleep(0.25)
        self._take(self.cycles)

    def _take(self, count: int) -> None:
        state = read_state(self.settings.layout) or {}
        self.ended |= {(e["firing"]["number"], e["firing"]["tries"]): e for e in state.get("recent", ())}
        if count >= len(self.samples):
            self.samples.append(look(self.settings))
            last = self.samples[-1]
            self._say(
                f"cycle {count}/{self.cycles}: replica {last.memory_mb.get('replica', 0):.0f} MB, "
                f"disk {sum(last.disk_mb.values()):.0f} MB"
            )


def _under_load(watched: _Watched, *, qps: float, seconds: float, day_s: float) -> LoadResult:
    """The shop clock runs with the load; both end with the cycles."""
    settings, world = watched.settings, watched.world
    layout, first_day = settings.layout, world.config.days
    trace = live_trace(
        world, first_day=first_day, seconds=seconds, day_seconds=day_s, rate=qps, seed=settings.seed
    )
    host, _, port = cluster.serve_url(settings).removeprefix("http://").partition(":")
    driver = DriveProcess(
        trace.trace, layout.run / "load.npz", host=host, port=int(port),
        make_on_reply=partial(make_reactor, layout.root, trace.days, trace.rows),
    )  # fmt: skip
    catalogue = JournalWriter(layout.journal / "catalogue", clock=open_clock(layout.clock))
    try:
        driver.start()
        watched.began_us = wall_us()
        clock = ScaledClock(world.start_of(first_day), watched.began_us, DAY_US / day_s / 1e6)
        clock.save(layout.clock)
        watched.until_done(clock, catalogue, driver)
        driver.stop()
        return driver.wait()
    finally:
        driver.stop()
        catalogue.close()


def _told(
    watched: _Watched,
    result: LoadResult,
    status: dict[str, Any],
    left: list[Left],
    *,
    day_s: float,
    began: float,
) -> dict[str, Any]:
    layout, done, samples = watched.settings.layout, watched.done[: watched.cycles], watched.samples
    ends = [watched.began_us, *(int(d["end_wall_us"]) for d in done)]
    gaps = [(b - a) / 1e6 for a, b in pairwise(ends)]
    ended = Counter(e["ended"] for e in watched.ended.values())
    posts = result.reactions
    held = published(layout)
    memory = {n: trend([s.memory_mb.get(n) for s in samples]) for n in sorted(samples[-1].memory_mb)}
    disk = {n: trend([s.disk_mb.get(n, 0.0) for s in samples]) for n in sorted(samples[-1].disk_mb)}
    names = {d["champion"] for d in done}
    figures = judge(result).figures
    document: dict[str, Any] = {
        "cycles": len(done),
        "promoted": sum(bool(d["promoted"]) for d in done),
        "refused": sum(not d["promoted"] for d in done),
        "refused_by_the_service": len(refusals(layout)),
        "runs_ended": dict(ended),
        "requests": len(result),
        "requests_a_second": figures["achieved_rate"],
        "failed": result.failed,
        "statuses": figures["statuses"],
        "latency_ms": figures["latency_ms"],
        "posts": posts.posted if posts else 0,
        "posts_failed": posts.failed if posts else 0,
        "champions": len(names),
        "releases_that_answered": len([n for n in result.labels if n]),
        "longest_gap_s": max(gaps, default=None),
        "median_gap_s": sorted(gaps)[len(gaps) // 2] if gaps else None,
        "ingest_lag_wall_s": round(status["ingest"]["lag_s"] * day_s * 1e6 / DAY_US, 1),
        "events": {
            "new": sum(d["ingested"]["rows"] for d in done),
            "kept": held.rows,
            "quarantined": held.quarantine,
            "expired": int(held.expired.partition("-")[0] or "0", 16),
        },
        "releases_in_registry": len(open_registry(layout.mlflow).releases()),
        "registry_mb": {"first": samples[0].disk_mb["mlflow"], "last": samples[-1].disk_mb["mlflow"]},
        "memory_mb": memory,
        "disk_mb": disk | {"total": trend([sum(s.disk_mb.values()) for s in samples])},
        "overdue": sorted({name for s in samples for name in s.overdue or ()}),
        "looks_for_overdue": sum(s.overdue is not None for s in samples),
        "problems": status["problems"],
        "processes_left": [f"{p.pid} {p.line[:120]}" for p in left],
        "seconds": round(time.monotonic() - began, 1),
        "machine": describe_machine(),
        "commit": source_commit(),
    }
    document["broken"] = _broken(watched, document)
    return document


def _broken(watched: _Watched, told: dict[str, Any]) -> list[str]:
    """The promises that were not kept, in words."""
    broken = [watched.stopped_early] if watched.stopped_early else []
    if told["cycles"] < watched.cycles:
        broken.append(f"{told['cycles']} of {watched.cycles} cycles came to an end")
    if told["failed"] or told["posts_failed"]:
        broken.append(
            f"{told['failed']} requests ({told['statuses']}) and {told['posts_failed']} POSTs failed"
        )
    if failed := told["runs_ended"].get("failed", 0):
        words = sorted({e["said"] for e in watched.ended.values() if e["ended"] == "failed"})
        broken.append(f"{failed} runs failed: {'; '.join(words)}")
    if told["promoted"] and told["releases_that_answered"] < 2:
        broken.append("no promoted release answered")
    broken += broken_bounds(told["memory_mb"], told["disk_mb"])
    broken += [f"still on the disk ten minutes later: {name}" for name in told["overdue"]]
    if not told["looks_for_overdue"]:
        broken.append("what was replaced was never looked for: each cycle ended beside a publication")
    broken += [f"status tells of a problem: {p}" for p in told["problems"]]
    if told["processes_left"]:
        broken.append(f"{len(told['processes_left'])} processes were left after down")
    return broken


def _shelflife(home: Path, seed: int, *arguments: str) -> dict[str, Any]:
    """The real command line on this home; its document. InputError or PromiseBroken with what it said."""
    more = {
        "SHELFLIFE_CACHE": str(home / "cache"),
        "SHELFLIFE_RETENTION_D": str(RETENTION_D),
        "SHELFLIFE_KEPT_RELEASES": str(KEPT_RELEASES),
    }
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments, "--home", str(home), "--seed", str(seed), "--json"],
        cwd=REPOSITORY, env=os.environ | more, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        line = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise (InputError if done.returncode == 2 else PromiseBroken)(f"shelflife {arguments[0]}: {line}")
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return document


def say(line: str) -> None:
    """Progress."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
