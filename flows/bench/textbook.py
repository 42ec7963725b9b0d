"""The textbook ways of changing a release under load, for comparison: `user_config` and redeploying.

Each swap is begun when the one before is live and a rest has passed. It knows nothing of how they are done
(components/serving/textbook.py).
"""

from __future__ import annotations

import time
import urllib.error
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from components.load.arrivals import Trace, poisson_arrivals
from components.load.process import DriveProcess
from flows.bench.alignment import Window, longest_gap_ms, summary_ms, within
from flows.bench.hosts import get, serving
from infra.clock import wall_us
from infra.settings import Settings
from models.release import set_champion

__all__ = ["measure_textbook"]

LEAD_S = 5.0
REST_S = 3.0
MOST_S = 60.0  # for one swap


def measure_textbook(
    own: Settings,
    way: str,
    releases: Sequence[str],
    sent: Sequence[bytes],
    *,
    qps: float,
    out: Path,
    progress: Callable[..., None],
) -> dict[str, Any]:
    """Failed requests, the tail and the longest gap while the releases are changed so; a quiet lead beside.

    A window is from the change of the pointer until the service says that the release is live.
    """
    longest_s = LEAD_S + len(releases) * (MOST_S + REST_S)
    due = poisson_arrivals(qps, longest_s, seed=own.seed)
    trace = Trace(due, [sent[k % len(sent)] for k in range(len(due))])
    windows: list[Window] = []
    with serving(own, way) as running:
        where: dict[str, Any] = {"host": running.host, "port": running.http_port}
        with DriveProcess(trace, out, **where) as driver:
            began_us = wall_us()
            time.sleep(LEAD_S)
            lead = (began_us + 1_000_000, wall_us())
            for k, release_id in enumerate(releases):
                progress(f"{way}: swap {k + 1} of {len(releases)}")
                begin = wall_us()
                set_champion(own.layout, release_id, at_us=begin, by="bench")
                if not _live(running, release_id):
                    break
                windows.append((begin, wall_us()))
                time.sleep(REST_S)
            driver.stop()
            result = driver.wait()
    latency_ms = result.latency_us / 1e3
    ok = result.done_us[result.ok]
    during, still = within(result.due_us, windows), within(result.due_us, [lead])
    installing, quiet = summary_ms(latency_ms[during]), summary_ms(latency_ms[still])
    return {
        "swaps": len(windows),
        "failed": result.failed,
        "requests": len(result),
        "p99_installing_ms": installing["p99"],
        "p99_quiet_ms": quiet["p99"],
        "longest_gap_ms": round(longest_gap_ms(ok, [(b, e + 2_000_000) for b, e in windows]), 1),
        "longest_gap_control_ms": round(longest_gap_ms(ok, [lead]), 1),
        "seconds_per_swap": round(sum(e - b for b, e in windows) / 1e6 / len(windows), 2)
        if windows
        else None,
    }


def _live(running: Settings, release_id: str) -> bool:
    until = time.monotonic() + MOST_S
    while time.monotonic() < until:
        try:
            if get(running, "/release")["release_id"] == release_id:
                return True
        except (OSError, urllib.error.URLError, TypeError):
            pass  # it is being replaced
        time.sleep(0.1)
    return False
