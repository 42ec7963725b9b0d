"""`shelflife bench serve`, `swap` and `overload`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.session import HomeOption, JsonOption, SeedOption, open_session, table, verb
from infra.errors import PromiseBroken

app = verb("Speed of the online path against the machine's own floors; swaps under load.")

ItemsOption = Annotated[int, typer.Option(min=200, help="Items of the catalogue that is generated.")]
FromOption = Annotated[
    Path | None, typer.Option("--from", help="Measure a copy of this home (of a world) instead.")
]


@app.callback()
def _group() -> None:
    """Speed of the online path against the machine's own floors; swaps under load."""


@app.command()
def serve(
    ctx: typer.Context,
    items: ItemsOption = 100_000,
    seconds: Annotated[float, typer.Option(min=1.0, help="Length of each paced run.")] = 30.0,
    rate: Annotated[float, typer.Option(min=1.0, help="Requests a second where paced.")] = 200.0,
    training: Annotated[bool, typer.Option(help="Also beside a ranker in training.")] = True,
    source: FromOption = None,
    home: HomeOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the service against a direct call, an empty handler, and other topologies."""
    from flows.bench.serve import TOPOLOGIES, ServeBench, bench_serve

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    bench = ServeBench(items, seconds, rate, training, source)
    with session.progress("bench serve") as say:
        found = bench_serve(session.settings, bench, progress=say)
    names = ("in_process", *TOPOLOGIES)
    columns = ("p50_ms", "p99_ms", "peak_rps", "rate", "verdict")
    lines = [
        table(("", *columns), [(n, *(found[n].get(c) for c in columns)) for n in names]),
        f"stages in us: {_pairs(found['stages_us'])}; all of a call {found['whole_us']:g}",
        f"AI share {found['ai_share']:.0%}; p99 of the whole over each stage's: "
        f"{_pairs(found['whole_to_component_p99'])}",
        f"cache hit rates: {_pairs(found['cache_hit_rates'])}",
        f"ratios: {_pairs(found['ratios'])}",
    ]
    if "training" in found:
        beside = found["training"]
        lines.append(
            "p99 beside a training: "
            + ", ".join(f"{n} {v['p99_ms']:g} ms" for n, v in beside.items() if isinstance(v, dict))
        )
    session.emit(found, "\n".join(lines))


@app.command()
def swap(
    ctx: typer.Context,
    items: ItemsOption = 100_000,
    swaps: Annotated[int, typer.Option(min=1, help="Swaps, in blocks of ten.")] = 100,
    qps: Annotated[float, typer.Option(min=1.0, help="Requests a second.")] = 200.0,
    peak_share: Annotated[
        float | None,
        typer.Option(
            "--peak-share",
            min=0.01,
            max=1.5,
            help="Instead of --qps: this share of the peak, found before each block.",
        ),
    ] = None,
    every_s: Annotated[
        float, typer.Option("--every-s", min=0.2, help="Seconds from one swap to the next.")
    ] = 4.0,
    only: Annotated[
        str | None, typer.Option(help="Swap this artifact alone, such as ranker; all others stay.")
    ] = None,
    alternatives: Annotated[
        int, typer.Option(min=0, help="Swaps in each of the textbook ways; 0: leave them out.")
    ] = 5,
    source: FromOption = None,
    home: HomeOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Swap releases under load, and hold that against the textbook ways."""
    from flows.bench.swap import SwapBench, bench_swap

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    bench = SwapBench(
        items, swaps, qps, every_s,
        alternatives=alternatives, source=source, only=only, peak_share=peak_share,
    )  # fmt: skip
    with session.progress("bench swap") as say:
        found = bench_swap(session.settings, bench, progress=say)
    ratio, excess = found["p99_ratio"], found["flip_excess"]
    lines = [
        f"{found['swaps']} swaps at {found['qps']:g}/s: "
        f"{found['failed']} of {found['requests']} requests failed, "
        f"{found['mixed']} mixed ({found['mixed_checks']['replies']} replies looked at); {found['verdict']}",
        *(f"  because {reason}" for reason in found["reasons"]),
        f"p99 {found['p99_installing_ms']} ms installing, {found['p99_quiet_ms']} ms quiet: "
        f"{ratio['mean']} times ({ratio['low']} to {ratio['high']})",
        f"median excess in 50 ms after the flip {excess['mean']} ms ({excess['low']} to {excess['high']})",
        f"longest gap {found['longest_gap_ms']} ms, without swaps {found['longest_gap_control_ms']} ms",
        f"memory at most {found['peak_memory_mb']} MB, {found['memory_mb_per_swap']} MB more a swap "
        f"({found['private_mb_per_swap']} MB of its own); "
        f"a release has {found['release_mb']} MB, a swap changes {found['changed_mb']} MB",
        f"of the {found['memory_swap']['only']} alone: memory rises by {found['memory_per_changed']} times "
        f"the changed bytes ({found['memory_swap'].get('counted_per_changed')} by counting allocations)",
    ]
    for way, other in found["alternatives"].items():
        lines.append(
            f"{way}: {other['swaps']} swaps, {other['failed']} of {other['requests']} failed, "
            f"p99 {other['p99_installing_ms']} ms, longest gap {other['longest_gap_ms']} ms"
        )
    lines.append(f"the picture: {session.settings.layout.reports / 'bench-swap' / 'swaps.html'}")
    session.emit(found, "\n".join(lines))
    if found["failed"] or found["mixed"]:
        raise PromiseBroken(
            f"{found['failed']} requests failed and {found['mixed']} were mixed; expected none"
        )


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


@app.command()
def overload(
    ctx: typer.Context,
    items: ItemsOption = 100_000,
    factor: Annotated[float, typer.Option(min=0.1, help="Times the service's own peak.")] = 2.5,
    seconds: Annotated[float, typer.Option(min=5.0, help="Length of the overload.")] = 30.0,
    home: HomeOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Offer a multiple of the service's own peak: who is answered, who refused, when it is quiet again."""
    from flows.bench.overload import Plan
    from flows.bench.overload import overload as run_overload

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    plan = Plan(factor=factor, overload_s=seconds)
    with session.progress("bench overload") as say:
        found = run_overload(session.settings, items=items, plan=plan, progress=say)
    rows = [(n, *found[n].values()) for n in ("quiet_ms", "accepted_ms", "rejected_ms", "after_5s_ms")]
    lines = [
        table(("", "n", "p50", "p90", "p99", "max"), rows),
        f"{found['offered_rps']:g}/s offered, {factor:g} times the peak of {found['peak_rps']:g}/s; "
        f"{found['accepted_rps']:g}/s answered; statuses {found['statuses']}",
        f"quiet again after {found['recovery_s']} s",
        *(f"broken: {promise}" for promise in found["broken"]),
    ]
    session.emit(found, "\n".join(lines))
    if found["broken"]:
        raise PromiseBroken("; ".join(found["broken"]))
