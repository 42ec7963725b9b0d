"""`shelflife load`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.session import HomeOption, JsonOption, SeedOption, open_session, verb

app = verb("Drive traffic at the running service, open loop, and judge the run.")


@app.command()
def run(
    ctx: typer.Context,
    rate: Annotated[float, typer.Option(min=0.1, help="Requests a second.")] = 50.0,
    seconds: Annotated[float, typer.Option(min=1.0, help="Length of the run.")] = 30.0,
    http_port: Annotated[int | None, typer.Option(help="Port of the service.")] = None,
    home: HomeOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Drive traffic at the running service, open loop, and judge the run."""
    from flows.load import load

    session = open_session(ctx, home=home, seed=seed, as_json=as_json, http_port=http_port)
    with session.progress("load"):
        report = load(session.settings, rate=rate, seconds=seconds)
    session.emit(report)
