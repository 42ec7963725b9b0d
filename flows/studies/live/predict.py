"""What the study of intervals predicts of each policy, and the margin: written down before anything is run.

The same world, its own log, models scored by age on the same days. Predicted is what retraining the ranker
adds over never retraining it (full − state_fresh), by day. It sees nothing of the live run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.policies.policy import Policy
from flows.policies.replay import EMPTY, replay
from flows.studies.cells.age_runs import AgeRun
from flows.studies.cells.asks import duration_name, interval_ask
from flows.studies.cells.learners import learner_of
from flows.studies.live.ask import CONTROL, LiveAsk
from flows.studies.panels.panel import Panel
from flows.studies.panels.sources import open_panel, publish_delay
from flows.studies.statistics.intervals import cluster_error, interval
from infra.clock import DAY_US, HOUR_US
from infra.files import write_atomic
from infra.settings import Settings
from models.metrics import Interval

__all__ = ["Predicted", "every_of", "predictions"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Predicted:
    """What is predicted of one policy: NDCG@10 over never retraining, by day float64 [d] (NaN: unknown).

    `state` float64 [d]: what fresh state adds without any retraining; `error`: standard error of the mean
    weights' gain that comes of which queries were asked; `interval`: of the ranker, in the mean.
    """

    policy: str
    interval: str
    weights: Floats
    state: Floats
    error: float
    gain: Interval
    margin: float
    declared_wall_us: int
    note: str = ""


def predictions(
    settings: Settings, ask: LiveAsk, folder: Path, progress: Callable[..., None]
) -> dict[str, Predicted]:
    """By the policy's name; read from `folder`/predicted.json where it stands there already."""
    path = folder / "predicted.json"
    if not path.exists():
        document = _declared(settings, ask, progress)
        write_atomic(path, json.dumps(document, indent=1, allow_nan=False).encode())
    document = json.loads(path.read_text())
    return {n: _read(n, found, document) for n, found in document["policies"].items()}


def _declared(settings: Settings, ask: LiveAsk, progress: Callable[..., None]) -> dict[str, Any]:
    wanted = {t.policy.name: t.policy for t in ask.trials if t.policy.name != CONTROL}
    studied = {name: p for name, p in wanted.items() if "ranker" in p.components}
    found: dict[str, dict[str, Any]] = {}
    if studied:
        panel, at = _panel(settings, ask, progress)
        delay_us = publish_delay(settings)
        for name, policy in studied.items():
            found[name] = _predict(settings, ask, panel, at, policy, delay_us, progress)
    for name in set(wanted) - set(found):
        found[name] = {"note": "the policy leaves the ranker as it is, and only rankers are predicted"}
    return {"declared_wall_us": time.time_ns() // 1_000, "margin": ask.margin, "policies": found}


def _panel(settings: Settings, ask: LiveAsk, progress: Callable[..., None]) -> tuple[Panel, Path]:
    knobs = {k: v for k, v in ask.config.to_json().items() if k not in ("scale", "seed", "days")}
    progress("the study's panel of the same world")
    return open_panel(
        settings,
        "world",
        drift="none",  # the knobs say it all
        scale=ask.config.scale,
        seed=ask.config.seed,
        burn_in_d=float(ask.first_day),
        horizon_d=float(ask.days),
        window_d=ask.window_d,
        slices=ask.days,
        queries=ask.queries,
        progress=progress,
        **knobs,
    )


def _predict(
    settings: Settings,
    ask: LiveAsk,
    panel: Panel,
    folder: Path,
    policy: Policy,
    delay_us: int,
    progress: Callable[..., None],
) -> dict[str, Any]:
    """One policy by age: as if its ranker were made anew at even intervals, as often as it is in the mean."""
    part = policy.components["ranker"]
    length_us, note = every_of(policy, ask.days)
    names = tuple(dict.fromkeys((duration_name(length_us), duration_name(None))))
    study = interval_ask(
        "world",
        intervals=names,
        fractions=(part.fraction,),
        window_d=ask.window_d if part.window_d is None else part.window_d,
        horizon_d=float(ask.days),
        burn_in_d=float(ask.first_day),
        slices=ask.days,
        queries=ask.queries,
        seed=ask.seed,
        start=part.start,
    )
    cells = settings.layout.root / "studies" / "cells"
    run = AgeRun.of(
        panel,
        folder,
        learner_of("ranker", cells, window_us=study.window_us),
        study,
        delay_us=delay_us,
        seeds=(ask.seed,),
        store=cells,
        workers=1,  # in this process: a Ray of its own costs what a second worker would gain
        progress=progress,
    )
    fresh = run.horizon_start(part.fraction, frozen=False)
    frozen = run.horizon_start(part.fraction, frozen=True)
    full = run.under(length_us, part.fraction, delay_us=delay_us)
    gains = [a - b for a, b in zip(full, fresh, strict=True)]
    weights, state = (
        np.array([q.mean() if len(q) else np.nan for q in queries])
        for queries in (gains, [a - b for a, b in zip(fresh, frozen, strict=True)])
    )
    error = cluster_error([g for g in gains if np.isfinite(g).all()], _kept(run.clusters, gains))
    spread = float(error[0]) if len(error) else float("nan")
    gain = interval(weights, seed=ask.seed, within=None if np.isnan(spread) else spread, trend=True)
    return {
        "interval": duration_name(length_us),
        "weights": _plain(weights),
        "state": _plain(state),
        "error": None if np.isnan(spread) else spread,
        "gain": _plain([gain.mean, gain.low, gain.high]),
        "cells": run.cells,
        "panel": panel.key,
        "note": note,
    }


def _kept(clusters: Sequence[NDArray[np.int64]], gains: Sequence[Floats]) -> list[NDArray[np.int64]]:
    return [c for c, g in zip(clusters, gains, strict=True) if np.isfinite(g).all()]


def every_of(policy: Policy, days: int) -> tuple[int | None, str]:
    """The mean interval of a policy's rankers, by the clock; None: never. And what is to be said of it."""
    alone = policy.model_copy(update={"ingest": None})
    fired = [f for f in replay(alone, EMPTY, since_us=0, until_us=days * DAY_US) if "ranker" in f.components]
    trigger = policy.components["ranker"].trigger
    if trigger.kind == "interval":
        return min(int(trigger.every), days * DAY_US), ""
    if not fired:
        told = "" if trigger.kind == "never" else "when it fires is not known beforehand; predicted as never"
        return None, told
    hours = max(1, round(days * 24 / len(fired)))
    return hours * HOUR_US, f"predicted as one every {duration_name(hours * HOUR_US)}, its mean interval"


def _read(name: str, found: dict[str, Any], document: dict[str, Any]) -> Predicted:
    def floats(key: str) -> Floats:
        return np.array([np.nan if v is None else v for v in found.get(key, ())], np.float64)

    gain = floats("gain")
    return Predicted(
        policy=name,
        interval=found.get("interval", ""),
        weights=floats("weights"),
        state=floats("state"),
        error=float("nan") if found.get("error") is None else float(found["error"]),
        gain=Interval(*gain.tolist()) if len(gain) else Interval(np.nan, np.nan, np.nan),
        margin=float(document["margin"]),
        declared_wall_us=int(document["declared_wall_us"]),
        note=found.get("note", ""),
    )


def _plain(values: Sequence[float] | Floats) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in values]
