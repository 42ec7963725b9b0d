"""By age: on every slice, models of a ladder of ages are scored on the same queries.

Ages stand on one fixed scale, and training times on a grid no coarser than a quarter of the age, so that
slices share models and another choice of intervals finds the same cells. It plans and collects; it
neither trains nor says what an age does to quality.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flows.studies.cells.cell import Cell, Scores
from flows.studies.panels.panel import Panel
from flows.studies.statistics.staleness import AgeScores
from infra.clock import DAY_US, HOUR_US
from infra.errors import DataError

__all__ = ["SCALE_US", "Ladder", "Line", "ages", "by_age", "collect", "snapped"]

_MINUTE_US = HOUR_US // 60
SCALE_US = np.array(
    [_MINUTE_US * m for m in (1, 5, 20)]
    + [HOUR_US * h for h in (1, 3, 6, 12)]
    + [DAY_US * d for d in (1, 2, 4, 7, 14, 28, 56, 112, 224, 448, 896)],
    np.int64,
)
_GRIDS_US = np.array(  # each divides the next
    [_MINUTE_US * m for m in (1, 5, 15, 30)] + [HOUR_US * h for h in (1, 3, 6, 12, 24, 48, 96)], np.int64
)
_FINEST = 4  # of the shortest interval, its model is younger than a quarter for a quarter of the time only
_SLACK = 1.1  # an age this much short of the longest needed is long enough


@dataclass(frozen=True)
class Line:
    """Cells that differ in age only. `interval_us`: of a warm start's parent; None cold."""

    fraction: float
    start: str = "cold"
    interval_us: int | None = None
    seed: int = 7


@dataclass(frozen=True)
class Ladder:
    """Which cell is scored where.

    `ages_us` int64 [a]: as planned; `true_us` int64 [s, a]: of the models, at the slice's start; -1 where
    there is too little history, or the line does not need it. `cells`: by line, slice and age; `never`:
    the model of the horizon's start, of each line.
    """

    ages_us: NDArray[np.int64]
    true_us: NDArray[np.int64]
    cells: Mapping[tuple[Line, int, int], Cell]
    never: Mapping[Line, Cell]

    @property
    def lines(self) -> tuple[Line, ...]:
        """All lines, in the order they were asked for."""
        return tuple(self.never)

    def wanted(self) -> dict[Cell, list[tuple[int, bool]]]:
        """The slices that each cell is scored on, as `run_cells` takes them.

        The model of the horizon's start also by the frozen state: the arms are made of its scores.
        """
        found: dict[Cell, set[tuple[int, bool]]] = {}
        for (_, k, _), cell in self.cells.items():
            found.setdefault(cell, set()).add((k, False))
        for cell in self.never.values():
            for k in range(len(self.true_us)):
                found.setdefault(cell, set()).update(((k, False), (k, True)))
        return {cell: sorted(slices) for cell, slices in found.items()}


def ages(
    delay_us: int, intervals_us: Sequence[int | None], horizon_us: int, *, resolution_us: int = 0
) -> NDArray[np.int64]:
    """Ages from about the publish delay to the longest that a policy's model reaches: int64 [a], rising.

    They are values of `SCALE_US`, nearly log-spaced: the first at or below the delay, or a quarter of the
    shortest interval where that is longer (yet no shorter than the source's resolution), and so on. Below
    the first, quality counts as level: where it falls in a line, the shortest interval's mean age is off by
    a thirty-second of the interval. `intervals_us` None: never; needs none but `horizon_us` alone.
    """
    finite = [min(i, horizon_us) for i in intervals_us if i is not None]
    longest = delay_us + max(finite, default=horizon_us)
    young = max(delay_us, min(finite, default=0) // _FINEST)
    least = min(int(np.searchsorted(SCALE_US, resolution_us)), len(SCALE_US) - 1)
    first = max(int(np.searchsorted(SCALE_US, young, side="right")) - 1, least)
    last = int(np.searchsorted(SCALE_US * _SLACK, longest))
    return SCALE_US[first : max(last, first) + 1].copy()


def snapped(panel: Panel, at_us: int, age_us: int) -> int:
    """The training time of a model of that age: no later, on the grid from the horizon's start on."""
    fine = _GRIDS_US[(age_us // 4 >= _GRIDS_US) & (panel.resolution_us <= _GRIDS_US)]
    grid = max(int(fine[-1]) if len(fine) else _MINUTE_US, panel.resolution_us)
    return panel.horizon_us + (at_us - age_us - panel.horizon_us) // grid * grid


def by_age(
    panel: Panel,
    *,
    component: str,
    ages_us: NDArray[np.int64],
    fractions: Sequence[float],
    window_us: int | None,
    starts: Sequence[str] = ("cold",),
    seeds: Sequence[int] = (7,),
    intervals_us: Sequence[int | None] = (),
    history_us: int | None = None,
) -> Ladder:
    """The plan: a cell for each slice, age, fraction, start and seed.

    `intervals_us`: a warm start is one step from a cold model that was trained one interval earlier, hence
    a line for each finite interval, with the ages up to it. `history_us`: what a training, and the one it
    starts from, has to have before it; None the window, and without a window a quarter of what there is
    before the horizon. Where that is lacking `collect` gives NaN; ages that no slice reaches, or
    shorter than the source's resolution, are left out.
    """
    if not panel.slices:
        raise DataError(f"the panel of {panel.source} has no slice to score models on; take a longer log")
    if history_us is None:
        history_us = window_us if window_us is not None else (panel.horizon_us - panel.first_us) // 4
    earliest = panel.first_us + history_us
    if panel.horizon_us < earliest:
        raise DataError(
            f"{panel.source} has {(panel.horizon_us - panel.first_us) / DAY_US:.1f} days before the horizon, "
            f"a training reads {history_us / DAY_US:.1f}; take a shorter window or a longer burn-in"
        )
    ages_us = ages_us[ages_us >= panel.resolution_us]
    times = np.array([[snapped(panel, s.start_us, int(a)) for a in ages_us] for s in panel.slices])
    reached = (times >= earliest).any(0)
    times, ages_us = times[:, reached], np.asarray(ages_us, np.int64)[reached]
    begins = np.array([s.start_us for s in panel.slices])
    true_us = np.where(times >= earliest, begins[:, None] - times, -1)
    cells: dict[tuple[Line, int, int], Cell] = {}
    never: dict[Line, Cell] = {}
    for line in _lines(fractions, starts, seeds, intervals_us):

        def cold(trained_us: int, line: Line = line) -> Cell:
            return Cell(component, int(trained_us), line.fraction, window_us, seed=line.seed)

        never[line] = cold(panel.horizon_us)
        for (k, a), trained_us in np.ndenumerate(times):
            if line.interval_us is None:
                if trained_us >= earliest:
                    cells[line, k, a] = cold(trained_us)
            elif trained_us - line.interval_us >= earliest and (a == 0 or ages_us[a - 1] < line.interval_us):
                parent = cold(trained_us - line.interval_us)
                cells[line, k, a] = Cell(
                    component, int(trained_us), line.fraction, window_us, "warm", parent, line.seed
                )
    return Ladder(ages_us, true_us, cells, never)


def collect(panel: Panel, ladder: Ladder, found: Mapping[Cell, Scores]) -> dict[Line, AgeScores]:
    """The scores of each line by age.

    An age is the mean of its models' true ages, which differ by up to a quarter as they share models. NaN:
    too little history, nothing to learn there, or an age that the line does not need.
    """
    shape = ladder.true_us.shape
    told = np.where(ladder.true_us >= 0, ladder.true_us, 0).sum(0, dtype=np.float64)
    count = (ladder.true_us >= 0).sum(0)
    ages_us = np.where(count > 0, told / np.maximum(count, 1), ladder.ages_us)
    window = {c.window_us for c in ladder.never.values()}
    result: dict[Line, AgeScores] = {}
    for line in ladder.lines:
        queries = [np.full((len(s.groups), shape[1]), np.nan) for s in panel.slices]
        rows = np.full(shape, np.nan)
        own: dict[Cell, float] = {}
        for (of, k, a), cell in ladder.cells.items():
            if of != line:
                continue
            scores = found[cell]
            queries[k][:, a] = scores.ndcg[k]
            if not scores.why:
                rows[k, a], own[cell] = scores.rows, scores.cpu_s
        never = found[ladder.never[line]]
        result[line] = AgeScores(
            ages_us=ages_us,
            ndcg=np.array([q.mean(0) if len(q) else np.full(shape[1], np.nan) for q in queries]),
            queries=queries,
            never=np.array([never.ndcg[k].mean() if len(never.ndcg[k]) else np.nan for k in range(shape[0])]),
            cpu_s=float(np.mean(list(own.values()))) if own else never.cpu_s,
            starts_us=np.array([s.start_us for s in panel.slices], np.int64),
            rows=rows,
            clusters=tuple(np.asarray(s.clusters) for s in panel.slices),
            window_us=next(iter(window)),
        )
    return result


def _lines(
    fractions: Sequence[float],
    starts: Sequence[str],
    seeds: Sequence[int],
    intervals_us: Sequence[int | None],
) -> Iterator[Line]:
    for start in starts:
        between: list[int | None] = [None] if start == "cold" else [i for i in intervals_us if i is not None]
        if not between:
            raise DataError("a warm start by age needs an interval to be warm from; give a finite one")
        for interval_us in between:
            for seed in seeds:
                for fraction in fractions:
                    yield Line(float(fraction), start, interval_us, int(seed))
