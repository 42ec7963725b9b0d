"""Trees that were grown so far: LightGBM's text form of them, and what it takes to go on growing.

Trees are grown in two phases, each in chunks whose scores add up; `models/boosting.py` says how. After
each chunk all of it can be kept and had again bit for bit.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.checkpoints import Checkpoint

if TYPE_CHECKING:
    from models.boosting import Task

__all__ = ["Gain", "Growth", "Trees"]


@dataclass(frozen=True)
class Gain:
    """How much better held-out rows are told with the trees: nats a row, and the standard error."""

    mean: float
    error: float


@dataclass(frozen=True)
class Trees:
    """LightGBM's text form of a model, and how many trees it has: 0 is one leaf, the same score for all."""

    text: str
    count: int

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Raw scores float64 [n] of features float32 [n, F]."""
        booster = _booster(self.text)
        return np.asarray(booster.predict(features, raw_score=True, num_threads=1), np.float64)

    def plus(self, text: str) -> Trees:
        """These and the trees of another model's text form, whose scores add up."""
        return Trees.of(_chained(self.text, text) if self.count else text)

    def first(self, count: int) -> Trees:
        """The first `count` of them."""
        text: str = _booster(self.text).model_to_string(num_iteration=count)
        return Trees.of(text)

    @classmethod
    def of(cls, text: str) -> Trees:
        """The trees of a model's text form."""
        return cls(text, int(_booster(text).num_trees()))


@dataclass
class Growth:
    """Where a training stands.

    `trees`: of the phases that ended; `base` and `scores` float64 [n]: of all rows where the phase began,
    and after its `chunks`, which are text forms; `found`: the held-out metric after each of the phase's
    trees, higher is better; `phase`: 0 row by row, 1 LambdaRank, 2 done.
    """

    trees: Trees
    base: NDArray[np.float64]
    scores: NDArray[np.float64]
    phase: int = 0
    chunks: list[str] = field(default_factory=list)
    found: list[float] = field(default_factory=list)
    gain: Gain = Gain(0.0, 0.0)

    @classmethod
    def begun(cls, task: Task, before: Trees | None) -> Growth:
        """From nothing, or from the trees of a warm start."""
        base = np.zeros(len(task.label)) if before is None else before.predict(task.rows.features)
        return cls(before or Trees("", 0), base, base)

    @classmethod
    def resumed(cls, checkpoint: Checkpoint | None) -> Growth | None:
        """From where a killed training was; None where nothing was kept."""
        saved = checkpoint.load() if checkpoint is not None else None
        if saved is None:
            return None
        notes: dict[str, Any] = saved.notes
        return cls(
            Trees(**notes["trees"]),
            saved.arrays["base"],
            saved.arrays["scores"],
            notes["phase"],
            notes["chunks"],
            notes["found"],
            Gain(**notes["gain"]),
        )

    def keep(self, checkpoint: Checkpoint) -> None:
        """Write all of it down."""
        notes = {
            "trees": asdict(self.trees),
            "phase": self.phase,
            "chunks": self.chunks,
            "found": self.found,
            "gain": asdict(self.gain),
        }
        checkpoint.save({"base": self.base, "scores": self.scores}, notes)

    def stopped(self, count: int, patience: int) -> bool:
        """Whether the phase has its `count` trees, or none of the last `patience` was the best."""
        if len(self.found) >= count:
            return True
        return bool(self.found) and len(self.found) - 1 - int(np.argmax(self.found)) >= patience

    def end_phase(self, features: NDArray[np.float32]) -> None:
        """Keep the phase's trees up to the best, and begin the next one with their scores."""
        if self.found:
            phase = Trees("", 0)
            for text in self.chunks:
                phase = phase.plus(text)
            phase = phase.first(int(np.argmax(self.found)) + 1)
            self.trees = self.trees.plus(phase.text)
            self.scores = self.base + phase.predict(features)
        self.phase, self.base, self.chunks, self.found = self.phase + 1, self.scores, [], []


def _booster(text: str) -> Any:
    import lightgbm as lgb

    return lgb.Booster(model_str=text)


def _chained(first: str, then: str) -> str:
    """One model of two whose scores add up: the trees of both, in LightGBM's text form.

    LightGBM's own `init_model` would overwrite the offset of the rows (its `init_score`).
    """
    head, *trees = first.split("\nTree=")
    more = then.split("\nTree=")[1:]
    trees[-1] = trees[-1].split("\nend of trees")[0]
    more[-1], tail = more[-1].split("\nend of trees")
    bodies = [tree.split("\n", 1)[1] for tree in (*trees, *more)]
    head = "\n".join(line for line in head.split("\n") if not line.startswith("tree_sizes="))
    text = "".join(f"\nTree={i}\n{body.rstrip()}\n\n" for i, body in enumerate(bodies))
    whole: str = _booster(f"{head}\n{text}\nend of trees{tail}").model_to_string()
    return whole
