"""What can be studied, and what is refused before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.studies.cells.asks import interval_ask
from flows.studies.cells.learners import learner_of
from flows.studies.interval import study_interval
from infra.errors import InputError
from infra.settings import Settings


def test_the_ranker_has_a_learner() -> None:
    assert learner_of("ranker").name == "ranker"


@pytest.mark.parametrize("component", ["text_classifier", "encoder", "all"])
def test_what_has_none_is_refused_before_a_panel_is_made(component: str, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", cache=tmp_path / "cache")
    with pytest.raises(InputError, match="expected ranker"):
        study_interval(settings, interval_ask(component=component))
    assert not settings.cache.exists()
