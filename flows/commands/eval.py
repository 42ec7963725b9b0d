"""`shelflife eval search`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.session import HomeOption, JsonOption, SeedOption, open_session, verb

app = verb("Measure quality, with intervals of confidence.")


@app.callback()
def group() -> None:
    """Measure quality, with intervals of confidence."""


@app.command()
def search(
    ctx: typer.Context,
    release: Annotated[str | None, typer.Option(help="The release to judge (default: the champion).")] = None,
    queries: Annotated[int, typer.Option(min=1, help="How many queries to ask.")] = 1000,
    dump: Annotated[
        Path | None, typer.Option(help="Write TREC files FILE.run and FILE.qrels for other tools.")
    ] = None,
    home: HomeOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge search on the world's hidden relevance: NDCG, recall, MRR."""
    from flows.evaluate import evaluate_search

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    with session.progress("eval search"):
        report = evaluate_search(session.settings, release_id=release, queries=queries, dump=dump)
    session.emit(report)
