"""Exact: a policy's own models, composed slice by slice; and what doing without sharing would cost.

A policy trains at its own times; its live model at a slice's start is the newest one that is published by
then. Cells of all policies on one grid are shared; a warm start is a true chain, each model grown from the
one before. `simulate` runs one policy plainly, sharing nothing: composition equals it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flows.studies.cells.cell import Cell, Scores
from flows.studies.cells.learner import Fit, Fitted, Learner
from flows.studies.panels.panel import Panel
from infra.errors import DataError, InputError

__all__ = [
    "Costs",
    "Policy",
    "Simulated",
    "cells_of",
    "compose",
    "costs",
    "live",
    "schedule",
    "simulate",
    "wanted",
]


@dataclass(frozen=True)
class Policy:
    """When one component is trained, on what, how. `interval_us` None: never again after the first time."""

    component: str
    interval_us: int | None
    fraction: float = 1.0
    window_us: int | None = None
    start: str = "cold"
    seed: int = 7


@dataclass(frozen=True)
class Costs:
    """CPU-seconds of trainings. `train_cpu_s`: of all cells here, kept ones at what they cost then.

    `each_policy_alone_cpu_s`: if each policy ran its own schedule; `exact_grid_cpu_s`: one training a grid
    time and fraction. `mean_cpu_s`: of one training, by fraction and start.
    """

    train_cpu_s: float
    each_policy_alone_cpu_s: float
    exact_grid_cpu_s: float
    mean_cpu_s: Mapping[tuple[float, str], float]


@dataclass(frozen=True)
class Simulated:
    """One policy as it was run for itself.

    `queries`: NDCG@10 of each slice's queries, float64 [q] a slice; `cpu_s`: of its trainings, without
    `shared_cpu_s` of what all trainings of a panel share, such as binning; `trainings`: how many there were.
    """

    queries: list[NDArray[np.float64]]
    cpu_s: float
    shared_cpu_s: float
    trainings: int


def schedule(interval_us: int | None, *, start_us: int, end_us: int) -> NDArray[np.int64]:
    """The training times in [start_us, end_us), from `start_us` on: int64 [k]. None: once."""
    if interval_us is None:
        return np.array([start_us], np.int64)
    if interval_us <= 0:
        raise InputError(f"an interval of {interval_us} µs; expected more than 0")
    return np.arange(start_us, max(end_us, start_us + 1), interval_us, dtype=np.int64)


def live(times_us: NDArray[np.int64], at_us: int, *, delay_us: int) -> int:
    """Which model is live at a time: the newest that was published by then.

    The first one is taken to be there from the beginning: a shop starts with a model.
    """
    return max(int(np.searchsorted(times_us + delay_us, at_us, side="right")) - 1, 0)


def cells_of(policy: Policy, panel: Panel) -> tuple[Cell, ...]:
    """The policy's trainings in order. Warm: each starts from the one before, the first is cold."""
    found: list[Cell] = []
    times = schedule(policy.interval_us, start_us=panel.horizon_us, end_us=panel.end_us)
    for trained_us in times.tolist():
        parent = found[-1] if policy.start == "warm" and found else None
        start = "warm" if parent is not None else "cold"
        found.append(
            Cell(policy.component, trained_us, policy.fraction, policy.window_us, start, parent, policy.seed)
        )
    return tuple(found)


def wanted(
    policies: Sequence[Policy],
    panel: Panel,
    *,
    delay_us: int,
    found: Mapping[Cell, Scores] | None = None,
) -> dict[Cell, list[tuple[int, bool]]]:
    """Every training of the policies, and the slices at which each is live, as `run_cells` takes them.

    `found`: of an earlier run; a training that found nothing to learn leaves the model before it live,
    which has then to be scored in a second run.
    """
    asked: dict[Cell, set[tuple[int, bool]]] = {}
    for policy in policies:
        cells = cells_of(policy, panel)
        for cell in cells:
            asked.setdefault(cell, set())
        for k, cell in enumerate(_serving(cells, panel, found or {}, delay_us)):
            asked[cell].add((k, False))
    return {cell: sorted(slices) for cell, slices in asked.items()}


def compose(
    policy: Policy, panel: Panel, found: Mapping[Cell, Scores], *, delay_us: int
) -> list[NDArray[np.float64]]:
    """NDCG@10 of each slice's queries under the policy, from its cells: float64 [q] a slice.

    Where a training found nothing to learn, the model before it stays live; NaN before there is any.
    """
    result: list[NDArray[np.float64]] = []
    for k, cell in enumerate(_serving(cells_of(policy, panel), panel, found, delay_us)):
        if k not in found[cell].ndcg:
            raise DataError(
                f"{cell} is not scored on slice {k}; run what `wanted(…, found=…)` gives for {policy}"
            )
        result.append(found[cell].ndcg[k])
    return result


def simulate(panel: Panel, learner: Learner, policy: Policy, *, delay_us: int) -> Simulated:
    """Run one policy plainly, event by event: train when due, publish after the delay, score as queries come.

    It shares neither cells nor code with `compose`.
    """
    step = policy.interval_us or panel.end_us
    due = [(t, 1, -1) for t in range(panel.horizon_us, max(panel.end_us, panel.horizon_us + 1), step)]
    if policy.interval_us is None:
        due = due[:1]
    events = due + [(part.start_us, 2, k) for k, part in enumerate(panel.slices)]
    made: list[Fitted] = []
    newest: bytes | None = None
    coming: list[tuple[int, bytes]] = []
    serving: bytes | None = None
    scored: dict[int, NDArray[np.float64]] = {}
    for now_us, kind, k in sorted(events):
        while coming and coming[0][0] <= now_us:
            serving = coming.pop(0)[1]
        if kind == 1:
            parent = newest if policy.start == "warm" else None
            fit = Fit(now_us, policy.fraction, policy.window_us, policy.seed)
            try:
                made.append(learner.fit(panel, fit, parent=parent))
            except DataError:
                continue
            newest = made[-1].model
            if now_us == panel.horizon_us:
                serving = newest
            else:
                coming.append((now_us + delay_us, newest))
        elif serving is None:
            scored[k] = np.full(len(panel.slices[k].groups), np.nan)
        else:
            scored[k] = learner.score(panel, serving, k)
    return Simulated(
        [scored[k] for k in range(len(panel.slices))],
        sum(m.cpu_s for m in made),
        sum(m.metrics.get("shared_cpu_s", 0.0) for m in made),
        len(made),
    )


def costs(
    found: Mapping[Cell, Scores], policies: Sequence[Policy], *, horizon_us: int, grid_us: int
) -> Costs:
    """What was spent on the cells, and what it would have been without sharing them.

    `horizon_us`: length of the horizon; `grid_us`: of the exact grid, commonly the shortest interval. A
    training costs the mean of those measured at its fraction and start, else at its fraction. Raises
    DataError for a fraction without any.
    """
    spent: dict[tuple[float, str], list[float]] = {}
    for cell, scores in found.items():
        if not scores.why:
            spent.setdefault((cell.fraction, cell.start), []).append(scores.cpu_s)
            spent.setdefault((cell.fraction, ""), []).append(scores.cpu_s)
    mean = {at: float(np.mean(values)) for at, values in spent.items()}

    def one(fraction: float, start: str) -> float:
        if (fraction, "") not in mean:
            raise DataError(f"no training was measured at fraction {fraction:g}; run a cell of it first")
        return mean.get((fraction, start), mean[fraction, ""])

    alone = sum(
        one(p.fraction, p.start) * (1.0 if p.interval_us is None else horizon_us / p.interval_us)
        for p in policies
    )
    lines = {(p.fraction, p.start, p.seed) for p in policies}
    grid = sum(one(fraction, start) for fraction, start, _ in lines) * horizon_us / grid_us
    return Costs(
        train_cpu_s=sum(s.cpu_s + s.metrics.get("shared_cpu_s", 0.0) for s in found.values()),
        each_policy_alone_cpu_s=alone,
        exact_grid_cpu_s=grid,
        mean_cpu_s={at: value for at, value in mean.items() if at[1]},
    )


def _serving(cells: Sequence[Cell], panel: Panel, found: Mapping[Cell, Scores], delay_us: int) -> list[Cell]:
    """The live cell at each slice's start."""
    made = [c for i, c in enumerate(cells) if i == 0 or c not in found or not found[c].why]
    times = np.array([c.trained_us for c in made])
    return [made[live(times, s.start_us, delay_us=delay_us)] for s in panel.slices]
