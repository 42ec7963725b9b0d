"""`study interval`: how often, and on how much of the data, a component has to be retrained.

Opens the panels, runs the cells, and turns their scores into policies, arms, a half-life and an advice.
It decides nothing that `staleness`, `attribution` and `choice` do not, and draws nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from data.sources.interactions import InteractionLog, log_of_home
from flows.studies.cells import exact
from flows.studies.cells.age_runs import AgeRun, joined
from flows.studies.cells.asks import IntervalAsk, duration_us
from flows.studies.cells.checks import confirmations, rechecks
from flows.studies.cells.learners import learner_of, refusal
from flows.studies.cells.workers import kept_workers
from flows.studies.panels.log import has_impressions
from flows.studies.panels.next_item.baselines import BASELINES, baseline_scores
from flows.studies.panels.panel import Panel
from flows.studies.panels.sources import LOADERS, SOURCES, open_panel, publish_delay
from flows.studies.statistics.attribution import Attribution, arms
from flows.studies.statistics.choice import Policy, choose, pareto
from flows.studies.statistics.shape import shape
from flows.studies.statistics.staleness import curve, half_life
from flows.studies.telling.components import each_words
from flows.studies.telling.findings import findings
from flows.studies.telling.record import (
    Arms,
    Baseline,
    ComponentResult,
    Curve,
    Heat,
    PolicyResult,
    Recommendation,
    StudyRecord,
    Timeline,
)
from flows.studies.telling.told import Told, bounded, policies_of, shortest_of, span, worlds_of
from flows.studies.telling.trec import write_trec
from flows.studies.telling.words import question
from infra.clock import DAY_US
from infra.errors import InputError
from infra.machine import describe_machine, source_commit
from infra.settings import Settings
from models.metrics import Interval

__all__ = ["study_interval"]


def study_interval(
    settings: Settings, ask: IntervalAsk, *, progress: Callable[..., None] = lambda *_: None
) -> StudyRecord:
    """Run the study. Finished cells stay in HOME/studies, so that it goes on where it was stopped.

    Raises InputError for intervals that the source cannot tell, DataError where it has too little.
    """
    began = time.monotonic()
    cells = settings.layout.root / "studies" / "cells"
    learners = {c: learner_of(c, cells, window_us=ask.window_us) for c in ask.components}
    seeds = tuple(range(ask.seed, ask.seed + ask.seeds))
    # Each seed is a world of its own; a log is one panel on which each trains.
    trained = [(s,) for s in seeds] if ask.source == "world" else [seeds]
    panels = [_opened(settings, ask, own[0], progress) for own in trained]
    panel = panels[0][0]
    left_out = _left_out([p for p, _ in panels], ask)
    delay_us = publish_delay(settings if ask.source in SOURCES else _of_home(settings, ask.source))
    with kept_workers():
        runs = {
            component: [
                AgeRun.of(
                    one,
                    folder,
                    learners[component],
                    ask,
                    delay_us=delay_us,
                    seeds=own,
                    store=cells,
                    workers=ask.workers or os.cpu_count() or 1,
                    progress=progress,
                )
                for (one, folder), own in zip(panels, trained, strict=True)
            ]
            for component in ask.components
            if component not in left_out
        }
    progress("intervals of confidence")
    each = {component: policies_of(component, own, ask, delay_us) for component, own in runs.items()}
    told = [t for own in each.values() for t in own]
    main, first = next(zip(runs.values(), each.values(), strict=True))
    reference = shortest_of(first)
    results = _results(told, runs, ask)
    curves, heats, kinds = _curves(runs, ask)
    gains = {c: _attribution(own, shortest_of(each[c]), ask.seed) for c, own in runs.items()}
    components = _components(runs, each, gains, curves, kinds, ask)
    attribution, advice = next(iter(gains.values())), components[0].recommendation
    costs = [r.costs() for found in runs.values() for r in found]
    told_of = {(p.component, duration_us(p.interval), p.fraction): p.ndcg10 for p in results}
    if ask.dump is not None:
        progress("writing TREC files")
        _dump(ask.dump, runs, each, delay_us)
    return StudyRecord(
        question=question(ask.component),
        source=ask.source,
        policies=results,
        recommendation=advice,
        arms=Arms(attribution.frozen, attribution.state_fresh, attribution.full),
        full_minus_state_fresh=attribution.weights,
        state_fresh_minus_frozen=attribution.state,
        weights_share=attribution.weights_share,
        half_life_d=curves[0].half_life_d if kinds[0] == "decay" else None,
        cells=sum(r.cells for found in runs.values() for r in found),
        cells_reused=sum(r.reused for found in runs.values() for r in found),
        train_cpu_s=sum(c.train_cpu_s for c in costs) + max(c.beside_cpu_s for c in components),
        each_policy_alone_cpu_s=sum(c.each_policy_alone_cpu_s for c in costs),
        exact_grid_cpu_s=sum(c.exact_grid_cpu_s for c in costs),
        seed=ask.seed,
        margin=ask.margin,
        publish_delay_s=delay_us / 1e6,
        finding=kinds[0],
        findings=(
            *each_words(components),
            *(f"The {c.replace('_', ' ')} was left out: {why}." for c, why in left_out.items()),
            *findings(ask, runs, advice.interval, told),
        ),
        components=components,
        curves=curves,
        heats=heats,
        timelines=_timelines(main[0], advice, ask, delay_us),
        baselines=_baselines(settings, ask, main, reference),
        drift=ask.drift if ask.source == "world" else "",
        budget_cpu_s=ask.budget_cpu_s,
        wall_s=time.monotonic() - began,
        panel_key=" ".join(r.panel.key[:16] for r in main),
        command=ask.command(),
        commit=source_commit(),
        arguments=asdict(ask),
        method={
            "slices": sum(len(r.panel.slices) for r in main),
            "queries": sum(len(s.groups) for r in main for s in r.panel.slices),
            "window_d": ask.window_d,
            "horizon_d": panel.horizon_d,
            "burn_in_d": (panel.horizon_us - panel.first_us) / DAY_US,
            "seeds": ask.seeds,
            "start": ask.start,
            "mode": "exact" if ask.exact else "by age",
            "learners": {c: found[0].learner.key for c, found in runs.items()},
        },
        about=dict(panel.about),
        machine=describe_machine(),
        recheck=rechecks(runs, ask, progress),
        confirmed=confirmations(runs, ask, told_of, delay_us=delay_us, progress=progress),
    )


def _opened(
    settings: Settings, ask: IntervalAsk, seed: int, progress: Callable[..., None]
) -> tuple[Panel, Path]:
    """The source's panel of that seed, on which the ask makes sense."""
    panel, folder = open_panel(
        settings,
        ask.source,
        drift=ask.drift,
        scale=ask.scale,
        seed=seed,
        burn_in_d=ask.burn_in_d,
        horizon_d=ask.horizon_d,
        window_d=ask.window_d,
        slices=ask.slices,
        queries=ask.queries,
        progress=progress,
    )
    ask.check(horizon_d=panel.horizon_d, resolution_us=panel.resolution_us, source=panel.source)
    return panel, folder


def _left_out(panels: Sequence[Panel], ask: IntervalAsk) -> dict[str, str]:
    """Why what was asked for cannot be studied, by component. InputError where nothing is left."""
    why = {c: next(filter(None, (refusal(c, p) for p in panels)), "") for c in ask.components}
    found = {c: reason for c, reason in why.items() if reason}
    if len(found) == len(ask.components):
        component, reason = next(iter(found.items()))
        raise InputError(
            f"--component {component} cannot be studied: {reason}; expected searches that were typed and "
            "clicked, on described items: take --component ranker, or --source world"
        )
    return found


def _components(
    runs: Mapping[str, Sequence[AgeRun]],
    each: Mapping[str, Sequence[Told]],
    gains: Mapping[str, Attribution],
    curves: Sequence[Curve],
    kinds: Sequence[str],
    ask: IntervalAsk,
) -> tuple[ComponentResult, ...]:
    """Each component by itself: what its fresh weights are worth, and how often to retrain it."""
    found = []
    for (name, own), curve_, kind in zip(runs.items(), curves, kinds, strict=True):
        half = curve_.half_life_d if kind == "decay" else None
        found.append(
            ComponentResult(
                component=name,
                full_minus_state_fresh=gains[name].weights,
                state_fresh_minus_frozen=gains[name].state,
                finding=kind,
                half_life_d=half,
                recommendation=_advice(each[name], ask),
                beside_cpu_s=sum(r.beside_cpu_s for r in own),
            )
        )
    return tuple(found)


def _of_home(settings: Settings, source: str) -> Settings:
    """The settings of the home that is the source."""
    return replace(settings, home=Path(source).expanduser().resolve())


def _results(
    told: Sequence[Told], runs: Mapping[str, Sequence[AgeRun]], ask: IntervalAsk
) -> tuple[PolicyResult, ...]:
    found = []
    for component in runs:
        own = [t for t in told if t.component == component]
        shortest = shortest_of(own)
        never = {t.fraction: t for t in own if t.interval_us is None}
        front = set(pareto([t.cpu_s_per_day for t in own], [np.nanmean(t.by_slice) for t in own]).tolist())
        for i, t in enumerate(own):
            still = never.get(t.fraction)
            found.append(
                PolicyResult(
                    component=component,
                    interval=t.name,
                    fraction=t.fraction,
                    start=ask.start,
                    ndcg10=bounded(span(t, None, runs[component], ask.seed)),
                    cpu_s_per_day=t.cpu_s_per_day,
                    over_never=None
                    if still is None or still is t
                    else span(t, still, runs[component], ask.seed),
                    minus_shortest=None if t is shortest else span(t, shortest, runs[component], ask.seed),
                    on_front=i in front,
                    by_slice=t.by_slice,
                )
            )
    return tuple(found)


def _attribution(runs: Sequence[AgeRun], reference: Told, seed: int) -> Attribution:
    fraction = reference.fraction
    frozen = [q for r in runs for q in r.horizon_start(fraction, frozen=True)]
    fresh = [q for r in runs for q in r.horizon_start(fraction, frozen=False)]
    both = zip(frozen, fresh, reference.by_query, strict=True)
    queries = [np.stack(x, axis=1) if len(x[2]) else np.empty((0, 3)) for x in both]
    means = np.array([q.mean(0) if len(q) else np.full(3, np.nan) for q in queries])
    clusters = [c for r in runs for c in r.clusters]
    return arms(*means.T, queries=queries, clusters=clusters, seed=seed, worlds=worlds_of(runs))


def _advice(told: Sequence[Told], ask: IntervalAsk) -> Recommendation:
    policies = [Policy(t.interval_us, t.fraction, t.by_slice, t.cpu_s_per_day, ask.start) for t in told]
    found = choose(policies, margin=ask.margin, budget=ask.budget_cpu_s, seed=ask.seed)
    name = next(t.name for t in told if (t.interval_us, t.fraction) == (found.interval_us, found.fraction))
    return Recommendation(
        interval=name,
        fraction=found.fraction,
        why=found.why,
        component=told[0].component,
        start=found.start,
        cpu_s_per_day=found.cpu_s_per_day,
        difference=found.difference,
        chosen_on=len(found.chosen_on),
        reported_on=len(found.reported_on),
        reference="the shortest interval" if ask.budget_cpu_s is None else "the best policy",
        holds=found.holds,
    )


def _curves(
    runs: Mapping[str, Sequence[AgeRun]], ask: IntervalAsk
) -> tuple[tuple[Curve, ...], tuple[Heat, ...], tuple[str, ...]]:
    """Of each component on most data: the curve with its half-life, the heat map, and the kind of effect."""
    curves, heats, kinds = [], [], []
    for component, own in runs.items():
        scores = joined(own, max(ask.fractions))
        worlds = worlds_of(own)
        found = curve(scores, seed=ask.seed, worlds=worlds)
        half = half_life(found)
        smaller = [] if ask.exact else [f for f in ask.fractions if f < max(ask.fractions)]
        parts = [joined(own, f) for f in smaller]
        kinds.append(shape(scores, fractions=parts, found=found, seed=ask.seed, worlds=worlds).kind)
        curves.append(
            Curve.of_loss(
                component,
                found.ages_d,
                found.loss,
                found.low,
                found.high,
                half_life_d=None if half is None else Interval(half.mean, half.low, half.high),
                edge="" if half is None else half.edge,
                fraction=max(ask.fractions),
                start=ask.start,
            )
        )
        one = own[0]
        days = (np.array([s.start_us for s in one.panel.slices]) - one.panel.horizon_us) / DAY_US
        heats.append(Heat(component, days, scores.ages_d, scores.ndcg[: len(days)]))
    return tuple(curves), tuple(heats), tuple(kinds)


def _dump(
    dump: Path, runs: Mapping[str, Sequence[AgeRun]], each: Mapping[str, Sequence[Told]], delay_us: int
) -> None:
    """Every policy's scores of every component, on the same slices."""
    slices = [part for r in next(iter(runs.values())) for part in r.panel.slices]
    scores = {
        f"{t.component} {t.name} {t.fraction:g}": [
            one for r in own for one in r.candidates(t.interval_us, t.fraction, delay_us=delay_us)
        ]
        for component, own in runs.items()
        for t in each[component]
    }
    write_trec(dump, slices, scores)


def _timelines(run: AgeRun, advice: Recommendation, ask: IntervalAsk, delay_us: int) -> tuple[Timeline, ...]:
    """The live model's age under the shortest interval, the recommended one, and never."""
    panel = run.panel
    names = dict.fromkeys([ask.intervals[0], advice.interval, ask.intervals[-1]])
    found = []
    at = np.linspace(panel.horizon_us, panel.end_us, 400).astype(np.int64)
    for name in names:
        times = exact.schedule(duration_us(name), start_us=panel.horizon_us, end_us=panel.end_us)
        live = np.array([times[exact.live(times, int(t), delay_us=delay_us)] for t in at])
        found.append(Timeline(name, (at - panel.horizon_us) / DAY_US, (at - live) / DAY_US))
    return tuple(found)


def _baselines(
    settings: Settings, ask: IntervalAsk, runs: Sequence[AgeRun], reference: Told
) -> tuple[Baseline, ...]:
    """Rankings that nothing is trained for, on the same pools; ours is the reference policy."""
    log = _log(settings, ask.source)
    if log is None:
        return ()
    found = []
    for name, queries in baseline_scores(runs[0].panel, log).items():
        means = np.array([q.mean() if len(q) else np.nan for q in queries])
        base = replace(reference, name=name, by_slice=means, by_query=queries)
        found.append(
            Baseline(
                name,
                ndcg10=bounded(span(base, None, runs, ask.seed)),
                ours_minus=span(reference, base, runs, ask.seed),
                note=BASELINES[name],
            )
        )
    return tuple(found)


def _log(settings: Settings, source: str) -> InteractionLog | None:
    """The log of a source without impressions; None for the others."""
    if source == "world":
        return None
    if source in LOADERS:
        return LOADERS[source](settings.cache)
    layout = _of_home(settings, source).layout
    return None if has_impressions(layout) else log_of_home(layout)
