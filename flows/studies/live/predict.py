"""What the study of intervals predicts of each policy, and the margin: written down before anything is run.

The same world, its own log, the release that the shop begins with, models scored by age on the same days.
Predicted is what retraining the ranker adds over never retraining it (full − state_fresh), by day. It sees
nothing of the live run. Beside it, told afterwards: the same of the log that the live shop wrote.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.search.retrieve import RetrieveConfig
from data.snapshots import published, read_events
from flows.offline.ingest import ingest
from flows.offline.inputs import COLUMNS
from flows.policies.policy import Policy
from flows.policies.replay import EMPTY, replay
from flows.studies.cells.age_runs import AgeRun
from flows.studies.cells.asks import duration_name, interval_ask
from flows.studies.cells.learners import learner_of
from flows.studies.live.ask import CONTROL, LiveAsk
from flows.studies.panels.panel import Panel
from flows.studies.panels.sources import open_panel, publish_delay
from flows.studies.panels.world import Deployed
from flows.studies.statistics.intervals import cluster_error, interval
from infra.clock import DAY_US, HOUR_US
from infra.files import write_atomic
from infra.settings import Home, Settings
from models.metrics import Interval
from models.release import champion, load_release

__all__ = ["HINDCAST", "Predicted", "every_of", "hindcast", "predictions", "read_hindcast"]

HINDCAST = "hindcast.json"  # beside what happened in a trial

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
    settings: Settings, ask: LiveAsk, start: Home, folder: Path, progress: Callable[..., None]
) -> dict[str, Predicted]:
    """By the policy's name; read from `folder`/predicted.json where it stands there already."""
    path = folder / "predicted.json"
    if not path.exists():
        wanted = {t.policy.name: t.policy for t in ask.trials if t.policy.name != CONTROL}
        found = _told(settings, ask, list(wanted.values()), _deployed(start), progress)
        _write(path, found, ask)
    document = json.loads(path.read_text())
    return {n: _read(n, found, document) for n, found in document["policies"].items()}


def hindcast(
    settings: Settings,
    ask: LiveAsk,
    policy: Policy,
    start: Home,
    home: Path,
    out: Path,
    progress: Callable[..., None],
) -> None:
    """What would have been predicted of a policy from the log in `home`, which it was lived through in.

    Prediction and hindcast differ by the log alone: the days' pages are the logging policy's there, here
    those of the very models that the policy made. Written to `out`/HINDCAST.
    """
    lived = replace(settings, home=home)
    progress("ingesting the log that the live shop wrote")
    ingest(lived)
    held = published(lived.layout)
    events = read_events(held, columns=COLUMNS)
    deployed = replace(_deployed(start), events=events, log=held.content_hash)
    once = replace(settings, cache=home / "cache")  # nobody asks for this panel again
    _write(out / HINDCAST, _told(once, ask, [policy], deployed, progress), ask)


def read_hindcast(out: Path, policy: str) -> Predicted | None:
    """What `hindcast` wrote of a policy; None where it did not."""
    path = out / HINDCAST
    if not path.exists():
        return None
    document = json.loads(path.read_text())
    return _read(policy, document["policies"][policy], document)


def _deployed(start: Home) -> Deployed:
    """The shop that every policy begins with."""
    first = champion(start)
    assert first is not None, "a start home without a release"
    return Deployed(load_release(start, first), RetrieveConfig().candidates)


def _write(path: Path, policies: dict[str, Any], ask: LiveAsk) -> None:
    document = {"declared_wall_us": time.time_ns() // 1_000, "margin": ask.margin, "policies": policies}
    write_atomic(path, json.dumps(document, indent=1, allow_nan=False).encode())


def _told(
    settings: Settings,
    ask: LiveAsk,
    policies: Sequence[Policy],
    deployed: Deployed,
    progress: Callable[..., None],
) -> dict[str, Any]:
    """What is said of each policy, by its name."""
    found: dict[str, dict[str, Any]] = {
        p.name: {"note": "the policy leaves the ranker as it is, and only rankers are predicted"}
        for p in policies
    }
    studied = [p for p in policies if "ranker" in p.components]
    if studied:
        panel, at = _panel(settings, ask, deployed, progress)
        delay_us = publish_delay(settings)
        for policy in studied:
            found[policy.name] = _predict(settings, ask, panel, at, policy, delay_us, progress)
    return found


def _panel(
    settings: Settings, ask: LiveAsk, deployed: Deployed, progress: Callable[..., None]
) -> tuple[Panel, Path]:
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
        deployed=deployed,
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
