"""`shelflife status`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from flows.commands.session import HomeOption, JsonOption, SeedOption, open_session, table, verb

app = verb("Show what runs, where it listens, and what it serves.")


@app.command()
def run(
    ctx: typer.Context, home: HomeOption = None, seed: SeedOption = None, as_json: JsonOption = False
) -> None:
    """Show what runs, where it listens, and what it serves."""
    from infra.cluster import status

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    report = status(session.settings)
    session.emit(report, describe(report))


def describe(report: Mapping[str, Any]) -> str:
    """A status document as text."""
    rows = [
        (
            name,
            "running"
            if p["running"]
            else "stopped"
            if p["pid"] is None
            else "died (`shelflife down` tidies)",
            p["pid"],
            " ".join(f"{k}:{v}" for k, v in p["ports"].items()) or None,
            p["log"],
        )
        for name, p in report["processes"].items()
    ]
    lines = [f"home: {report['home']}", table(("process", "is", "pid", "ports", "log"), rows)]
    lines += [f"{key}: {report[key]}" for key in ("service", "prefect", "health", "exposed") if report[key]]
    return "\n".join(lines)
