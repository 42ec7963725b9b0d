"""Which learner stands for which component."""

from __future__ import annotations

from flows.studies.cells.learner import Learner
from flows.studies.cells.ranker import RankerLearner
from infra.errors import InputError

__all__ = ["learner_of"]


def learner_of(component: str) -> Learner:
    """The learner of a component; InputError for an unknown one."""
    if component == "ranker":
        return RankerLearner()
    raise InputError(
        f"component {component} cannot be studied by age yet; expected ranker (`shelflife study volume` "
        "knows the classifiers, too)"
    )
