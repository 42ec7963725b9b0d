"""The load of a live study: one trace for all its days, at one rate throughout, asked by the world's
shoppers.

Each day has its own stretch of wall time, and its requests are that day's, in order: what shoppers want
drifts by the day, so the hour does not matter. One rate, so that conditions differ by nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from components.load.arrivals import Trace, http_get, poisson_arrivals
from data.world.sessions import DayPlan
from data.world.shop import World
from flows.live.traffic import LiveTrace, split_sessions, target_of

__all__ = ["is_live", "steady_trace"]


def is_live(
    plan: DayPlan, *, first_day: int, walls_s: Sequence[float], qps: float, seed: int
) -> NDArray[np.bool_]:
    """Which of a day's requests the trace has: bool [n]; whole sessions."""
    return split_sessions(plan, live=round(qps * walls_s[plan.day - first_day]), seed=seed)


def steady_trace(
    world: World, *, first_day: int, walls_s: Sequence[float], qps: float, seed: int
) -> LiveTrace:
    """`qps` requests a second, Poisson, for the days from `first_day` on, each as long as `walls_s` says.

    A day whose shoppers ask less has a lower rate, all day.
    """
    chosen = partial(is_live, first_day=first_day, walls_s=walls_s, qps=qps, seed=seed)
    due, days, rows, begin = [], [], [], 0.0
    requests: list[bytes] = []
    for day, wall_s in enumerate(walls_s, first_day):
        plan = world.day(day)
        asked = np.flatnonzero(chosen(plan))
        at = poisson_arrivals(qps, wall_s, seed=seed + 1_000 * day)
        many = min(len(asked), len(at))
        keep = np.sort(np.random.default_rng((seed, day, 2)).permutation(len(at))[:many])
        due.append(at[keep] + round(begin * 1e6))
        days.append(np.full(many, day, np.int32))
        rows.append(asked[:many].astype(np.int32))
        requests += [http_get(target_of(plan.request(i))) for i in asked[:many].tolist()]
        begin += wall_s
    return LiveTrace(Trace(np.concatenate(due), requests), np.concatenate(days), np.concatenate(rows))
