"""Journals what the service itself did: the search, and one impression an item shown.

Off the reply path: a reply only appends to a queue; a thread gathers and hands batches to the
journal. If the journal cannot write, impressions are lost and counted, and replies go on.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from components.search.pipeline import Answer
from components.search.request import clean_query
from data.schema import IMPRESSION, SEARCH, SURFACES
from data.shop import Reply, Request

__all__ = ["Feedback", "Journal", "Shown", "shown_columns"]

_LOG = logging.getLogger(__name__)
_SURFACE_CODE = {name: code for code, name in enumerate(SURFACES)}
_NAN = float("nan")
_COLUMNS = (
    "kind", "event_time", "user_id", "session_id", "request_id", "release_id", "surface", "query", "photo",
    "page", "item_id", "position", "propensity", "state_time", "vector_score", "category_prob",
)  # fmt: skip


class Journal(Protocol):
    """What feedback needs of a journal writer."""

    def append(self, columns: Any, rows: int, *, on_commit: Any = None) -> Future[int]:
        """Append durably."""
        ...


@dataclass(frozen=True)
class Shown:
    """One reply as it went out: its items' positions int [n], vector_score and category_prob float32 [n]."""

    request: Request
    reply: Reply
    state_time_us: int
    positions: NDArray[np.intp]
    vector_score: NDArray[np.float32]
    category_prob: NDArray[np.float32]

    @classmethod
    def of(cls, request: Request, answer: Answer) -> Shown:
        """What an answer showed."""
        ranked, at = answer.ranked, answer.positions
        scores, probs = ranked.vector_scores[at], ranked.category_probs[at]
        return cls(request, answer.reply, ranked.state_time_us, at, scores, probs)


def shown_columns(batch: list[Shown]) -> tuple[dict[str, list[Any]], int]:
    """Event columns of one search and n impressions for each reply, in order; the number of rows."""
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    for shown in batch:
        request, reply = shown.request, shown.reply
        n = len(reply.item_ids)
        rows = n + 1
        one = {
            "event_time": request.time_us,
            "user_id": request.user_id,
            "session_id": request.session_id,
            "request_id": reply.request_id,
            "release_id": reply.release_id,
            "surface": _SURFACE_CODE[request.surface],
            "query": clean_query(request.query),
            "photo": request.photo,
            "page": min(reply.offset // max(request.size, 1), 32_767),
            "state_time": shown.state_time_us,
        }
        for name, value in one.items():
            columns[name] += [value] * rows
        columns["kind"] += [SEARCH] + [IMPRESSION] * n
        # The search row of `similar` names the item that was asked about.
        columns["item_id"] += [request.item_id, *reply.item_ids.tolist()]
        columns["position"] += [-1, *shown.positions.tolist()]
        columns["propensity"] += [_NAN, *reply.propensity.tolist()]
        for name, scores in (("vector_score", shown.vector_score), ("category_prob", shown.category_prob)):
            columns[name] += [_NAN, *scores.tolist()]
    return columns, len(columns["kind"])


class Feedback:
    """Queues replies and journals them in batches from one thread."""

    def __init__(
        self, journal: Journal, *, on_commit: Any = None, every_s: float = 0.02, max_queued: int = 20_000
    ) -> None:
        self._journal = journal
        self._on_commit = on_commit
        self._every_s = every_s
        self._max_queued = max_queued
        self._queue: deque[Shown] = deque()
        self._wake = threading.Event()
        self._closing = False
        self.journalled = 0  # rows handed to the journal
        self.lost = 0  # replies whose events could not be journalled
        self.problem = ""  # why the last batch could not be journalled; none once one could
        self._thread = threading.Thread(target=self._run, name="feedback", daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        """Replies that wait."""
        return len(self._queue)

    def offer(self, shown: Shown) -> None:
        """Queue a reply; never waits."""
        if len(self._queue) >= self._max_queued:
            self._lose(1, f"{self._max_queued} replies wait to be journalled")
            return
        self._queue.append(shown)
        if not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Journal what is queued and stop."""
        self._closing = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            self._wake.wait()
            self._wake.clear()
            closing = self._closing
            if not closing:
                pause.wait(self._every_s)  # gather
            while self._queue:
                self._hand_over([self._queue.popleft() for _ in range(min(len(self._queue), 64))])
            if closing:
                return

    def _hand_over(self, batch: list[Shown]) -> None:
        columns, rows = shown_columns(batch)
        try:
            future = self._journal.append(columns, rows, on_commit=self._on_commit)
        except Exception as error:  # the journal is closed or refuses: replies must go on
            self._lose(len(batch), str(error))
            return
        self.journalled += rows
        replies = len(batch)
        future.add_done_callback(lambda done: self._check(done, replies, rows))

    def _check(self, done: Future[int], replies: int, rows: int) -> None:
        error = done.exception()
        if error is None:
            self.problem = ""
        else:
            self.journalled -= rows
            self._lose(replies, str(error))

    def _lose(self, replies: int, why: str) -> None:
        if why != self.problem:
            _LOG.error("impressions of %d replies were not journalled: %s", replies, why)
        self.lost += replies
        self.problem = why
