"""What intervals of confidence cost: by age, against policies run on random parts of their own schedules.

    python benchmarks/equal_width.py [--home HOME] [--draws N] [--workers N] [--out FILE]

The default world study (by age, paired within slices) is run or taken from the home's cells. Its rivals
have a panel of their own with a slice for each training of the shortest interval, so that none is wasted:
`own` draws a share of each policy's trainings, scores each where it is live, and takes differences of
unpaired means; `paired` takes the same draws, and differences on the slices that both happen to have;
`on_slices` trains for all policies together only what is live on the study's own slices. Costs are
CPU-seconds of training; widths fall with the root of the cost (`slope` says whether they do), so that
`ratio` is cost times squared width over those of by age: the cost at equal width. The headline is its
median over policies for `over_never` and `own`, at the largest share below all: fewer slices also have
wider tails, which is not the fault of the rival. The last line of standard output is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from numpy.typing import NDArray

from flows.studies.cells import exact
from flows.studies.cells.age_runs import AgeRun
from flows.studies.cells.asks import IntervalAsk, interval_ask
from flows.studies.cells.cell import Cell, CellStore, Scores
from flows.studies.cells.ranker import RankerLearner
from flows.studies.cells.subsample import Schedules, half_width, slope
from flows.studies.cells.workers import run_cells
from flows.studies.panels.panel import Panel
from flows.studies.panels.sources import open_panel, publish_delay
from flows.studies.telling.told import policies_of, span
from infra.files import write_atomic
from infra.machine import describe_machine, source_commit
from infra.settings import Settings, load_settings

Floats = NDArray[np.float64]
SHARES = (0.15, 0.25, 0.4, 0.6, 0.8, 1.0)
KINDS = ("mean", "over_never", "minus_shortest")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, help="a home whose study cells are used and added to")
    parser.add_argument("--seed", type=int, default=7, help="of the world and of the draws")
    parser.add_argument("--draws", type=int, default=40, help="random parts of each share")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="trainings at a time")
    parser.add_argument("--delay-s", type=float, help="publish delay; else that of the home")
    parser.add_argument("--out", type=Path, help="write the document there, too")
    given = parser.parse_args()
    settings = load_settings(home=given.home, seed=given.seed)
    ask = interval_ask("world", seed=given.seed, workers=given.workers)
    delay_us = publish_delay(settings) if given.delay_s is None else round(given.delay_s * 1e6)
    found = measure(settings, ask, delay_us=delay_us, draws=given.draws)
    if given.out is not None:
        write_atomic(given.out, json.dumps(found, indent=1).encode())
    for rival, told in found["rivals"].items():
        for part in told["parts"]:
            ratios = {kind: part[kind]["median"] for kind in KINDS}
            _say(f"{rival:10} {part['share']:4.0%} {part['cpu_s']:7.1f} CPU-s, ratio {ratios}")
    _say(json.dumps(found))


def measure(settings: Settings, ask: IntervalAsk, *, delay_us: int, draws: int) -> dict[str, Any]:
    """All figures: costs in CPU-seconds of training, widths of NDCG@10, ratios of cost at equal width."""
    learner, store = RankerLearner(), settings.layout.root / "studies" / "cells"
    panel, folder = _panel(settings, ask, ask.slices)
    run = AgeRun.of(
        panel,
        folder,
        learner,
        ask,
        delay_us=delay_us,
        seeds=(ask.seed,),
        store=store,
        workers=ask.workers or 1,
        progress=_progress,
    )
    policies = [
        exact.Policy(learner.name, i, f, ask.window_us, ask.start, ask.seed)
        for i in ask.intervals_us
        for f in ask.fractions
    ]
    ours = _by_age(run, ask, delay_us)
    costs = run.costs()
    one = {fraction: value for (fraction, _), value in costs.mean_cpu_s.items()}
    spent = sum(s.cpu_s for s in run.found.values())

    def scored(on: Panel, at: Path) -> tuple[Schedules, dict[Cell, Scores]]:
        wanted = {c: s for c, s in exact.wanted(policies, on, delay_us=delay_us).items() if s}
        found = run_cells(
            at, learner, wanted, CellStore(store), workers=ask.workers or 1, progress=_cells, panel=on
        )
        return Schedules.of(policies, on, found, delay_us=delay_us, cpu_s=one), found

    here, live = scored(panel, folder)
    horizon_us, shortest_us = panel.end_us - panel.horizon_us, min(i for i in ask.intervals_us if i)
    dense, _ = scored(*_panel(settings, ask, round(horizon_us / shortest_us)))
    rng = np.random.default_rng(ask.seed)
    parts: dict[str, list[dict[str, Any]]] = {"own": [], "paired": []}
    for share in SHARES:
        drawn = [dense.draw(share, rng) for _ in range(draws if share < 1 else 1)]
        for rival, told in parts.items():
            widths = [_widths(dense, d.there, ask, paired=rival == "paired") for d in drawn]
            cost = float(np.mean([d.cpu_s for d in drawn]))
            told.append({"share": share, "trainings": drawn[0].count} | _part(cost, widths, ours, spent))
    everywhere = np.ones((len(policies), len(panel.slices)), bool)
    cost = sum(one[c.fraction] for c in live)
    alone = {"share": 1.0, "trainings": len(live)}
    parts["on_slices"] = [alone | _part(cost, [_widths(here, everywhere, ask, paired=True)], ours, spent)]
    return {
        "benchmark": "equal_width",
        "seed": ask.seed,
        "policies": len(policies),
        "slices": len(panel.slices),
        "slices_of_rivals": len(dense.clusters),
        "draws": draws,
        "by_age": {
            "cells": len(run.found),
            "cpu_s": spent,
            "half_width": {kind: float(np.nanmedian(w)) for kind, w in ours.items()},
        },
        "each_policy_alone_cpu_s": costs.each_policy_alone_cpu_s,
        "exact_grid_cpu_s": costs.exact_grid_cpu_s,
        "mean_cpu_s": {f"{fraction:g}": value for fraction, value in one.items()},
        "rivals": {
            rival: {"parts": told, "slope": _slopes(told) if len(told) > 1 else None}
            for rival, told in parts.items()
        },
        "commit": source_commit(),
        "machine": describe_machine(),
    }


def _panel(settings: Settings, ask: IntervalAsk, slices: int) -> tuple[Panel, Path]:
    return open_panel(
        settings,
        "world",
        drift=ask.drift,
        scale=ask.scale,
        seed=ask.seed,
        burn_in_d=ask.burn_in_d,
        horizon_d=ask.horizon_d,
        window_d=ask.window_d,
        slices=slices,
        queries=ask.queries,
        progress=_progress,
    )


def _by_age(run: AgeRun, ask: IntervalAsk, delay_us: int) -> dict[str, Floats]:
    """Half the width of what the study reports of each policy: float64 [p] of each kind."""
    told = policies_of(run.learner.name, [run], ask, delay_us)
    never = {t.fraction: t for t in told if t.interval_us is None}
    shortest = told[ask.fractions.index(max(ask.fractions))]
    pairs: dict[str, list[tuple[Any, Any]]] = {
        "mean": [(t, None) for t in told],
        "over_never": [(t, never[t.fraction]) for t in told],
        "minus_shortest": [(t, shortest) for t in told],
    }
    return {
        kind: np.array(
            [np.nan if t is less else half_width(span(t, less, [run], ask.seed)) for t, less in each]
        )
        for kind, each in pairs.items()
    }


def _widths(
    schedules: Schedules, there: NDArray[np.bool_], ask: IntervalAsk, *, paired: bool
) -> dict[str, Floats]:
    per = len(ask.fractions)
    numbers = range(len(schedules.policies))
    last = len(schedules.policies) - per  # the policies of the last interval, never
    return {
        "mean": schedules.widths(there, [None for _ in numbers], paired=paired),
        "over_never": schedules.widths(there, [last + p % per for p in numbers], paired=paired),
        "minus_shortest": schedules.widths(there, [per - 1 for _ in numbers], paired=paired),
    }


def _part(
    cpu_s: float, widths: Sequence[Mapping[str, Floats]], ours: Mapping[str, Floats], spent: float
) -> dict[str, Any]:
    """The ratio of cost at equal width of each kind, the median over draws, then over policies."""
    out: dict[str, Any] = {"cpu_s": cpu_s}
    for kind, target in ours.items():
        square = np.array([w[kind] ** 2 for w in widths])
        held = np.isfinite(square)
        told = held.any(0) & np.isfinite(target)
        usual = np.nanmedian(square[:, told], axis=0)
        ratio = cpu_s / spent * usual / target[told] ** 2
        out[kind] = {
            "half_width": float(np.median(np.sqrt(usual))),
            "told": float(held[:, told].mean()),
            "median": round(float(np.median(ratio)), 2),
            "least": round(float(ratio.min()), 2),
            "most": round(float(ratio.max()), 2),
            "policies_above_3": int((ratio >= 3).sum()),
            "policies": int(told.sum()),
        }
    return out


def _slopes(parts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {k: slope([p["cpu_s"] for p in parts], [p[k]["half_width"] for p in parts]) for k in KINDS}


def _progress(*message: object) -> None:
    sys.stderr.write(" ".join(str(m) for m in message) + "\n")


def _cells(done: int, total: int, left_s: float | None) -> None:
    _progress(f"{done} of {total} cells" + ("" if left_s is None else f", about {left_s:.0f} s left"))


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
