"""The gain comes from what shoppers did: clicks that tell nothing leave the arms alike.

Three small worlds live through the same loop. Where clicks are real and values and tastes drift, `full`
gains on `frozen`; with clicks that tell nothing of items, neither fresh weights nor fresh state do.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.world.config import world_config
from data.world.history import generate
from flows.live.rehearsal import Rehearsal, rehearse
from flows.offline.refresh import refresh
from infra.clock import ScaledClock
from infra.settings import Settings
from models.metrics import Interval, bootstrap_mean

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

CHANCE = 0.015  # NDCG@10 by which arms may differ by chance, beside their interval


@pytest.fixture(autouse=True)
def _as_nice_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.offline.refresh.nice_down", lambda: None)  # it would last for ever


@pytest.fixture
def lived(tmp_path: Path, migrated_registry: Path) -> Callable[..., Rehearsal]:
    """Two days and four refreshes in a shop of 800 items after four days of history."""

    def live(drift: str, **knobs: Any) -> Rehearsal:
        settings = Settings(home=tmp_path / "home", cache=tmp_path / "cache")
        shutil.copytree(migrated_registry, settings.layout.mlflow)
        config = world_config(drift, scale=0.08, days=4, seed=11, activity=0.2, **knobs)
        ScaledClock(generate(config, settings.layout).end_us, 0, 0.0).save(settings.layout.clock)
        refresh(settings, window_d=4)
        return rehearse(settings, days=2, per_day=2, queries=80, window_d=4)

    return live


def alike(difference: Interval) -> bool:
    """Whether an interval holds zero, and its middle is next to it."""
    return difference.low <= 0 <= difference.high and abs(difference.mean) < CHANCE


def test_real_clicks_in_a_drifting_world_are_worth_following(lived: Callable[..., Rehearsal]) -> None:
    done = lived("strong", value_drift=2.0, value_half_life_d=2.0)
    assert len(done.refreshes) == 4
    assert any(r["promoted"] for r in done.refreshes)
    # Of these releases, by session: three stretches are too few to speak of others.
    pairs = zip(done.tally.values["full"], done.tally.values["frozen"], strict=True)
    gain = bootstrap_mean(
        np.concatenate([full - frozen for full, frozen in pairs]),
        clusters=np.concatenate(done.tally.clusters),
    )
    assert gain.low > 0
    assert gain.mean > 3 * CHANCE
    assert not alike(gain)


def test_clicks_that_tell_nothing_make_fresh_weights_worth_nothing(lived: Callable[..., Rehearsal]) -> None:
    done = lived("strong", shuffle_clicks=True)
    assert any(r["promoted"] for r in done.refreshes)  # else the arms would be one release
    assert alike(done.tally.difference("full", "state_fresh"))


def test_without_churn_they_make_fresh_state_worth_nothing_either(lived: Callable[..., Rehearsal]) -> None:
    done = lived("none", shuffle_clicks=True)
    assert any(r["promoted"] for r in done.refreshes)
    assert alike(done.tally.difference("full", "state_fresh"))
    assert alike(done.tally.difference("state_fresh", "frozen"))
    assert alike(done.tally.difference("full", "frozen"))
