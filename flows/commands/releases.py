"""`shelflife releases` and `shelflife releases diff`."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.commands.session import HomeOption, JsonOption, SeedOption, open_session, table, verb

if TYPE_CHECKING:
    from models.manifest import Manifest

app = verb("List the releases: versions, metrics, the gate's verdict, and which one is the champion.")


@app.callback(invoke_without_command=True)
def run(
    ctx: typer.Context, home: HomeOption = None, seed: SeedOption = None, as_json: JsonOption = False
) -> None:
    """List the releases: versions, metrics, the gate's verdict, and which one is the champion."""
    if ctx.invoked_subcommand is not None:
        return
    from flows.offline.crown import barred
    from flows.offline.refusals import record_refusals
    from infra.registry import open_registry
    from models.release import list_releases

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    with session.progress("releases"):
        registry = open_registry(session.settings.layout.mlflow)
        record_refusals(session.settings.layout, registry)
        out = barred(session.settings.layout)
        there = {m.release_id for m in list_releases(session.settings.layout)}
        rows = [
            {**row, "rolled_back": out.get(row["release_id"]), "kept": row["release_id"] in there}
            for row in registry.releases()
        ]
    session.emit(
        {"releases": rows}, describe(rows) if rows else "no release yet; `shelflife refresh` makes one"
    )


@app.command()
def diff(
    ctx: typer.Context,
    a: Annotated[str, typer.Argument(help="The older release.")],
    b: Annotated[str | None, typer.Argument(help="The newer release (default: the champion).")] = None,
    home: HomeOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what differs between two releases: parts, metrics, and the data that they were made from."""
    from flows.offline.history import recorded_manifest
    from infra.errors import DataError
    from models.release import champion

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    layout = session.settings.layout
    b = b or champion(layout)
    if b is None:
        raise DataError(f"no champion in {layout.root} to compare with; name two releases")
    report = compare(recorded_manifest(layout, a), recorded_manifest(layout, b))
    session.emit(report, tell_difference(report))


def compare(a: Manifest, b: Manifest) -> dict[str, Any]:
    """What differs from release `a` to release `b`, as a plain document."""
    from models.release import diff as parts_of

    parts = {}
    for name in {**a.artifacts, **b.artifacts}:
        old, new = a.artifacts.get(name), b.artifacts.get(name)
        parts[name] = {
            "from": None if old is None else old.version,
            "to": None if new is None else new.version,
            "bytes": (0 if new is None else new.size) - (0 if old is None else old.size),
            "metrics": {} if old is None or new is None else _changes(old.metrics, new.metrics),
            "snapshot": {} if old is None or new is None else _changes(old.snapshot, new.snapshot),
        }
    changed = parts_of(a, b)
    return {
        "from": a.release_id,
        "to": b.release_id,
        **{k: changed[k] for k in ("changed", "added", "removed", "unchanged")},
        "bytes": b.size - a.size,
        "watermark_later_us": b.watermark_us - a.watermark_us,
        "parts": parts,
    }


def tell_difference(report: Mapping[str, Any]) -> str:
    """What `compare` found, in lines."""
    rows = [
        (
            name,
            part["from"],
            part["to"] if part["to"] != part["from"] else "the same",
            f"{part['bytes']:+,}",
            " ".join(f"{k} {_short(v[0])}→{_short(v[1])}" for k, v in part["metrics"].items()) or None,
        )
        for name, part in report["parts"].items()
    ]
    hours = report["watermark_later_us"] / 3.6e9
    return "\n".join(
        [
            f"{report['from']} → {report['to']}: data {hours:+.1f} h later, {report['bytes']:+,} bytes",
            table(("part", "from", "to", "bytes", "metrics"), rows),
        ]
    )


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {k: [old.get(k), new.get(k)] for k in {**old, **new} if old.get(k) != new.get(k)}


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


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
                _judged(r),
                _gain(verdict),
                r["alias"] if r.get("kept", True) else "removed",
                r["parent"],
                " ".join(sorted(new)) if len(new) < len(r["components"]) else "everything",
                " ".join(f"{k}={v:.3f}" for k, v in sorted(r["metrics"].items())),
            )
        )
    refused = [
        f"{r['release_id']} was refused: {'; '.join(r['verdict']['reasons'])}"
        for r in rows
        if (r["verdict"] or {}).get("passed") is False
    ]
    refused += [
        f"{r['release_id']} was refused by the service: {r['verdict']['serving']['reason']}"
        for r in rows
        if (r["verdict"] or {}).get("serving")
    ]
    columns = ("release", "shop time (UTC)", "gate", "gate's NDCG@10", "is", "parent", "new in it", "metrics")
    return "\n".join([table(columns, cells), *refused])


def _judged(row: Mapping[str, Any]) -> str | None:
    if row.get("rolled_back"):
        return "rolled back"
    return {None: None, True: "passed", False: "refused"}[(row["verdict"] or {}).get("passed")]


def _gain(verdict: Mapping[str, Any]) -> str | None:
    """The challenger's score and by how much it differs from the champion's."""
    difference = verdict.get("difference")
    if not difference:
        return None
    return f"{verdict['ndcg10_challenger']:.3f} ({difference['mean']:+.3f})"
