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
_OF_REPLY: dict[str, type[np.generic] | None] = {
    "event_time": np.int64, "user_id": np.int64, "session_id": np.int64, "request_id": np.int64,
    "release_id": None, "surface": np.int8, "query": None, "photo": np.int32, "page": np.int16,
    "state_time": np.int64,
}  # fmt: skip
"""Columns whose value is one for all rows of a reply, with their types; None for text."""


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


def shown_columns(batch: list[Shown]) -> tuple[dict[str, Any], int]:
    """Event columns of one search and n impressions for each reply, in order; the number of rows."""
    replies = [shown.reply for shown in batch]
    sizes = np.array([len(reply.item_ids) for reply in replies]) + 1
    rows = int(sizes.sum())
    searches = np.cumsum(sizes) - sizes
    shown_at = np.ones(rows, np.bool_)
    shown_at[searches] = False

    columns: dict[str, Any] = {}
    of_replies = zip(*map(_of_reply, batch), strict=True)
    for (name, dtype), values in zip(_OF_REPLY.items(), of_replies, strict=True):
        if dtype is None:
            columns[name] = [v for v, n in zip(values, sizes.tolist(), strict=True) for _ in range(n)]
        else:
            columns[name] = np.repeat(np.array(values, dtype), sizes)

    def each(of: str, dtype: type[np.generic], searched: Any, values: list[NDArray[Any]]) -> None:
        column = columns[of] = np.empty(rows, dtype)
        column[searches] = searched
        column[shown_at] = np.concatenate(values)

    columns["kind"] = np.where(shown_at, np.int8(IMPRESSION), np.int8(SEARCH))
    # The search row of `similar` names the item that was asked about.
    each("item_id", np.int64, [shown.request.item_id for shown in batch], [r.item_ids for r in replies])
    each("position", np.int16, -1, [shown.positions for shown in batch])
    each("propensity", np.float32, np.nan, [r.propensity for r in replies])
    each("vector_score", np.float32, np.nan, [shown.vector_score for shown in batch])
    each("category_prob", np.float32, np.nan, [shown.category_prob for shown in batch])
    return columns, rows


def _of_reply(shown: Shown) -> tuple[Any, ...]:
    """The values of `_OF_REPLY`."""
    request, reply = shown.request, shown.reply
    return (
        request.time_us,
        request.user_id,
        request.session_id,
        reply.request_id,
        reply.release_id,
        _SURFACE_CODE[request.surface],
        clean_query(request.query),
        request.photo,
        min(reply.offset // max(request.size, 1), 32_767),
        shown.state_time_us,
    )


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
