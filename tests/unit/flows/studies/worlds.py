"""A tiny world's panel and log, and what makes two panels the same."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa

from data.event_batch import Batch
from data.state import State
from data.world.config import START_US, WorldConfig, world_config
from flows.studies.panels.labelled import labelled_rows
from flows.studies.panels.panel import Panel
from flows.studies.panels.recent import REMEMBERED
from flows.studies.panels.scorers import of_scorers, taught_until
from flows.studies.panels.texts import texts_of
from flows.studies.panels.world import world_panel
from infra.clock import DAY_US
from infra.settings import Settings
from models.release import Release
from models.training_rows import TrainingRows

BURN_IN_D = 4
HORIZON_US = START_US + BURN_IN_D * DAY_US
TAUGHT_US = taught_until(START_US, HORIZON_US)
TINY = world_config("strong", scale=0.04, days=7, activity=0.3, seed=5)


def quiet(*_: object) -> None:
    return None


class Replayed:
    """A tiny world's log, its scorers and its labelled rows."""

    def __init__(self, events: pa.Table, release: Release) -> None:
        self.events, self.release = events, release
        self.batch = Batch(events)
        self.last = State()
        self.last.fold(self.batch, 0, len(self.batch.kind))
        end_us = START_US + TINY.days * DAY_US
        self.labelled = labelled_rows(events, release, self.last, since_us=TAUGHT_US, until_us=end_us)


def made(config: WorldConfig, root: Path, *, slices: int = 3, queries: int = 25) -> Panel:
    settings = Settings(home=root / "home", cache=root / "cache", seed=config.seed)
    return world_panel(settings, config, burn_in_d=BURN_IN_D, window_d=2, slices=slices, queries=queries)


def same_rows(a: TrainingRows, b: TrainingRows) -> bool:
    return all(
        np.array_equal(getattr(a, f.name), getattr(b, f.name), equal_nan=getattr(a, f.name).dtype.kind == "f")
        for f in fields(TrainingRows)
    )


def same_slices(a: Panel, b: Panel) -> bool:
    names = ("groups", "item_ids", "gains", "ideal", "fresh", "frozen", "known", "query_ids", "clusters")
    return len(a.slices) == len(b.slices) and all(
        np.allclose(getattr(x, n), getattr(y, n), rtol=0, atol=0, equal_nan=True)
        for x, y in zip(a.slices, b.slices, strict=True)
        for n in names
    )


# ---- worlds


def check_texts(panel: Panel) -> None:
    """What a panel says in words fits its rows and slices."""
    texts, more = texts_of(panel), panel.extra
    assert len(more["row_text"]) == len(panel.rows.groups)
    assert (more["item_ids"][more["row_item"]] >= 0).all()
    assert (np.diff(more["click_us"]) >= 0).all()
    assert set(more["word_item"].tolist()) == set(range(len(more["item_ids"])))
    assert (np.lexsort((more["word_us"], more["word_item"])) == np.arange(len(more["word_us"]))).all()
    assert more["row_recent"].shape == (len(panel.rows.groups), REMEMBERED)
    assert of_scorers(more["click_session"]).all()
    assert all(texts[t].strip() for t in more["click_text"].tolist())
    for part in panel.slices:
        np.testing.assert_array_equal(more["item_ids"][part.extra["item"]], part.item_ids)
