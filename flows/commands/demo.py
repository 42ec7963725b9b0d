"""`shelflife demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.session import HomeOption, JsonOption, SeedOption, open_session, verb

app = verb("Run the whole loop on this machine: inputs, first release, live traffic, retraining, hot swaps.")


@app.command()
def run(
    ctx: typer.Context,
    seconds: Annotated[float, typer.Option(min=10.0, help="Length of the live traffic.")] = 180.0,
    rate: Annotated[float, typer.Option(min=1.0, help="Live requests a second.")] = 55.0,
    scale: Annotated[float, typer.Option(help="Size of the shop: 1 is 10,000 items and 6,000 users.")] = 2.0,
    days: Annotated[int, typer.Option(min=2, help="Days of history.")] = 14,
    day_seconds: Annotated[float, typer.Option(min=5.0, help="Seconds that a shop day takes.")] = 20.0,
    http_port: Annotated[int | None, typer.Option(help="Port of the service; 0 takes any free one.")] = None,
    prefect_port: Annotated[int | None, typer.Option(help="Port of the Prefect server; 0: any.")] = None,
    home: HomeOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the whole loop on this machine and say what freshness was worth."""
    from flows.demo.run import demo

    session = open_session(
        ctx, home=home, seed=seed, as_json=True, http_port=http_port, prefect_port=prefect_port
    )
    with session.progress("demo") as say:
        result = demo(
            session.settings,
            seconds=seconds,
            rate=rate,
            scale=scale,
            days=days,
            day_seconds=day_seconds,
            progress=say,
        )
    session.emit(result.document, result.summary)
