"""`shelflife down`."""

from __future__ import annotations

import typer

from flows.commands.session import HomeOption, JsonOption, SeedOption, open_session, verb

app = verb("Stop everything local, and end what a kill -9 left behind.")


@app.command()
def run(
    ctx: typer.Context, home: HomeOption = None, seed: SeedOption = None, as_json: JsonOption = False
) -> None:
    """Stop everything local, and end what a kill -9 left behind."""
    from infra.cluster import down

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    with session.progress("down") as say:
        report = down(session.settings, progress=say)
    names = ", ".join(report["stopped"]) or "nothing was running"
    session.emit(report, f"stopped: {names} ({report['processes_ended']} processes)")
