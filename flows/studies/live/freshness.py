"""How long what happens in the shop takes to act on it, stage by stage, on the shop's own clock.

event → journalled (durable, acknowledged) → ingested → trained → gated → loaded → first served. Shop time
goes at the wall's pace while a run is under way, so that all stages are in the seconds of a real shop.
Events count by the shop time they stand for: while the clock is slow as many come in a second as in hours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.load.result import LoadResult
from data.schema import CART, CLICK, ORDER
from data.snapshots import published, read_events
from flows.studies.live.shop_time import rate_at, shop_of
from infra.clock import ScaledClock
from infra.settings import Home

__all__ = ["STAGES", "Stage", "freshness", "live_events", "weighted_quantile"]

STAGES = ("journalled", "ingested", "trained", "gated", "loaded", "served")
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Stage:
    """Seconds from the stage before to this one, and from the event on (`whole_*`); of `events` events."""

    name: str
    p50_s: float
    p95_s: float
    whole_p50_s: float
    whole_p95_s: float
    events: int


def live_events(layout: Home, *, since_us: int) -> tuple[Ints, Ints]:
    """Known time (shop us) and wall time (us) of each click, cart and order of the live days: int64 [n]."""
    kinds, columns = (CLICK, CART, ORDER), ["known_time", "wall_time"]
    events = read_events(published(layout), since_us=since_us, kinds=kinds, columns=columns)
    known, wall = events["known_time"].to_numpy(), events["wall_time"].to_numpy()
    live = (wall > 0) & (known >= since_us)
    return known[live], wall[live]


def freshness(
    known_us: Ints,
    wall_us: Ints,
    *,
    refreshes: Sequence[Mapping[str, Any]],
    swaps: Sequence[Mapping[str, Any]],
    load: LoadResult,
    pieces: Sequence[ScaledClock],
    journalled_ms: Sequence[float],
) -> tuple[Stage, ...]:
    """The stages of the events that were served in the end; none where there are none.

    `refreshes`, `swaps`: documents of the runs and of the service; `journalled_ms`: of acknowledged changes.
    """
    journal_s = np.asarray(journalled_ms, float) / 1e3
    found = [_stage("journalled", journal_s, journal_s, np.ones(len(journal_s)))] if len(journal_s) else []
    ends = {r["release_id"]: _ends(r) for r in refreshes if r.get("release_id")}
    marks = [(r["snapshot"]["watermark_us"], ends[r["release_id"]], r["promoted"]) for r in refreshes]
    flips = {s["release_id"]: s["flip_wall_us"] for s in swaps}
    first_served = _first_served(load)
    at = np.full((len(known_us), len(STAGES) - 1), np.iinfo(np.int64).max, np.int64)
    for watermark, (ingested, trained, gated), promoted in marks:
        seen = known_us <= watermark
        at[seen, 0] = np.minimum(at[seen, 0], ingested)
        at[seen, 1] = np.minimum(at[seen, 1], trained)
        if promoted:
            at[seen, 2] = np.minimum(at[seen, 2], gated)
    for swap in swaps:
        seen = known_us <= swap["watermark_us"]
        at[seen, 3] = np.minimum(at[seen, 3], flips[swap["release_id"]])
        if swap["release_id"] in first_served:
            at[seen, 4] = np.minimum(at[seen, 4], first_served[swap["release_id"]])
    done = (at < np.iinfo(np.int64).max).all(1)
    weights = rate_at(pieces, wall_us[done])
    if not weights.sum() > 0:
        return tuple(found)
    times = np.maximum.accumulate(np.column_stack([wall_us[done], at[done]]), axis=1)
    shop = np.column_stack([shop_of(pieces, times[:, j]) for j in range(times.shape[1])])
    before = float(np.median(journal_s)) if len(journal_s) else 0.0
    for j, name in enumerate(STAGES[1:], 1):
        step, whole = ((shop[:, j] - shop[:, i]) / 1e6 for i in (j - 1, 0))
        found.append(_stage(name, step, whole + before, weights))
    return tuple(found)


def weighted_quantile(values: NDArray[np.float64], weights: NDArray[np.float64], q: float) -> float:
    """The smallest value that a share q of the weight does not exceed; NaN without any weight."""
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weights[order])
    if not len(share) or not share[-1] > 0:
        return float("nan")
    at = int(np.searchsorted(share, q * share[-1] * (1 - 1e-12)))
    return float(values[order][min(at, len(share) - 1)])


def _stage(
    name: str, step: NDArray[np.float64], whole: NDArray[np.float64], weights: NDArray[np.float64]
) -> Stage:
    figures = [weighted_quantile(x, weights, q) for x in (step, whole) for q in (0.5, 0.95)]
    p50, p95, whole_p50, whole_p95 = (round(f, 4) for f in figures)
    return Stage(name, p50, p95, whole_p50, whole_p95, len(step))


def _ends(refresh: Mapping[str, Any]) -> tuple[int, int, int]:
    """Wall us at which a refresh had ingested, trained and published, and judged and promoted."""
    steps = refresh["steps"]
    begin = int(refresh["begin_wall_us"])
    ingested = begin + round(steps["ingest"]["wall_s"] * 1e6)
    last = int(refresh["end_wall_us"])
    trained = begin + round(sum(s["wall_s"] for n, s in steps.items() if n != "gate") * 1e6)
    return ingested, min(trained, last), last


def _first_served(load: LoadResult) -> dict[str, int]:
    """When the first reply of each release was there, wall us."""
    found = {}
    for code, name in enumerate(load.labels):
        done = load.done_us[(load.label == code) & load.ok]
        if name and len(done):
            found[name] = int(done.min())
    return found
