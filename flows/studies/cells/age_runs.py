"""One component's cells on one panel, run and at hand: by age, and exactly where that is asked for.

It answers what each slice's queries would have got under a policy, and from the horizon's first model.
It knows no interval of confidence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.studies.cells import exact
from flows.studies.cells.asks import IntervalAsk
from flows.studies.cells.cell import Cell, CellStore, Scores, cell_key
from flows.studies.cells.ladder import Ladder, Line, ages, by_age, collect
from flows.studies.cells.learner import Learner
from flows.studies.cells.learners import stages_of
from flows.studies.cells.workers import run_cells
from flows.studies.panels.panel import Panel
from flows.studies.statistics.staleness import AgeScores, interval_quality, over_seeds
from infra.errors import DataError

__all__ = ["AgeRun", "joined"]


@dataclass(frozen=True)
class AgeRun:
    """`found`: what is known of each cell; `lines`: scores by age; `reused`: cells that were there before.

    `beside`: the fresh models that a scorer is seen through (`cells.reference`), no policy's own.
    """

    panel: Panel
    folder: Path
    learner: Learner
    ask: IntervalAsk
    seeds: tuple[int, ...]
    ladder: Ladder
    found: dict[Cell, Scores]
    lines: dict[Line, AgeScores]
    reused: int
    store: Path
    beside: dict[Cell, Scores] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        panel: Panel,
        folder: Path,
        learner: Learner,
        ask: IntervalAsk,
        *,
        delay_us: int,
        seeds: Sequence[int],
        store: Path,
        workers: int,
        progress: Callable[..., None],
    ) -> AgeRun:
        """Train and score what the store does not have. DataError where the panel has too little history."""
        lengths = [i for i in ask.intervals_us if i is not None]
        ladder = by_age(
            panel,
            component=learner.name,
            ages_us=ages(
                delay_us,
                ask.intervals_us,
                panel.end_us - panel.horizon_us,
                resolution_us=panel.resolution_us,
            ),
            fractions=(max(ask.fractions),) if ask.exact else ask.fractions,
            window_us=ask.window_us,
            starts=("cold",) if ask.start == "cold" or ask.exact or not lengths else ("cold", "warm"),
            seeds=seeds,
            intervals_us=ask.intervals_us,
        )
        wanted: dict[Cell, set[tuple[int, bool]]] = {c: set(s) for c, s in ladder.wanted().items()}
        if ask.exact:
            policies = [p for s in seeds for p in _policies(ask, learner.name, s)]
            for cell, slices in exact.wanted(policies, panel, delay_us=delay_us).items():
                wanted.setdefault(cell, set()).update(slices)
            for policy in policies:
                first = exact.cells_of(policy, panel)[0]
                wanted[first].update(
                    (k, frozen) for k in range(len(panel.slices)) for frozen in (False, True)
                )
        cells = CellStore(store)
        *before, last = (
            *stages_of(learner, panel),
            (learner, {c: sorted(s) for c, s in wanted.items()}),
        )
        reused = sum(
            cells.path(cell_key(panel, of, c)).exists()
            for of, asked in (*before, last)
            for c in _with_parents(asked)
        )

        def run(of: Learner, asked: Mapping[Cell, Sequence[tuple[int, bool]]]) -> dict[Cell, Scores]:
            name = of.name if of is learner else f"{learner.name}, fresh {of.name} beside it"

            def say(done: int, total: int, left_s: float | None) -> None:
                left = "" if left_s is None else f", about {left_s:.0f} s left"
                progress(f"{name}: {done} of {total} cells{left}")

            return run_cells(folder, of, asked, cells, workers=workers, progress=say, panel=panel)

        beside = {c: s for of, asked in before for c, s in run(of, asked).items()}
        found = run(*last)
        lines = collect(panel, ladder, found)
        return cls(panel, folder, learner, ask, tuple(seeds), ladder, found, lines, reused, store, beside)

    @property
    def cells(self) -> int:
        """How many were needed, the models beside them included."""
        return len(self.found) + len(self.beside)

    @property
    def beside_cpu_s(self) -> float:
        """What the fresh models beside it cost: no policy pays for them."""
        return sum(s.cpu_s + s.metrics.get("shared_cpu_s", 0.0) for s in self.beside.values())

    @property
    def clusters(self) -> list[NDArray[np.int64]]:
        """The session, or user, of each query of each slice."""
        return [np.asarray(s.clusters) for s in self.panel.slices]

    def line(self, fraction: float, *, start: str = "cold", interval_us: int | None = None) -> AgeScores:
        """Scores by age, the mean over training seeds."""
        return over_seeds([self.lines[Line(fraction, start, interval_us, s)] for s in self.seeds])

    def horizon_start(self, fraction: float, *, frozen: bool) -> list[NDArray[np.float64]]:
        """NDCG@10 of each slice's queries by the model of the horizon's start: float64 [q] a slice."""
        cells = [
            Cell(self.learner.name, self.panel.horizon_us, fraction, self.ask.window_us, seed=s)
            for s in self.seeds
        ]
        each = [self.found[c].frozen if frozen else self.found[c].ndcg for c in cells]
        return [np.mean([scores[k] for scores in each], axis=0) for k in range(len(self.panel.slices))]

    def under(self, interval_us: int | None, fraction: float, *, delay_us: int) -> list[NDArray[np.float64]]:
        """What each slice's queries get if the component is retrained so: float64 [q] a slice."""
        if interval_us is None:
            return self.horizon_start(fraction, frozen=False)
        if self.ask.exact:
            policies = [self._policy(interval_us, fraction, s) for s in self.seeds]
            each = [exact.compose(p, self.panel, self.found, delay_us=delay_us) for p in policies]
            return [np.mean(parts, axis=0) for parts in zip(*each, strict=True)]
        warm = self.ask.start == "warm"
        scores = self.line(fraction, start=self.ask.start, interval_us=interval_us if warm else None)
        return [
            interval_quality(scores.ages_us, q, interval_us=interval_us, delay_us=delay_us)
            for q in scores.queries
        ]

    def candidates(
        self, interval_us: int | None, fraction: float, *, delay_us: int
    ) -> list[NDArray[np.float64]]:
        """Scores of each slice's candidates by one model of the policy: float64 [n] a slice.

        Exactly: the one that is live. By age: the one whose age is nearest to the policy's mean age.
        """
        store, found = CellStore(self.store), []
        for k in range(len(self.panel.slices)):
            cell = self._model_at(k, interval_us, fraction, delay_us)
            model = store.model(cell_key(self.panel, self.learner, cell))
            if model is None:
                raise DataError(f"the model of {cell} is gone from {self.store}; run the study again")
            found.append(self.learner.candidates(self.panel, model, k))
        return found

    def _model_at(self, k: int, interval_us: int | None, fraction: float, delay_us: int) -> Cell:
        seed = self.seeds[0]
        if interval_us is None:
            return Cell(self.learner.name, self.panel.horizon_us, fraction, self.ask.window_us, seed=seed)
        if self.ask.exact:
            cells = exact.cells_of(self._policy(interval_us, fraction, seed), self.panel)
            times = np.array([c.trained_us for c in cells])
            return cells[exact.live(times, self.panel.slices[k].start_us, delay_us=delay_us)]
        warm = self.ask.start == "warm"
        line = Line(fraction, self.ask.start, interval_us if warm else None, seed)
        there = [a for (of, s, a) in self.ladder.cells if of == line and s == k]
        mean_us = delay_us + interval_us / 2
        if not there:
            return self._model_at(k, None, fraction, delay_us)
        return self.ladder.cells[line, k, min(there, key=lambda a: abs(self.ladder.ages_us[a] - mean_us))]

    def training_cpu_s(self, interval_us: int | None, fraction: float) -> float:
        """Mean CPU-seconds of one training of that policy."""
        warm = self.ask.start == "warm" and interval_us is not None
        spent = [
            s.cpu_s
            for c, s in self.found.items()
            if c.fraction == fraction and (c.start == "warm") == warm and not s.why
        ]
        return float(np.mean(spent)) if spent else 0.0

    def costs(self) -> exact.Costs:
        """What the cells cost, and what each policy alone and the exact grid would have."""
        lengths = [i for i in self.ask.intervals_us if i is not None]
        horizon_us = self.panel.end_us - self.panel.horizon_us
        return exact.costs(
            self.found,
            [p for s in self.seeds for p in _policies(self.ask, self.learner.name, s)],
            horizon_us=horizon_us,
            grid_us=min(lengths, default=horizon_us),
        )

    def _policy(self, interval_us: int | None, fraction: float, seed: int) -> exact.Policy:
        return exact.Policy(
            self.learner.name, interval_us, fraction, self.ask.window_us, self.ask.start, seed
        )


def _with_parents(asked: Iterable[Cell]) -> set[Cell]:
    """The cells, and those that warm starts among them go on from."""
    found: set[Cell] = set()
    for one in asked:
        cell: Cell | None = one
        while cell is not None and cell not in found:
            found.add(cell)
            cell = cell.parent
    return found


def _policies(ask: IntervalAsk, component: str, seed: int) -> list[exact.Policy]:
    return [
        exact.Policy(component, length, fraction, ask.window_us, ask.start, seed)
        for length in ask.intervals_us
        for fraction in ask.fractions
    ]


def joined(runs: Sequence[AgeRun], fraction: float) -> AgeScores:
    """The slices of several worlds one after another, by the ages of the first."""
    each = [r.line(fraction) for r in runs]
    if len(each) == 1:
        return each[0]
    width = min(len(s.ages_us) for s in each)
    return replace(
        each[0],
        ages_us=np.mean([s.ages_us[:width] for s in each], axis=0),
        ndcg=np.concatenate([s.ndcg[:, :width] for s in each]),
        queries=[q[:, :width] for s in each for q in s.queries],
        never=np.concatenate([s.never for s in each]),
        cpu_s=float(np.mean([s.cpu_s for s in each])),
        starts_us=None,
        rows=np.concatenate([s.rows[:, :width] for s in each if s.rows is not None]),
        clusters=tuple(c for s in each for c in s.clusters or ()),
    )
