"""What can be studied, and what is refused before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.studies.cells.asks import COMPONENTS, interval_ask
from flows.studies.cells.learners import learner_of
from infra.errors import InputError


def test_each_component_has_a_learner(tmp_path: Path) -> None:
    learners = [learner_of(c, tmp_path, window_us=None) for c in COMPONENTS]
    assert tuple(learner.name for learner in learners) == COMPONENTS
    assert len({learner.key for learner in learners}) == len(COMPONENTS)
    with pytest.raises(InputError, match="expected one of ranker, text_classifier, encoder"):
        learner_of("speller", tmp_path, window_us=None)


@pytest.mark.parametrize("component", ["text_classifier", "encoder"])
@pytest.mark.parametrize("source", ["completejourney", "movielens"])
def test_a_log_without_searches_is_refused_before_a_panel_is_made(component: str, source: str) -> None:
    with pytest.raises(InputError, match="learns from searches"):
        interval_ask(source, component=component)
    assert interval_ask(source, component="all").components == COMPONENTS  # what can be studied will be
