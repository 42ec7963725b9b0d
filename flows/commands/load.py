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
    from flows.live.load import load

    session = open_session(ctx, home=home, seed=seed, as_json=as_json, http_port=http_port)
    with session.progress("load") as say:
        report = load(session.settings, rate=rate, seconds=seconds, progress=say)
    latency = report["latency_ms"]
    told = ", ".join(f"{k} {v:.2f}" for k, v in latency.items() if isinstance(v, float))
    lines = [
        f"{report['verdict']}: {report['requests']} requests at {report['achieved_rate']:g}/s, "
        f"{report['failed']} failed",
        *(f"  because {reason}" for reason in report["reasons"]),
        *(f"  note: {note}" for note in report["notes"]),
        f"latency from due to answered, ms: {told}",
        f"answered by: {', '.join(f'{k} {n}' for k, n in report['labels'].items())}",
        f"every request: {report['result']}",
    ]
    session.emit(report, "\n".join(lines))
