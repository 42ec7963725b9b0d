"""`shelflife rollback`."""

from __future__ import annotations

from collections.abc import Mapping

import typer

from flows.commands.session import HomeOption, JsonOption, SeedOption, open_session, verb

app = verb("Make the champion's predecessor champion again; policies leave this one alone.")


@app.command()
def run(
    ctx: typer.Context, home: HomeOption = None, seed: SeedOption = None, as_json: JsonOption = False
) -> None:
    """Make the champion's predecessor champion again; policies leave this one alone."""
    from flows.offline.promote import rollback

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    with session.progress("rollback"):
        report = rollback(session.settings)
    session.emit(report, _told(report))


def _told(report: Mapping[str, str]) -> str:
    return (
        f"{report['release_id']} is champion again; it was {report['was']}, which no refresh promotes any "
        f"more (`shelflife promote {report['was']}` does)"
    )
