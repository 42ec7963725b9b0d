"""What triggers are told, from a home's published log: amounts of data, and one outcome a session.

The same arithmetic for a stretch that has just been ingested and for a year that is replayed: what is told
of a stretch depends on the events alone. It knows no trigger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data.schema import CART, CLICK, EVENT_SCHEMA, IMPRESSION, NONE_ID, ORDER, SURFACES
from data.snapshots import Published, published, read_events
from flows.offline.inputs import LABEL_DELAY_US
from flows.policies.triggers.trigger import NewData
from infra.clock import HOUR_US
from infra.settings import Home
from models.metrics import grouped_ndcg

__all__ = ["LOOK_BACK_US", "MEASURES", "EventLog", "log_of", "log_since"]

MEASURES = ("click_ndcg", "ctr")
SESSION_US = 6 * HOUR_US  # a request after a longer pause begins another session
LOOK_BACK_US = SESSION_US + LABEL_DELAY_US
_COLUMNS = (
    "event_id", "kind", "known_time", "session_id", "request_id", "surface", "item_id", "position",
    "query", "payload", "release_id",
)  # fmt: skip
_TEXTS = ("query", "payload", "release_id")
_REACTIONS = (CLICK, CART, ORDER)
_ROW_BYTES = sum(f.type.bit_width // 8 for f in EVENT_SCHEMA if f.name not in _TEXTS)


@dataclass(frozen=True)
class EventLog:
    """Events in order of known time [n], and outcomes by measure in order of the time they are labelled.

    `known_us` int64 [n]; `reacted`, `bytes` int64 [n + 1], cumulative; `ready_us` int64 [m] and `values`
    float64 [m] for each measure.
    """

    known_us: NDArray[np.int64]
    reacted: NDArray[np.int64]
    bytes: NDArray[np.int64]
    ready_us: Mapping[str, NDArray[np.int64]]
    values: Mapping[str, NDArray[np.float64]]

    @classmethod
    def of(cls, events: pa.Table) -> EventLog:
        """The log of events in canonical order; `events` has the columns that are read here."""
        kind = events["kind"].to_numpy()
        size = np.full(len(kind), _ROW_BYTES, np.int64)
        for name in _TEXTS:
            size += pc.binary_length(events[name]).to_numpy().astype(np.int64)
        ready, clicked, ndcg = _outcomes(events)
        known = ~np.isnan(ndcg)
        return cls(
            events["known_time"].to_numpy(),
            np.concatenate([[0], np.cumsum(np.isin(kind, _REACTIONS))]),
            np.concatenate([[0], np.cumsum(size)]),
            {"ctr": ready, "click_ndcg": ready[known]},
            {"ctr": clicked, "click_ndcg": ndcg[known]},
        )

    def new(self, since_us: int, until_us: int, *, now_us: int, version: str = "") -> NewData:
        """What became known in (`since_us`, `until_us`], told at `now_us`."""
        since_us = min(since_us, until_us)
        a, b = np.searchsorted(self.known_us, [since_us, until_us], side="right").tolist()
        outcomes = {}
        for measure, ready in self.ready_us.items():
            first, last = np.searchsorted(ready, [since_us, until_us], side="right").tolist()
            outcomes[measure] = self.values[measure][first:last]
        return NewData(
            now_us,
            rows=b - a,
            events=int(self.reacted[b] - self.reacted[a]),
            bytes=int(self.bytes[b] - self.bytes[a]),
            outcomes=outcomes,
            version=version,
        )


def log_of(layout: Home) -> EventLog:
    """The whole published log of a home. DataError where nothing is published."""
    return EventLog.of(read_events(published(layout), columns=_COLUMNS))


def log_since(held: Published, since_us: int) -> EventLog:
    """As much of the published log as tells of what became known after `since_us`."""
    return EventLog.of(read_events(held, since_us=since_us - LOOK_BACK_US, columns=_COLUMNS))


def _outcomes(events: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Of each session's first search page, in order of labelling: when it is labelled, clicked, NDCG@10.

    NDCG (NaN without a click) is of the order that was shown: 1 a click, 2 a cart, 3 an order.
    """
    kind, known = events["kind"].to_numpy(), events["known_time"].to_numpy()
    request, item = events["request_id"].to_numpy(), events["item_id"].to_numpy()
    shown = (kind == IMPRESSION) & (events["surface"].to_numpy() == SURFACES.index("search"))
    rows = np.flatnonzero(shown & (request != NONE_ID))
    rows = rows[np.lexsort((events["position"].to_numpy()[rows], request[rows]))]
    ids, starts, sizes = np.unique(request[rows], return_index=True, return_counts=True)
    if not len(ids):
        return np.empty(0, np.int64), np.empty(0), np.empty(0)
    at = np.minimum.reduceat(known[rows], starts)
    session = events["session_id"].to_numpy()[rows[starts]]
    first = _first_of_sessions(session, at)

    gains = np.zeros(len(rows))
    reacted = np.flatnonzero(np.isin(kind, _REACTIONS) & (request != NONE_ID))
    place = np.minimum(np.searchsorted(ids, request[reacted]), len(ids) - 1)
    reacted = reacted[(ids[place] == request[reacted]) & (known[reacted] <= at[place] + LABEL_DELAY_US)]
    worth = np.select([kind[reacted] == CART, kind[reacted] == ORDER], [2.0, 3.0], 1.0)
    pairs = np.rec.fromarrays([request[rows], item[rows]])
    order = np.argsort(pairs, kind="stable")
    wanted = np.rec.fromarrays([request[reacted], item[reacted]])
    found = np.minimum(np.searchsorted(pairs[order], wanted), len(rows) - 1)
    hit = pairs[order][found] == wanted
    np.maximum.at(gains, order[found[hit]], worth[hit])

    ndcg = grouped_ndcg(-np.arange(len(rows), dtype=np.float64), gains, sizes.astype(np.int32))
    clicked = (np.add.reduceat(gains, starts) > 0).astype(np.float64)
    chosen = np.flatnonzero(first)
    chosen = chosen[np.lexsort((ids[chosen], at[chosen]))]
    return at[chosen] + LABEL_DELAY_US, clicked[chosen], ndcg[chosen]


def _first_of_sessions(session: NDArray[np.int64], at: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether no request of the same session came in the hours before; one without a session is alone."""
    order = np.lexsort((at, session))
    first = np.ones(len(session), bool)
    same = session[order][1:] == session[order][:-1]
    near = at[order][1:] - at[order][:-1] <= SESSION_US
    first[order[1:]] = ~(same & near) | (session[order][1:] == NONE_ID)
    return first
