"""`shelflife up`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.session import HomeOption, JsonOption, SeedOption, open_session, verb
from flows.commands.status import describe
from infra.settings import Settings

app = verb("Start everything local: Prefect server and schedules, Ray, Serve; all on 127.0.0.1.")


@app.command()
def run(
    ctx: typer.Context,
    http_port: Annotated[int | None, typer.Option(help="Port of the service; 0 takes any free one.")] = None,
    prefect_port: Annotated[int | None, typer.Option(help="Port of the Prefect server; 0: any.")] = None,
    policy: Annotated[
        Path | None, typer.Option(help="The policy of retraining, a YAML file; the home keeps it.")
    ] = None,
    mlflow: Annotated[bool, typer.Option(help="Also the pages of MLflow, which tell of every run.")] = False,
    schedules: Annotated[bool, typer.Option(help="Run the policy's refreshes.")] = True,
    home: HomeOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start everything local that is not running yet, and wait until it is ready."""
    from infra.cluster import up
    from infra.errors import DataError, EnvironmentError_
    from models.release import champion

    session = open_session(
        ctx, home=home, seed=seed, as_json=as_json, http_port=http_port, prefect_port=prefect_port
    )
    layout = session.settings.layout
    kept = _checked(session.settings, policy)
    if (layout.mlflow / "mlflow.db").exists():
        with session.progress("up") as say, contextlib.suppress(EnvironmentError_):
            say("finishing a promotion that was interrupted, if there is one")
            _reconcile(session.settings)  # a service that has its releases needs no registry
    if champion(layout) is None:
        raise DataError(
            f"no release in {session.settings.home} to serve; make one with `shelflife refresh` (or go back "
            "to one with `shelflife promote ID`), or see it all at work with `shelflife demo`"
        )
    kept()
    with session.progress("up") as say:
        report = up(session.settings, runner=schedules, mlflow=mlflow, progress=say)
    started = ", ".join(report["started"]) or "nothing: all of it was running already"
    session.emit(report, f"started: {started}\n{describe(report)}")


def _checked(settings: Settings, policy: Path | None) -> Callable[[], None]:
    """The policy is right, whether given or of the home; the call makes the given one the home's."""
    from flows.policies.home import policy_of, set_policy
    from flows.policies.policy import load_policy

    if policy is None:
        policy_of(settings.layout)
        return lambda: None
    given = load_policy(policy)
    return lambda: set_policy(settings.layout, given)


def _reconcile(settings: Settings) -> None:
    from flows.offline.crown import promoting, reconcile

    with promoting(settings, "up"):
        reconcile(settings)
