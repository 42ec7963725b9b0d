"""The flow runner: serves the flows as deployments with their schedules, until it is told to stop.

    python -m flows.deployments --home HOME

One run of the home at a time. Runs that a stopped runner missed are cancelled but for the newest
of each deployment: Prefect would start them all at once.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

from flows.schedules import Schedule, read_schedules
from infra.settings import Home, load_settings

__all__ = ["cancel_backlog", "deployments", "main"]

log = logging.getLogger("shelflife.runner")


def deployments(home: Path, schedules: tuple[Schedule, ...], *, seed: int) -> list[Any]:
    """`refresh` once a schedule, and `ingest`, `train`, `index`, `promote` to be run by hand."""
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.schedules import Interval
    from prefect.types.entrypoint import EntrypointType

    from flows import loop

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


async def cancel_backlog() -> int:
    """Cancel runs whose time has passed, but for the newest of each deployment; returns how many."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.client.schemas.sorting import FlowRunSort
    from prefect.states import Cancelled

    now = datetime.datetime.now(datetime.UTC)
    wanted = FlowRunFilter.model_validate(
        {
            "state": {"type": {"any_": ["SCHEDULED", "PENDING"]}},
            "next_scheduled_start_time": {"before_": now.isoformat()},
        }
    )
    by_deployment: dict[Any, list[Any]] = defaultdict(list)
    async with get_client() as client:
        while True:
            found = await client.read_flow_runs(
                flow_run_filter=wanted, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=200
            )
            for run in found:
                by_deployment[run.deployment_id].append(run)
            late = [run for runs in by_deployment.values() for run in runs[1:]]
            for run in late:
                await client.set_flow_run_state(
                    run.id, Cancelled(message="missed while the runner was stopped"), force=True
                )
            if len(found) < 200:
                return len(late)
            by_deployment.clear()


def main(home: Path) -> None:
    """Serve the deployments of a home until SIGTERM."""
    from prefect import serve

    settings = load_settings(home=home)
    cancelled = asyncio.run(cancel_backlog())
    if cancelled:
        log.warning("cancelled %d missed runs; the newest of each deployment is kept", cancelled)
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
