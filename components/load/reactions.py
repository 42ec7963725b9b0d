"""Turns replies into events, away from the clock of the driver.

The driver offers each reply to a packet socket without ever waiting; at the other end, in a thread
or a process of its own, a callback turns replies into POST bodies and sends them. It knows nothing
of what replies or events mean.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection

from components.load.arrivals import http_post
from components.load.http1 import connect, exchange

__all__ = ["OnReply", "Outbox", "ReactionCounts", "packet_pair", "react"]

OnReply = Callable[[int, bytes], bytes | None]
"""(index of the request in the trace, body of its reply) → body of a POST, or None for no reaction."""

_HEAD = struct.Struct("<q")
_SOCKET_BYTES = 4 << 20
_MAX_BODY = 150_000
_MAX_WAITING = 20_000
_TRIES = 4


@dataclass
class ReactionCounts:
    """What became of the replies that were offered."""

    offered: int = 0
    dropped: int = 0  # the callback was so far behind that the queue was full, or the reply too large
    posted: int = 0
    failed: int = 0  # POSTs that were not acknowledged after all tries
    cpu_s: float = 0.0
    last_error: str = ""


def packet_pair() -> tuple[socket.socket, socket.socket]:
    """(driver's end, reactor's end) of a socket that keeps message boundaries."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
    return ours, theirs


class Outbox:
    """The driver's end: `offer` never blocks."""

    def __init__(self, sock: socket.socket) -> None:
        """Takes over the driver's end of a `packet_pair`."""
        sock.setblocking(False)
        self._sock = sock
        self._waiting: deque[bytes] = deque()
        self._counts = ReactionCounts()

    def offer(self, index: int, body: bytes) -> None:
        """Pass a reply on, or count it as dropped."""
        self._counts.offered += 1
        if len(body) > _MAX_BODY or len(self._waiting) >= _MAX_WAITING:
            self._counts.dropped += 1
            return
        self._waiting.append(_HEAD.pack(index) + body)
        self.flush()

    def flush(self) -> None:
        """Send what waits as far as the socket takes it."""
        while self._waiting:
            try:
                self._sock.send(self._waiting[0])
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._counts.dropped += len(self._waiting)
                self._counts.last_error = f"the reactor is gone: {error}"
                self._waiting.clear()
                return
            self._waiting.popleft()

    def close(self, timeout_s: float = 30.0) -> ReactionCounts:
        """Send the rest, wait for the reactor to finish, and give the counts of both ends."""
        self._sock.settimeout(timeout_s)
        try:
            while self._waiting:
                self._sock.send(self._waiting[0])
                self._waiting.popleft()
            self._sock.shutdown(socket.SHUT_WR)
            there = json.loads(self._sock.recv(65_536) or b"{}")
        except OSError as error:
            there = {"last_error": f"the reactor did not finish: {error}"}
            self._counts.dropped += len(self._waiting)
        finally:
            self._sock.close()
        for name in ("posted", "failed", "cpu_s", "last_error"):
            if there.get(name):
                setattr(self._counts, name, there[name])
        return self._counts


def react(
    sock: socket.socket,
    on_reply: OnReply,
    *,
    host: str,
    port: int,
    target: str = "/events",
    timeout_s: float = 10.0,
) -> None:
    """Serve the reactor's end until the driver closes: call `on_reply`, POST what it gives.

    A POST is tried up to four times (on a lost connection, 429 and 5xx), so bodies should carry
    keys that make a repeat harmless.
    """
    counts = ReactionCounts()
    began = time.thread_time()
    line: socket.socket | None = None
    while True:
        try:
            message = sock.recv(_MAX_BODY + 64)
        except InterruptedError:
            continue
        if not message:
            break
        body = on_reply(_HEAD.unpack_from(message)[0], message[_HEAD.size :])
        if body is None:
            continue
        request = http_post(target, body, host=host)
        for attempt in range(_TRIES):
            try:
                line = line or connect(host, port, timeout_s)
                reply = exchange(line, request)
            except (OSError, ValueError) as error:
                counts.last_error = str(error)
                if line is not None:
                    line.close()
                line = None
            else:
                if not reply.keep_alive:
                    line.close()
                    line = None
                if 200 <= reply.status < 300:
                    counts.posted += 1
                    break
                counts.last_error = f"{reply.status}: {reply.body[:300].decode('utf-8', 'replace')}"
                if reply.status != 429 and reply.status < 500:
                    counts.failed += 1
                    break
            if attempt == _TRIES - 1:
                counts.failed += 1
            else:
                time.sleep(0.05 * 4**attempt)
    if line is not None:
        line.close()
    counts.cpu_s = time.thread_time() - began
    with contextlib.suppress(OSError):  # the driver may be gone: then nobody asks
        sock.send(json.dumps(asdict(counts)).encode())
    sock.close()


def react_in_process(
    line: Connection,
    sock: socket.socket,
    make_on_reply: Callable[[], OnReply],
    host: str,
    port: int,
    target: str,
) -> None:
    """`react` as the body of a process of its own, below the service in priority.

    Says "ready" on `line` once its shoppers are there.
    """
    os.nice(5)
    on_reply = make_on_reply()
    line.send("ready")
    react(sock, on_reply, host=host, port=port, target=target)
