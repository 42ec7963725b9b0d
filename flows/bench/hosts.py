"""Starts what is measured, one topology after the other, and drives it: paced, and as fast as it answers.

It knows ports, processes and requests; nothing of what the figures mean.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from components.load.arrivals import Trace, http_get, poisson_arrivals
from components.load.process import DriveProcess
from components.load.result import LoadResult
from components.load.verdict import Limits, judge
from components.measure.latency import Latency
from data.shop import Request
from flows.live.traffic import target_of
from infra import cluster
from infra.errors import ShelflifeError
from infra.settings import REPOSITORY, Settings

__all__ = [
    "CONNECTIONS",
    "Load",
    "drive",
    "get",
    "http_requests",
    "on_any_ports",
    "serving",
    "summary",
    "training",
]

CONNECTIONS = 16
DEFAULT_PROXY = {
    "RAY_SERVE_ENABLE_HA_PROXY": "0",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "1",
}
"""What Ray Serve does where nothing is set."""


@dataclass(frozen=True)
class Load:
    """Requests for one run, from the `first` on: paced at `rate` or, where it is None, closed loop."""

    requests: Sequence[bytes]
    seconds: float
    rate: float | None = None
    first: int = 0
    seed: int = 7


@contextlib.contextmanager
def serving(settings: Settings, topology: str, *, haproxy: bool = True) -> Iterator[Settings]:
    """The home served so; the settings with its ports. Everything has ended afterwards."""
    environment = {} if haproxy else DEFAULT_PROXY
    try:
        running = cluster.start_serve(settings, arguments=("--topology", topology), environment=environment)
        cluster.wait_serve(running, timeout_s=300.0)
        yield running
    finally:
        cluster.down(settings)


def drive(settings: Settings, load: Load, out: Path) -> LoadResult:
    """Send the load from another process; one row a request, also in `out`."""
    n = len(load.requests)
    where: dict[str, Any] = {"host": settings.host, "port": settings.http_port}
    if load.rate is None:
        turned = [load.requests[(load.first + k) % n] for k in range(n)]
        trace = Trace(np.zeros(n, np.int64), turned)
        process = DriveProcess(trace, out, **where, connections=CONNECTIONS, closed_s=load.seconds)
    else:
        due = poisson_arrivals(load.rate, load.seconds, seed=load.seed)
        trace = Trace(due, [load.requests[(load.first + k) % n] for k in range(len(due))])
        process = DriveProcess(trace, out, **where)
    with process:
        return process.wait()


def summary(result: LoadResult, *, max_failed: int = 0) -> dict[str, Any]:
    """Percentiles, requests answered a second, and whether the run counts."""
    verdict = judge(result, limits=Limits(max_failed=max_failed))
    latency = Latency.of(result.latency_us)
    ok = result.ok
    stretch_s = (int(result.done_us[ok].max()) - result.began_wall_us) / 1e6 if ok.any() else 0.0
    return {
        "p50_ms": round(latency.ms(50), 3),
        "p99_ms": round(latency.ms(99), 3),
        "rps": round(int(ok.sum()) / stretch_s, 1) if stretch_s else 0.0,
        "requests": len(result),
        "failed": result.failed,
        "verdict": verdict.word,
        "reasons": list(verdict.reasons),
        "driver_lag_p99_ms": verdict.figures["driver_lag_ms"].get("p99"),
        "driver_cpu_s_per_1000": verdict.figures["driver_cpu_s_per_1000"],
    }


def http_requests(requests: Sequence[Request]) -> list[bytes]:
    """The requests as the service takes them."""
    return [http_get(target_of(r)) for r in requests]


def get(settings: Settings, path: str) -> Any:
    """What the service answers to a GET: a document, or text where it is none."""
    with urllib.request.urlopen(f"http://{settings.host}:{settings.http_port}{path}", timeout=30) as reply:
        body = reply.read()
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode()


@contextlib.contextmanager
def training(settings: Settings, *, nice: int | None) -> Iterator[None]:
    """A ranker in training, over and over, from when it has read its rows on.

    `nice`: the niceness of it and its session; None as every training here runs.
    """
    command = [sys.executable, "-m", "flows.bench.trainer", "--home", str(settings.home)]
    command += [] if nice is None else ["--nice", str(nice)]
    trainer = subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert trainer.stdout is not None
        if "training" not in trainer.stdout.readline():
            raise ShelflifeError("the trainer in the background ended; see its traceback on standard error")
        yield
    finally:
        trainer.terminate()
        trainer.communicate(timeout=30)


@contextlib.contextmanager
def workspace(settings: Settings, name: str) -> Iterator[tuple[Path, Settings]]:
    """The folder of a bench's results, and the settings of a home to measure in, which is removed after."""
    folder = settings.layout.reports / name
    folder.mkdir(parents=True, exist_ok=True)
    own = on_any_ports(settings, settings.home / "bench")
    try:
        yield folder, own
    finally:
        shutil.rmtree(own.home, ignore_errors=True)


def on_any_ports(settings: Settings, home: Path) -> Settings:
    """The settings for a home of its own beside whatever else is running."""
    return replace(settings, home=home, http_port=0, haproxy_stats_port=0, haproxy_metrics_port=0)
