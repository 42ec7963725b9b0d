"""The last real queries with what was answered: what a new release is checked with, beside the live one.

Before there are any, titles of the catalogue stand in for them. It knows no HTTP and no swap.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import orjson

from components.search.rank import Ranked
from components.serving.gate import Gate
from components.serving.installed import Installed
from components.serving.shadow import TOP, Answer
from data.shop import Filters, Request
from data.state import State
from models.candidate_features import text_match

__all__ = ["Recent", "shadow_answer", "warming_requests"]

_KEPT = 256
_ENOUGH = 8  # queries, from which on nothing has to stand in for them


class Recent:
    """The last queries; safe to share among threads. `gate`: within which the state is read."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._asked: deque[tuple[Request, Ranked]] = deque(maxlen=_KEPT)

    def note(self, request: Request, ranked: Ranked) -> None:
        """A query and the list that it was answered with."""
        self._asked.append((request, ranked))

    def requests(self, state: State, now_us: int) -> Sequence[Request]:
        """The last ones; others before them where they are few."""
        asked = [request for request, _ in list(self._asked)]
        return asked if len(asked) >= _ENOUGH else [*warming_requests(state, now_us), *asked]

    def answer(self, served: Installed, request: Request) -> Answer:
        """What a release answers."""
        with self._gate.read():
            return shadow_answer(served, request)

    def answered(self, served: Installed, request: Request) -> Answer | None:
        """What a release did answer to one of `requests`; None if it was another that did, or long ago."""
        for asked, ranked in list(self._asked):
            if asked is request and ranked.release_id == served.release_id:
                with self._gate.read():
                    return shadow_answer(served, request, ranked)
        return None


def shadow_answer(served: Installed, request: Request, given: Ranked | None = None) -> Answer:
    """The ranked list for warming and for the shadow check; nothing is kept for page turns.

    `given`: the list that the release gave, which is then not made again.
    """
    pipeline = served.pipeline
    ranked = pipeline.ranked(request) if given is None else given
    # The words as the release understands them, typing errors put right: what it should have found.
    tokens = pipeline.queries.of(request.query).tokens
    match = math.nan
    if len(tokens) and request.surface == "search":
        matches = text_match(pipeline.state, tokens, ranked.rows[:TOP])
        match = float(matches.mean()) if len(matches) else 0.0
    return Answer(ranked.item_ids, ranked.scores, match)


def warming_requests(state: State, now_us: int) -> list[Request]:
    """Requests to warm with before there was traffic: words of titles, and the other surfaces."""
    requests = [Request("search", now_us), Request("recommend", now_us)]
    alive = np.flatnonzero(state.alive)
    for row in alive[:: max(1, len(alive) // 24)].tolist():
        words = str(orjson.loads(state.payload(row)).get("title", "")).split()
        item_id = int(state.item_ids[row])
        requests.append(Request("search", now_us, query=" ".join(words[:3]), user_id=item_id))
        requests.append(Request("similar", now_us, item_id=item_id))
    requests.append(Request("recommend", now_us, filters=Filters(in_stock=True)))
    return [replace(request, request_id=i) for i, request in enumerate(requests)]
