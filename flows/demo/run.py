"""`shelflife demo`: the whole loop on one machine, from nothing to a report.

Photos, world, first release; then Prefect, Ray Serve and shoppers, with scheduled refreshes and
hot swaps while three arms answer the same queries. It stops all that it started.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data.sources import fashion_mnist
from data.world.config import world_config
from data.world.history import generate
from flows.demo.live import Live, run_live
from flows.demo.record import record_of
from flows.live.first_release import first_release
from flows.policies.home import set_policy
from flows.policies.policy import Policy
from flows.report.page import write_report
from flows.report.record import completed
from flows.report.words import summary
from infra import cluster
from infra.clock import ScaledClock, wall_us
from infra.errors import PromiseBroken
from infra.machine import require_disk
from infra.processes import exclusive
from infra.settings import Settings

__all__ = ["DemoResult", "demo"]

WINDOW_D = 4.0  # of strong drift, whose half-life is 4 days
Progress = Callable[..., None]


@dataclass(frozen=True)
class DemoResult:
    """The JSON line and the text that the command prints."""

    document: dict[str, Any]
    summary: str


def demo(
    settings: Settings,
    *,
    seconds: float = 180.0,
    rate: float = 55.0,
    scale: float = 2.0,
    days: int = 14,
    day_seconds: float = 20.0,
    progress: Progress = lambda *_: None,
) -> DemoResult:
    """Run it in `HOME/demo`, which is emptied first; reports go to `HOME/reports`.

    Raises PromiseBroken where a live request failed, after the report is written, and EnvironmentError_
    while another demo runs here.
    """
    with exclusive(settings.layout.run, "demo"):
        return _demo(
            settings,
            {"seconds": seconds, "rate": rate, "scale": scale, "days": days, "day_seconds": day_seconds},
            progress,
        )


def _demo(settings: Settings, given: dict[str, Any], progress: Progress) -> DemoResult:
    began = time.monotonic()
    own = replace(settings, home=settings.home / "demo")
    cluster.down(own)  # what an earlier demo left behind after a kill -9
    shutil.rmtree(own.home, ignore_errors=True)
    require_disk(settings.home, mb=1_500)
    try:
        _prepare(own, scale=given["scale"], days=given["days"], progress=progress)
        progress("starting Prefect, Ray Serve and HAProxy")
        set_policy(own.layout, _policy())
        own = _with_ports(own, cluster.up(own, runner=False, progress=progress))
        progress("live traffic")
        live = run_live(
            own,
            seconds=given["seconds"],
            rate=given["rate"],
            day_seconds=given["day_seconds"],
            progress=progress,
        )
    finally:
        progress("stopping")
        cluster.down(own)
    return _told(settings, own, live, given, wall_s=time.monotonic() - began)


def _prepare(own: Settings, *, scale: float, days: int, progress: Progress) -> None:
    """Photos, the world's history, the first release; the shop clock stands at the history's end."""
    progress("fetching 70,000 product photos")
    fashion_mnist.fetch(own.cache)
    progress(f"generating a shop of {round(10_000 * scale):,} items and {days} days")
    labels = fashion_mnist.load(own.cache)[1]
    world = generate(world_config("strong", scale=scale, days=days, seed=own.seed), own.layout, labels=labels)
    ScaledClock(world.end_us, wall_us(), 0.0).save(own.layout.clock)
    progress(f"first release, trained on {world.events:,} events")
    first_release(own, window_d=WINDOW_D)


def _policy() -> Policy:
    """Ranker and indexes once a shop day; encoder and text classifier, which cost more, every third."""
    daily = {"kind": "interval", "every": "1d", "after": "0.6d"}
    third = {"kind": "interval", "every": "3d", "after": "2.6d"}
    triggers = {"ranker": daily, "indexes": daily, "encoder": third, "text_classifier": third}
    components = {name: {"trigger": t, "window": f"{WINDOW_D:g}d"} for name, t in triggers.items()}
    return Policy.model_validate({"name": "demo", "components": components})


def _with_ports(own: Settings, status: dict[str, Any]) -> Settings:
    """The settings with the ports that were taken: another process may hold the usual ones."""
    ports = {name: status["processes"][name]["ports"] for name in (cluster.PREFECT, cluster.SERVE)}
    return replace(own, http_port=ports[cluster.SERVE]["http"], prefect_port=ports[cluster.PREFECT]["http"])


def _told(
    settings: Settings, own: Settings, live: Live, given: dict[str, float], *, wall_s: float
) -> DemoResult:
    """The report, the JSON line, the summary."""
    folder = settings.layout.reports / f"demo-{time.strftime('%Y%m%d-%H%M%S')}"
    record = record_of(own, live, given, wall_s=wall_s, report=folder / "report.html")
    write_report(record, folder)
    latest = settings.layout.reports / "demo"
    _point(latest, folder)
    document = completed(record)
    result = DemoResult(document, summary(document))
    if record.document["failed"]:
        raise PromiseBroken(
            f"{record.document['failed']} of {record.document['requests']} live requests failed, "
            f"expected none; see {folder / 'report.html'} and the logs in {own.layout.run}"
        )
    return result


def _point(link: Path, target: Path) -> None:
    """`reports/demo` shows the newest report."""
    beside = link.with_name(f".{link.name}.tmp")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target.name)
    beside.replace(link)
