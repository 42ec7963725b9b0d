"""`shelflife study interval`, `study volume`, `study live` and `study compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.session import HomeOption, JsonOption, SeedOption, open_session, verb
from infra.errors import PromiseBroken

app = verb("Find out how fresh the models have to be, what that costs, and what the data is worth.")


@app.callback()
def group() -> None:
    """Find out how fresh the models have to be, what that costs, and what the data is worth."""


def _of_source(help: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(help=f"{help} (default: the source's)", show_default=False)
    return option


FractionsOption = Annotated[str, typer.Option(help="Shares of the training data, each above 0, at most 1.")]


@app.command()
def interval(
    ctx: typer.Context,
    source: Annotated[
        str,
        typer.Option(help="world, completejourney, movielens, or the folder of a home with your own log."),
    ] = "world",
    intervals: Annotated[str | None, _of_source("Such as 30m,6h,1d,2w,never.")] = None,
    fractions: Annotated[str | None, _of_source("Shares of the training data, above 0, at most 1.")] = None,
    component: Annotated[
        str, typer.Option(help="ranker, text_classifier, encoder, or all: each in turn, one stale at a time.")
    ] = "ranker",
    seeds: Annotated[int, typer.Option(help="Trainings, and worlds, from --seed on.")] = 1,
    drift: Annotated[str, typer.Option(help="Of the world: none, mild or strong.")] = "strong",
    scale: Annotated[float, typer.Option(help="Of the world: 1 is 10,000 items and 6,000 users.")] = 0.5,
    window_d: Annotated[float | None, _of_source("Days of history that a training reads.")] = None,
    horizon_d: Annotated[float | None, _of_source("Days on which policies are compared.")] = None,
    burn_in_d: Annotated[float | None, _of_source("Days of history before the horizon.")] = None,
    slices: Annotated[int | None, _of_source("Stretches of the horizon on which models are scored.")] = None,
    queries: Annotated[int | None, _of_source("Queries of each slice.")] = None,
    start: Annotated[str, typer.Option(help="cold, or warm: go on from the model before.")] = "cold",
    margin: Annotated[
        float, typer.Option(help="NDCG@10 that a policy may lose and still count as not worse.")
    ] = 0.015,
    budget_cpu_s: Annotated[
        float | None, typer.Option(help="CPU-seconds of training a shop day: recommend the best within.")
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Train at every time of a grid; compose each schedule exactly.")
    ] = False,
    workers: Annotated[int | None, typer.Option(help="Trainings at a time (default: one a core).")] = None,
    recheck: Annotated[
        int | None,
        typer.Option(
            help="Train that many random cells again and compare bit for bit (default: one, if any is new).",
            show_default=False,
        ),
    ] = None,
    confirm: Annotated[
        str | None, typer.Option(help="Run these policies alone, too, and compare; such as 1d:1.0,2d:0.6.")
    ] = None,
    dump: Annotated[
        Path | None, typer.Option(help="Write TREC runs FILE.<policy>.run and FILE.qrels for other tools.")
    ] = None,
    home: HomeOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """How often to retrain, and on how much data: quality, cost, state against weights; "rarely" counts."""
    from flows.studies.cells.asks import confirm_of, fractions_of, interval_ask, intervals_of

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    ask = interval_ask(
        source,
        intervals=None if intervals is None else intervals_of(intervals),
        fractions=None if fractions is None else fractions_of(fractions),
        component=component,
        seeds=seeds,
        seed=session.settings.seed,
        drift=drift,
        scale=scale,
        window_d=window_d,
        horizon_d=horizon_d,
        burn_in_d=burn_in_d,
        slices=slices,
        queries=queries,
        start=start,
        margin=margin,
        budget_cpu_s=budget_cpu_s,
        exact=exact,
        workers=workers,
        dump=dump,
        recheck=recheck,
        confirm=None if confirm is None else confirm_of(confirm),
    )
    from flows.studies.interval import study_interval
    from flows.studies.telling.report import report_folder, write_report
    from flows.studies.telling.words import summary

    with session.progress("study interval") as say:
        record = study_interval(session.settings, ask, progress=say)
        report = write_report(record, report_folder(session.settings.layout.reports, "interval"))
    session.emit(record.document() | {"report": str(report)}, summary(record, str(report)))
    if record.broken:
        raise PromiseBroken(f"{'; '.join(record.broken)}; see {report}")


@app.command()
def volume(
    ctx: typer.Context,
    source: Annotated[str, typer.Option(help="world, or the folder of a home with your own log.")] = "world",
    fractions: FractionsOption = "0.2,0.4,0.6,0.8,1.0",
    component: Annotated[
        str, typer.Option(help="ranker, text_classifier, image_classifier, or all.")
    ] = "all",
    seeds: Annotated[int, typer.Option(help="Trainings of each fraction.")] = 3,
    scale: Annotated[float, typer.Option(help="Of the world: 1 is 10,000 items and 6,000 users.")] = 0.5,
    days: Annotated[int, typer.Option(help="Of the world: days of history.")] = 14,
    photos: Annotated[int, typer.Option(help="Photos that all of the image classifier's data is.")] = 12_000,
    margin: Annotated[
        float, typer.Option(help="Quality that ten per cent more data has to bring to be worth it.")
    ] = 0.002,
    home: HomeOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """What more training data costs and brings, with a fitted power law, beside the published table."""
    from flows.studies.cells.asks import fractions_of, volume_ask

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    ask = volume_ask(
        source,
        fractions=fractions_of(fractions),
        component=component,
        seeds=seeds,
        seed=session.settings.seed,
        scale=scale,
        days=days,
        photos=photos,
        margin=margin,
    )
    from flows.studies.telling.report import report_folder
    from flows.studies.volume.report import summary, write_report
    from flows.studies.volume.study import study_volume

    with session.progress("study volume") as say:
        record = study_volume(session.settings, ask, progress=say)
        report = write_report(record, report_folder(session.settings.layout.reports, "volume"))
    session.emit(record.document() | {"report": str(report)}, summary(record, str(report)))


@app.command()
def live(
    ctx: typer.Context,
    policies: Annotated[
        list[Path] | None,
        typer.Option(
            help="A policy, a YAML file; may be given several times (default: the ranker daily).",
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        str, typer.Option(help="world, or the folder of a home with a simulated world.")
    ] = "world",
    drift: Annotated[str, typer.Option(help="Of the world: none, mild or strong.")] = "strong",
    scale: Annotated[float, typer.Option(help="Of the world: 1 is 10,000 items and 6,000 users.")] = 0.3,
    days: Annotated[int, typer.Option(help="Shop days that each policy is lived through.")] = 31,
    qps: Annotated[float, typer.Option(help="Requests a wall second over HTTP, open loop.")] = 50.0,
    day_seconds: Annotated[
        float, typer.Option(help="Wall seconds in which a shop day goes by, besides runs and scoring.")
    ] = 5.0,
    quiet_seconds: Annotated[
        float, typer.Option(help="Wall seconds of each day in which there is nothing but the load.")
    ] = 6.5,
    run_seconds: Annotated[
        float, typer.Option(help="Wall seconds that the load sets aside for each run of a policy.")
    ] = 18.0,
    queries: Annotated[int, typer.Option(help="Queries of a day that each arm answers.")] = 200,
    margin: Annotated[
        float, typer.Option(help="NDCG@10 by which live may differ from predicted and still agree.")
    ] = 0.015,
    control: Annotated[bool, typer.Option(help="Live through `never`, too.")] = True,
    closed_loop: Annotated[
        bool, typer.Option("--closed-loop", help="Live through each policy without randomised slots, too.")
    ] = False,
    through: Annotated[
        str, typer.Option(help="Who starts runs: prefect, or process (the policy engine without Prefect).")
    ] = "prefect",
    home: HomeOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run policies for real beside a loaded service: the tail, freshness, cost, and predicted or not."""
    from flows.studies.live.ask import live_ask

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    ask = live_ask(
        policies or (),
        source=source,
        drift=drift,
        scale=scale,
        control=control,
        closed_loop=closed_loop,
        seed=session.settings.seed,
        days=days,
        qps=qps,
        day_seconds=day_seconds,
        quiet_seconds=quiet_seconds,
        run_seconds=run_seconds,
        queries=queries,
        margin=margin,
        through=through,
    )
    from flows.studies.live.report import write_report
    from flows.studies.live.study import study_live
    from flows.studies.live.words import summary
    from flows.studies.telling.report import report_folder

    with session.progress("study live") as say:
        record = study_live(session.settings, ask, progress=say)
        report = write_report(record, report_folder(session.settings.layout.reports, "live"))
    session.emit(record.document() | {"report": str(report)}, summary(record, str(report)))
    if record.promises:
        raise PromiseBroken(f"{'; '.join(record.promises)}; see {report}")


@app.command()
def compare(
    ctx: typer.Context,
    a: Annotated[Path, typer.Argument(help="study.json of a study, or the folder of its report.")],
    b: Annotated[Path, typer.Argument(help="Of the other study.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two studies of intervals: where they agree, and how their policies differ."""
    from flows.studies.telling.compare import compare as compare_studies
    from flows.studies.telling.compare import describe

    session = open_session(ctx, home=home, as_json=as_json)
    found = compare_studies(a, b)
    session.emit(found, describe(found))
