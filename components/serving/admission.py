"""Which requests are taken in: one bounded line before the pipeline, and refusals that cost next to nothing.

The pipeline runs on the replica's event loop, one request after another, so a queue would form in sockets
where nobody can bound it. Here it is a line of known length: who would wait too long gets 429 at once, who
hung up or ran out of time meanwhile is not computed. It knows paths and headers, nothing of Serve or search.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

import orjson

from components.serving.refusals import Refusal

__all__ = ["ASKING", "DEADLINE_HEADER", "TICKET", "Admission", "AdmissionConfig", "Ticket", "deadline_of"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ASKING = frozenset({"/search", "/recommend", "/similar"})
"""Paths whose GET computes on the event loop: they stand in line."""
DEADLINE_HEADER = b"x-deadline-ms"
MAX_DEADLINE_MS = 60_000
TICKET = "shelflife.ticket"
"""The key of the ASGI scope under which a request carries its `Ticket`."""

_BODY_HEADERS = (b"content-length", b"transfer-encoding")
_LEAST_S, _FIRST_S = 5e-5, 2e-3  # of the estimate of what one answer takes
_SMOOTH = 0.05
_OUTLIER = 5.0  # a stall counts as at most so many answers


@dataclass(frozen=True)
class AdmissionConfig:
    """`at_once`: requests in the pipeline's hands; more only interleave, as it computes on one thread.

    `wait_ms`: who would wait longer is refused, by the estimate or because the first in line has waited so
    long. `always`: so many may wait whatever it says, so that a burst after a stall is served, until one is
    refused: that is no burst, and the time alone counts until the line is empty. `give_up_ms`: who has waited
    so long in a line that is refusing others is refused too, as the processor is not there.
    `longest`: no more wait, ever. `others`: writes and uploads under way, which wait for a disk or a client
    first. `retry_after_s`: what a refused client is told.
    """

    at_once: int = 2
    wait_ms: float = 80.0
    give_up_ms: float = 180.0
    always: int = 64
    longest: int = 512
    others: int = 256
    retry_after_s: int = 1


@dataclass(slots=True)
class Ticket:
    """What a request carries from where it was read: when (perf_counter_ns), and through which admission."""

    arrived_ns: int
    admission: Admission


class Admission:
    """ASGI middleware. Of one event loop; nothing in it is shared between threads."""

    def __init__(self, app: App, config: AdmissionConfig | None = None) -> None:
        self.app = app
        self.config = config or AdmissionConfig()
        self.counts: Counter[tuple[str, str]] = Counter()
        """(`queued` | `refused` | `dropped`, why) → requests."""
        self._free = self.config.at_once
        self._line: deque[tuple[asyncio.Future[None], float]] = deque()  # a turn, and since when it waits
        self._refusing = False  # somebody was refused since the line was last empty
        self._others = 0
        self._answer_s = _FIRST_S  # what one answer takes of the loop, refusals between answers included
        self._released_s = 0.0  # when the last answer left while others waited; 0: nobody waited
        self._refusal = _refusal(self.config.retry_after_s)

    @property
    def waiting(self) -> int:
        """Requests in the line."""
        return len(self._line)

    @property
    def expected_wait_s(self) -> float:
        """How long one that came now would wait."""
        return len(self._line) * self._answer_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, now or when its turn comes; or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope[TICKET] = ticket = Ticket(time.perf_counter_ns(), self)
        asks = scope["method"] == "GET"
        if asks and scope["path"] in ASKING:
            if self._free and not self._line:
                self._free -= 1
                try:
                    await self.app(scope, receive, send)
                finally:
                    self._release()
            elif self._is_full():
                await self._refuse("line", send)
            else:
                await self._wait_in_line(scope, receive, send, ticket)
        elif asks:  # health, metrics, release: an operator looks at an overloaded service too
            await self.app(scope, receive, send)
        elif self._others >= self.config.others:
            await self._refuse("others", send)
        else:
            self._others += 1
            try:
                await self.app(scope, receive, send)
            finally:
                self._others -= 1

    def lines(self) -> Iterable[str]:
        """Prometheus text."""
        yield "# TYPE shelflife_admission_total counter"
        for (what, why), n in sorted(self.counts.items()):
            yield f'shelflife_admission_total{{what="{what}",why="{why}"}} {n}'
        yield "# TYPE shelflife_waiting gauge"
        yield f"shelflife_waiting {len(self._line)}"
        yield "# TYPE shelflife_expected_wait_seconds gauge"
        yield f"shelflife_expected_wait_seconds {self.expected_wait_s:.6f}"
        yield "# TYPE shelflife_others_under_way gauge"
        yield f"shelflife_others_under_way {self._others}"

    def _is_full(self) -> bool:
        n, config = len(self._line), self.config
        if n < (1 if self._refusing else max(1, config.always)):
            return False
        wait_s = max(n * self._answer_s, time.perf_counter() - self._line[0][1])
        return n >= config.longest or wait_s * 1e3 > config.wait_ms

    async def _wait_in_line(self, scope: Scope, receive: Receive, send: Send, ticket: Ticket) -> None:
        turn = asyncio.get_running_loop().create_future()
        place = (turn, time.perf_counter())
        self._line.append(place)
        self.counts["queued", "line"] += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release()  # its turn had come
            elif place in self._line:
                self._line.remove(place)
            raise
        try:
            gone, receive = await _gone(scope, receive)
            if gone:
                self.counts["dropped", "gone"] += 1
                return
            waited_ms = (time.perf_counter_ns() - ticket.arrived_ns) / 1e6
            deadline_ms = _stated(scope)
            late = deadline_ms is not None and waited_ms > deadline_ms
            if late or (self._refusing and waited_ms > self.config.give_up_ms):
                self.counts["dropped", "deadline" if late else "waited"] += 1
                await self._answer(send)
                return
            await self.app(scope, receive, send)
        finally:
            self._release()

    def _release(self) -> None:
        now = time.perf_counter()
        while self._line:
            turn, _ = self._line.popleft()
            if turn.done():
                continue
            if self._released_s:
                took_s = min(now - self._released_s, _OUTLIER * self._answer_s)
                self._answer_s = max(_LEAST_S, self._answer_s + _SMOOTH * (took_s - self._answer_s))
            self._released_s = now
            turn.set_result(None)
            return
        self._released_s, self._refusing = 0.0, False
        self._free += 1

    async def _refuse(self, why: str, send: Send) -> None:
        self.counts["refused", why] += 1
        self._refusing = self._refusing or why == "line"
        await self._answer(send)

    async def _answer(self, send: Send) -> None:
        start, body = self._refusal
        await send({**start, "headers": list(start["headers"])})
        await send(dict(body))


def deadline_of(scope: Scope) -> float | None:
    """The deadline that the client stated, in ms from its arrival; None for none. Raises Refusal 400."""
    text = _header(scope, DEADLINE_HEADER)
    if text is None:
        return None
    if not (text.isdigit() and len(text) <= 5 and 1 <= int(text) <= MAX_DEADLINE_MS):
        raise Refusal(
            400,
            f"X-Deadline-Ms is {text[:40].decode('latin-1')!r}",
            f"whole milliseconds from 1 to {MAX_DEADLINE_MS}",
            "correct it, or leave it out",
        )
    return float(int(text))


def _stated(scope: Scope) -> float | None:
    try:
        return deadline_of(scope)
    except Refusal:  # the application says so
        return None


def _header(scope: Scope, name: bytes) -> bytes | None:
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


async def _gone(scope: Scope, receive: Receive) -> tuple[bool, Receive]:
    """Whether the client hung up while it waited, and a `receive` that repeats what was read to know.

    Of a request without a body, as a GET is, the server has the one message at hand: this never waits.
    """
    if any(key in _BODY_HEADERS for key, _ in scope["headers"]):
        return False, receive
    first: list[Message] = [await receive()]

    async def again() -> Message:
        return first.pop() if first else await receive()

    return first[0]["type"] == "http.disconnect", again


def _refusal(retry_after_s: int) -> tuple[Message, Message]:
    refusal = Refusal(
        429,
        "more requests than can be answered in time",
        "fewer at once",
        "try again after Retry-After seconds",
    )
    body = orjson.dumps(refusal.document)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", str(retry_after_s).encode()),
    ]
    start = {"type": "http.response.start", "status": 429, "headers": headers}
    return start, {"type": "http.response.body", "body": body}
