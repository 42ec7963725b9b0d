"""Cells: each model of a study trained once, each pair of model and slice scored once, kept on disk.

A cell's file is named by the hash of all that made it: the panel, the learner, the training, its parents
and this code. What another version wrote has another name and is never read. Files are whole or absent,
so that a killed study goes on where it was. It knows no policy and no schedule.
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from flows.studies.cells.learner import Fit, Learner
from flows.studies.panels.panel import Panel
from infra.errors import ConfigError, DataError, EnvironmentError_
from infra.files import write_atomic

__all__ = ["CELLS_VERSION", "Cell", "CellStore", "Job", "Recheck", "Scores", "cell_key", "recheck", "work"]

CELLS_VERSION = 1  # raise when equal keys would no longer mean equal cells, or their layout changes


@dataclass(frozen=True, eq=False)
class Cell:
    """One training. `start`: cold, or warm from `parent`; `window_us` None: all there was.

    Two cells are equal if they and all their parents are.
    """

    component: str
    trained_us: int
    fraction: float = 1.0
    window_us: int | None = None
    start: str = "cold"
    parent: Cell | None = None
    seed: int = 7

    def __post_init__(self) -> None:
        if (self.start == "warm") != (self.parent is not None) or self.start not in ("cold", "warm"):
            raise ValueError(f"start is {self.start!r} with parent {self.parent}; warm has one, cold none")
        if not 0 < self.fraction <= 1:
            raise ConfigError(f"fraction is {self.fraction}; expected more than 0 and at most 1")
        _ = self.digest  # parents have theirs by now: no deep recursion however long a chain is

    @cached_property
    def digest(self) -> str:
        """Hash of the cell and its parents."""
        window = None if self.window_us is None else int(self.window_us)
        parent = self.parent.digest if self.parent is not None else None
        own = (self.component, int(self.trained_us), float(self.fraction), window, self.start, int(self.seed))
        return hashlib.sha256(repr((own, parent)).encode()).hexdigest()

    @property
    def fit(self) -> Fit:
        """What its learner is told."""
        return Fit(int(self.trained_us), float(self.fraction), self.window_us, int(self.seed))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cell) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Cell({self.component}, {self.trained_us}, {self.fraction:g}, {self.start}, {self.seed})"


@dataclass(frozen=True)
class Scores:
    """What is known of one cell.

    `ndcg`, `frozen`: NDCG@10 by slice number, float64 [q], by the fresh and by the frozen state; `cpu_s`,
    `rows`, `metrics`: of the training; `why`: for what reason there is no model. Its scores are NaN then.
    """

    ndcg: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    frozen: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    cpu_s: float = 0.0
    rows: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    why: str = ""

    def lacks(self, wanted: Sequence[tuple[int, bool]]) -> list[tuple[int, bool]]:
        """Those of (slice, frozen) that are not scored yet."""
        return [(k, frozen) for k, frozen in wanted if k not in (self.frozen if frozen else self.ndcg)]


@dataclass(frozen=True)
class Job:
    """A cell to train and score, flat: what a worker is sent. `parent`: the key of its parent."""

    key: str
    fit: Fit
    parent: str | None
    slices: tuple[tuple[int, bool], ...]


def cell_key(panel: Panel, learner: Learner, cell: Cell) -> str:
    """The name of a cell of this panel and learner, by content."""
    made_of = json.dumps([CELLS_VERSION, panel.key, learner.key, cell.digest])
    return hashlib.sha256(made_of.encode()).hexdigest()


class CellStore:
    """Models and scores of finished cells in a folder; one file a cell."""

    def __init__(self, folder: Path) -> None:
        """`folder`: made with the first cell."""
        self.folder = folder

    def path(self, key: str) -> Path:
        """Where a cell is kept."""
        return self.folder / key[:2] / f"{key}.npz"

    def get(self, key: str) -> Scores | None:
        """What is known of a cell, None before its training. DataError where the file is damaged."""
        found = self._read(key, "about", "slices", "of_frozen", "sizes", "values")
        if found is None:
            return None
        about = json.loads(bytes(found["about"]))
        ends = np.cumsum(found["sizes"]).tolist()
        fresh: dict[int, NDArray[np.float64]] = {}
        frozen: dict[int, NDArray[np.float64]] = {}
        parts = zip(found["slices"].tolist(), found["of_frozen"].tolist(), ends, strict=True)
        begin = 0
        for k, of_frozen, end in parts:
            (frozen if of_frozen else fresh)[k] = found["values"][begin:end]
            begin = end
        return Scores(fresh, frozen, about["cpu_s"], about["rows"], about["metrics"], about["why"])

    def model(self, key: str) -> bytes | None:
        """The model of a cell; None before its training, empty where there was nothing to learn."""
        found = self._read(key, "model")
        return None if found is None else zlib.decompress(bytes(found["model"]))

    def put(self, key: str, scores: Scores, model: bytes) -> None:
        """Keep a cell, whole. EnvironmentError_ where it cannot be written."""
        held = [(k, False, v) for k, v in scores.ndcg.items()]
        held += [(k, True, v) for k, v in scores.frozen.items()]
        about = {"cpu_s": scores.cpu_s, "rows": scores.rows, "metrics": scores.metrics, "why": scores.why}
        out = io.BytesIO()
        np.savez(
            out,
            about=np.frombuffer(json.dumps(about).encode(), np.uint8),
            model=np.frombuffer(zlib.compress(model, 3), np.uint8),
            slices=np.array([k for k, _, _ in held], np.int64),
            of_frozen=np.array([f for _, f, _ in held], bool),
            sizes=np.array([len(v) for _, _, v in held], np.int64),
            values=np.concatenate([np.empty(0), *(v for _, _, v in held)]),
        )
        try:
            write_atomic(self.path(key), out.getvalue())
        except OSError as error:
            raise EnvironmentError_(
                f"a finished training could not be kept in {self.folder}: {error.strerror or error}; make "
                "room there and run the study again: it goes on from the cells that are finished"
            ) from error

    def _read(self, key: str, *names: str) -> dict[str, NDArray[Any]] | None:
        path = self.path(key)
        try:
            with path.open("rb") as file, np.load(file) as found:
                return {name: found[name] for name in names}
        except FileNotFoundError:
            return None
        except OSError as error:
            raise EnvironmentError_(f"{path} cannot be read: {error.strerror or error}") from error
        except (ValueError, KeyError, EOFError, BadZipFile) as error:
            raise DataError(f"{path} is not a finished cell ({error}); delete it and run again") from error


def work(panel: Panel, learner: Learner, store: CellStore, job: Job) -> Scores:
    """Train what is not trained, score what is not scored, keep it. Its parent is finished by now.

    Where there is nothing to learn, the model stays its parent's, or is none.
    """
    known, model = store.get(job.key), store.model(job.key)
    if known is None or model is None:
        parent = store.model(job.parent) if job.parent is not None else None
        if job.parent is not None and parent is None:
            raise DataError(f"{store.path(job.parent)} is gone, which {job.key} starts from; run again")
        known, model = _train(panel, learner, job.fit, parent or None)
    fresh, frozen = dict(known.ndcg), dict(known.frozen)
    for k, of_frozen in known.lacks(job.slices):
        (frozen if of_frozen else fresh)[k] = (
            np.full(len(panel.slices[k].groups), np.nan)
            if known.why
            else learner.score(panel, model, k, frozen=of_frozen)
        )
    known = replace(known, ndcg=fresh, frozen=frozen)
    store.put(job.key, known, model)
    return known


def _train(panel: Panel, learner: Learner, fit: Fit, parent: bytes | None) -> tuple[Scores, bytes]:
    try:
        found = learner.fit(panel, fit, parent=parent)
    except DataError as error:
        return Scores(why=str(error)), parent or b""
    metrics = {name: float(value) for name, value in found.metrics.items()}
    return Scores(cpu_s=found.cpu_s, rows=found.rows, metrics=metrics), found.model


@dataclass(frozen=True)
class Recheck:
    """A cell that was trained again: `same` if each of its scores is; `difference`: the largest."""

    cell: Cell
    same: bool
    difference: float


def recheck(
    panel: Panel,
    learner: Learner,
    store: CellStore,
    cells: Mapping[Cell, Scores],
    *,
    count: int = 1,
    seed: int = 0,
) -> tuple[Recheck, ...]:
    """Train random cells again from their rows, and compare all their scores with the kept ones, bit for bit.

    All cells where there are fewer than `count`. Raises DataError without a trained cell.
    """
    trained = sorted((c for c, s in cells.items() if not s.why and (s.ndcg or s.frozen)), key=_by_digest)
    if not trained:
        raise DataError("no finished cell to train again; run the study first")
    picked = np.random.default_rng(seed).choice(len(trained), min(count, len(trained)), replace=False)
    return tuple(_again(panel, learner, store, trained[i], cells[trained[i]]) for i in picked.tolist())


def _again(panel: Panel, learner: Learner, store: CellStore, cell: Cell, kept: Scores) -> Recheck:
    parent = store.model(cell_key(panel, learner, cell.parent)) if cell.parent is not None else None
    model = learner.fit(panel, cell.fit, parent=parent or None).model
    same, largest = True, 0.0
    for of_frozen, scores in ((False, kept.ndcg), (True, kept.frozen)):
        for k, values in scores.items():
            again = learner.score(panel, model, k, frozen=of_frozen)
            same = same and np.array_equal(again, values, equal_nan=True)
            largest = max(largest, float(np.nan_to_num(np.abs(again - values), nan=0.0).max(initial=0.0)))
    return Recheck(cell, same, largest)


def _by_digest(cell: Cell) -> str:
    return cell.digest
