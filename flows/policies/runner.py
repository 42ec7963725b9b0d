"""The flow runner: serves the flows as Prefect deployments, and asks the policy's triggers at each tick.

    python -m flows.policies.runner --home HOME

One run of the home at a time. Times and triggers live in the home (`live.py`), not in Prefect's own
schedules: those know wall time alone, and start a backlog of missed runs one after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import threading
from pathlib import Path
from typing import Any

from flows.offline.backlog import cancel_backlog
from flows.policies.live import Live
from flows.policies.policy import COMPONENTS
from flows.policies.prefect_runs import PrefectRuns
from infra.clock import open_clock
from infra.errors import ShelflifeError
from infra.settings import Settings, load_settings

__all__ = ["deployments", "main", "watch"]

log = logging.getLogger("shelflife.runner")

TICK_S = 1.0  # wall seconds between two looks at the shop clock


def deployments(home: Path, *, seed: int) -> list[Any]:
    """`refresh/<component>` for a policy's runs; the others are there to be run by hand.

    They say nothing of the policy, which may change while they are served: the name, tags and parameters of
    each run do.
    """
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.types.entrypoint import EntrypointType

    from flows.policies import loop

    one = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    common: dict[str, Any] = {
        "parameters": {"home": str(home), "seed": seed},
        "concurrency_limit": one,
        "entrypoint_type": EntrypointType.MODULE_PATH,
    }
    made = []
    for name in COMPONENTS:
        words = (
            f"Makes {name} anew when the home's policy says so: `shelflife policy show`, `shelflife status`."
        )
        made.append(loop.refresh_flow.to_deployment(name=name, description=words, **common))
    by_hand = (loop.ingest_flow, loop.train_flow, loop.index_flow, loop.promote_flow, loop.refresh_flow)
    return made + [flow.to_deployment(name=flow.name, **common) for flow in by_hand]


def watch(settings: Settings, stop: threading.Event) -> None:
    """Tick until `stop`. What fails is said and tried again: a runner outlives faults of its server."""
    runs = PrefectRuns(settings.home, seed=settings.seed)
    live: Live | None = None
    told: list[str] = []
    while not stop.wait(TICK_S):
        try:
            if live is None:
                live = Live(settings.layout, runs, clock=open_clock(settings.layout.clock))
            live.tick()
            told = _tell_upcoming(live, runs, told)
        except Exception as error:
            log.warning("a tick failed: %s: %s", type(error).__name__, error, exc_info=not _known(error))
            if live is not None:
                live.failed(error)
            stop.wait(5 * TICK_S)


def _tell_upcoming(live: Live, runs: PrefectRuns, told: list[str]) -> list[str]:
    """The next times as a table among Prefect's artifacts, where they are others than those told last."""
    rows = live.upcoming()
    times = [
        live.policy.name,
        *(f"{r['component']} {r['is made anew']} {r['next, shop time']}" for r in rows),
    ]
    if times != told:
        about = f"What the policy {live.policy.name} makes anew, and when next"
        runs.tell_table("schedule", about, rows)
    return times


def main(home: Path) -> None:
    """Serve the deployments of a home until SIGTERM."""
    from prefect import serve

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    settings = load_settings(home=home)
    cancelled = asyncio.run(cancel_backlog(runner_starts=True))
    if cancelled:
        log.warning("ended or cancelled %d runs of an earlier runner; each newest one is kept", cancelled)
    stop = threading.Event()
    served = deployments(settings.home, seed=settings.seed)
    thread = threading.Thread(target=watch, args=(settings, stop), name="policy", daemon=True)
    thread.start()
    try:
        serve(*served, limit=1, pause_on_shutdown=False, print_starting_message=False)
    finally:
        stop.set()
        thread.join(timeout=5.0)


def _known(error: BaseException) -> bool:
    """Whether the line says enough: what the machine lacks, or a server that does not answer yet."""
    return isinstance(error, ShelflifeError) or type(error).__module__.partition(".")[0] in (
        "httpx",
        "prefect",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    main(parser.parse_args().home)
