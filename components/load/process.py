"""Runs the driver in a process of its own, and the shoppers' reactions in another.

Open loop, or closed with `closed_s`. The child ends by itself: with the trace, on SIGTERM, or when its
parent is gone.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import TracebackType
from typing import Any

from components.load.arrivals import Trace, read_trace, write_trace
from components.load.driver import run_closed, run_trace
from components.load.reactions import OnReply, Outbox, packet_pair, react_in_process
from components.load.result import LoadResult
from infra.errors import ShelflifeError
from infra.garbage import freeze

__all__ = ["DriveProcess", "drive_in_process"]

_NICE = -10  # a driver that waits for a core measures itself


class DriveProcess:
    """A load run under way in another process.

    The trace begins when `start()` returns. `make_on_reply` is picklable and called in the reactor's
    process, so that what it builds costs the driver nothing.
    """

    def __init__(
        self,
        trace: Trace,
        out: Path,
        *,
        host: str,
        port: int,
        connections: int = 64,
        timeout_s: float = 5.0,
        make_on_reply: Callable[[], OnReply] | None = None,
        events_target: str = "/events",
        closed_s: float | None = None,
    ) -> None:
        """Nothing starts yet; the result will be written to `out` (.npz).

        `closed_s`: closed loop for so many seconds, whatever the trace's due times.
        """
        self._out = out
        self._scratch = tempfile.TemporaryDirectory(prefix="shelflife-load-")
        path = Path(self._scratch.name) / "trace.npz"
        write_trace(trace, path)
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._reactor: SpawnProcess | None = None
        self._ends: list[socket.socket] = []
        driver_end: socket.socket | None = None
        if make_on_reply is not None:
            driver_end, reactor_end = packet_pair()
            self._ends = [driver_end, reactor_end]
            self._reactor_line, its_line = context.Pipe()
            self._reactor = context.Process(
                target=react_in_process,
                args=(its_line, reactor_end, make_on_reply, host, port, events_target),
                name="shelflife-reactions",
            )
        self._driver = context.Process(
            target=_drive,
            args=(theirs, path, out, driver_end, host, port, connections, timeout_s, closed_s),
            name="shelflife-driver",
        )

    @property
    def pids(self) -> list[int]:
        """The processes that were started."""
        return [p.pid for p in (self._driver, self._reactor) if p is not None and p.pid is not None]

    def start(self) -> None:
        """Start the processes, wait until they have read all they need, and let the driver go."""
        if self._reactor is not None:
            self._reactor.start()
        self._driver.start()
        for end in self._ends:
            end.close()
        if self._reactor is not None:
            self._expect("ready", 300.0, self._reactor, self._reactor_line)
        self._expect("ready", 300.0, self._driver, self._ours)
        self._ours.send("go")

    def _expect(
        self, word: str, timeout_s: float | None, who: SpawnProcess, line: Connection[str, str]
    ) -> None:
        while not line.poll(0.2):
            if not who.is_alive() and not line.poll(0):
                self.stop()
                raise ShelflifeError(
                    f"{who.name} ended with code {who.exitcode} before it said {word!r}; "
                    "see its traceback on standard error"
                )
            if timeout_s is not None:
                timeout_s -= 0.2
                if timeout_s <= 0:
                    self.stop()
                    raise ShelflifeError(f"{who.name} did not say {word!r} in time")
        found = line.recv()
        if found != word:
            raise ShelflifeError(f"{who.name} failed: {found}")

    @property
    def running(self) -> bool:
        """Whether the driver is at work."""
        return self._driver.is_alive()

    def wait(self) -> LoadResult:
        """Wait for the end of the trace; the records. Raises ShelflifeError if the driver died."""
        self._expect("done", None, self._driver, self._ours)
        self._end()
        return LoadResult.load(self._out)

    def stop(self) -> None:
        """Stop sending now; `wait()` still gives what was recorded."""
        if self._driver.is_alive() and self._driver.pid is not None:
            os.kill(self._driver.pid, signal.SIGTERM)

    def _end(self) -> None:
        self._driver.join(60)
        if self._reactor is not None:
            self._reactor.join(60)
            if self._reactor.is_alive():
                self._reactor.terminate()
                self._reactor.join(10)
        self._scratch.cleanup()

    def __enter__(self) -> DriveProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._end()


def drive_in_process(trace: Trace, out: Path, *, host: str, port: int, **options: object) -> LoadResult:
    """Run the whole trace from another process and return its records (options: see DriveProcess)."""
    drive = DriveProcess(trace, out, host=host, port=port, **options)  # type: ignore[arg-type]
    drive.start()
    return drive.wait()


def _drive(
    line: Connection[str, str],
    trace_path: Path,
    out: Path,
    reactor: socket.socket | None,
    host: str,
    port: int,
    connections: int,
    timeout_s: float,
    closed_s: float | None,
) -> None:
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which stops us
    parent = os.getppid()
    trace = read_trace(trace_path)
    freeze()
    gc.disable()  # nothing that it makes refers to itself
    line.send("ready")
    line.recv()
    _go_first(real_time=closed_s is None)

    def should_stop() -> bool:
        return stopped.is_set() or os.getppid() != parent

    where: dict[str, Any] = {"host": host, "port": port, "connections": connections, "timeout_s": timeout_s}
    if closed_s is None:
        outbox = None if reactor is None else Outbox(reactor)
        result = run_trace(trace, **where, on_reply=outbox, should_stop=should_stop)
    else:
        result = run_closed(trace.requests, **where, seconds=closed_s, should_stop=should_stop)
    result.save(out)
    line.send("done")


def _go_first(*, real_time: bool) -> None:
    """Run before others, as far as the system allows it: in real time (SCHED_RR), else by niceness.

    A driver in real time has a core within microseconds of a due time, whoever else wants one. It sleeps
    in between; one in closed loop never does, and must not have what the service needs.
    """
    if real_time and hasattr(os, "SCHED_RR"):
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
            return
    if real_time:
        with contextlib.suppress(PermissionError):
            os.nice(_NICE)
