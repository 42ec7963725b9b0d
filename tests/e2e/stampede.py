"""A backlog of missed runs in the Prefect server of the environment, and what is left once it is cancelled.

    python -m tests.e2e.stampede

It prints one JSON document.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import sys
from typing import Any

from prefect.client.orchestration import get_client
from prefect.states import Pending, Scheduled

from flows.offline.backlog import cancel_backlog


async def main() -> None:
    """Make it, cancel it, and print what is left."""
    now = datetime.datetime.now(datetime.UTC)
    async with get_client() as client:
        newest: dict[str, Any] = {}
        late: list[Any] = []
        for name in ("refresh/ranker", "ingest/ingest"):
            deployment = await client.read_deployment_by_name(name)
            for minutes in range(30, 0, -1):
                state = Scheduled(scheduled_time=now - datetime.timedelta(minutes=minutes))
                run = await client.create_flow_run_from_deployment(deployment.id, state=state)
                late.append(run.id)
            newest[name] = run.id
        about_to = await client.create_flow_run_from_deployment(deployment.id)
        await client.set_flow_run_state(about_to.id, Pending(), force=True)  # its runner was killed then
        cancelled = await cancel_backlog()
        states = {i: (await client.read_flow_run(i)).state.type.value for i in late}
        for i in newest.values():  # not to be run afterwards
            await client.delete_flow_run(i)
    sys.stdout.write(
        json.dumps(
            {
                "cancelled": cancelled,
                "about_to": str(about_to.id),
                "kept": [name for name, i in newest.items() if states[i] == "SCHEDULED"],
                "left": sum(s != "CANCELLED" for s in states.values()),
            }
        )
        + "\n"
    )


if __name__ == "__main__":
    asyncio.run(main())
