"""Walks a log in virtual time and says when a policy would have fired, and why.

The engine and the triggers are those of the live runner. What it cannot know is how the log itself would
have changed: the shoppers of a replay see what they saw. It trains nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from flows.policies.engine import INGEST, Engine, Firing, with_brought
from flows.policies.log import EventLog
from flows.policies.policy import Policy
from flows.policies.triggers.trigger import NewData

__all__ = ["EMPTY", "replay"]

EMPTY = EventLog(
    np.empty(0, np.int64),
    np.zeros(1, np.int64),
    np.zeros(1, np.int64),
    {},
    {},
)
"""A log without events: what the clock alone makes fire."""


def replay(
    policy: Policy,
    log: EventLog,
    *,
    since_us: int,
    until_us: int,
    takes_us: Callable[[Firing], int] = lambda _: 0,
    memory: dict[str, Any] | None = None,
) -> tuple[Firing, ...]:
    """The firings of a policy that begins at `since_us`, before `until_us`, ticks of the policy apart.

    `takes_us`: how long a run takes until its components are live (and may be made again). Data is seen once
    it is ingested, by the policy's own `ingest` or by a run. `memory` goes on from an earlier replay.
    """
    engine = Engine(policy, {} if memory is None else memory)
    seen_us = known_us = since_us
    version: dict[str, str] = {}
    open_runs: list[tuple[int, Firing]] = []
    found: list[Firing] = []
    now = since_us
    while now < until_us:
        for ended in [r for r in open_runs if r[0] <= now]:
            open_runs.remove(ended)
            known_us = max(known_us, ended[1].at_us)  # every run takes new events in
            version |= dict.fromkeys(with_brought(ended[1].components), f"#{ended[1].number}")
        told = partial(_told, log, seen_us, known_us, now, version)
        fired = engine.tick(now, told, busy=bool(open_runs))
        seen_us = known_us
        for firing in fired:
            is_ingest = firing.components == (INGEST,)
            open_runs.append((now if is_ingest else now + takes_us(firing), firing))
            found += [] if is_ingest else [firing]
        now = _next_tick(policy, engine, now, since_us, open_runs)
    return tuple(found)


def _told(
    log: EventLog, seen_us: int, until_us: int, now_us: int, version: dict[str, str], name: str, since_us: int
) -> NewData:
    return log.new(max(seen_us, since_us), until_us, now_us=now_us, version=version.get(name, "#0"))


def _next_tick(
    policy: Policy,
    engine: Engine,
    now: int,
    since_us: int,
    runs: list[tuple[int, Firing]],
) -> int:
    """The next tick at which anything can happen: a run has ended, or a time has come."""
    times = [t for t in engine.next_us().values() if t is not None] + [t for t, _ in runs]
    soonest = min(times, default=None)
    if soonest is None:
        return 1 << 62
    steps = -(-(soonest - since_us) // policy.tick)
    return max(now + policy.tick, since_us + steps * policy.tick)
