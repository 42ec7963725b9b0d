"""`shelflife promote`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.session import HomeOption, JsonOption, SeedOption, open_session, verb

app = verb("Judge a release against the champion on the newest logged slice, and promote it if it passes.")


@app.command()
def run(
    ctx: typer.Context,
    release: Annotated[
        str | None, typer.Argument(help="The challenger (default: the newest release).")
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(min=0.0, help="NDCG@10 by which a challenger may be worse (default: the policy's)."),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Another limit of the gate in place of the policy's."),
    ] = None,
    home: HomeOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge a release against the champion on the newest logged slice, and promote it if it passes.

    The limits are those that the home's policy has for what is new in the release.
    """
    from flows.offline.promote import promote
    from flows.policies.limits import given_limits, limits_in_force

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    with session.progress("promote"):
        limits = limits_in_force(session.settings.layout, given_limits(margin, limit or []))
        report = promote(session.settings, release_id=release, limits=limits, by_hand=release is not None)
    verdict = report["verdict"]
    if verdict is None:
        text = f"{report['release_id']} is the champion already"
    else:
        did = "was promoted" if report["promoted"] else f"was refused; {report['champion']} stays champion"
        text = f"{report['release_id']} {did}: {'; '.join(verdict['reasons'])}"
    session.emit(report, text)
    if verdict is not None and not report["promoted"]:
        raise typer.Exit(3)
