"""A refresh through Prefect: the deployment of a home's running flow runner, waited for.

The run's result lives in the runner's process; what came of it is read from the home's record of
refreshes. It knows no training.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Any

from flows.offline.refresh import read_refreshes
from infra.cluster import RUNNER, prefect_environment, prefect_url, running
from infra.errors import EnvironmentError_, PromiseBroken
from infra.settings import Settings

__all__ = ["refresh_through_prefect"]

DEPLOYMENT = "refresh/refresh"
_REGISTERED_S = 90.0  # by when a runner has made itself known

log = logging.getLogger("shelflife.refresh")


def refresh_through_prefect(
    settings: Settings,
    parameters: dict[str, Any],
    *,
    timeout_s: float = 3_600.0,
    progress: Callable[..., None] = lambda *_: None,
) -> dict[str, Any]:
    """Run the refresh deployment, wait for its end, and return the document that it wrote.

    Raises EnvironmentError_ where Prefect cannot be asked or another refresh is under way, PromiseBroken
    where the run failed. A run that wrote its document has done all there is to do, whatever Prefect says
    of its end: that is then among the document's `unrecorded`.
    """
    # Prefect reads its settings when it is imported.
    os.environ.update(prefect_environment(settings) | {"PREFECT_API_URL": prefect_url(settings)})
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.deployments import run_deployment
    from prefect.exceptions import ObjectNotFound, PrefectException

    progress(f"through Prefect at {prefect_url(settings)}")
    asked = {"home": str(settings.home), "seed": settings.seed, **parameters}
    began = time.monotonic()
    deadline = began + timeout_s
    run: Any = None
    try:
        while True:
            try:
                run = run_deployment(DEPLOYMENT, parameters=asked, timeout=0)
                break
            except ObjectNotFound:  # a runner that was just started is not known to the server at once
                if time.monotonic() - began > _REGISTERED_S or RUNNER not in running(settings):
                    raise
                progress("waiting for the flow runner")
                time.sleep(0.5)
        with get_client(sync_client=True) as client:
            while run.state is None or not run.state.is_final():
                if time.monotonic() > deadline or RUNNER not in running(settings):
                    raise EnvironmentError_(
                        f"the flow runner does not finish the refresh {run.name}; see its log in "
                        f"{settings.layout.run}, or `shelflife down` and refresh without it"
                    )
                time.sleep(0.5)
                known, run = run.state, client.read_flow_run(run.id)
                if run.state is not None and (known is None or run.state.name != known.name):
                    progress(f"{run.name} is {run.state.name.lower()}")
    except (PrefectException, httpx.HTTPError) as error:
        if (document := _document(settings, run)) is not None:
            return _without_its_end(document, run, f"{type(error).__name__}: {error}")
        raise EnvironmentError_(
            f"Prefect at {prefect_url(settings)} did not run {DEPLOYMENT} ({type(error).__name__}: {error}); "
            "`shelflife status` shows what runs, `shelflife down` and `up` start it anew"
        ) from error
    return _ended(settings, run)


def _ended(settings: Settings, run: Any) -> dict[str, Any]:
    """The document of a run that has come to its end. Raises as `refresh_through_prefect`."""
    state = run.state
    if not state.is_completed():
        said = f"{state.name}: {state.message}"
        if state.is_cancelled():
            raise EnvironmentError_(f"another refresh is under way ({said}); wait for it and repeat")
        if (document := _document(settings, run)) is not None:
            return _without_its_end(document, run, said)
        raise PromiseBroken(f"the refresh {run.name} ended as {said}; see {settings.layout.run}/runner.log")
    if (document := _document(settings, run)) is not None:
        return document
    raise PromiseBroken(f"the refresh {run.name} ended, but its record is not in {settings.layout.run}")


def _document(settings: Settings, run: Any) -> dict[str, Any] | None:
    """What a run wrote when it was done; None if it did not come so far."""
    if run is None:
        return None
    mine = (d for d in reversed(read_refreshes(settings.layout)) if d.get("flow_run_id") == str(run.id))
    return next(mine, None)


def _without_its_end(document: dict[str, Any], run: Any, why: str) -> dict[str, Any]:
    log.warning("the refresh is done; that %s ended is not recorded in Prefect: %s", run.name, why)
    return document | {"unrecorded": [*document.get("unrecorded", ()), f"the end of {run.name} in Prefect"]}
