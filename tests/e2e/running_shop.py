"""A running shop as its users see it, its processes, and load on it while something is done to it."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psutil

from components.load.arrivals import Trace, http_get, poisson_arrivals
from components.load.driver import run_trace
from components.load.result import CONNECTION_FAILED, LoadResult
from data.schema import stable_hash
from data.snapshots import published, read_events
from infra import cluster, processes
from infra.ray_scratch import scratch_of
from infra.settings import Home, Settings

_SETTLED_S = 1.0


class Running:
    """A shop that was started with `up`, as its users see it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.layout: Home = settings.layout
        self.keys: list[str] = []  # of events that were acknowledged
        self.http = httpx.Client(base_url=cluster.serve_url(settings), timeout=60.0)
        self.items = [i["item_id"] for i in self.get("/recommend", size=100)["items"]]
        self.queries = sorted({i["category"] for i in self.get("/recommend", size=100)["items"]})

    def get(self, path: str, **parameters: Any) -> Any:
        """The document of a GET that has to succeed."""
        reply = self.http.get(path, params=parameters)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def shows(self, path: str, **parameters: Any) -> list[str]:
        """The ids of the items on a page."""
        return [i["item_id"] for i in self.get(path, **parameters)["items"]]

    def click(self, items: Sequence[str], **more: Any) -> None:
        """Tell of clicks, each with a key of its own; remember them once they are acknowledged."""
        keys = [f"e2e-{len(self.keys) + i}" for i in range(len(items))]
        events = [
            {"kind": "click", "item_id": item, "user_id": "u1", "event_key": key, **more}
            for item, key in zip(items, keys, strict=True)
        ]
        reply = self.http.post("/events", json={"events": events})
        assert reply.status_code == 202, reply.text
        assert reply.json() == {"acked": len(items), "duplicates": 0}
        self.keys += keys

    def stored(self) -> Counter[int]:
        """How often each acknowledged event is in what ingest published."""
        wanted = {stable_hash(f"event_key {key}") & ((1 << 63) - 1) for key in self.keys}
        ids = read_events(published(self.layout), columns=["event_id"])["event_id"].to_pylist()
        return Counter(i for i in ids if i in wanted)

    def all_stored(self) -> bool:
        """Whether every acknowledged event is in the store."""
        return len(self.stored()) == len(self.keys)


def of_home(root: Path) -> set[tuple[int, float]]:
    """(pid, start) of every process that works for a home: by its environment, arguments or session."""
    sessions = {p.pid for p in processes.records(Home(root).run)}
    short = str(scratch_of(Settings(home=root)))
    found = set()
    for process in psutil.process_iter():
        try:
            about = " ".join([*process.cmdline(), *process.environ().values()])
            ours = str(root) in about or short in about or os.getsid(process.pid) in sessions
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.add((process.pid, process.create_time()))
        except (psutil.Error, OSError):
            continue
    return found


def leftovers(before: set[tuple[int, float]], root: Path) -> set[tuple[int, float]]:
    """Those of `before` that still live, and any other of the home."""
    return {process for process in before if lives(*process)} | of_home(root)


def lives(pid: int, begun: float) -> bool:
    """Whether the process that began then has not ended."""
    try:
        process = psutil.Process(pid)
        return process.create_time() == begun and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def named(root: Path, word: str) -> set[tuple[int, float]]:
    """Those of a home's processes whose command line holds this word."""
    found = set()
    for pid, begun in of_home(root):
        try:
            if word in " ".join(psutil.Process(pid).cmdline()):
                found.add((pid, begun))
        except psutil.Error:
            continue
    return found


def session_of(pid: int) -> int:
    """The session of a process; 0 of one that has ended."""
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def refreshing(running: Running) -> bool:
    """Whether a refresh of the schedule is at work."""
    lock = running.layout.run / "refresh" / "lock"
    return lock.exists() and "refresh" in lock.read_text()


@dataclass(frozen=True)
class Struck:
    """Open-loop load in which something was done to the shop: when, and when it was back, wall us."""

    result: LoadResult
    struck_us: int
    back_us: int

    @property
    def failures(self) -> list[tuple[int, float, float]]:
        """Of each that failed: status (0: no reply), seconds from the strike until sent, and until done."""
        lost = ~self.result.ok
        sent, done = ((at[lost] - self.struck_us) / 1e6 for at in (self.result.sent_us, self.result.done_us))
        return list(zip(self.result.status[lost].tolist(), sent.tolist(), done.tolist(), strict=True))

    def check(self) -> None:
        """Nothing fails before the strike nor once it is back; between, only as docs/faults.md says."""
        back_s = (self.back_us - self.struck_us) / 1e6
        told = f"back after {back_s} s; failed: {self.failures}"
        assert all(done >= 0 for _, _, done in self.failures), told
        assert all(sent <= back_s for _, sent, _ in self.failures), told
        assert {status for status, _, _ in self.failures} <= {CONNECTION_FAILED, 429, 503}, told
        assert (self.result.sent_us[self.result.ok] > self.back_us).sum() > 10, told


def ready(running: Running) -> bool:
    """Whether `/health` says ready and a page is answered, each on a connection of its own.

    A new HAProxy answers `/health` a moment before it finds the replica for everything else.
    """
    url = cluster.serve_url(running.settings)
    try:
        reply = httpx.get(f"{url}/health", timeout=35.0)
        well = reply.status_code == 200 and bool(reply.json()["ready"])
        return well and httpx.get(f"{url}/recommend", timeout=35.0).status_code == 200
    except httpx.TransportError:
        return False


def under_load(
    running: Running, strike: Callable[[], None], back: Callable[[], bool], *, timeout_s: float
) -> Struck:
    """Load while `strike` is done, until 2 s after the shop is `back` and settled. Fails where it is not."""
    times: dict[str, int] = {}
    errors: list[BaseException] = []
    ended = threading.Event()

    def act() -> None:
        try:
            time.sleep(1.0)
            times["struck"] = time.time_ns() // 1_000
            strike()
            until = time.monotonic() + timeout_s
            well_since: float | None = None
            while well_since is None or time.monotonic() - well_since < _SETTLED_S:
                if back() and ready(running):
                    well_since = well_since or time.monotonic()
                else:
                    well_since = None
                    assert time.monotonic() < until, f"not back within {timeout_s} s"
                time.sleep(0.1)
            times["back"] = time.time_ns() // 1_000
            time.sleep(2.0)
        except BaseException as error:
            errors.append(error)
        finally:
            ended.set()

    due = poisson_arrivals(25.0, timeout_s + 5.0, seed=2)
    targets = [f"/search?q={quote(q)}&user_id=u2" for q in running.queries] + ["/recommend?user_id=u3"]
    requests = [http_get(targets[i % len(targets)]) for i in range(len(due))]
    url = httpx.URL(cluster.serve_url(running.settings))
    thread = threading.Thread(target=act)
    thread.start()
    try:
        result = run_trace(
            Trace(due, requests), host=url.host, port=url.port or 0, timeout_s=35.0, should_stop=ended.is_set
        )
    finally:
        thread.join()
    if errors:
        raise errors[0]
    return Struck(result, times["struck"], times["back"])
