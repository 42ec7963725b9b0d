"""Keeps the state up to date: this replica's own events as they are committed, others' from their journals.

One thread applies, in pieces short enough that a request never waits long, then lets catalogue and
views follow. It knows nothing of releases or requests.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from heapq import heappop, heappush
from time import monotonic, thread_time
from typing import Any

import numpy as np
import pyarrow as pa

from components.serving.gate import Gate
from data.event_batch import Batch
from data.replica import StateReplica
from data.schema import EVENT_SCHEMA
from data.state import State
from data.state_kernel import fold_events
from infra.clock import wall_us

__all__ = ["Follower"]

_LOG = logging.getLogger(__name__)
_PIECE_S = 0.002
_LAGS = 8_192


class Follower:
    """Applies events to the replica's state. `after`: called after each piece, to let others follow.

    `applied` is the last sequence number by writer.
    """

    def __init__(
        self,
        replica: StateReplica,
        gate: Gate,
        *,
        own_writer: str,
        every_s: float = 0.02,
        others_every_s: float = 0.1,
    ) -> None:
        """`every_s`: how often events are applied; a round costs about the same for one or for many.

        `others_every_s`: how often other writers' journals are looked at.
        """
        self._replica, self._gate = replica, gate
        self._own_writer, self._every_s, self._others_every_s = own_writer, every_s, others_every_s
        self._others_at_s = 0.0  # when others' journals are looked at next
        self.state: State = replica.state
        self.after: list[Callable[[], Any]] = []
        self._lags_us: deque[int] = deque(maxlen=_LAGS)
        self._lags_lock = threading.Lock()
        self.rows = 0
        self.last_error = ""
        self._own: deque[tuple[pa.Table, int]] = deque()
        self._waiting: list[tuple[int, int, Future[int]]] = []
        self._waiting_lock = threading.Lock()
        self._upkeep = threading.Lock()  # held while the catalogue and the views follow or are made
        self._wake = threading.Event()
        self._closing = False
        self._piece_rows = 512
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    @property
    def ready(self) -> bool:
        """Whether the state has caught up with the journals once."""
        return self._replica.ready

    @property
    def applied(self) -> dict[str, int]:
        """The last sequence number applied, by writer."""
        return self._replica.applied

    def catch_up(self) -> None:
        """Apply all that is in the journals; before `start`."""
        while not self._replica.ready:
            self._replica.poll()
        _warm_fold(self._replica.state)

    def start(self) -> None:
        """Follow from a background thread."""
        self._thread.start()

    def close(self) -> None:
        """Apply what this replica committed, and stop."""
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def committed(self, events: pa.Table, last_seq: int) -> None:
        """The journal's `on_commit`: this replica's own events, durable now."""
        self._own.append((events, last_seq))

    def when_applied(self, seq: int, future: Future[int]) -> None:
        """Resolve the future once this replica's state has passed its own event `seq`."""
        with self._waiting_lock:
            heappush(self._waiting, (seq, id(future), future))
        self._release()
        self._wake.set()

    def forget(self, follow: Callable[[], Any]) -> None:
        """Stop calling `follow`."""
        with self._upkeep:
            self.after[:] = [f for f in self.after if f != follow]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Hold off the applying of events, not the requests: to make a view of the state."""
        with self._upkeep, self._gate.read():
            yield

    def lag_ms(self) -> dict[str, float]:
        """From journalled to applied, of the last batches: p50, p99 and maximum in wall ms."""
        with self._lags_lock:
            lags = np.array(self._lags_us, np.int64)
        if not len(lags):
            return {}
        p50, p99, highest = (np.percentile(lags, [50, 99, 100]) / 1e3).round(3).tolist()
        return {"count": len(lags), "p50": p50, "p99": p99, "max": highest}

    def status(self) -> dict[str, Any]:
        """How far the state is."""
        return {
            "ready": self.ready,
            "as_of_us": self.state.as_of_us,
            "items": self.state.n_items,
            "users": self.state.n_users,
            "applied": dict(self.applied),
            "rows": self.rows,
            "lag_ms": self.lag_ms(),
            "problem": self.last_error or None,
        }

    def _run(self) -> None:
        while True:
            closing = self._closing
            try:
                self._round()
                self.last_error = ""
            except Exception as error:  # a damaged journal of another writer must not end the service
                if str(error) != self.last_error:
                    _LOG.exception("the state does not follow the journals")
                self.last_error = str(error) or type(error).__name__
            if closing and not self._own:
                return
            self._wake.wait(self._every_s)  # a waiting DELETE or PUT wakes it at once
            self._wake.clear()

    def _round(self) -> None:
        """Apply what there is."""
        own = [self._own.popleft() for _ in range(len(self._own))]
        if own:
            self._apply(pa.concat_tables([events for events, _ in own]))
            self._replica.applied[self._own_writer] = own[-1][1]
            self._release()
        if (now_s := monotonic()) >= self._others_at_s:
            self._others_at_s = now_s + self._others_every_s
            for writer, last_seq, events in self._replica.read():
                self._apply(events)
                self._replica.applied[writer] = last_seq

    def _apply(self, events: pa.Table) -> None:
        at = 0
        while at < events.num_rows:
            piece = events.slice(at, self._piece_rows)
            with self._gate.write():
                began = thread_time()
                self.state.apply(piece)
                took_s = thread_time() - began
            at += piece.num_rows
            with self._upkeep:
                for follow in self.after:
                    follow()
            # Pieces as large as 2 ms of a processor apply, so that no request waits much longer.
            if took_s > _PIECE_S:
                self._piece_rows = max(16, self._piece_rows // 2)
            elif took_s < _PIECE_S / 4 and piece.num_rows == self._piece_rows:
                self._piece_rows = min(8_192, self._piece_rows * 2)
        self.rows += events.num_rows
        journalled_us = int(events["wall_time"][0].as_py() or 0)
        if journalled_us > 0:
            with self._lags_lock:
                self._lags_us.append(wall_us() - journalled_us)

    def _release(self) -> None:
        done: list[tuple[Future[int], int]] = []
        with self._waiting_lock:
            passed = self.applied.get(self._own_writer, 0)
            while self._waiting and self._waiting[0][0] <= passed:
                seq, _, future = heappop(self._waiting)
                done.append((future, seq))
        for future, seq in done:
            future.set_result(seq)


def _warm_fold(state: State) -> None:
    """Have the fold compiled before the first event: it folds while requests wait."""
    events = state.bind(Batch(EVENT_SCHEMA.empty_table()))
    fold_events(
        state.items, state.users, state.sessions, state.pairs, state.requests, state.category_price,
        state.n_items, events, 0, 0,
    )  # fmt: skip
