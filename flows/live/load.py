"""Traffic at the running service of a home, open loop, judged VALID or INVALID.

Where the shop is simulated, the next day's shoppers ask and react; else queries of the published log,
else titles of items, are asked and nobody reacts. Arrivals are Poisson at an even rate.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlencode

import numpy as np
import orjson
from numpy.typing import NDArray

from components.load.arrivals import Trace, http_get, poisson_arrivals
from components.load.process import DriveProcess
from components.load.reactions import OnReply
from components.load.verdict import judge
from data.replica import current_state
from data.schema import IMPRESSION, SEARCH
from data.snapshots import published, read_events
from data.world.shop import World, public_path
from flows.live.traffic import make_reactor, target_of
from infra.clock import DAY_US
from infra.cluster import SERVE, running, serve_url
from infra.errors import DataError, EnvironmentError_, PromiseBroken
from infra.settings import Home, Settings

__all__ = ["load", "log_trace", "world_trace"]

Progress = Callable[..., None]


def load(
    settings: Settings, *, rate: float, seconds: float, progress: Progress = lambda *_: None
) -> dict[str, Any]:
    """Drive `rate` requests a second for `seconds` at the service, and judge the run.

    Returns {"verdict", "reasons", "notes", "requests", "failed", "latency_ms", ..., "result": its .npz}.
    Raises EnvironmentError_ where no service of this home runs, PromiseBroken where requests failed.
    """
    if SERVE not in running(settings):
        raise EnvironmentError_(
            f"no service of {settings.home} is running; start it with `shelflife up`, "
            "or name another home with --home"
        )
    layout = settings.layout
    reactor: Callable[[], OnReply] | None = None
    if public_path(layout).is_file():
        trace, days, rows = world_trace(
            World.open(layout),
            since_us=published(layout).watermark_us,
            rate=rate,
            seconds=seconds,
            seed=settings.seed,
        )
        reactor, source = partial(make_reactor, layout.root, days, rows), "world"
    else:
        trace, source = log_trace(layout, rate=rate, seconds=seconds, seed=settings.seed)
    address = serve_url(settings)
    host, _, port = address.removeprefix("http://").partition(":")
    out = layout.run / "load" / f"{time.strftime('%Y%m%d-%H%M%S')}.npz"
    progress(f"{len(trace)} requests at {rate:g}/s for {seconds:g} s to {address}")
    with DriveProcess(trace, out, host=host, port=int(port), make_on_reply=reactor) as drive:
        result = drive.wait()
    verdict = judge(result)
    document = {
        "verdict": verdict.word,
        "reasons": list(verdict.reasons),
        "notes": list(verdict.notes),
        "source": source,
        "rate": rate,
        "seconds": seconds,
        **verdict.figures,
        "result": str(out),
    }
    if result.failed:
        raise PromiseBroken(
            f"{result.failed} of {len(result)} requests failed ({verdict.figures['statuses']}); expected "
            f"none: every request is in {out}, the service's log in {layout.run}"
        )
    return document


def world_trace(
    world: World, *, since_us: int, rate: float, seconds: float, seed: int
) -> tuple[Trace, NDArray[np.int32], NDArray[np.int32]]:
    """The world's requests from `since_us` on, at Poisson times: (trace, days, rows int32 [n] of each).

    A session's requests keep their order. Raises DataError where the world ends before.
    """
    due = poisson_arrivals(rate, seconds, seed=seed)
    days, rows = [], []
    requests: list[bytes] = []
    day, wanted = int((since_us - world.start_us) // DAY_US), len(due)
    while len(requests) < wanted:
        plan = world.day(day)
        coming = np.flatnonzero(plan.time_us >= since_us)[: wanted - len(requests)]
        days.append(np.full(len(coming), day, np.int32))
        rows.append(coming.astype(np.int32))
        requests += [http_get(target_of(plan.request(i))) for i in coming.tolist()]
        day += 1
    return Trace(due, requests), np.concatenate(days), np.concatenate(rows)


def log_trace(layout: Home, *, rate: float, seconds: float, seed: int) -> tuple[Trace, str]:
    """Typed queries as often as they were typed, else items' titles, at Poisson times: (trace, source)."""
    due = poisson_arrivals(rate, seconds, seed=seed)
    events = read_events(published(layout), kinds=(SEARCH, IMPRESSION), columns=("query", "request_id"))
    typed = np.array([bool(q) for q in events["query"].to_pylist()], bool)
    request_ids = events["request_id"].to_numpy()[typed]
    _, first = np.unique(request_ids, return_index=True)
    queries = events["query"].take(np.flatnonzero(typed)[first]).to_pylist()
    source = "log"
    if not queries:
        state, source = current_state(layout), "titles"
        titles = (orjson.loads(state.payload(r)).get("title") for r in np.flatnonzero(state.alive).tolist())
        queries = [str(t) for t in titles if t]
    if not queries:
        raise DataError("nothing to ask: the log has no queries and the catalogue no titles")
    picks = np.random.default_rng(seed).integers(0, len(queries), len(due))
    return Trace(due, [http_get(f"/search?{urlencode({'q': queries[k]})}") for k in picks.tolist()]), source
