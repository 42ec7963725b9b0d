"""Which learner stands for which component, and what has to be there before it is scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from flows.studies.cells.asks import COMPONENTS
from flows.studies.cells.cell import Cell
from flows.studies.cells.encoder import EncoderScorer
from flows.studies.cells.learner import Learner
from flows.studies.cells.ranker import RankerLearner
from flows.studies.cells.reference import Reference, SeenScorer
from flows.studies.cells.text_classifier import TextClassifierScorer
from flows.studies.cells.words import uncategorised, wordless
from flows.studies.panels.panel import Panel
from infra.errors import InputError

__all__ = ["Stage", "learner_of", "refusal", "stages_of"]

Stage = tuple[Learner, Mapping[Cell, Sequence[tuple[int, bool]]]]  # cells, and the slices to score each on


def learner_of(component: str, store: Path, *, window_us: int | None) -> Learner:
    """The learner of a component; InputError for an unknown one.

    `store`: the folder of cells, `window_us`: of every training: a scorer is seen through fresh models.
    """
    if component == "ranker":
        return RankerLearner()
    for scorer in (scorers := (TextClassifierScorer(), EncoderScorer())):
        if component == scorer.name:
            return SeenScorer(scorer, Reference(scorers, store, window_us=window_us))
    raise InputError(f"component {component!r} cannot be studied; expected one of {', '.join(COMPONENTS)}")


def stages_of(learner: Learner, panel: Panel) -> tuple[Stage, ...]:
    """What has to be run before a learner's own cells, in order."""
    return tuple(learner.reference.stages(panel)) if isinstance(learner, SeenScorer) else ()


def refusal(component: str, panel: Panel) -> str:
    """Why a component cannot be studied on a panel, empty if it can."""
    if component == "ranker":
        return ""
    found = wordless(panel)
    return uncategorised(panel) if component == "text_classifier" and not found else found
