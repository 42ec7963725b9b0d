"""`study live`: policies lived through by a real service, and held against what the study predicted of them.

In order: the start home, the prediction with its margin (written down), then one policy after the other.
What is finished stays in HOME/studies/live, and the same command goes on from it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import orjson

from flows.studies.live.ask import CONTROL, LiveAsk, Trial
from flows.studies.live.measure import closed_loop, lived, over_control, scored_of
from flows.studies.live.predict import hindcast, predictions
from flows.studies.live.record import ClosedLoop, Lived, LiveRecord
from flows.studies.live.start import copied, start_home
from flows.studies.live.trial import RAW, live_through
from flows.studies.live.verdict import Scored
from flows.studies.live.words import QUESTION, sentence
from infra import cluster
from infra.machine import describe_machine, source_commit
from infra.processes import exclusive
from infra.settings import Home, Settings

__all__ = ["study_live"]


def study_live(
    settings: Settings, ask: LiveAsk, *, progress: Callable[..., None] = lambda *_: None
) -> LiveRecord:
    """Run the study; a policy that was lived through before is not lived through again.

    Raises EnvironmentError_ while another live study runs in this home, InputError and DataError as its
    parts.
    """
    began = time.monotonic()
    folder = settings.layout.root / "studies" / "live" / ask.key
    with exclusive(folder.parent, "study live"):
        start = start_home(settings, ask, folder, progress)
        predicted = predictions(settings, ask, start, folder, progress)
        for trial in ask.trials:
            out = folder / trial.name
            if not (out / RAW).exists():
                _one(settings, ask, trial, start, out, progress)
            _told_afterwards(settings, ask, trial, start, out, progress)
    policies = [lived(ask, t, folder / t.name, predicted.get(t.policy.name)) for t in ask.trials]
    policies = _over_control(ask, folder, policies)
    return LiveRecord(
        question=QUESTION,
        source=ask.source,
        policies=tuple(policies),
        sentences=tuple(sentence(p) for p in policies if not p.control and not p.without_slots),
        closed_loop=_closed(ask, folder),
        requests=sum(p.requests for p in policies),
        failed=sum(p.failed for p in policies),
        seed=ask.seed,
        margin=ask.margin,
        days=ask.days,
        through=ask.through,
        drift=ask.drift if ask.source == "world" else "",
        wall_s=time.monotonic() - began,
        command=ask.command(),
        commit=source_commit(),
        arguments=ask.arguments(),
        machine=describe_machine(),
    )


def _one(
    settings: Settings,
    ask: LiveAsk,
    trial: Trial,
    start: Home,
    out: Path,
    progress: Callable[..., None],
) -> None:
    """Live through one policy, from a fresh copy of the start home."""
    home = _home(out.parent, trial)
    own = replace(
        settings,
        home=home,
        seed=ask.seed,
        http_port=0,
        prefect_port=0,
        haproxy_stats_port=0,
        haproxy_metrics_port=0,
    )
    cluster.down(own)  # what a killed study left
    copied(start, home)
    live_through(own, ask, trial, out, progress)


def _told_afterwards(
    settings: Settings, ask: LiveAsk, trial: Trial, start: Home, out: Path, progress: Callable[..., None]
) -> None:
    """The hindcast of a policy that was predicted, from its home, which goes away then."""
    home = _home(out.parent, trial)
    if not home.is_dir():
        return
    if trial.policy.name != CONTROL and trial.slots is None and "ranker" in trial.policy.components:
        hindcast(settings, ask, trial.policy, start, home, out, progress)
    shutil.rmtree(home, ignore_errors=True)


def _scored(ask: LiveAsk, folder: Path, name: str) -> list[Scored]:
    return scored_of(ask, orjson.loads((folder / name / RAW).read_bytes()), folder / name)


def _over_control(ask: LiveAsk, folder: Path, policies: list[Lived]) -> list[Lived]:
    """The policies, each with what it has over the control, where there is one."""
    if not any(p.control for p in policies):
        return policies
    control = _scored(ask, folder, CONTROL)
    return [
        p
        if p.control
        else replace(p, over_control=over_control(_scored(ask, folder, p.name), control, seed=ask.seed))
        for p in policies
    ]


def _home(folder: Path, trial: Trial) -> Path:
    return folder / f"home-{trial.name}"


def _closed(ask: LiveAsk, folder: Path) -> tuple[ClosedLoop, ...]:
    """The pairs of policies with and without randomised slots."""
    found = []
    for trial in ask.trials:
        if trial.slots is None:
            continue
        scored = [_scored(ask, folder, name) for name in (trial.policy.name, trial.name)]
        found.append(closed_loop(trial.policy.name, *scored, seed=ask.seed))
    return tuple(f for f in found if f is not None)
