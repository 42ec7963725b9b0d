"""`shelflife releases`."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from flows.commands.session import HomeOption, JsonOption, SeedOption, open_session, table, verb

app = verb("List the releases: versions, metrics, the gate's verdict, and which one is the champion.")


@app.command()
def run(
    ctx: typer.Context, home: HomeOption = None, seed: SeedOption = None, as_json: JsonOption = False
) -> None:
    """List the releases: versions, metrics, the gate's verdict, and which one is the champion."""
    from flows.offline.refusals import record_refusals
    from infra.registry import open_registry

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    with session.progress("releases"):
        registry = open_registry(session.settings.layout.mlflow)
        record_refusals(session.settings.layout, registry)
        rows = registry.releases()
    session.emit(
        {"releases": rows}, describe(rows) if rows else "no release yet; `shelflife refresh` makes one"
    )


def describe(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table of releases, newest first; of the components, those that differ from the parent's are named."""
    known = {r["release_id"]: r["components"] for r in rows}
    cells = []
    for r in rows:
        parent = known.get(r["parent"], {})
        new = [name for name, version in r["components"].items() if parent.get(name) != version]
        created = datetime.datetime.fromtimestamp(r["created_us"] / 1e6, datetime.UTC)
        verdict = r["verdict"] or {}
        cells.append(
            (
                r["release_id"],
                f"{created:%Y-%m-%d %H:%M}",
                {None: None, True: "passed", False: "refused"}[verdict.get("passed")],
                _gain(verdict),
                r["alias"],
                r["parent"],
                " ".join(sorted(new)) if len(new) < len(r["components"]) else "everything",
                " ".join(f"{k}={v:.3f}" for k, v in sorted(r["metrics"].items())),
            )
        )
    refused = [
        f"{r['release_id']} was refused by the service: {r['verdict']['serving']['reason']}"
        for r in rows
        if (r["verdict"] or {}).get("serving")
    ]
    columns = ("release", "shop time (UTC)", "gate", "gate's NDCG@10", "is", "parent", "new in it", "metrics")
    return "\n".join([table(columns, cells), *refused])


def _gain(verdict: Mapping[str, Any]) -> str | None:
    """The challenger's score and by how much it differs from the champion's."""
    difference = verdict.get("difference")
    if not difference:
        return None
    return f"{verdict['ndcg10_challenger']:.3f} ({difference['mean']:+.3f})"
