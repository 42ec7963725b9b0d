"""The flow runner: serves the flows as deployments with their schedules, until it is told to stop.

    python -m flows.offline.deployments --home HOME

One run of the home at a time. Runs that were missed, because the runner was stopped or a run took
longer than its interval, are cancelled but for the newest of each deployment (`flows/offline/backlog.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import logging
from pathlib import Path
from typing import Any

from flows.offline.backlog import cancel_backlog
from flows.offline.schedules import Schedule, read_schedules
from infra.settings import Home, load_settings

__all__ = ["deployments", "main"]

log = logging.getLogger("shelflife.runner")


def deployments(home: Path, schedules: tuple[Schedule, ...], *, seed: int) -> list[Any]:
    """`refresh` once a schedule, and `ingest`, `train`, `index`, `promote` to be run by hand."""
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.schedules import Interval
    from prefect.types.entrypoint import EntrypointType

    from flows.offline import loop

    module = EntrypointType.MODULE_PATH
    one = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
    common: dict[str, Any] = {"home": str(home), "seed": seed}
    made = []
    for schedule in schedules:
        first = schedule.interval_s if schedule.first_after_s is None else schedule.first_after_s
        anchor = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=first)
        made.append(
            loop.refresh_flow.to_deployment(
                name=schedule.name,
                schedule=Interval(datetime.timedelta(seconds=schedule.interval_s), anchor_date=anchor),
                concurrency_limit=one,
                parameters=common
                | {
                    "component": schedule.component,
                    "fraction": schedule.fraction,
                    "window_d": schedule.window_d,
                    "start": schedule.start,
                    "margin": schedule.margin,
                },
                entrypoint_type=module,
            )
        )
    for name, flow in (
        ("ingest", loop.ingest_flow),
        ("train", loop.train_flow),
        ("index", loop.index_flow),
        ("promote", loop.promote_flow),
        ("refresh", loop.refresh_flow),
    ):
        made.append(
            flow.to_deployment(name=name, parameters=common, concurrency_limit=one, entrypoint_type=module)
        )
    return made


def main(home: Path) -> None:
    """Serve the deployments of a home until SIGTERM."""
    from prefect import serve

    settings = load_settings(home=home)
    cancelled = asyncio.run(cancel_backlog(runner_starts=True))
    if cancelled:
        log.warning("ended or cancelled %d runs of an earlier runner; each newest one is kept", cancelled)
    serve(
        *deployments(settings.home, read_schedules(Home(settings.home)), seed=settings.seed),
        limit=1,
        pause_on_shutdown=False,
        print_starting_message=False,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    main(parser.parse_args().home)
