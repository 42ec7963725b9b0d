"""A panel of a simulated world: its log replayed once, its queries judged by the hidden relevance.

Text queries and recommendations are asked; photo queries (1 %) are not, and items refer to synthetic
photos, so that a panel does not depend on what was fetched. Reads no home; knows no policy.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.event_batch import Batch
from data.schema import SURFACES
from data.state import State
from data.world.config import START_US, WorldConfig
from data.world.history import history_days
from data.world.sessions import DayPlan
from data.world.shop import World, build_world
from flows.evaluation.arms import gain
from flows.offline.inputs import COLUMNS
from flows.offline.train import learned_us
from flows.studies.panels.key import panel_key
from flows.studies.panels.labelled import Labelled, labelled_rows
from flows.studies.panels.panel import DEPTH, Panel, Slice
from flows.studies.panels.pools import POOL, Moments, Pool
from flows.studies.panels.scorers import (
    SCORERS_PART,
    Progress,
    burn_in_release,
    of_scorers,
    taught_until,
)
from flows.studies.panels.stretches import Stretch, stretches
from flows.studies.panels.texts import with_texts
from infra.clock import DAY_US, SECOND_US
from infra.errors import ConfigError
from infra.settings import Settings
from models.candidate_features import CATEGORICAL, FEATURES
from models.metrics import discounts
from models.release import Release

__all__ = ["ACTIVITY", "Deployed", "world_key", "world_panel"]

ACTIVITY = 0.12  # share of the users who are active in a day: some 60,000 rows in four days at scale 0.5
_EARLIER_D = 1.0  # what serves when the horizon begins was trained before it
_ASKED = tuple(SURFACES.index(s) for s in ("search", "recommend"))


@dataclass(frozen=True)
class Deployed:
    """A shop that is under way when the horizon begins: the release that it serves, and the log it wrote.

    `release`: as a refresh made it, its scorers taught by some sessions of the very days from which its
    ranker learned; made for the study they would be of earlier days. `pool`: candidates of a query, as
    many as the service retrieves. `events`: canonical, `COLUMNS`; None: the history that the world wrote.
    `log`: names these events.
    """

    release: Release
    pool: int
    events: pa.Table | None = None
    log: str = ""

    @property
    def named(self) -> dict[str, str]:
        """For a panel's key."""
        return {"release": self.release.release_id, "log": self.log}


def world_key(
    settings: Settings,
    config: WorldConfig,
    *,
    burn_in_d: float,
    slices: int,
    queries: int,
    deployed: Deployed | None = None,
) -> str:
    """The key of the panel that `world_panel` makes of the same arguments."""
    more: dict[str, Any] = {} if deployed is None else deployed.named
    return panel_key(
        "world",
        world=config.to_json(),
        burn_in_d=float(burn_in_d),
        slices=slices,
        queries=queries,
        seed=settings.seed,
        pool=POOL if deployed is None else deployed.pool,
        **more,
    )


def world_panel(
    settings: Settings,
    config: WorldConfig,
    *,
    burn_in_d: float,
    window_d: float,
    slices: int,
    queries: int,
    deployed: Deployed | None = None,
    progress: Progress = lambda *_: None,
) -> Panel:
    """The panel of a world whose `config.days` are burn-in and horizon.

    The scorers are trained once; rows begin where what they learned from ends, which is the panel's
    `first_us`. `window_d`: the longest that trainings will ask for. `deployed`: a shop with scorers of
    its own, whose rows begin a window and `_EARLIER_D` before the horizon; of the days that taught its
    scorers, the sessions that did are left out, as in a refresh. Raises ConfigError where what is left of
    the burn-in is shorter than the window, or leaves no day of horizon.
    """
    most_d = burn_in_d if deployed is not None else (1 - SCORERS_PART) * burn_in_d
    if not 0 < window_d <= most_d:
        raise ConfigError(
            f"a window of {window_d:g} days, a burn-in of {burn_in_d:g} whose first {burn_in_d - most_d:g} "
            f"teach the scorers; expected a window above 0 and at most {most_d:g}"
        )
    if config.days - burn_in_d < 1:
        raise ConfigError(
            f"{config.days} days less {burn_in_d:g} of burn-in leave no day of horizon; give more days"
        )
    began = time.perf_counter()
    world = build_world(config)
    events = _history(world, progress) if deployed is None or deployed.events is None else deployed.events
    batch = Batch(events)
    horizon_us = START_US + int(burn_in_d * DAY_US)
    end_us = START_US + config.days * DAY_US
    opened: AbstractContextManager[Release]
    if deployed is None:
        pool, seed = POOL, settings.seed
        taught_us = since_us = taught_until(START_US, horizon_us)
        opened = burn_in_release(
            events, batch, taught_us=taught_us, horizon_us=horizon_us, seed=seed, progress=progress
        )
    else:
        pool, taught_us = deployed.pool, learned_us(deployed.release.manifest.artifacts)
        since_us = max(START_US, horizon_us - round((window_d + _EARLIER_D) * DAY_US))
        opened = nullcontext(replace(deployed.release, ranker=None))  # candidates in fused order
    with opened as release:
        asked = _Asked.of(world, horizon_us, end_us)
        places = stretches(
            asked.time_us,
            since_us=horizon_us,
            until_us=end_us,
            slices=slices,
            queries=queries,
            seed=settings.seed,
        )
        moments = Moments(release, batch, horizon_us=horizon_us, pool=pool)
        found, typed = [], []
        for number, place in enumerate(places, 1):
            progress(f"slice {number} of {slices}")
            found.append(_slice(world, asked, place, moments))
            typed.append([plan.query[i] for plan, i in asked.each(world, place.at)])
        progress("labelled rows")
        last = State()
        last.fold(batch, 0, len(batch.kind))
        labelled = labelled_rows(events, release, last, since_us=since_us, until_us=end_us)
        if deployed is not None:
            labelled = _untaught(labelled, taught_us)
        about: dict[str, Any] = {
            "world": config.to_json(),
            "burn_in_d": burn_in_d,
            "judged_by": "true relevance",
            "events": events.num_rows,
            "requests": len(labelled.rows.groups),
            "rows": len(labelled.rows.labels),
            "rows_per_day": len(labelled.rows.labels) / ((end_us - since_us) / DAY_US),
            "scorers_learned_d": (taught_us - START_US) / DAY_US,
            "queries": sum(len(s.groups) for s in found),
            "pool": pool,
            "seconds": round(time.perf_counter() - began, 1),
        }
        panel = Panel(
            source="world",
            key=world_key(
                settings, config, burn_in_d=burn_in_d, slices=slices, queries=queries, deployed=deployed
            ),
            names=FEATURES,
            categorical=CATEGORICAL,
            rows=labelled.rows,
            label_us=labelled.label_us,
            slices=tuple(found),
            first_us=since_us,
            horizon_us=horizon_us,
            end_us=end_us,
            resolution_us=60 * SECOND_US,
            about=about,
        )
        return with_texts(
            panel,
            events,
            last,
            release.speller,
            row_queries=labelled.queries,
            row_items=labelled.item_ids,
            row_recent=labelled.recent,
            slice_queries=typed,
        )


def _untaught(labelled: Labelled, until_us: int) -> Labelled:
    """Less the requests that were known by `until_us` of sessions that taught the scorers."""
    rows = labelled.rows
    return labelled.at(np.flatnonzero((rows.time_us > until_us) | ~of_scorers(rows.session_ids)))


def _history(world: World, progress: Progress) -> pa.Table:
    """The world's whole log, in canonical order; nothing of it is written."""
    days = []
    for plan, _, events in history_days(world):
        days.append(events.select(list(COLUMNS)))
        progress(f"world: day {plan.day + 1} of {world.config.days}")
    return pa.concat_tables(days).combine_chunks()


class _Asked:
    """The first pages of a stretch of days, by time: their days and numbers in the days' plans."""

    def __init__(self, day: NDArray[np.int64], row: NDArray[np.int64], time_us: NDArray[np.int64]) -> None:
        self.day, self.row, self.time_us = day, row, time_us

    @classmethod
    def of(cls, world: World, since_us: int, until_us: int) -> _Asked:
        days, rows, times = [], [], []
        for day in range((since_us - START_US) // DAY_US, -(-(until_us - START_US) // DAY_US)):
            plan = world.day(day)
            keep = (plan.page == 0) & np.isin(plan.surface, _ASKED)
            keep &= (plan.time_us >= since_us) & (plan.time_us < until_us)
            rows.append(np.flatnonzero(keep))
            days.append(np.full(len(rows[-1]), day, np.int64))
            times.append(plan.time_us[rows[-1]])
        return cls(np.concatenate(days), np.concatenate(rows), np.concatenate(times))

    def each(self, world: World, at: NDArray[np.int64]) -> Iterator[tuple[DayPlan, int]]:
        """The plan and the number in it of each of some requests."""
        for day, row in zip(self.day[at].tolist(), self.row[at].tolist(), strict=True):
            yield world.day(day), row


def _slice(world: World, asked: _Asked, place: Stretch, moments: Moments) -> Slice:
    """The stretch's queries with their pools; one for which nothing is retrieved has an empty pool."""
    pools: list[Pool] = []
    gains, ideal, queries, clusters = [], [], [], []
    weight = discounts(DEPTH)
    for plan, i in asked.each(world, place.at):
        pool = moments.pool(plan.request(i))
        best = gain(world.ideal(plan, i, DEPTH))
        pools.append(pool)
        gains.append(gain(world.relevance(plan, i, pool.item_ids)))
        ideal.append(float(best @ weight[: len(best)]))
        queries.append(int(plan.request_id[i]))
        clusters.append(int(plan.session_id[i]))
    return Slice(
        place.start_us,
        place.end_us,
        groups=np.array([len(p.item_ids) for p in pools], np.int32),
        item_ids=np.concatenate([p.item_ids for p in pools]),
        gains=np.concatenate(gains),
        ideal=np.array(ideal),
        fresh=np.concatenate([p.fresh for p in pools]),
        frozen=np.concatenate([p.frozen for p in pools]),
        known=np.concatenate([p.known for p in pools]),
        query_ids=np.array(queries, np.int64),
        clusters=np.array(clusters, np.int64),
        extra={
            "recent": np.stack([p.recent for p in pools]),
            "frozen_recent": np.stack([p.frozen_recent for p in pools]),
        },
    )
