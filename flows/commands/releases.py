"""`shelflife releases`."""

from __future__ import annotations

import datetime

import typer

from flows.commands.session import HomeOption, JsonOption, SeedOption, open_session, table, verb

app = verb("List the releases: versions, metrics, the gate's verdict, and which one is the champion.")


@app.command()
def run(
    ctx: typer.Context, home: HomeOption = None, seed: SeedOption = None, as_json: JsonOption = False
) -> None:
    """List the releases: versions, metrics, the gate's verdict, and which one is the champion."""
    from infra.registry import open_registry

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    with session.progress("releases"):
        rows = open_registry(session.settings.layout.mlflow).releases()
    text = table(
        ("version", "release", "created (UTC)", "alias", "gate", "metrics", "components"),
        [
            (
                r["version"],
                r["release_id"],
                datetime.datetime.fromtimestamp(r["created_us"] / 1e6, datetime.UTC).strftime(
                    "%Y-%m-%d %H:%M:%S"
                ),
                r["alias"],
                {None: None, True: "passed", False: "refused"}[(r["verdict"] or {}).get("passed")],
                " ".join(f"{k}={v:.4g}" for k, v in sorted(r["metrics"].items())),
                " ".join(f"{k}:{v}" for k, v in sorted(r["components"].items())),
            )
            for r in rows
        ],
    )
    session.emit({"releases": rows}, text if rows else "no release yet; `shelflife refresh` makes one")
