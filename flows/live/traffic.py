"""Simulated shoppers against a live shop: a sample over HTTP, the others in process.

Whole sessions are either live or in process. The live trace is computed beforehand; replies cause
events, never requests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import orjson
from numpy.typing import NDArray

from components.load.arrivals import Trace, diurnal, http_get
from components.serving.engine import Engine
from data.schema import NONE_ID, SURFACES
from data.shop import Request
from data.world.reactions import Reaction
from data.world.sessions import DayPlan
from data.world.shop import World
from infra.clock import ScaledClock
from infra.settings import Home

__all__ = ["Crowd", "LiveTrace", "live_trace", "make_reactor", "split_sessions", "target_of"]

_KIND = {2: "click", 3: "cart", 4: "order"}


def split_sessions(plan: DayPlan, *, live: int, seed: int) -> NDArray[np.bool_]:
    """Which requests of a day are live: whole sessions, about `live` requests: bool [n]."""
    sessions, inverse, sizes = np.unique(plan.session_id, return_inverse=True, return_counts=True)
    order = np.random.default_rng((seed, plan.day)).permutation(len(sessions))
    taken = np.zeros(len(sessions), bool)
    taken[order[np.concatenate([[0], np.cumsum(sizes[order])[:-1]]) < live]] = True
    return taken[inverse]


def target_of(request: Request) -> str:
    """The path and query of a search or a recommendation over HTTP."""
    asked: dict[str, Any] = {}
    if request.surface != "recommend":
        asked = {"photo": request.photo} if request.surface == "image" else {"q": request.query}
    for name in ("user_id", "session_id"):
        if getattr(request, name) != NONE_ID:
            asked[name] = getattr(request, name)
    asked["size"] = request.size
    if request.offset:
        asked["offset"] = request.offset
    path = "recommend" if request.surface == "recommend" else "search"
    return f"/{path}?{urlencode(asked)}"


@dataclass(frozen=True)
class LiveTrace:
    """A trace and what its requests are: `days`, `rows` int32 [n] into the world's day plans."""

    trace: Trace
    days: NDArray[np.int32]
    rows: NDArray[np.int32]


def live_trace(
    world: World, *, first_day: int, seconds: float, day_seconds: float, rate: float, seed: int
) -> LiveTrace:
    """The live sample from the start of `first_day` on: about `rate` requests a wall second.

    Due times are Poisson with the day's own swing, requests in the order of the shop's day. Their own
    times would not do: a session of minutes, at a day in seconds, is a burst that no person makes.
    """
    due, days, rows, requests = [], [], [], []
    for day in range(first_day, first_day + int(np.ceil(seconds / day_seconds))):
        plan = world.day(day)
        live = np.flatnonzero(split_sessions(plan, live=round(rate * day_seconds), seed=seed))
        at = (day - first_day) * day_seconds + day_seconds * _hours(len(live), seed=(seed, day, 1)) / 24
        live, at = live[at < seconds], at[at < seconds]
        due.append(at * 1e6)
        days.append(np.full(len(live), day, np.int32))
        rows.append(live.astype(np.int32))
        requests += [http_get(target_of(plan.request(i))) for i in live.tolist()]
    return LiveTrace(
        Trace(np.concatenate(due).astype(np.int64), requests), np.concatenate(days), np.concatenate(rows)
    )


def _hours(n: int, *, seed: tuple[int, ...]) -> NDArray[np.float64]:
    """n times of a Poisson process with the day's published swing, in hours: float64 [n], ascending."""
    grid = np.linspace(0.0, 24.0, 24 * 60 + 1)
    share = np.cumsum(np.concatenate([[0.0], diurnal((grid[1:] + grid[:-1]) / 2)]))
    found: NDArray[np.float64] = np.interp(
        np.sort(np.random.default_rng(seed).random(n)), share / share[-1], grid
    )
    return found


def make_reactor(
    root: Path, days: NDArray[np.int32], rows: NDArray[np.int32]
) -> Callable[[int, bytes], bytes | None]:
    """What the reactions' process calls for each reply: (index in the trace, body) → POST body or None."""
    world = World.open(Home(root))
    return partial(_reaction_body, world, days, rows)


def _reaction_body(
    world: World, days: NDArray[np.int32], rows: NDArray[np.int32], index: int, body: bytes
) -> bytes | None:
    reply = orjson.loads(body)
    items = np.array([item["item_id"] for item in reply["items"]], np.int64)
    if not len(items):
        return None
    plan, i = world.day(int(days[index])), int(rows[index])
    positions = reply["offset"] + np.arange(len(items))
    events = list(reaction_events(world.react(plan, i, items, positions), plan, i, reply["request_id"]))
    return orjson.dumps(events) if events else None


def reaction_events(reaction: Reaction, plan: DayPlan, i: int, request_id: str) -> Iterator[dict[str, Any]]:
    """What a shopper did, as `POST /events` takes it. The time is when the service hears of it."""
    kinds, at, _ = reaction.rows()
    for kind, k in zip(kinds.tolist(), at.tolist(), strict=True):
        yield {
            "kind": _KIND[kind],
            "item_id": int(reaction.item_ids[k]),
            "user_id": int(plan.user_id[i]),
            "session_id": int(plan.session_id[i]),
            "request_id": request_id,
            "surface": SURFACES[plan.surface[i]],
            "position": int(reaction.positions[k]),
        }


class Crowd:
    """The shoppers who are not live, passed in process through an engine of their own, by the shop clock."""

    def __init__(self, engine: Engine, world: World, *, live: Callable[[DayPlan], NDArray[np.bool_]]) -> None:
        """`live` says which requests of a day the live trace has."""
        self.engine = engine
        self.world = world
        self.requests = 0
        self.lag_s = 0.0  # largest wall seconds behind the clock
        self._live = live

    def serve_until(self, clock: ScaledClock, day: int, until_us: int, *, since_us: int) -> int:
        """Serve the day's crowd of [since_us, until_us) as its times come; returns how many requests."""
        plan = self.world.day(day)
        rows = np.flatnonzero(~self._live(plan) & (plan.time_us >= since_us) & (plan.time_us < until_us))
        for i in rows.tolist():
            late_us = clock.now_us() - int(plan.time_us[i])
            if late_us < 0:
                time.sleep(min(0.05, -late_us / clock.rate / 1e6))
            self.lag_s = max(self.lag_s, late_us / clock.rate / 1e6)
            self.serve(plan, i)
        self.requests += len(rows)
        return len(rows)

    def serve(self, plan: DayPlan, i: int) -> None:
        """One request and what comes of it."""
        reply = self.engine.respond(plan.request(i))
        if len(reply.item_ids):
            positions = reply.offset + np.arange(len(reply.item_ids))
            reaction = self.world.react(plan, i, reply.item_ids, positions)
            events = list(reaction_events(reaction, plan, i, str(reply.request_id)))
            if events:
                self.engine.events(events)
