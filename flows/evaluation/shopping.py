"""A day at a simulated shop, lived through: what a shopper does counts before anybody asks again.

Pages are what a given shop answers, reactions the world's. They and the catalogue's own news are folded
into the state as they become known. It knows no judgements.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from data.schema import IMPRESSION, SURFACES, canonical, event_table
from data.shop import Reply, Shop
from data.state import State
from data.world.sessions import DayPlan
from data.world.shop import World
from infra.clock import DAY_US

__all__ = ["Day", "days", "shopping"]

_TEXT = SURFACES.index("search")
_PAGE_DELAY_US = 1_000  # from a reply to its impressions, as in the history
_FIRST_EVENT_ID = 1 << 61  # beyond those of the world and of a service


@dataclass(frozen=True)
class Day:
    """Requests of one day of the world, by time: those lived through, and those of them to be judged."""

    plan: DayPlan
    rows: list[int]
    judged: frozenset[int]


def days(world: World, *, since_us: int, until_us: int, most: int, seed: int) -> list[Day]:
    """The first pages of text queries of a stretch, at most `most`, and the sessions that they are of.

    Where the stretch has more, whole sessions are drawn evenly: a session's clicks tell of its next query.
    """
    first, last = (int((t - world.start_us) // DAY_US) for t in (since_us, until_us - 1))
    found: list[tuple[DayPlan, list[int], list[int]]] = []
    for number in range(first, last + 1):
        plan = world.day(number)
        rows = np.flatnonzero((plan.time_us >= since_us) & (plan.time_us < until_us)).tolist()
        judged = [i for i in rows if plan.page[i] == 0 and plan.surface[i] == _TEXT and plan.query[i]]
        found.append((plan, rows, judged))
    sessions = np.unique([int(plan.session_id[i]) for plan, rows, _ in found for i in rows])
    asked = [int(plan.session_id[i]) for plan, _, judged in found for i in judged]
    counts = np.bincount(np.searchsorted(sessions, asked), minlength=len(sessions))
    order = np.random.default_rng(seed).permutation(len(sessions))
    before = np.cumsum(counts[order]) - counts[order]
    drawn = set(sessions[order[before < most]].tolist())
    left, lived = most, []
    for plan, rows, judged in found:
        judged = [i for i in judged if int(plan.session_id[i]) in drawn][:left]
        left -= len(judged)
        rows = [i for i in rows if int(plan.session_id[i]) in drawn]
        lived.append(Day(plan, rows, frozenset(judged)))
    return lived


def shopping(
    world: World, lived: list[Day], shop: Shop, state: State, *, refresh: Callable[[], None]
) -> Iterator[tuple[DayPlan, int]]:
    """Live through the days; yields each judged request just before it is asked.

    `shop` answers from `state`, which is changed; `refresh` tells the shop so.
    """
    known = _Known(state, refresh)
    for day in lived:
        # The news of a day that has begun is folded again, which changes nothing, or was not told yet.
        known.news(world.catalogue_events(day.plan.day))
        for i in day.rows:
            known.until(int(day.plan.time_us[i]))
            if i in day.judged:
                yield day.plan, i
            reply = shop.respond(day.plan.request(i))
            if len(reply.item_ids):
                known.page(world, day.plan, i, reply)


class _Known:
    """What has happened and is not folded yet."""

    def __init__(self, state: State, refresh: Callable[[], None]) -> None:
        self._state = state
        self._refresh = refresh
        self._news: list[pa.Table] = []
        self._events: list[tuple[int, int, dict[str, Any]]] = []  # known, id, columns
        self._next_id = _FIRST_EVENT_ID

    def news(self, events: pa.Table) -> None:
        """What the catalogue will tell in a day."""
        self._news.append(events)

    def page(self, world: World, plan: DayPlan, i: int, reply: Reply) -> None:
        """A page that was shown, and what the shopper does with it."""
        shown = reply.offset + np.arange(len(reply.item_ids))
        time_us = int(plan.time_us[i])
        said = {
            "user_id": int(plan.user_id[i]),
            "session_id": int(plan.session_id[i]),
            "request_id": int(plan.request_id[i]),
            "surface": int(plan.surface[i]),
            "query": plan.query[i],
        }
        for item, position in zip(reply.item_ids.tolist(), shown.tolist(), strict=True):
            self._add(IMPRESSION, time_us, time_us + _PAGE_DELAY_US, item, position, said)
        reaction = world.react(plan, i, reply.item_ids, shown)
        for kind, at, when in zip(*(column.tolist() for column in reaction.rows()), strict=True):
            item, position = int(reaction.item_ids[at]), int(reaction.positions[at])
            self._add(kind, when, when, item, position, said)

    def until(self, time_us: int) -> None:
        """Fold what was known before a moment."""
        tables = []
        for number, events in enumerate(self._news):
            told = int(np.searchsorted(events["known_time"].to_numpy(), time_us))
            if told:
                tables.append(events.slice(0, told))
                self._news[number] = events.slice(told)
        due = []
        while self._events and self._events[0][0] < time_us:
            due.append(heapq.heappop(self._events)[2])
        if due:
            tables.append(event_table({name: [columns[name] for columns in due] for name in due[0]}))
        if tables:
            self._state.apply(canonical(pa.concat_tables(tables)))
            self._refresh()

    def _add(
        self, kind: int, time_us: int, known_us: int, item: int, position: int, said: dict[str, Any]
    ) -> None:
        self._next_id += 1
        columns = {
            "event_id": self._next_id,
            "kind": kind,
            "event_time": time_us,
            "known_time": known_us,
            "item_id": item,
            "position": position,
        }
        heapq.heappush(self._events, (known_us, self._next_id, columns | said))
