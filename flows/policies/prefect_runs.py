"""Runs of a policy as runs of Prefect deployments: one deployment a component, one run of each at a time.

Prefect reads its settings when it is imported: it is imported at the first call, in the runner's process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.policies.engine import INGEST, Firing
from flows.policies.live import Outcome
from infra.settings import Home

__all__ = ["PrefectRuns"]

_HELPS = "EnvironmentError_"  # the one kind of failure after which the same run may succeed


class PrefectRuns:
    """Starts and watches flow runs of a home's deployments."""

    def __init__(self, home: Path, *, seed: int) -> None:
        self._layout = Home(home)
        self._common: dict[str, Any] = {"home": str(home), "seed": seed}

    def start(self, firing: Firing, parameters: Mapping[str, Any], *, policy: str, key: str) -> str:
        """As Runs.start: the idempotency key makes Prefect give back the run that it has already."""
        from prefect.deployments import run_deployment

        first = firing.components[0]
        run: Any = run_deployment(
            "ingest/ingest" if first == INGEST else f"refresh/{first}",
            parameters=self._common | dict(parameters),
            timeout=0,
            as_subflow=False,
            idempotency_key=key,
            flow_run_name=f"{policy}-{firing.number} {'+'.join(firing.components)}",
            tags=[f"policy:{policy}", *firing.components],
        )
        return str(run.id)

    def tell_table(self, key: str, about: str, rows: Sequence[Mapping[str, str]]) -> None:
        """Keep a table among Prefect's artifacts that belongs to no run."""
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.actions import ArtifactCreate

        table = ArtifactCreate(type="table", key=key, description=about, data=json.dumps(list(rows)))
        with get_client(sync_client=True) as client:
            client.create_artifact(table)

    def outcome(self, run_id: str) -> Outcome | None:
        """As Runs.outcome. A killed process and what the machine lacked may be tried again, nothing else.

        A refresh that wrote its document is done, whatever Prefect was told of its end: the server may have
        been killed before.
        """
        from prefect.client.orchestration import get_client
        from prefect.exceptions import ObjectNotFound

        with get_client(sync_client=True) as client:
            try:
                run = client.read_flow_run(run_id)  # type: ignore[arg-type]
            except ObjectNotFound:
                return self._done(run_id) or Outcome("again", "Prefect does not know the run any more")
        state = run.state
        if state is None or not state.is_final():
            return None
        said = (state.message or state.name or "").splitlines()[0][:300]
        if state.is_completed():
            return Outcome("done")
        if done := self._done(run_id):
            return done
        if state.is_crashed() or _HELPS in said:
            return Outcome("again", said)
        return Outcome("failed", f"{state.name}: {said}")

    def _done(self, run_id: str) -> Outcome | None:
        """That it is done, where the run wrote its document; else None."""
        from flows.offline.refresh import read_refreshes

        if any(d.get("flow_run_id") == run_id for d in read_refreshes(self._layout)):
            return Outcome("done", "its end is not recorded in Prefect")
        return None
