"""One small world measured as a study would: models of all ages on all slices, kept in a file.

What is kept are scores, so that another way to judge them needs no new training. It judges nothing.
"""

from __future__ import annotations

import hashlib
import io
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.studies.calibration.shops import ShopConfig, shop_panel
from flows.studies.calibration.worlds import SmallWorldConfig, small_world, true_scores
from flows.studies.cells.cell import Cell, Scores
from flows.studies.cells.ladder import Ladder, by_age, collect
from flows.studies.cells.learner import Learner
from flows.studies.cells.ranker import RankerLearner
from flows.studies.panels.panel import Panel
from flows.studies.statistics.staleness import AgeScores
from infra.clock import DAY_US, HOUR_US
from infra.errors import DataError
from infra.files import write_atomic
from models.boosting import RankerConfig

__all__ = ["AGES_US", "Measured", "Setting", "measured", "trained"]

AGES_US = np.array([6 * HOUR_US, 12 * HOUR_US, DAY_US, 2 * DAY_US, 4 * DAY_US, 7 * DAY_US, 14 * DAY_US])
_CONFIG = RankerConfig(max_trees=40, learning_rate=0.2)  # fewer trees than the service: worlds are small
_VERSION = 2  # raise when what is kept has another meaning


@dataclass(frozen=True)
class Setting:
    """A small world, or a shop of the real simulator, and how it is studied.

    `window_d` None: all there was; `fractions`: the whole is the last.
    """

    world: SmallWorldConfig | ShopConfig
    window_d: float | None = 2.0
    fractions: tuple[float, ...] = (1.0,)

    @property
    def window_us(self) -> int | None:
        """The trainings' window."""
        return None if self.window_d is None else round(self.window_d * DAY_US)


@dataclass(frozen=True)
class Measured:
    """Scores of a world's models: `parts` by rising fraction, `truth`: the true curve, where there is one.

    `frozen` float64 [s]: the horizon-start model on the horizon-start state, `arms`: of each slice float64
    [q, 3], frozen, state-fresh and full (of the youngest age); `cpu_s`: of everything.
    """

    parts: tuple[AgeScores, ...]
    truth: AgeScores | None
    frozen: NDArray[np.float64]
    arms: tuple[NDArray[np.float64], ...] = field(repr=False)
    trainings: int
    cpu_s: float

    @property
    def scores(self) -> AgeScores:
        """Those of all data."""
        return self.parts[-1]


def measured(
    setting: Setting, folder: Path | None = None, *, until_s: float | None = None
) -> Measured | None:
    """Make and study a world, or read what an earlier call kept in `folder`.

    None where nothing is kept and it is later than `until_s`, seconds since 1970.
    """
    learner = RankerLearner(_CONFIG)
    if folder is None:
        return _measure(setting, learner)
    made_of = repr((_VERSION, learner.key, AGES_US.tolist(), setting))
    path = folder / f"{hashlib.sha256(made_of.encode()).hexdigest()[:20]}.npz"
    if not path.exists():
        if until_s is not None and time.time() > until_s:
            return None
        out = io.BytesIO()
        np.savez_compressed(out, **_arrays(_measure(setting, learner)))  # type: ignore[arg-type]
        write_atomic(path, out.getvalue())
    return _read(path, setting)


def trained(panel: Panel, learner: Learner, ladder: Ladder) -> dict[Cell, Scores]:
    """Train and score all cells of a ladder here and now."""
    found = {}
    for cell, slices in ladder.wanted().items():
        try:
            fitted = learner.fit(panel, cell.fit)
        except DataError as error:
            nothing: dict[int, NDArray[np.float64]] = {
                k: np.full(len(panel.slices[k].groups), np.nan) for k, _ in slices
            }
            found[cell] = Scores(nothing, nothing, why=str(error))
            continue
        by_state = [
            {k: learner.score(panel, fitted.model, k, frozen=of) for k, frozen in slices if frozen == of}
            for of in (False, True)
        ]
        found[cell] = Scores(by_state[0], by_state[1], fitted.cpu_s, fitted.rows, fitted.metrics)
    return found


def _measure(setting: Setting, learner: Learner) -> Measured:
    began = time.process_time()
    config = setting.world
    if isinstance(config, ShopConfig):
        world, panel = None, shop_panel(config)
    else:
        world = small_world(config)
        panel = world.panel
    ladder = by_age(
        panel,
        component=learner.name,
        ages_us=AGES_US,
        fractions=setting.fractions,
        window_us=setting.window_us,
        history_us=setting.window_us or 4 * DAY_US,  # with less the ranker has no trees: a cliff, no curve
    )
    cells = trained(panel, learner, ladder)
    by_line = collect(panel, ladder, cells)
    lines = sorted(by_line, key=lambda line: line.fraction)
    scores = by_line[lines[-1]]
    never = cells[ladder.never[lines[-1]]]
    arms = tuple(
        np.stack([never.frozen[k], never.ndcg[k], scores.queries[k][:, 0]], axis=1)
        for k in range(len(panel.slices))
    )
    truth = None
    if world is not None and setting.window_us is not None and (ladder.true_us >= 0).all():
        truth = true_scores(world, scores.ages_us, ladder.true_us, window_us=setting.window_us)
    return Measured(
        tuple(by_line[line] for line in lines),
        truth,
        np.array([a[:, 0].mean() for a in arms]),
        arms,
        len(cells),
        time.process_time() - began,
    )


def _arrays(found: Measured) -> dict[str, NDArray[np.generic]]:
    scores = found.scores
    assert scores.starts_us is not None
    out: dict[str, NDArray[np.generic]] = {
        "ages_us": scores.ages_us,
        "starts_us": scores.starts_us,
        "sizes": np.array([len(q) for q in scores.queries]),
        "clusters": np.concatenate(scores.clusters),
        "arms": np.concatenate(found.arms),
        "costs": np.array([found.trainings, found.cpu_s, *(p.cpu_s for p in found.parts)]),
    }
    parts = {str(k): part for k, part in enumerate(found.parts)}
    if found.truth is not None:
        parts["truth"] = found.truth
    for name, part in parts.items():
        out[f"{name}.queries"] = np.concatenate(part.queries)
        out[f"{name}.never"] = part.never
        if part.rows is not None:
            out[f"{name}.rows"] = part.rows
    return out


def _read(path: Path, setting: Setting) -> Measured:
    with np.load(path) as kept:
        found = {name: kept[name] for name in kept.files}
    ends = np.cumsum(found["sizes"])[:-1]
    blank = AgeScores(
        ages_us=found["ages_us"],
        ndcg=np.empty(0),
        queries=(),
        never=np.empty(0),
        cpu_s=0.0,
        starts_us=found["starts_us"],
        clusters=tuple(np.split(found["clusters"], ends)),
        window_us=setting.window_us,
    )

    def part(name: str, cpu_s: float) -> AgeScores:
        queries = np.split(found[f"{name}.queries"], ends)
        return replace(
            blank,
            ndcg=np.array([q.mean(0) for q in queries]),
            queries=queries,
            never=found[f"{name}.never"],
            rows=found.get(f"{name}.rows"),
            cpu_s=cpu_s,
        )

    costs = found["costs"].tolist()
    arms = tuple(np.split(found["arms"], ends))
    return Measured(
        tuple(part(str(k), c) for k, c in enumerate(costs[2:])),
        part("truth", 0.0) if "truth.queries" in found else None,
        np.array([a[:, 0].mean() for a in arms]),
        arms,
        int(costs[0]),
        float(costs[1]),
    )
