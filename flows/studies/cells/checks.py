"""A study's own checks: cells trained again, and policies run alone for real.

What is told from measured costs and shared models is held against the thing itself. It decides nothing
about policies.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flows.studies.cells import exact
from flows.studies.cells.age_runs import AgeRun
from flows.studies.cells.asks import IntervalAsk, duration_name
from flows.studies.cells.cell import Cell, CellStore, Recheck, Scores, recheck
from flows.studies.cells.workers import run_cells
from models.metrics import Interval

__all__ = ["Confirmed", "Rechecked", "confirm", "confirmations", "rechecks"]


@dataclass(frozen=True)
class Rechecked:
    """How many random cells were trained again, how many score as they did bit for bit, and the largest
    difference of a query's NDCG@10."""

    cells: int
    equal: int
    largest_difference: float


@dataclass(frozen=True)
class Confirmed:
    """A policy that was run alone: trained on its own schedule, published after the delay, scored as live.

    CPU-seconds of this process: `cpu_s` of its trainings, `shared_cpu_s` of binning the panel's rows once,
    `scoring_cpu_s` of all else; `computed_cpu_s`: what `each_policy_alone_cpu_s` holds for it. NDCG@10, mean
    over slices: `ndcg10` as run, `composed_difference` the largest of a query between that and what its
    shared cells compose to, `told` what the study says of the policy.
    """

    component: str
    interval: str
    fraction: float
    trainings: int
    cpu_s: float
    computed_cpu_s: float
    shared_cpu_s: float
    scoring_cpu_s: float
    ndcg10: float
    composed_difference: float
    told: Interval | None = None

    @property
    def equal(self) -> bool:
        """Whether composition gives what the run gave, bit for bit."""
        return self.composed_difference == 0


def rechecks(
    runs: Mapping[str, Sequence[AgeRun]], ask: IntervalAsk, progress: Callable[..., None] = lambda *_: None
) -> Rechecked | None:
    """Train `ask.recheck` random cells of each component again, in turn of its worlds; None without any.

    Where nobody says how many: one of each component that had something to train.
    """
    found: list[Recheck] = []
    for own in runs.values():
        new = any(run.reused < run.cells for run in own)
        count = int(new) if ask.recheck is None else ask.recheck
        for i, run in enumerate(own):
            part = len(range(i, count, len(own)))
            if part:
                progress("training cells again")
                store = CellStore(run.store)
                found += recheck(run.panel, run.learner, store, run.found, count=part, seed=ask.seed + i)
    if not found:
        return None
    return Rechecked(len(found), sum(r.same for r in found), max(r.difference for r in found))


def confirmations(
    runs: Mapping[str, Sequence[AgeRun]],
    ask: IntervalAsk,
    told: Mapping[tuple[str, int | None, float], Interval],
    *,
    delay_us: int,
    progress: Callable[..., None] = lambda *_: None,
) -> tuple[Confirmed, ...]:
    """Run alone what `ask.confirm` names, of each component, in the first world.

    `told`: what the study says, by component, interval and fraction.
    """
    return tuple(
        confirm(
            own[0],
            length,
            fraction,
            delay_us=delay_us,
            told=told.get((component, length, fraction)),
            progress=progress,
        )
        for component, own in runs.items()
        for length, fraction in ask.confirmed
    )


def confirm(
    run: AgeRun,
    interval_us: int | None,
    fraction: float,
    *,
    delay_us: int,
    told: Interval | None = None,
    progress: Callable[..., None] = lambda *_: None,
) -> Confirmed:
    """Run a policy alone, with a copy of the learner that has read nothing yet; then compose it from cells.

    Of several training seeds the first. Cells of its own times that the study does not have are trained and
    kept with the others.
    """
    name = duration_name(interval_us)
    policy = exact.Policy(
        run.learner.name, interval_us, fraction, run.ask.window_us, run.ask.start, run.seeds[0]
    )
    progress(f"running {name} on {fraction:g} alone")
    learner = copy(run.learner)
    began = time.process_time()
    alone = exact.simulate(run.panel, learner, policy, delay_us=delay_us)
    spent = time.process_time() - began
    progress(f"composing {name} on {fraction:g}")
    found = _own_cells(run, policy, delay_us)
    composed = exact.compose(policy, run.panel, found, delay_us=delay_us)
    costs = exact.costs(
        run.found, [policy], horizon_us=run.panel.end_us - run.panel.horizon_us, grid_us=run.panel.end_us
    )
    return Confirmed(
        component=policy.component,
        interval=name,
        fraction=fraction,
        trainings=alone.trainings,
        cpu_s=alone.cpu_s,
        computed_cpu_s=costs.each_policy_alone_cpu_s,
        shared_cpu_s=alone.shared_cpu_s,
        scoring_cpu_s=spent - alone.cpu_s - alone.shared_cpu_s,
        ndcg10=float(np.nanmean([q.mean() for q in alone.queries if len(q)])),
        composed_difference=max(_apart(a, b) for a, b in zip(alone.queries, composed, strict=True)),
        told=told,
    )


def _own_cells(run: AgeRun, policy: exact.Policy, delay_us: int) -> dict[Cell, Scores]:
    """The policy's cells, scored where they serve; twice, as an empty training leaves the one before live."""
    found: dict[Cell, Scores] = {}
    for _ in range(2):
        wanted = exact.wanted([policy], run.panel, delay_us=delay_us, found=found)
        found = run_cells(run.folder, run.learner, wanted, CellStore(run.store), panel=run.panel)
    return found


def _apart(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    if np.array_equal(a, b, equal_nan=True):
        return 0.0
    return float(np.nan_to_num(np.abs(a - b), nan=np.inf).max())
