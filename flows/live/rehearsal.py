"""The whole loop in one process and in virtual time: shoppers, journal, refreshes, the three arms.

No HTTP, Ray or Prefect, the same parts otherwise: for tests of what freshness is worth, and for
trying a world before it goes live.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from components.search.pipeline import PipelineConfig
from components.serving.engine import Engine, EngineConfig
from components.serving.evaluation import evaluation_shop
from components.serving.shadow import ShadowLimits
from data.journal import JournalWriter
from data.replica import current_state
from data.shop import Shop
from data.world.shop import World
from flows.evaluation.arms import Tally, first_pages, pipeline_of, score
from flows.live.traffic import Crowd
from flows.offline.refresh import refresh
from infra.clock import DAY_US, ManualClock, ScaledClock
from infra.errors import ShelflifeError
from infra.settings import Settings
from models.release import champion, load_release

__all__ = ["Rehearsal", "feed", "rehearse"]

_UNHURRIED = EngineConfig(  # nothing is left out or refused for the time that it takes
    writer="rehearsal",
    pipeline=PipelineConfig(deadline_ms=None),
    limits=ShadowLimits(free_ms=math.inf, pause_s=0.0, rest=0.0),
)


@dataclass
class Rehearsal:
    """What came of it: scores of the arms from the first refresh on, and one entry a stretch."""

    tally: Tally = field(default_factory=Tally)
    stretches: list[dict[str, float]] = field(default_factory=list)
    refreshes: list[dict[str, object]] = field(default_factory=list)


def rehearse(
    settings: Settings,
    *,
    days: int,
    per_day: int = 2,
    queries: int = 200,
    component: str = "ranker,index",
    window_d: float | None = 7.0,
    progress: Callable[..., None] = lambda *_: None,
) -> Rehearsal:
    """Live through `days` after the world's history, refreshing `per_day` times a day.

    The home holds a world whose history is ingested and a first release. Before each stretch the
    arms are scored on `queries` of its first pages, with the state as of its start.
    """
    layout = settings.layout
    world = World.open(layout)
    first_day = world.config.days
    first = champion(layout)
    if first is None:
        raise ShelflifeError("a rehearsal needs a first release; call refresh before")
    frozen_release, frozen_state = load_release(layout, first), current_state(layout)
    clock = ManualClock(world.start_of(first_day))
    engine = Engine(layout, clock, config=_UNHURRIED)
    engine.start()
    catalogue = JournalWriter(layout.journal / "catalogue", clock=clock)
    done = Rehearsal()
    try:
        crowd = Crowd(engine, world, live=lambda plan: np.zeros(len(plan), bool))
        frozen = pipeline_of(frozen_release, frozen_state, photos=engine.photos)
        state_fresh = evaluation_shop(engine, frozen_release)
        for step in range(days * per_day):
            day, part = first_day + step // per_day, step % per_day
            since = world.start_of(day) + part * DAY_US // per_day
            until = since + DAY_US // per_day
            plan = world.day(day)
            clock.time_us = since
            if part == 0:
                feed(catalogue, world.catalogue_events(day))
            _settle(engine, catalogue)
            rows = first_pages(plan, since_us=since, until_us=until, most=queries, seed=settings.seed)
            full = evaluation_shop(engine)
            shops: dict[str, Shop] = {"frozen": frozen, "state_fresh": state_fresh, "full": full}
            scores = score(world, plan, rows, shops)
            if step:  # before the first refresh nothing new could be live
                done.tally.add(scores, plan.session_id[rows])
            done.stretches.append(
                {"day": day + part / per_day, **{a: float(s.mean()) for a, s in scores.items()}}
            )
            progress(done.stretches[-1])
            for i in np.flatnonzero((plan.time_us >= since) & (plan.time_us < until)).tolist():
                clock.time_us = int(plan.time_us[i])
                crowd.serve(plan, i)
            clock.time_us = until
            _settle(engine, catalogue)
            _wait_until(lambda: not any(layout.journal.glob("*/*.open")), "the journals do not roll")
            ScaledClock(until, 0, 0.0).save(layout.clock)
            done.refreshes.append(refresh(settings, component=component, window_d=window_d))
            engine.look_now()
            _take_up(engine, champion(layout))
    finally:
        engine.close()
        catalogue.close()
    return done


def feed(writer: JournalWriter, events: pa.Table) -> None:
    """Journal catalogue events of a world in their order, durable on return.

    Who tells of a change before its time makes it now: ingest takes nothing of the far future, nor what is
    shown of an item that it does not know.
    """
    if events.num_rows:
        columns: dict[str, Any] = {
            n: events[n].to_pylist() for n in ("kind", "user_id", "item_id", "payload")
        }
        latest = writer.now_us() - np.arange(events.num_rows)[::-1]
        columns["event_time"] = np.minimum(events["event_time"].to_numpy(), latest).tolist()
        writer.append(columns, events.num_rows).result()


def _settle(engine: Engine, catalogue: JournalWriter) -> None:
    """Wait until the state holds all that was journalled."""
    calm = 0

    def settled() -> bool:
        nonlocal calm
        calm = calm + 1 if engine.settled and _holds(engine, catalogue) else 0
        return calm >= 3

    _wait_until(settled, "the state does not catch up with the journal")


def _take_up(engine: Engine, release_id: str | None) -> None:
    """Wait until the engine answers from a release."""

    def taken() -> bool:
        return engine.live is not None and engine.live.release.release_id == release_id

    _wait_until(taken, f"the engine does not take up release {release_id}")


def _holds(engine: Engine, catalogue: JournalWriter) -> bool:
    return engine.applied.get(catalogue.writer, 0) >= catalogue.last_seq


def _wait_until(done: Callable[[], bool], otherwise: str) -> None:
    """Virtual time stands still meanwhile, so that no result depends on how fast the machine is."""
    deadline = time.monotonic() + 300
    while not done():
        if time.monotonic() > deadline:
            raise ShelflifeError(f"{otherwise}; waited 300 s")
        time.sleep(0.03)
