"""The part of a release that a study holds still: encoder, text classifier, speller, indexes.

Trained once, on what was known before the horizon began, so that nothing of the horizon is in the
features of any model. Everything is made in a folder that goes away; it touches no home.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.event_batch import Batch
from data.fractions import in_fraction
from data.schema import CLICK, IMPRESSION, ITEM_UPSERT, ORDER
from data.state import State
from flows.index import INDEXES, build_index
from flows.inputs import SCORERS_SHARE, Inputs
from flows.train import Parts, train_component
from infra.clock import ManualClock
from infra.errors import DataError
from infra.settings import Settings
from models.release import Release, load_release, make_release, publish

__all__ = ["Progress", "burn_in_release", "of_scorers", "state_at"]

Progress = Callable[..., None]
_LEARNT = ("text_classifier", "encoder")  # photos are left out: a study holds them still, too


def of_scorers(sessions: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a session's clicks may teach the scorers; no ranker of a study ever learns from it.

    Of the whole log, not only of the burn-in: else rankers trained later would have more to learn
    from, and a study would take more data for fresher data.
    """
    return in_fraction(sessions, SCORERS_SHARE, salt="scorers")


def state_at(batch: Batch, time_us: int) -> State:
    """The state of just the events known before a time."""
    state = State()
    state.fold(batch, 0, int(np.searchsorted(batch.known_us, time_us, side="left")))
    return state


@contextmanager
def burn_in_release(
    events: pa.Table, state: State, *, horizon_us: int, seed: int, progress: Progress
) -> Iterator[Release]:
    """A release without a ranker, of the events known before `horizon_us`; `state` is as of then.

    Raises DataError for a burn-in without items or without clicks.
    """
    upto = int(np.searchsorted(events["known_time"].to_numpy(), horizon_us, side="left"))
    past = events.slice(0, upto)
    kinds = np.bincount(past["kind"].to_numpy(), minlength=ITEM_UPSERT + 1)
    if not kinds[ITEM_UPSERT]:
        raise DataError(
            "the log has no items before the horizon; a study needs the catalogue: import an items table"
        )
    if not kinds[CLICK : ORDER + 1].sum():
        raise DataError(
            f"no click among {upto:,} events before the horizon; expected some for the scorers to learn "
            "from: give a longer --burn-in-d"
        )
    snapshot = {"watermark_us": horizon_us, "since_us": 0, "rows": upto, "impressions": int(kinds[IMPRESSION])}
    inputs = Inputs(past, state, horizon_us, 0, 1.0, snapshot)
    clock = ManualClock(horizon_us)
    with tempfile.TemporaryDirectory(prefix="shelflife-study-") as folder:
        settings = Settings(home=Path(folder), cache=Path(folder) / "cache", seed=seed)
        parts = Parts()
        for name in _LEARNT:
            progress(f"burn-in: {name}")
            parts = train_component(
                name, inputs, parts, settings=settings, clock=clock, warm=False, seed=seed
            )
        for name in INDEXES:
            progress(f"burn-in: {name}")
            parts = build_index(name, inputs, parts, settings=settings, clock=clock, seed=seed)
        manifest = make_release(parts.artifacts, watermark_us=horizon_us, created_us=horizon_us)
        publish(settings.layout, manifest)
        yield load_release(settings.layout, manifest.release_id)
