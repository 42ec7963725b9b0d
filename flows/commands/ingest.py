"""`shelflife ingest`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.session import HomeOption, JsonOption, SeedOption, open_session, verb

app = verb("Take new segments into the store, each event once, and publish a snapshot.")


@app.command()
def run(
    ctx: typer.Context,
    replay_quarantine: Annotated[
        bool, typer.Option("--replay-quarantine", help="Judge the rows in quarantine again, too.")
    ] = False,
    home: HomeOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take new segments into the store, each event once, and publish a snapshot."""
    from flows.offline.ingest import ingest

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    with session.progress("ingest") as say:
        report = ingest(session.settings, replay=replay_quarantine, progress=say)
    session.emit(report)
