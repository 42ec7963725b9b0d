"""`shelflife eval search`, `eval text` and `eval image`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.session import HomeOption, JsonOption, SeedOption, open_session, table, verb

app = verb("Measure quality, with intervals of confidence.")


@app.callback()
def group() -> None:
    """Measure quality, with intervals of confidence."""


_JUDGES = {"truth": "the hidden relevance", "labels": "people", "log": "clicks of held-out sessions"}

ReleaseOption = Annotated[
    str | None, typer.Option("--release", help="The release to judge (default: the champion).")
]


@app.command()
def search(
    ctx: typer.Context,
    release: ReleaseOption = None,
    queries: Annotated[int, typer.Option(min=1, help="How many queries to ask at most.")] = 1000,
    ablate: Annotated[
        bool, typer.Option("--ablate", help="Also say what vectors, user and category each add.")
    ] = False,
    dump: Annotated[
        Path | None, typer.Option(help="Write TREC files FILE.run and FILE.qrels for other tools.")
    ] = None,
    home: HomeOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge search by a world's hidden relevance, people's labels or logged clicks: NDCG, precision, MRR."""
    from flows.evaluation.search import describe, evaluate_search

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    with session.progress("eval search") as say:
        report = evaluate_search(
            session.settings,
            release_id=release,
            queries=queries,
            ablate=ablate,
            dump=dump,
            progress=say,
        )
    asked = "queries" if report["surface"] == "search" else "next clicks foreseen by recommendations"
    by = _JUDGES[report["source"]]
    lines = [
        f"{report['release_id']}: {report['queries']} {asked}, {report['items']} items, judged by {by}",
        table(*describe(report)),
    ]
    if logged := report.get("logged_ndcg10"):
        lines.append(
            f"the ranker's order of what was shown: NDCG@10 {_interval(logged)} "
            f"on {report['logged_requests']} clicked requests"
        )
    if plain := report.get("baseline"):
        lines.append(f"plain BM25 over title and description: {_measured(plain['metrics'], sep=', ')}")
        lines.append(f"served less plain BM25, paired: {_measured(plain['served_minus_baseline'], sep=', ')}")
    for part, found in report.get("ablation", {}).items():
        has, adds = _interval(found["ndcg10"]), _interval(found["difference"])
        lines.append(f"{part}: {found['metric']} {has}; the part adds {adds}")
    lines += [f"wrote {file}" for file in report.get("files", ())]
    session.emit(report, "\n".join(lines))


@app.command()
def text(
    ctx: typer.Context,
    release: ReleaseOption = None,
    queries: Annotated[int, typer.Option(min=1, help="How many queries to ask at most.")] = 1000,
    home: HomeOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge how queries are understood: accuracy of their category, typing errors put right."""
    from flows.evaluation.classifiers import evaluate_text

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    with session.progress("eval text"):
        report = evaluate_text(session.settings, release_id=release, queries=queries)
    session.emit(report, _measured(report))


@app.command()
def image(
    ctx: typer.Context,
    release: ReleaseOption = None,
    home: HomeOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge how photos are understood: accuracy on the 10,000 test photos of Fashion-MNIST."""
    from flows.evaluation.classifiers import evaluate_image

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    with session.progress("eval image") as say:
        report = evaluate_image(session.settings, release_id=release, progress=say)
    session.emit(report, _measured(report))


def _interval(found: dict[str, float]) -> str:
    return f"{found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def _measured(report: dict[str, Any], *, sep: str = "\n") -> str:
    lines = []
    for name, value in report.items():
        if isinstance(value, dict) and set(value) == {"mean", "low", "high"}:
            lines.append(f"{name}: {_interval(value)}")
        elif isinstance(value, dict):
            lines.append(f"{name}: " + ", ".join(f"{k} {v:.3f}" for k, v in value.items()))
        else:
            lines.append(f"{name}: {value}")
    return sep.join(lines)
