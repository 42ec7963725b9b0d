"""`shelflife refresh`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.session import HomeOption, JsonOption, SeedOption, open_session, verb
from infra.errors import ConfigError

app = verb("Retrain and rebuild from the newest snapshot, and promote what passes the gate.")

COMPONENTS = (
    "all",
    "ranker",
    "encoder",
    "text_classifier",
    "image_classifier",
    "lexical_index",
    "vector_index",
    "speller",
)


@app.command()
def run(
    ctx: typer.Context,
    component: Annotated[str, typer.Option(help=f"What to refresh: {', '.join(COMPONENTS)}.")] = "all",
    fraction: Annotated[
        float, typer.Option(help="Share of the data, above 0, at most 1; shares are nested.")
    ] = 1.0,
    window_d: Annotated[
        float | None, typer.Option("--window-d", help="Days of data before the watermark (default: all).")
    ] = None,
    start: Annotated[str, typer.Option(help="cold trains anew, warm continues from the champion.")] = "cold",
    home: HomeOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Retrain and rebuild from the newest snapshot, and promote what passes the gate."""
    if component not in COMPONENTS:
        raise ConfigError(f"unknown component {component!r}; expected one of {', '.join(COMPONENTS)}")
    if not 0.0 < fraction <= 1.0:
        raise ConfigError(f"--fraction is {fraction:g}; expected above 0 and at most 1")
    if window_d is not None and not window_d > 0.0:
        raise ConfigError(f"--window-d is {window_d:g}; expected a number of days above 0")
    if start not in ("cold", "warm"):
        raise ConfigError(f"--start is {start!r}; expected cold or warm")
    from flows.refresh import refresh

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    with session.progress(f"refresh {component}"):
        report = refresh(
            session.settings, component=component, fraction=fraction, window_d=window_d, start=start
        )
    session.emit(report)
