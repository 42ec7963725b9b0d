"""`shelflife refresh`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from flows.commands.session import HomeOption, JsonOption, SeedOption, open_session, table, verb
from infra.errors import ConfigError
from infra.settings import Settings

app = verb("Retrain and rebuild from the newest snapshot, and promote what passes the gate.")

COMPONENTS = ("all", "ranker", "encoder", "text_classifier", "image_classifier", "index")


@app.command()
def run(
    ctx: typer.Context,
    component: Annotated[
        str, typer.Option(help=f"What to refresh, with commas: {', '.join(COMPONENTS)}.")
    ] = "all",
    fraction: Annotated[
        float, typer.Option(help="Share of the data, above 0, at most 1; shares are nested.")
    ] = 1.0,
    window_d: Annotated[
        float | None, typer.Option("--window-d", help="Days of data before the watermark (default: 7).")
    ] = None,
    start: Annotated[str, typer.Option(help="cold trains anew, warm continues from the champion.")] = "cold",
    margin: Annotated[
        float | None,
        typer.Option(min=0.0, help="NDCG@10 by which the new release may be worse (default: the policy's)."),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Another limit of the gate in place of the policy's."),
    ] = None,
    home: HomeOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Retrain and rebuild from the newest snapshot, and promote what passes the gate.

    The limits are those that the home's policy has for what is new in the release.
    """
    for name in component.split(","):
        if name.strip() not in COMPONENTS:
            raise ConfigError(f"unknown component {name.strip()!r}; expected one of {', '.join(COMPONENTS)}")
    if not 0.0 < fraction <= 1.0:
        raise ConfigError(f"--fraction is {fraction:g}; expected above 0 and at most 1")
    if window_d is not None and not window_d > 0.0:
        raise ConfigError(f"--window-d is {window_d:g}; expected a number of days above 0")
    if start not in ("cold", "warm"):
        raise ConfigError(f"--start is {start!r}; expected cold or warm")
    from flows.offline.refresh import WINDOW_D
    from flows.policies.limits import given_limits, limits_in_force

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    given = given_limits(margin, limit or [])
    limits_in_force(session.settings.layout, given)  # what is wrong is said here, also where Prefect runs it
    parameters = {
        "component": component,
        "fraction": fraction,
        "window_d": window_d or WINDOW_D,
        "start": start,
        "gate": given,
    }
    with session.progress("refresh") as say:
        report = refreshed(session.settings, parameters, say)
    session.emit(report, describe(report))


def refreshed(settings: Settings, parameters: dict[str, Any], say: Callable[..., None]) -> dict[str, Any]:
    """The plain function, or its flow where this home's flow runner is up; `parameters` are the flow's."""
    from infra.cluster import PREFECT, RUNNER, running

    if {PREFECT, RUNNER} <= set(running(settings)):
        from flows.offline.deployed import refresh_through_prefect

        return refresh_through_prefect(settings, parameters, progress=say)
    from flows.offline.refresh import refresh
    from flows.policies.limits import limits_in_force

    asked = {k: v for k, v in parameters.items() if k != "gate"}
    limits = limits_in_force(settings.layout, parameters["gate"])
    return refresh(settings, **asked, limits=limits, progress=say)


def describe(report: Mapping[str, Any]) -> str:
    """What a refresh did, in lines."""
    verdict = report["verdict"] or {}
    did = "was promoted" if report["promoted"] else f"was not promoted; {report['champion']} stays champion"
    read = report["snapshot"]
    window = "all" if read["window_d"] is None else f"{read['window_d']:g} days"
    rows = [
        (
            name,
            version.removeprefix(f"{name}-"),
            f"{report['train_cpu_s'].get(name, 0.0):.2f}",
            " ".join(f"{k}={v:.4g}" for k, v in report["metrics"].get(name, {}).items()),
        )
        for name, version in report["made"].items()
    ]
    return "\n".join(
        [
            f"{report['release_id']} {did}: {'; '.join(verdict.get('reasons', ('it is the champion',)))}",
            table(("made", "version", "CPU-s", "metrics"), rows),
            f"from {window} of {read['rows']:,} events (commit {read['commit']}), "
            f"fraction {read['fraction']:g}; {report['ingested']['rows']:,} events were new; "
            f"{report['seconds']:.1f} s, {report['cpu_s']:.1f} CPU-s",
            *(f"not recorded now: {what}; what comes next will" for what in report.get("unrecorded", ())),
        ]
    )
