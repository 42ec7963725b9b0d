"""`shelflife refresh`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.session import HomeOption, JsonOption, SeedOption, open_session, verb
from infra.errors import ConfigError

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
        float, typer.Option(min=0.0, help="NDCG@10 by which the new release may be worse.")
    ] = 0.01,
    home: HomeOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Retrain and rebuild from the newest snapshot, and promote what passes the gate."""
    for name in component.split(","):
        if name.strip() not in COMPONENTS:
            raise ConfigError(f"unknown component {name.strip()!r}; expected one of {', '.join(COMPONENTS)}")
    if not 0.0 < fraction <= 1.0:
        raise ConfigError(f"--fraction is {fraction:g}; expected above 0 and at most 1")
    if window_d is not None and not window_d > 0.0:
        raise ConfigError(f"--window-d is {window_d:g}; expected a number of days above 0")
    if start not in ("cold", "warm"):
        raise ConfigError(f"--start is {start!r}; expected cold or warm")
    from flows.refresh import WINDOW_D, refresh

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    with session.progress("refresh") as say:
        report = refresh(
            session.settings,
            component=component,
            fraction=fraction,
            window_d=window_d or WINDOW_D,
            start=start,
            margin=margin,
            progress=say,
        )
    session.emit(report)
