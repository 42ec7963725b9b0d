"""`shelflife policy`."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.session import HomeOption, JsonOption, SeedOption, open_session, table, verb
from infra.settings import Home

if TYPE_CHECKING:
    from flows.policies.policy import Policy

app = verb("Check a policy of retraining, show what it does when, and estimate what it costs.")

FileArgument = Annotated[Path, typer.Argument(help="The policy, a YAML file (docs/policies.md).")]
MaybeFile = Annotated[
    Path | None, typer.Argument(help="The policy, a YAML file; without one, the policy of the home.")
]


@app.command()
def validate(
    ctx: typer.Context,
    file: FileArgument,
    home: HomeOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a policy file is right, in one line."""
    from flows.policies.policy import load_policy

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    policy = load_policy(file)
    names = list(policy.components)
    session.emit(
        {"valid": True, "policy": policy.name, "components": names},
        f"{file} is a policy: {policy.name}, for {', '.join(names)}",
    )


@app.command()
def show(
    ctx: typer.Context,
    file: MaybeFile = None,
    home: HomeOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is made anew when, and the week ahead; of a file, or of the home with what runs there."""
    from flows.policies.show import shown
    from infra.clock import open_clock

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    layout = session.settings.layout
    policy = _asked_for(file, layout)
    now = open_clock(layout.clock).now_us()
    document = shown(policy, now_us=now, layout=layout if file is None else None)
    session.emit(document, describe(document))


@app.command()
def estimate(
    ctx: typer.Context,
    file: MaybeFile = None,
    home: HomeOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Estimate from this home's recorded runs what a policy costs a day."""
    from flows.policies.estimate import estimate as estimated

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    policy = _asked_for(file, session.settings.layout)
    with session.progress("estimate") as say:
        say("reading the recorded runs")
        document = estimated(policy, session.settings)
    session.emit(document, describe_estimate(document))


@app.command()
def schema(
    ctx: typer.Context, home: HomeOption = None, seed: SeedOption = None, as_json: JsonOption = False
) -> None:
    """Print the JSON schema of policy files."""
    import json

    from flows.policies.policy import policy_schema

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    document = policy_schema()
    session.emit(document, "" if as_json else json.dumps(document, indent=1))


def describe(document: Mapping[str, Any]) -> str:
    """A policy as a table, and the week ahead, a mark every three hours."""
    rows, strips = [], []
    for name, part in document["components"].items():
        upcoming = part["next_us"][0] if part["next_us"] else None
        rows.append(
            (
                name,
                part["trigger"],
                part["window"],
                f"{part['fraction']:g}",
                part["half_life"],
                part["start"],
                f"{part['gate']['margin']:g}",
                when(upcoming)
                if upcoming
                else "when it fires"
                if part["runs_in_a_week"] is None
                else "never",
            )
        )
        strips.append((name, part["strip"]))
    columns = (
        "component",
        "is made anew",
        "window",
        "fraction",
        "half-life",
        "start",
        "margin",
        "next (shop time, UTC)",
    )
    ingest = f", new events taken in every {document['ingest']}" if document["ingest"] else ""
    head = f"policy {document['policy']}: asked every {document['tick']}{ingest}"
    return "\n".join(
        [head, table(columns, rows), "", table(("the week ahead", "by the clock alone"), strips)]
    )


def describe_estimate(document: Mapping[str, Any]) -> str:
    """An estimate as text."""
    rows = [
        (name, _figure(part["runs_per_day"]), _figure(part["cpu_s_per_run"]), _figure(part["cpu_s_per_day"]),
         min((a["runs"] for a in part["artifacts"].values()), default=0))
        for name, part in document["components"].items()
    ]  # fmt: skip
    besides = document["besides_per_run"]
    if besides is not None:
        runs = document["runs_per_day"]
        a_day = None if runs is None else runs * besides["mean"]
        rows.append(
            ("beside training", _figure(runs), _figure(besides["mean"]), _figure(a_day), besides["runs"])
        )
    columns = ("component", "runs a day", "CPU-s a run", "CPU-s a day", "recorded runs")
    total = document["cpu_s_per_day"]
    low, high = document["low"], document["high"]
    told = "what it costs is not known" if total is None else f"{total:.0f} CPU-seconds a day"
    if total is not None:
        told += ", spread unknown" if low is None else f" [{low:.0f}, {high:.0f}]"
    head = f"policy {document['policy']}: {told}; fired by {document['basis']}"
    return "\n".join([head, table(columns, rows), *(f"note: {n}" for n in document["notes"])])


def when(us: int) -> str:
    """A time in UTC, to the minute."""
    return f"{datetime.datetime.fromtimestamp(us / 1e6, datetime.UTC):%Y-%m-%d %H:%M}"


def _asked_for(file: Path | None, layout: Home) -> Policy:
    """The policy of a file, or of the home without one."""
    from flows.policies.home import policy_of
    from flows.policies.policy import load_policy

    return policy_of(layout) if file is None else load_policy(file)


def _figure(value: float | None) -> str | None:
    return None if value is None else f"{value:,.3g}" if value < 100 else f"{value:,.0f}"
