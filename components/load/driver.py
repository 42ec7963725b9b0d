"""Sends a trace at its due times, whatever the replies do, and records what happened.

Open loop: latency counts from the moment a request was due, so a service that stalls is charged
for every request that waited (no coordinated omission). Closed loop: as many as there are connections,
one after the other, for the most that a service can do. One thread, plain sockets, microsecond timers:
it costs little beside the service. It knows nothing of models or formats.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.load.arrivals import Trace
from components.load.http1 import ReplyReader, connect
from components.load.reactions import OnReply, Outbox, ReactionCounts, packet_pair, react
from components.load.result import CONNECTION_FAILED, TIMED_OUT, LoadResult, make_result
from infra.errors import DataError
from infra.machine import sharp_timers

__all__ = ["run_closed", "run_trace"]

_RECEIVE = 1 << 18
_IDLE_WAIT_S = 0.1


@dataclass
class _Line:
    """One keep-alive connection and the request on it."""

    sock: socket.socket
    reader: ReplyReader
    index: int = -1
    sent_ns: int = 0
    fresh: bool = True  # nothing was ever answered on it


@dataclass
class _Run:
    """The driver's records while it runs; times are monotonic ns."""

    trace: Trace
    host: str
    port: int
    connections: int
    timeout_s: float
    label_header: bytes
    outbox: Outbox | None
    requests: Sequence[bytes] = ()
    picked: list[int] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    label: list[str] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    idle: list[_Line] = field(default_factory=list)
    busy: dict[int, _Line] = field(default_factory=dict)
    order: deque[tuple[_Line, int, int]] = field(
        default_factory=deque
    )  # (line, index, sent_ns), oldest first
    waiting: deque[int] = field(default_factory=deque)
    reconnects: int = 0
    peak_in_flight: int = 0

    def pick(self, index: int, now_ns: int) -> None:
        self.waiting.append(index)
        self.picked.append(now_ns)
        for column in (self.sent, self.done, self.size):
            column.append(0)
        self.status.append(CONNECTION_FAILED)
        self.label.append("")

    def send_waiting(self) -> None:
        while self.waiting and len(self.busy) < self.connections:
            self.send(self.waiting.popleft())
        self.peak_in_flight = max(self.peak_in_flight, len(self.busy))

    def send(self, index: int) -> None:
        """Send on an idle connection, else a new one; a connection that the peer dropped is replaced."""
        while True:
            try:
                line = self.idle.pop() if self.idle else self.open()
            except OSError:
                self.finish(index, CONNECTION_FAILED, time.perf_counter_ns())
                return
            now = time.perf_counter_ns()
            try:
                line.sock.sendall(self.requests[index])
            except OSError:
                line.sock.close()
                if line.fresh:
                    self.finish(index, CONNECTION_FAILED, time.perf_counter_ns())
                    return
                self.reconnects += 1
                continue
            self.sent[index] = self.sent[index] or now
            line.index, line.sent_ns = index, now
            self.busy[line.sock.fileno()] = line
            self.order.append((line, index, now))
            return

    def open(self) -> _Line:
        return _Line(connect(self.host, self.port, self.timeout_s), ReplyReader(self.label_header))

    def receive(self, fd: int) -> None:
        line = self.busy[fd]
        try:
            piece = line.sock.recv(_RECEIVE)
            reply = line.reader.feed(piece) if piece else None
        except (OSError, ValueError):
            piece, reply = b"", None
        now = time.perf_counter_ns()
        if reply is not None:
            del self.busy[fd]
            index = line.index
            self.label[index] = reply.label
            self.size[index] = len(reply.body)
            self.finish(index, reply.status, now)
            if reply.keep_alive:
                line.index, line.fresh = -1, False
                self.idle.append(line)
            else:
                line.sock.close()
                line.index = -1
            if self.outbox is not None and 200 <= reply.status < 300:
                self.outbox.offer(index, reply.body)
        elif not piece:
            del self.busy[fd]
            line.sock.close()
            if not line.fresh and not line.reader.started:
                # The peer closed an idle connection while the request was under way: not its failure.
                self.reconnects += 1
                self.waiting.appendleft(line.index)
            else:
                self.finish(line.index, CONNECTION_FAILED, now)
            line.index = -1

    def finish(self, index: int, status: int, now_ns: int) -> None:
        self.status[index] = status
        self.done[index] = now_ns
        if not self.sent[index]:
            self.sent[index] = now_ns

    def expire(self, now_ns: int) -> None:
        limit = now_ns - int(self.timeout_s * 1e9)
        while self.order:
            line, index, sent_ns = self.order[0]
            live = line.index == index and line.sent_ns == sent_ns
            if live and sent_ns > limit:
                return
            self.order.popleft()
            if live:
                del self.busy[line.sock.fileno()]
                line.sock.close()
                line.index = -1
                self.finish(index, TIMED_OUT, now_ns)
        while self.waiting and self.picked[self.waiting[0]] < limit:
            self.finish(self.waiting.popleft(), TIMED_OUT, now_ns)

    def close(self) -> None:
        for line in [*self.idle, *self.busy.values()]:
            line.sock.close()


def run_trace(
    trace: Trace,
    *,
    host: str,
    port: int,
    connections: int = 64,
    timeout_s: float = 5.0,
    label_header: bytes = b"x-release-id",
    on_reply: OnReply | Outbox | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> LoadResult:
    """Send the trace from now on and return the records of every request that came due.

    At most `connections` requests are in flight; one that is due while all are busy waits in the
    driver, its latency running. `on_reply` gets each 2xx body in another thread (a callable) or
    process (an Outbox); what it does never changes when requests are sent. Ends by itself, at
    the latest `timeout_s` after the last due time, or when `should_stop()`.
    """
    reactor: threading.Thread | None = None
    if on_reply is None or isinstance(on_reply, Outbox):
        outbox = on_reply
    else:
        ours, theirs = packet_pair()
        outbox = Outbox(ours)
        reactor = threading.Thread(
            target=react, args=(theirs, on_reply), kwargs={"host": host, "port": port}, name="reactions"
        )
        reactor.start()
    run = _Run(trace, host, port, connections, timeout_s, label_header, outbox, trace.requests)
    cpu_began = time.thread_time()
    try:
        began_ns, began_wall_us = time.perf_counter_ns(), time.time_ns() // 1_000
        with sharp_timers():
            _drive(run, began_ns, should_stop)
        cpu_s = time.thread_time() - cpu_began
    finally:
        run.close()
        counts = outbox.close() if outbox is not None else None
        if reactor is not None:
            reactor.join()
    due_us = trace.due_us[: len(run.picked)]
    return _result(run, due_us, began_ns, began_wall_us, cpu_s, offered=len(trace), reactions=counts)


def run_closed(
    requests: Sequence[bytes],
    *,
    host: str,
    port: int,
    seconds: float,
    connections: int = 16,
    timeout_s: float = 5.0,
    label_header: bytes = b"x-release-id",
    should_stop: Callable[[], bool] | None = None,
) -> LoadResult:
    """Keep `connections` requests in flight for `seconds`, each sent when one before it is answered.

    The requests are gone through in turn, again from the first where they do not last. The headline is
    requests answered a second; a request counts as due when it is sent.
    """
    taken = _Cycle(requests)
    run = _Run(
        Trace(np.empty(0, np.int64), ()), host, port, connections, timeout_s, label_header, None, taken
    )
    cpu_began = time.thread_time()
    try:
        began_ns, began_wall_us = time.perf_counter_ns(), time.time_ns() // 1_000
        end_ns = began_ns + int(seconds * 1e9)
        next_check = began_ns
        while True:
            now = time.perf_counter_ns()
            stopping = now >= end_ns or (should_stop is not None and should_stop())
            while not stopping and len(run.busy) < connections:
                run.pick(len(run.picked), time.perf_counter_ns())
                run.send_waiting()
            run.send_waiting()  # what a connection that had ended gave back
            if stopping and not run.busy and not run.waiting:
                break
            if now >= next_check:
                next_check = now + 50_000_000
                run.expire(now)
            ready, _, _ = select.select(list(run.busy), (), (), _IDLE_WAIT_S)
            for fd in ready:
                run.receive(fd)
        cpu_s = time.thread_time() - cpu_began
    finally:
        run.close()
    due_us = (np.asarray(run.picked, np.int64) - began_ns) // 1_000
    return _result(run, due_us, began_ns, began_wall_us, cpu_s, offered=len(due_us), reactions=None)


class _Cycle(Sequence[bytes]):
    """Requests by index, over and over."""

    def __init__(self, requests: Sequence[bytes]) -> None:
        if not len(requests):
            raise DataError("no requests to send; expected at least one")
        self._requests = requests

    def __len__(self) -> int:
        return len(self._requests)

    def __getitem__(self, index: Any) -> Any:
        return self._requests[index % len(self._requests)]


def _result(
    run: _Run,
    due_us: NDArray[np.int64],
    began_ns: int,
    began_wall_us: int,
    cpu_s: float,
    *,
    offered: int,
    reactions: ReactionCounts | None,
) -> LoadResult:
    return make_result(
        due_us=due_us,
        picked_ns=run.picked,
        sent_ns=run.sent,
        done_ns=run.done,
        status=run.status,
        label=run.label,
        size=run.size,
        began_ns=began_ns,
        began_wall_us=began_wall_us,
        timeout_s=run.timeout_s,
        offered=offered,
        connections=run.connections,
        peak_in_flight=run.peak_in_flight,
        reconnects=run.reconnects,
        cpu_s=cpu_s,
        reactions=reactions,
    )


def _drive(run: _Run, began_ns: int, should_stop: Callable[[], bool] | None) -> None:
    due_ns = (run.trace.due_us * 1_000 + began_ns).tolist()
    at, total = 0, len(due_ns)
    next_check = began_ns
    while at < total or run.waiting or run.busy:
        now = time.perf_counter_ns()
        while at < total and due_ns[at] <= now:
            run.pick(at, now)
            at += 1
        if run.waiting:
            run.send_waiting()
        if now >= next_check:
            next_check = now + 50_000_000
            run.expire(now)
            if run.outbox is not None:
                run.outbox.flush()
            if should_stop is not None and should_stop():
                total = at
        wait_s = _IDLE_WAIT_S
        if at < total:
            wait_s = min(wait_s, max(0.0, (due_ns[at] - time.perf_counter_ns()) / 1e9))
        elif not run.busy and not run.waiting:
            return
        # select(), not epoll: its time-out is in microseconds, epoll's in milliseconds.
        ready, _, _ = select.select(list(run.busy), (), (), wait_s)
        for fd in ready:
            run.receive(fd)
