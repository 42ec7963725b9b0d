"""Cancels scheduled runs that were missed, but for the newest of each deployment.

Prefect keeps every run that a stopped or busy runner missed and would start them all, one after the
other; each would only train once more on the same data. It knows nothing of what the flows do.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Sequence
from typing import Any

__all__ = ["cancel_backlog", "cancel_missed"]

_PAGE = 200


async def cancel_backlog(*, runner_starts: bool = False) -> int:
    """Cancel runs whose time has passed, but for the newest of each deployment; returns how many.

    `runner_starts`: a home has one runner, so what is running or about to belongs to one that was killed.
    Those runs are ended as crashed, or they would hold the only place of their deployment for ever.
    """
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelled, Crashed

    now = datetime.datetime.now(datetime.UTC).isoformat()
    async with get_client() as client:
        missed = await _runs(client, ["SCHEDULED"], {"next_scheduled_start_time": {"before_": now}})
        seen: set[Any] = set()
        late = []
        for run in missed:  # the newest first
            if run.deployment_id in seen:
                late.append(run)
            seen.add(run.deployment_id)
        for run in late:
            await client.set_flow_run_state(
                run.id, Cancelled(message="missed: a newer run waits"), force=True
            )
        begun = ["PENDING", "RUNNING", "CANCELLING"]
        dead = await _runs(client, begun, {}) if runner_starts else []
        for run in dead:
            await client.set_flow_run_state(run.id, Crashed(message="its runner was killed"), force=True)
    return len(late) + len(dead)


def cancel_missed(flow: Any, flow_run: Any, state: Any) -> None:
    """As a hook of a flow: what was missed while the last run took longer than the interval."""
    if flow_run.deployment_id is not None:
        asyncio.run(cancel_backlog())


async def _runs(client: Any, states: Sequence[str], more: dict[str, Any]) -> list[Any]:
    """All runs in one of these states, the one due last first."""
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.client.schemas.sorting import FlowRunSort

    wanted = FlowRunFilter.model_validate({"state": {"type": {"any_": list(states)}}, **more})
    found: list[Any] = []
    while True:
        page = await client.read_flow_runs(
            flow_run_filter=wanted,
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=_PAGE,
            offset=len(found),
        )
        found += page
        if len(page) < _PAGE:
            return found
