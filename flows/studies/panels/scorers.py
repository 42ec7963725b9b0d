"""The part of a release that a study holds still: encoder, text classifier, speller, indexes.

Encoder and classifier learn once, from the first part of the burn-in; rankers learn from what comes after
it only. So nothing that is learned or asked was told to the scorers, at any age. The indexes hold what
there was when the horizon began. Everything is made in a folder that goes away; it touches no home.
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
from data.schema import CLICK, ITEM_UPSERT, ORDER
from data.state import State
from flows.offline.index import INDEXES, build_index
from flows.offline.inputs import SCORERS_SHARE, Inputs
from flows.offline.train import Parts, train_component
from infra.clock import ManualClock
from infra.errors import DataError
from infra.settings import Settings
from models.release import Release, load_release, make_release, publish

__all__ = ["SCORERS_PART", "Progress", "burn_in_release", "of_scorers", "state_at", "taught_until"]

Progress = Callable[..., None]
SCORERS_PART = 0.5  # of the burn-in: what the scorers learn from
_LEARNT = ("text_classifier", "encoder")  # photos are left out: a study holds them still, too


def taught_until(first_us: int, horizon_us: int) -> int:
    """When the scorers' part of the burn-in ends and the rankers' begins.

    Were they to share it, even by sessions, a ranker of the burn-in would trust scores that know the
    luck of its very days, and lose with them: in a world without drift that looked like ageing.
    """
    return first_us + round(SCORERS_PART * (horizon_us - first_us))


def of_scorers(sessions: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a session's clicks may teach the scorers: half of them, as in every refresh."""
    return in_fraction(sessions, SCORERS_SHARE, salt="scorers")


def state_at(batch: Batch, time_us: int) -> State:
    """The state of just the events known before a time."""
    state = State()
    state.fold(batch, 0, int(np.searchsorted(batch.known_us, time_us, side="left")))
    return state


@contextmanager
def burn_in_release(
    events: pa.Table, batch: Batch, *, taught_us: int, horizon_us: int, seed: int, progress: Progress
) -> Iterator[Release]:
    """A release without a ranker: scorers of the events known before `taught_us`, indexes as of `horizon_us`.

    `batch`: of the same events. Raises DataError for a burn-in without items, or a part of it without clicks.
    """
    clock = ManualClock(horizon_us)
    with tempfile.TemporaryDirectory(prefix="shelflife-study-") as folder:
        settings = Settings(home=Path(folder), cache=Path(folder) / "cache", seed=seed)
        parts = Parts()
        inputs = _inputs(events, batch, taught_us)
        for name in _LEARNT:
            progress(f"burn-in: {name}")
            parts = train_component(
                name, inputs, parts, settings=settings, clock=clock, warm=False, seed=seed
            )
        inputs = _inputs(events, batch, horizon_us)
        for name in INDEXES:
            progress(f"burn-in: {name}")
            parts = build_index(name, inputs, parts, settings=settings, clock=clock, seed=seed)
        manifest = make_release(parts.artifacts, watermark_us=horizon_us, created_us=horizon_us)
        publish(settings.layout, manifest)
        yield load_release(settings.layout, manifest.release_id)


def _inputs(events: pa.Table, batch: Batch, time_us: int) -> Inputs:
    """What was known before a time, as a training reads it."""
    upto = int(np.searchsorted(batch.known_us, time_us, side="left"))
    kinds = np.bincount(batch.kind[:upto], minlength=ITEM_UPSERT + 1)
    if not kinds[ITEM_UPSERT]:
        raise DataError(
            "the log has no items before the horizon; a study needs the catalogue: import an items table"
        )
    if not kinds[CLICK : ORDER + 1].sum():
        raise DataError(
            f"no click among the log's first {upto:,} events, from which the scorers learn; "
            "give a longer --burn-in-d"
        )
    snapshot = {"watermark_us": time_us, "since_us": 0, "rows": upto}
    return Inputs(events.slice(0, upto), state_at(batch, time_us), time_us, 0, 1.0, snapshot)
