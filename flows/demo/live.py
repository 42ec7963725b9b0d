"""The live part of the demo: shoppers over HTTP and in process, refreshes by schedule, arms scored.

The shop clock starts with the load driver. Everything measured here is kept raw in `Live`.
"""

from __future__ import annotations

import os
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from components.load.process import DriveProcess
from components.load.result import LoadResult
from components.serving.engine import Engine, EngineConfig
from components.serving.evaluation import evaluation_shop
from data.journal import JournalWriter
from data.replica import current_state
from data.schema import ITEM_DELETE, ITEM_UPSERT
from data.shop import Shop
from data.sources import fashion_mnist
from data.world.sessions import DayPlan
from data.world.shop import World
from flows.evaluation.arms import Tally, first_pages, pipeline_of, score
from flows.live.rehearsal import feed
from flows.live.traffic import Crowd, live_trace, make_reactor, split_sessions
from infra import cluster
from infra.clock import DAY_US, ScaledClock, open_clock, wall_us
from infra.errors import DataError
from infra.settings import Settings
from models.release import champion, load_release

__all__ = ["Live", "ScoredStretch", "run_live"]

QUARTERS = 4  # pieces of a shop day
QUERIES = 100  # scored for each arm every half day
HTTP_CHANGES = 4  # catalogue changes a quarter that go over HTTP; the others are journalled
CROWD_NICE = 5  # between the service (0) and training (19)


@dataclass(frozen=True)
class ScoredStretch:
    """The arms on the same queries: scores float64 [n] by arm, at a shop time."""

    shop_us: int
    wall_us: int
    release_id: str
    scores: dict[str, Any]


@dataclass
class Live:
    """What happened, raw."""

    began_wall_us: int = 0
    first_day: int = 0
    load: LoadResult | None = None
    tally: Tally = field(default_factory=Tally)
    stretches: list[ScoredStretch] = field(default_factory=list)
    release: dict[str, Any] = field(default_factory=dict)  # GET /release at the end
    crowd_requests: int = 0
    crowd_lag_s: float = 0.0
    http_changes: int = 0
    first_release: str = ""


def run_live(
    settings: Settings,
    *,
    seconds: float,
    rate: float,
    day_seconds: float,
    progress: Callable[..., None],
) -> Live:
    """Traffic for `seconds`, from the first day after the history; the service and Prefect run already."""
    layout = settings.layout
    world = World.open(layout)
    live = Live(first_day=world.config.days, first_release=champion(layout) or "")
    if not live.first_release:
        raise DataError(f"no release in {layout.root}; `shelflife refresh` makes one")
    cluster.start_runner(settings)  # takes seconds to be there, as its first run does
    trace = live_trace(
        world,
        first_day=live.first_day,
        seconds=seconds,
        day_seconds=day_seconds,
        rate=rate,
        seed=settings.seed,
    )
    frozen_release = load_release(layout, live.first_release)
    frozen = pipeline_of(frozen_release, current_state(layout), photos=fashion_mnist.load(settings.cache)[0])
    engine = Engine(
        layout,
        open_clock(layout.clock),
        config=EngineConfig(writer="crowd", commit_ms=100.0, gather_s=0.1),
        photos=fashion_mnist.load(settings.cache)[0],
    )
    engine.start()
    catalogue = JournalWriter(layout.journal / "catalogue", clock=open_clock(layout.clock))
    driver = DriveProcess(
        trace.trace,
        layout.run / "load.npz",
        host=settings.host,
        port=settings.http_port,
        make_on_reply=partial(make_reactor, layout.root, trace.days, trace.rows),
    )
    try:
        state_fresh = evaluation_shop(engine, frozen_release)
        driver.start()
        live.began_wall_us = wall_us()
        os.nice(CROWD_NICE)
        clock = ScaledClock(world.start_of(live.first_day), live.began_wall_us, DAY_US / day_seconds / 1e6)
        clock.save(layout.clock)
        arms: dict[str, Shop] = {"frozen": frozen, "state_fresh": state_fresh}
        is_live = partial(_live_rows, live=round(rate * day_seconds), seed=settings.seed)
        crowd = Crowd(engine, world, live=is_live)
        _shop_days(settings, live, crowd, catalogue, arms, clock, seconds, progress)
        live.load = driver.wait()
        live.crowd_requests, live.crowd_lag_s = crowd.requests, crowd.lag_s
        with urllib.request.urlopen(f"{cluster.serve_url(settings)}/release", timeout=10) as reply:
            live.release = orjson.loads(reply.read())
    finally:
        driver.stop()
        engine.close()
        catalogue.close()
    return live


def _live_rows(plan: DayPlan, *, live: int, seed: int) -> Any:
    return split_sessions(plan, live=live, seed=seed)


def _shop_days(
    settings: Settings,
    live: Live,
    crowd: Crowd,
    catalogue: JournalWriter,
    arms: dict[str, Shop],
    clock: ScaledClock,
    seconds: float,
    progress: Callable[..., None],
) -> None:
    """Quarter by quarter: catalogue changes, now and then a scoring, and the crowd as its times come."""
    world = crowd.world
    end_us = clock.shop_start_us + int(seconds * 1e6 * clock.rate)
    quarter = 0
    while (since := clock.shop_start_us + quarter * DAY_US // QUARTERS) < end_us:
        day, until = live.first_day + quarter // QUARTERS, min(since + DAY_US // QUARTERS, end_us)
        changes = world.catalogue_events(day)
        at = changes["event_time"].to_numpy()
        _change(settings, live, catalogue, changes.filter(pa.array((at >= since) & (at < until))))
        if quarter % 2 == 0:
            _score(live, world, day, since, arms | {"full": evaluation_shop(crowd.engine)}, settings.seed)
            last = live.stretches[-1]
            means = " ".join(f"{name} {values.mean():.3f}" for name, values in last.scores.items())
            shop_day = day + quarter % QUARTERS / QUARTERS
            progress(f"shop day {shop_day:.1f}, release {last.release_id}: NDCG@10 {means}")
        crowd.serve_until(clock, day, until, since_us=since)
        while clock.now_us() < until:
            time.sleep(0.02)
        quarter += 1


def _score(live: Live, world: World, day: int, since: int, shops: dict[str, Shop], seed: int) -> None:
    plan = world.day(day)
    rows = first_pages(plan, since_us=since, until_us=since + DAY_US // 2, most=QUERIES, seed=seed)
    at_wall = wall_us()
    scores = score(world, plan, rows, shops)
    live.tally.add(scores, plan.session_id[rows])
    full: Any = shops["full"]
    live.stretches.append(ScoredStretch(since, at_wall, full.pipeline.release.release_id, scores))


def _change(settings: Settings, live: Live, catalogue: JournalWriter, events: pa.Table) -> None:
    """A few changes through the service's own API, the others through a journal of their own."""
    kind = events["kind"].to_numpy()
    over_http = np.flatnonzero((kind == ITEM_UPSERT) | (kind == ITEM_DELETE))[:HTTP_CHANGES]
    base = cluster.serve_url(settings)
    for i in over_http.tolist():
        url = f"{base}/items/{events['item_id'][i].as_py()}"
        body = None if kind[i] == ITEM_DELETE else events["payload"][i].as_py().encode()
        request = urllib.request.Request(
            url,
            data=body,
            method="DELETE" if body is None else "PUT",
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10):
            live.http_changes += 1
    rest = np.ones(events.num_rows, bool)
    rest[over_http] = False
    feed(catalogue, events.filter(pa.array(rest)))
