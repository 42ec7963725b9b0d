"""`shelflife data fetch`, `import`, `check-leakage` and `reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.session import HomeOption, JsonOption, SeedOption, open_session, verb
from infra.errors import ConfigError, DataError

app = verb("Obtain real data, bring your own log, or check one.")

SETS = {
    "fashion-mnist": "70,000 product photos of 28 x 28 in ten classes (Debian's package, Expat licence)",
    "completejourney": "1.5 million grocery order lines over a year (a Python package; realness disputed)",
    "movielens": "100,000 timed film ratings (in a Python package; GroupLens' terms: not to be passed on)",
}
FORMATS = {
    "csv": "items.csv, users.csv, searches.csv, interactions.csv; only the last is required",
    "wands": "product.csv, query.csv, label.csv, tab-separated; only the first is required",
}


@app.command()
def fetch(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="; ".join(f"{k}: {v}" for k, v in SETS.items()))],
    home: HomeOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Download a real data set, check it, and keep it in the cache."""
    if name not in SETS:
        raise ConfigError(f"unknown data set {name!r}; expected one of {', '.join(SETS)}")
    from data.sources import completejourney, fashion_mnist, movielens

    fetchers = {
        "fashion-mnist": fashion_mnist.fetch,
        "completejourney": completejourney.fetch,
        "movielens": movielens.fetch,
    }
    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    with session.progress(f"fetch {name}") as say:
        folder = fetchers[name](session.settings.cache, progress=say)
    session.emit({"name": name, "folder": folder}, f"{name} is in {folder}")


@app.command("import")
def import_log(
    ctx: typer.Context,
    format: Annotated[str, typer.Argument(help="; ".join(f"{k}: {v}" for k, v in FORMATS.items()))],
    path: Annotated[Path, typer.Argument(help="The folder that holds the files.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what was understood.")] = False,
    home: HomeOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Turn your own catalogue, users, searches, interactions or judgements into segments."""
    if format not in FORMATS:
        raise ConfigError(f"unknown format {format!r}; expected one of {', '.join(FORMATS)}")
    if not path.is_dir():
        raise DataError(f"{path} is not a folder; expected one that holds {FORMATS[format]}")
    from data.sources.tables import ImportReport, import_csv
    from data.sources.wands import WandsReport, import_wands

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    report: ImportReport | WandsReport
    with session.progress(f"import {path}") as say:
        importer = import_wands if format == "wands" else import_csv
        report = importer(path, session.settings.layout, dry_run=dry_run, progress=say)
    session.emit(report, report.text)


@app.command("check-leakage")
def check(
    ctx: typer.Context,
    sample: Annotated[int, typer.Option(min=1, help="Requests whose features are made again.")] = 200,
    home: HomeOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prove that no feature is later than its event was known, and that training sees what serving saw.

    Exit code 4 where a leak is found: its rows are printed.
    """
    from flows.offline.leakage import EXIT_LEAK, check_leakage

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    with session.progress("check-leakage"):
        found = check_leakage(session.settings, sample=sample)
    session.emit(found, found.text)
    if not found.clean:
        raise typer.Exit(EXIT_LEAK)


@app.command("reproduce")
def reproduce_training(
    ctx: typer.Context,
    release: Annotated[str | None, typer.Argument(help="A release id; default: the champion.")] = None,
    component: Annotated[str, typer.Option(help="A trained component of it.")] = "ranker",
    home: HomeOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a component once more from its recorded snapshot, and compare bit for bit.

    Exit code 3 where the model differs.
    """
    from flows.offline.reproduce import reproduce

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    with session.progress("reproduce"):
        found = reproduce(session.settings, component=component, release_id=release)
    session.emit(found, found.text)
    if not found.equal:
        raise typer.Exit(3)
