"""The load driver: due times, open loop, failures, reactions."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from components.load.arrivals import (
    Trace,
    diurnal,
    http_get,
    http_post,
    poisson_arrivals,
    read_trace,
    write_trace,
)
from components.load.driver import run_closed, run_trace
from components.load.http1 import ReplyReader
from components.load.process import DriveProcess
from components.load.result import CONNECTION_FAILED, TIMED_OUT, LoadResult
from components.load.verdict import Limits, judge
from infra.errors import ConfigError, DataError

Answer = Callable[[bytes], bytes | None]


@contextmanager
def serving(answer: Answer) -> Iterator[int]:
    """A small threaded keep-alive server on a free port; `answer(request)` → reply bytes or None: hang up."""
    listener = socket.create_server(("127.0.0.1", 0))
    lines: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def serve(line: socket.socket) -> None:
        with line:
            buffer = b""
            while True:
                try:
                    piece = line.recv(65_536)
                except OSError:
                    return
                if not piece:
                    return
                buffer += piece
                while b"\r\n\r\n" in buffer:
                    head, _, rest = buffer.partition(b"\r\n\r\n")
                    length = 0
                    for row in head.lower().split(b"\r\n"):
                        if row.startswith(b"content-length:"):
                            length = int(row.split(b":")[1])
                    if len(rest) < length:
                        break
                    buffer = rest[length:]
                    reply = answer(head + b"\r\n\r\n" + rest[:length])
                    if reply is None:
                        return
                    try:
                        line.sendall(reply)
                    except OSError:  # the client timed out and left
                        return

    def accept() -> None:
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return
            lines.append(line)
            threads.append(threading.Thread(target=serve, args=(line,)))
            threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
        for line in lines:
            try:
                line.shutdown(socket.SHUT_RDWR)
            except OSError:
                line.close()
        for thread in threads:
            thread.join()


def reply(body: bytes = b"{}", *, status: int = 200, release: str = "r1") -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nX-Release-Id: {release}\r\n\r\n"
    return head.encode() + body


def trace_of(due_s: list[float]) -> Trace:
    return Trace(
        (np.array(due_s) * 1e6).astype(np.int64), [http_get(f"/search?q={i}") for i in range(len(due_s))]
    )


def test_arrivals_are_poisson_at_the_rate_and_repeatable() -> None:
    due = poisson_arrivals(200, 50, seed=3)
    assert np.array_equal(due, poisson_arrivals(200, 50, seed=3))
    assert abs(len(due) - 10_000) < 500
    gaps = np.diff(due) / 1e6
    assert gaps.mean() == pytest.approx(1 / 200, rel=0.05)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # exponential


def test_a_rate_curve_thins_the_arrivals() -> None:
    due = poisson_arrivals(1_000, 24, seed=1, curve=diurnal) / 1e6
    assert np.count_nonzero((due > 3.5) & (due < 4.5)) == pytest.approx(70, abs=40)
    assert np.count_nonzero((due > 21.5) & (due < 22.5)) == pytest.approx(990, abs=100)
    with pytest.raises(ConfigError, match="shares"):
        poisson_arrivals(100, 5, seed=1, curve=lambda t: t)


def test_a_trace_survives_the_disk_and_refuses_disorder(tmp_path: Path) -> None:
    trace = Trace(np.array([0, 5, 9]), [http_get("/a"), http_post("/events", b"[]"), http_get("/b")])
    write_trace(trace, tmp_path / "t.npz")
    again = read_trace(tmp_path / "t.npz")
    assert list(again.requests) == list(trace.requests)
    assert again.due_us.tolist() == [0, 5, 9]
    with pytest.raises(DataError, match="ascending"):
        Trace(np.array([5, 4]), [b"", b""])
    with pytest.raises(DataError, match="one request"):
        Trace(np.array([5]), [])


def test_replies_are_read_in_any_pieces() -> None:
    chunked = (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx-release-id: abc\r\n\r\n"
        b"4\r\nwiki\r\n3\r\npag\r\n0\r\n\r\n"
    )
    for text, body in ((reply(b"hello", release="abc"), b"hello"), (chunked, b"wikipag")):
        for cut in range(1, len(text)):
            reader = ReplyReader(b"x-release-id")
            assert reader.feed(text[:cut]) is None
            assert reader.started
            found = reader.feed(text[cut:])
            assert found is not None
            assert (found.status, found.body, found.label) == (200, body, "abc")
    with pytest.raises(ValueError, match=r"HTTP/1\.1"):
        ReplyReader().feed(b"SSH-2.0-OpenSSH\r\n\r\n")


def test_every_request_is_sent_when_due_and_recorded() -> None:
    due = [0.01 * i for i in range(40)]
    with serving(lambda request: reply(b"[" + request.split(b"q=")[1].split(b" ")[0] + b"]")) as port:
        result = run_trace(trace_of(due), host="127.0.0.1", port=port, connections=4)
    assert len(result) == 40
    assert result.failed == 0
    assert result.labels == ("r1",)
    assert (result.sent_us >= result.due_us).all()
    assert (result.done_us >= result.sent_us).all()
    assert np.median(result.sent_us - result.due_us) < 100_000
    assert 0.38 < result.duration_s < 5.0
    assert 0 < result.cpu_s_per_1000 < 5


def test_a_stall_is_charged_to_every_request_that_waited() -> None:
    """One connection, one reply of 600 ms: all that are due meanwhile count from their due time."""

    def answer(request: bytes) -> bytes:
        if b"q=5 " in request:
            time.sleep(0.6)
        return reply()

    with serving(answer) as port:
        result = run_trace(
            trace_of([0.01 * i for i in range(40)]), host="127.0.0.1", port=port, connections=1
        )
    assert (result.latency_us[5:] >= 250_000).all()  # the last one is due 340 ms after the fifth
    assert result.latency_us[5] >= 600_000
    service_time = result.done_us - result.sent_us
    assert service_time[5] >= 600_000
    assert np.median(service_time[6:]) < 200_000  # what a closed loop would have seen
    assert np.median(result.lag_us) < 200_000  # the driver itself kept its schedule


def test_failures_are_counted_and_count_as_the_timeout() -> None:
    ended = threading.Event()

    def answer(request: bytes) -> bytes | None:
        number = int(request.split(b"q=")[1].split(b" ")[0])
        if number == 3:
            return None  # hangs up
        if number == 4:
            ended.wait(60)
        return reply(status=503 if number == 2 else 200)

    with serving(answer) as port:
        result = run_trace(
            trace_of([0.02 * i for i in range(10)]), host="127.0.0.1", port=port, connections=8, timeout_s=1.0
        )
        ended.set()
    assert result.failed == 3
    assert result.status[2] == 503
    assert result.status[3] == CONNECTION_FAILED
    assert result.status[4] == TIMED_OUT
    assert (result.latency_us[2:5] >= 1_000_000).all()
    assert (result.status[5:] == 200).all()
    verdict = judge(result, limits=Limits(min_requests=5))
    assert verdict.word == "INVALID"
    assert "3 of 10 requests failed" in verdict.reasons[0]


def test_nobody_listening_fails_every_request_but_ends() -> None:
    with socket.socket() as deaf:  # nobody else gets its port
        deaf.bind(("127.0.0.1", 0))
        result = run_trace(trace_of([0.0, 0.01]), host="127.0.0.1", port=deaf.getsockname()[1])
    assert result.failed == 2
    assert not judge(result).valid


def test_connections_that_the_server_drops_when_idle_are_not_failures() -> None:
    """Each line is answered once and closed: a keep-alive that ran out under the client."""

    def serve_once(listener: socket.socket) -> None:
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return
            with line:
                line.recv(65_536)
                line.sendall(reply())

    listener = socket.create_server(("127.0.0.1", 0))
    server = threading.Thread(target=serve_once, args=(listener,))
    server.start()
    try:
        result = run_trace(
            trace_of([0.02 * i for i in range(8)]), host="127.0.0.1", port=listener.getsockname()[1]
        )
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        server.join()
    assert result.failed == 0
    assert result.reconnects >= 1


def test_reactions_become_posts_and_do_not_move_the_schedule() -> None:
    posted: list[bytes] = []

    def answer(request: bytes) -> bytes:
        if request.startswith(b"POST /events"):
            posted.append(request.partition(b"\r\n\r\n")[2])
            return reply(b'{"acked":1}', status=202)
        return reply(b"shown")

    def slow_shopper(index: int, body: bytes) -> bytes | None:
        time.sleep(0.05)
        return json.dumps([index, body.decode()]).encode() if index % 2 else None

    with serving(answer) as port:
        result = run_trace(
            trace_of([0.005 * i for i in range(20)]), host="127.0.0.1", port=port, on_reply=slow_shopper
        )
    assert result.reactions is not None
    assert (result.reactions.offered, result.reactions.posted, result.reactions.failed) == (20, 10, 0)
    assert sorted(json.loads(p)[0] for p in posted) == list(range(1, 20, 2))
    assert np.percentile(result.sent_us - result.due_us, 90) < 500_000  # 1 s of shoppers, 0.1 s of trace


def test_a_run_can_be_stopped() -> None:
    answered: list[bytes] = []

    def answer(request: bytes) -> bytes:
        answered.append(request)
        return reply()

    with serving(answer) as port:
        result = run_trace(
            trace_of([0.1 * i for i in range(100)]),
            host="127.0.0.1",
            port=port,
            should_stop=lambda: len(answered) >= 3,
        )
    assert 3 <= len(result) < 50
    assert result.failed == 0
    assert "stopped early" in judge(result).notes[0]


def echo_shopper(prefix: str, index: int, body: bytes) -> bytes | None:
    """A picklable reaction."""
    return f"{prefix}{index}".encode()


def make_echo(prefix: str) -> Callable[[int, bytes], bytes | None]:
    """What the reactor's process calls."""
    return partial(echo_shopper, prefix)


def test_a_closed_loop_keeps_so_many_in_flight_and_goes_round() -> None:
    lock, seen = threading.Lock(), []
    at_once = most = 0

    def answer(request: bytes) -> bytes:
        nonlocal at_once, most
        with lock:
            seen.append(request.split(b" ")[1])
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.02)
        with lock:
            at_once -= 1
        return reply()

    with serving(answer) as port:
        requests = [http_get(f"/search?q={i}") for i in range(5)]
        result = run_closed(requests, host="127.0.0.1", port=port, seconds=0.5, connections=3)
        with pytest.raises(DataError, match="no requests"):
            run_closed([], host="127.0.0.1", port=port, seconds=0.1)
    assert result.failed == 0
    assert most == result.peak_in_flight == 3
    assert 12 < len(result) == len(seen) <= 3 * 28
    assert set(seen) == {f"/search?q={i}".encode() for i in range(5)}
    assert seen[: len(seen) // 2].count(b"/search?q=0") > 1
    assert np.all(np.diff(result.due_us) >= 0)
    assert result.latency_us.min() >= 19_000


def test_a_connection_that_the_server_ends_is_not_waited_for_afterwards() -> None:
    closing = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    with serving(lambda _: closing) as port:
        result = run_trace(
            trace_of([0.0, 0.01, 0.02, 1.2]), host="127.0.0.1", port=port, timeout_s=1.0, connections=4
        )
    assert result.failed == 0


def test_a_closed_loop_counts_what_fails_and_ends(tmp_path: Path) -> None:
    with serving(lambda _: None) as port:  # hangs up
        trace = Trace(np.zeros(2, np.int64), [http_get("/a"), http_get("/b")])
        drive = DriveProcess(
            trace, tmp_path / "run.npz", host="127.0.0.1", port=port, connections=2, closed_s=0.3
        )
        with drive:
            result = drive.wait()
    assert len(result) > 2
    assert result.failed == len(result)


def test_the_driver_runs_in_another_process(tmp_path: Path) -> None:
    posted: list[bytes] = []

    def answer(request: bytes) -> bytes:
        if request.startswith(b"POST"):
            posted.append(request.partition(b"\r\n\r\n")[2])
        return reply(release="r9")

    with serving(answer) as port:
        drive = DriveProcess(
            trace_of([0.01 * i for i in range(30)]),
            tmp_path / "run.npz",
            host="127.0.0.1",
            port=port,
            make_on_reply=partial(make_echo, "seen-"),
        )
        with drive:
            result = drive.wait()
    assert not drive.running
    assert result.failed == 0
    assert result.labels == ("r9",)
    assert sorted(posted) == sorted(f"seen-{i}".encode() for i in range(30))
    again = LoadResult.load(tmp_path / "run.npz")
    assert np.array_equal(again.done_us, result.done_us)
    assert again.reactions == result.reactions


def test_runs_one_after_the_other_are_one(tmp_path: Path) -> None:
    runs = []
    for names in (["r1", "r2", "r2"], ["r3", "r1"]):
        answers = iter(names)
        with serving(lambda _, left=answers: reply(release=next(left))) as port:
            trace = trace_of([0.02 * i for i in range(len(names))])
            runs.append(run_trace(trace, host="127.0.0.1", port=port, connections=1))
    both = LoadResult.joined(runs)
    assert [both.labels[i] for i in both.label.tolist()] == ["r1", "r2", "r2", "r3", "r1"]
    assert (len(both), both.offered, both.failed, both.began_wall_us) == (5, 5, 0, runs[0].began_wall_us)
    assert np.array_equal(both.latency_us, np.concatenate([run.latency_us for run in runs]))
    assert both.cpu_s == pytest.approx(sum(run.cpu_s for run in runs))
