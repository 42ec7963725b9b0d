"""The line before the pipeline: bounded, in order, cheap to be refused by, and never stuck."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.serving.admission import TICKET, Admission, AdmissionConfig, deadline_of
from components.serving.refusals import Refusal

Message = dict[str, Any]


class Client:
    """One request as the server sees it: what it sent, whether it is still there, what it got."""

    def __init__(
        self, path: str = "/search", method: str = "GET", headers: dict[str, str] | None = None
    ) -> None:
        pairs = [(k.encode(), v.encode()) for k, v in (headers or {}).items()]
        self.scope: Message = {"type": "http", "method": method, "path": path, "headers": pairs}
        self.here = True
        self.got: list[Message] = []

    async def receive(self) -> Message:
        return (
            {"type": "http.request", "body": b"", "more_body": False}
            if self.here
            else {"type": "http.disconnect"}
        )

    async def send(self, message: Message) -> None:
        self.got.append(message)

    @property
    def status(self) -> int | None:
        return self.got[0]["status"] if self.got else None


class Shop:
    """An application that answers when it is told to, and remembers whom it served."""

    def __init__(self) -> None:
        self.served: list[Client] = []
        self.open: dict[int, asyncio.Future[None]] = {}
        self.at_once = self.most_at_once = 0
        self.clients: dict[int, Client] = {}

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            client = self.clients[id(scope)]
            self.served.append(client)
            self.open[id(scope)] = asyncio.get_running_loop().create_future()
            await self.open[id(scope)]
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        finally:
            self.at_once -= 1

    def answer(self, client: Client) -> None:
        self.open[id(client.scope)].set_result(None)


def talk(config: AdmissionConfig, conversation: Callable[[Admission, Shop, Any], Awaitable[None]]) -> None:
    async def run() -> None:
        shop = Shop()
        admission = Admission(shop, config)
        tasks: list[asyncio.Task[None]] = []

        async def come(client: Client) -> asyncio.Task[None]:
            shop.clients[id(client.scope)] = client
            tasks.append(asyncio.create_task(admission(client.scope, client.receive, client.send)))
            await breathe()
            return tasks[-1]

        await conversation(admission, shop, come)
        for _ in range(1_000):
            for future in shop.open.values():
                if not future.done():
                    future.set_result(None)
            await breathe()
            if all(t.done() for t in tasks):
                break
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (admission.waiting, shop.at_once) == (0, 0)
        again = Client()  # nothing is stuck: whatever happened, the next one is served at once
        shop.clients[id(again.scope)] = again
        last = asyncio.create_task(admission(again.scope, again.receive, again.send))
        await breathe()
        shop.answer(again)
        await last
        assert again.status == 200

    asyncio.run(run())


async def breathe() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


def test_they_are_served_in_order_and_few_at_once() -> None:
    async def conversation(admission: Admission, shop: Shop, come: Any) -> None:
        clients = [Client() for _ in range(5)]
        for client in clients:
            await come(client)
        assert shop.served == clients[:2]
        assert admission.waiting == 3
        shop.answer(clients[1])
        await breathe()
        assert shop.served == clients[:3]
        assert clients[1].status == 200

    talk(AdmissionConfig(at_once=2), conversation)


def test_who_would_wait_too_long_is_refused_at_once_and_told_when_to_come_back() -> None:
    async def conversation(admission: Admission, shop: Shop, come: Any) -> None:
        clients = [Client() for _ in range(12)]
        for client in clients:
            await come(client)
        refused = [c for c in clients if c.status is not None]
        assert refused == clients[4:]  # one served, three wait
        start, body = refused[0].got
        assert start["status"] == 429
        assert (b"retry-after", b"7") in start["headers"]
        assert set(orjson.loads(body["body"])["error"]) == {"found", "expected", "do"}
        assert admission.counts["refused", "line"] == 8
        assert any('what="refused",why="line"} 8' in line for line in admission.lines())

    talk(AdmissionConfig(at_once=1, always=3, wait_ms=0.0, retry_after_s=7), conversation)


def test_the_line_is_as_long_as_the_wait_allows() -> None:
    async def conversation(admission: Admission, shop: Shop, come: Any) -> None:
        for _ in range(40):
            await come(Client())
        assert 2 <= admission.waiting < 40
        assert admission.expected_wait_s * 1e3 > 20.0 >= (admission.waiting - 1) * admission._answer_s * 1e3

    talk(AdmissionConfig(at_once=1, always=1, wait_ms=20.0), conversation)


def test_after_a_refusal_the_time_alone_counts_until_the_line_was_empty() -> None:
    async def conversation(admission: Admission, shop: Shop, come: Any) -> None:
        first = [Client() for _ in range(6)]
        for client in first:
            await come(client)
        assert [c.status for c in first] == [None] * 5 + [429]  # one served, four wait as in a burst
        for client in first[:2]:
            shop.answer(client)
            await breathe()
        late = Client()
        await come(late)
        assert (admission.waiting, late.status) == (2, 429)  # no burst any more: no time, no place
        for client in first[2:5]:
            shop.answer(client)
            await breathe()
        burst = [Client() for _ in range(5)]
        for client in burst:
            await come(client)
        assert [c.status for c in burst] == [None] * 5

    talk(AdmissionConfig(at_once=1, always=4, wait_ms=0.0), conversation)


def test_whoever_hung_up_or_ran_out_of_time_is_not_computed() -> None:
    async def conversation(admission: Admission, shop: Shop, come: Any) -> None:
        first, gone, late, patient = Client(), Client(), Client(headers={"x-deadline-ms": "1"}), Client()
        for client in (first, gone, late, patient):
            await come(client)
        gone.here = False
        await asyncio.sleep(0.005)
        shop.answer(first)
        await breathe()
        assert shop.served == [first, patient]
        assert gone.got == []
        assert late.status == 429
        assert admission.counts["dropped", "gone"] == admission.counts["dropped", "deadline"] == 1

    talk(AdmissionConfig(at_once=1), conversation)


def test_in_a_line_that_refuses_nobody_is_served_after_waiting_far_too_long() -> None:
    async def conversation(admission: Admission, shop: Shop, come: Any) -> None:
        first, second, third, refused = (Client() for _ in range(4))
        for client in (first, second, third, refused):
            await come(client)
        assert refused.status == 429
        await asyncio.sleep(0.01)
        shop.answer(first)
        await breathe()
        assert shop.served == [first]
        assert second.status == third.status == 429
        assert admission.counts["dropped", "waited"] == 2
        patient = [Client() for _ in range(3)]  # the line was empty: who waits now is served, however late
        for client in patient:
            await come(client)
        await asyncio.sleep(0.01)
        for client in patient:
            shop.answer(client)
            await breathe()
        assert [c.status for c in patient] == [200, 200, 200]

    talk(AdmissionConfig(at_once=1, always=2, wait_ms=0.0, give_up_ms=5.0), conversation)


def test_operators_get_through_and_writes_have_a_bound_of_their_own() -> None:
    async def conversation(admission: Admission, shop: Shop, come: Any) -> None:
        await come(Client())
        await come(Client())
        health, writes = Client("/health"), [Client("/events", "POST") for _ in range(3)]
        for client in (health, *writes):
            await come(client)
        assert health in shop.served
        assert [w.status for w in writes] == [None, None, 429]
        assert admission.counts["refused", "others"] == 1

    talk(AdmissionConfig(at_once=1, others=2), conversation)


def test_a_wrong_deadline_is_refused_with_a_reason() -> None:
    for text in ("0", "-5", "soon", "1e3", "60001", "9" * 30, ""):
        with pytest.raises(Refusal) as refused:
            deadline_of({"headers": [(b"x-deadline-ms", text.encode())]})
        assert refused.value.status == 400
    assert deadline_of({"headers": [(b"x-deadline-ms", b"250")]}) == 250.0
    assert deadline_of({"headers": []}) is None


@given(st.lists(st.sampled_from(["come", "answer", "cancel", "leave"]), max_size=60), st.integers(1, 3))
@settings(deadline=None, max_examples=60)
def test_whatever_happens_nobody_is_lost_and_nothing_is_stuck(moves: list[str], at_once: int) -> None:
    async def conversation(admission: Admission, shop: Shop, come: Any) -> None:
        clients: list[tuple[Client, asyncio.Task[None]]] = []
        for move in moves:
            pending = [(c, t) for c, t in clients if not t.done()]
            if move == "come":
                client = Client()
                clients.append((client, await come(client)))
            elif move == "answer" and (working := [c for c, _ in pending if id(c.scope) in shop.open]):
                shop.answer(working[0])
            elif move == "cancel" and pending:
                pending[-1][1].cancel()
            elif move == "leave" and pending:
                pending[-1][0].here = False
            await breathe()
        assert shop.most_at_once <= at_once
        assert all(TICKET in c.scope for c, _ in clients)

    talk(AdmissionConfig(at_once=at_once, always=4, wait_ms=0.0), conversation)
