"""The load of the swap bench: requests with swaps at their times, at a fixed rate or a share of the peak.

It knows no figures that are made of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from components.load.arrivals import Trace, poisson_arrivals
from components.load.process import DriveProcess
from components.load.result import LoadResult
from flows.bench.alignment import Window, within
from flows.bench.hosts import Load, drive, summary
from infra.clock import wall_us
from infra.settings import Settings
from models.release import set_champion

__all__ = ["Plan", "Stretch", "SwapBench", "drive_swaps", "plan"]

Progress = Callable[..., None]

LEAD_S = 10.0
WARM_S, PEAK_S = 5.0, 10.0
SETTLE_US = 500_000  # after an installation, before what follows counts as quiet


@dataclass(frozen=True)
class SwapBench:
    """What to measure. `block`: swaps between two quiet stretches, which are half as long as a block.

    `qps`: requests a second; with `peak_share` it is that share of the peak, which is found anew before each
    block: a machine's speed drifts, and a fixed rate is another share of it some minutes later.

    `alternatives`: swaps in each of the textbook ways; 0 leaves them out. `only`: an artifact; releases in
    turn differ in it alone, None: in what the trained ones differ in.
    """

    items: int = 100_000
    swaps: int = 100
    qps: float = 200.0
    every_s: float = 4.0
    block: int = 10
    alternatives: int = 5
    source: Path | None = None
    only: str | None = None
    peak_share: float | None = None


@dataclass(frozen=True)
class Plan:
    """Seconds from the start: of each swap, of each placebo, and of the end."""

    swaps: tuple[float, ...]
    placebos: tuple[float, ...]
    end: float


@dataclass(frozen=True)
class Stretch:
    """A plan as it went, from `start_us` (wall us) on; `rate`: `qps`, and the `peak_rps` it is a share of."""

    plan: Plan
    start_us: int
    result: LoadResult
    rate: dict[str, float]

    def quiet(self, installing: Sequence[Window]) -> list[Window]:
        """Whole seconds in which nothing was installed, nor had just been."""
        begins = range(
            self.start_us + 1_000_000, self.start_us + int(self.plan.end * 1e6) - 1_000_000, 1_000_000
        )
        seconds = np.array(begins, np.int64)
        busy = np.zeros(len(seconds), bool)
        for begin, end in installing:
            busy |= (seconds + 1_000_000 > begin - SETTLE_US) & (seconds < end + SETTLE_US)
        calm = [(int(s), int(s) + 1_000_000) for s in seconds[~busy]]
        # Between two swaps of a block is no quiet: caches are still filling.
        block = [self.start_us + int(at * 1e6) for at in self.plan.swaps]
        near: list[Window] = [(at - 1_000_000, at + 5_000_000) for at in block]
        return [w for w in calm if not within(np.array([w[0]]), near).any()]


def plan(bench: SwapBench) -> Plan:
    """Blocks of swaps with quiet stretches before, between and after."""
    swaps: list[float] = []
    placebos: list[float] = []
    at = LEAD_S
    while len(swaps) < bench.swaps:
        n = min(bench.block, bench.swaps - len(swaps))
        swaps += [at + k * bench.every_s for k in range(n)]
        at += n * bench.every_s + bench.every_s  # the last installation ends before the quiet begins
        still = max(2, n // 2)
        placebos += [at + (k + 0.5) * bench.every_s for k in range(still)]
        at += still * bench.every_s
    return Plan(tuple(swaps), tuple(placebos), at)


def drive_swaps(
    running: Settings,
    bench: SwapBench,
    releases: Sequence[str],
    sent: list[bytes],
    folder: Path,
    progress: Progress,
) -> list[Stretch]:
    """All swaps under load: at a fixed rate without a break, at a share of the peak block by block."""
    size = bench.swaps if bench.peak_share is None else bench.block
    told = [f"swap {k} of {bench.swaps}: {name}" for k, name in enumerate(releases, 1)]
    stretches: list[Stretch] = []
    asked = 0
    for number, first in enumerate(range(0, bench.swaps, size)):
        part = slice(first, first + size)
        rate = _rate(running, bench, sent, folder, progress)
        schedule = plan(replace(bench, swaps=len(releases[part])))
        due = poisson_arrivals(rate["qps"], schedule.end, seed=running.seed + number)
        trace = Trace(due, [sent[(asked + k) % len(sent)] for k in range(len(due))])
        asked += len(due)
        out = folder / f"swaps-{number}.npz"
        with DriveProcess(trace, out, host=running.host, port=running.http_port) as driver:
            start_us = wall_us()
            for at, release_id, words in zip(schedule.swaps, releases[part], told[part], strict=True):
                _sleep_until(start_us + int(at * 1e6))
                set_champion(running.layout, release_id, at_us=wall_us(), by="bench")
                progress(words)
            stretches.append(Stretch(schedule, start_us, driver.wait(), rate))
    return stretches


def _rate(
    running: Settings, bench: SwapBench, sent: list[bytes], folder: Path, progress: Progress
) -> dict[str, float]:
    """Warm up; `qps`, the requests a second to send, and the `peak_rps` that it is a share of."""
    first = len(sent) // 2
    if bench.peak_share is None:
        drive(running, Load(sent, WARM_S, bench.qps, first=first), folder / "warm.npz")
        return {"qps": bench.qps}
    found: dict[str, Any] = {}
    for seconds in (WARM_S, PEAK_S):
        found = summary(drive(running, Load(sent, seconds, first=first), folder / "warm.npz"))
        first += found["requests"]
    qps = round(bench.peak_share * found["rps"], 1)
    progress(f"{qps:g}/s, {bench.peak_share:.0%} of a peak of {found['rps']:.0f}/s")
    return {"qps": qps, "peak_rps": found["rps"]}


def _sleep_until(at_us: int) -> None:
    left = (at_us - wall_us()) / 1e6
    if left > 0:
        time.sleep(left)
