"""`shelflife bench serve`: the speed of the online path against the machine's own floors.

One run, the same requests everywhere: a direct call, the service, an empty handler in the same mode, and
the path in one replica or split over four deployments, behind HAProxy or Serve's default proxy; then the
service beside a ranker in training. Percentiles are open loop from the due time, peaks closed loop.
"""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data.shop import Request
from data.world.shop import World
from flows.bench.catalogue import bench_requests, copy_home, prepare
from flows.bench.hosts import Load, drive, get, http_requests, serving, summary, training, workspace
from infra.errors import ShelflifeError
from infra.files import write_atomic
from infra.settings import REPOSITORY, Home, Settings

__all__ = ["TOPOLOGIES", "ServeBench", "bench_serve"]

Progress = Callable[..., None]

TOPOLOGIES: dict[str, tuple[str, bool]] = {
    "service": ("service", True),
    "empty": ("empty", True),
    "split": ("split", True),
    "service_default_proxy": ("service", False),
    "split_default_proxy": ("split", False),
}
"""Name in the result → (topology of the host, whether HAProxy stands before it)."""

CLOSED_SHARE = 1 / 3  # of the seconds: a peak needs fewer than a percentile
MOST_REQUESTS = 40_000
_TRAINERS: dict[str, int | None] = {"quiet": None, "idle": None, "nice_19": 19, "nice_0": 0}
"""What trains beside: nothing, a trainer as `up` runs it, and one at a niceness and no more."""
_STAGE = re.compile(r'shelflife_stage_seconds\{stage="(\w+)",kind="\w+",quantile="0.99"\} (\S+)')


@dataclass(frozen=True)
class ServeBench:
    """What to measure. `seconds`: of each paced run; `source`: a home to measure a copy of."""

    items: int = 100_000
    seconds: float = 30.0
    rate: float = 200.0
    training: bool = True
    source: Path | None = None


def bench_serve(
    settings: Settings, bench: ServeBench, *, progress: Progress = lambda *_: None
) -> dict[str, Any]:
    """Measure everything; the document is also written to `<home>/reports/bench-serve/result.json`."""
    began = time.monotonic()
    if bench.source is None:
        prepared = prepare(settings, items=bench.items, progress=progress)
        source, setup = prepared.layout, prepared.about()
    else:
        source, setup = Home(bench.source), {"source": str(bench.source)}
    document: dict[str, Any] = {
        "rate": bench.rate,
        "seconds": bench.seconds,
        "setup": setup,
    }
    with workspace(settings, "bench-serve") as (folder, own):
        copy_home(source, own.layout)
        document["items"] = World.open(own.layout).config.n_items
        requests = bench_requests(own.layout, most=MOST_REQUESTS)
        document["requests"] = len(requests)
        sent = http_requests(requests)
        for name, (topology, haproxy) in TOPOLOGIES.items():
            copy_home(source, own.layout)  # every topology begins with the same state
            with serving(own, topology, haproxy=haproxy) as running:
                document[name] = _measured(running, name, bench, sent, folder, progress)
                if name == "service":
                    document |= _about_service(running, document["service"])
                    if bench.training:
                        document["training"] = _beside_training(running, bench, sent, folder, progress)
        progress(f"in process, {bench.rate:g}/s for {bench.seconds:g} s")
        copy_home(source, own.layout)
        inside = _in_process(own, bench, requests, before=document["service"]["requests_before"])
        document["in_process"] = {k: inside[k] for k in ("p50_ms", "p99_ms", "peak_rps", "call_p50_us")}
        document |= {k: inside[k] for k in ("stages_us", "whole_us", "ai_share")}
    document["ratios"] = _ratios(document)
    document["total_seconds"] = round(time.monotonic() - began, 1)
    write_atomic(folder / "result.json", json.dumps(document, indent=1).encode())
    return document


def _in_process(own: Settings, bench: ServeBench, requests: list[Request], *, before: int) -> dict[str, Any]:
    """Direct calls, after as many as the service had answered: caches hold the same."""
    path = own.layout.run / "requests.pickle"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(requests))
    options = {"home": own.home, "requests": path, "rate": bench.rate, "seconds": bench.seconds}
    options |= {"cache": own.cache, "seed": own.seed, "before": before}
    command = [sys.executable, "-m", "flows.bench.in_process"]
    command += [text for key, value in options.items() for text in (f"--{key}", str(value))]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ShelflifeError(f"the direct calls failed: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _measured(
    running: Settings, name: str, bench: ServeBench, sent: list[bytes], folder: Path, progress: Progress
) -> dict[str, Any]:
    """Warm-up, the peak, then the percentiles: at the bench's rate, a split one at half its own peak.

    What cannot do the rate is measured at half its own peak too; `rate` says which.
    """
    closed_s = max(1.0, bench.seconds * CLOSED_SHARE)
    progress(f"{name}: closed loop for {closed_s:g} s")
    warm = drive(running, Load(sent, max(1.0, closed_s / 4)), folder / f"{name}-warm.npz")
    at = len(warm)
    peak_run = drive(running, Load(sent, closed_s, first=at), folder / f"{name}-peak.npz")
    peak = summary(peak_run)
    at += len(peak_run)
    half = peak["rps"] / 2
    rate = half if name.startswith("split") or peak["rps"] < 1.1 * bench.rate else bench.rate
    progress(f"{name}: {rate:.0f}/s for {bench.seconds:g} s (peak {peak['rps']:.0f}/s)")
    paced = summary(
        drive(running, replace(Load(sent, bench.seconds, rate), first=at), folder / f"{name}.npz")
    )
    return {
        "p50_ms": paced["p50_ms"],
        "p99_ms": paced["p99_ms"],
        "peak_rps": peak["rps"],
        "rate": round(rate, 1),
        "requests_before": at,
        **{k: paced[k] for k in ("requests", "failed", "verdict", "reasons", "driver_lag_p99_ms")},
        "driver_cpu_s_per_1000": paced["driver_cpu_s_per_1000"],
        "peak_failed": peak["failed"],
    }


def _about_service(running: Settings, service: dict[str, Any]) -> dict[str, Any]:
    """p99 of the whole over p99 of each stage in the same run, and how the caches did."""
    text = str(get(running, "/metrics"))
    stages = {name: float(value) * 1e3 for name, value in _STAGE.findall(text)}
    ratios = {
        name: round(service["p99_ms"] / ms, 2)
        for name, ms in stages.items()
        if name not in ("total", "ai", "non_ai") and ms > 0
    }
    levels = re.findall(r'shelflife_cache_(hits|misses)\{cache="(\w+)"\} (\S+)', text)
    caches: dict[str, dict[str, float]] = {}
    for what, cache, value in levels:
        caches.setdefault(cache, {})[what] = float(value)
    rates = {c: round(v["hits"] / max(1.0, v["hits"] + v["misses"]), 4) for c, v in caches.items()}
    return {"whole_to_component_p99": ratios, "cache_hit_rates": rates}


def _beside_training(
    running: Settings, bench: ServeBench, sent: list[bytes], folder: Path, progress: Progress
) -> dict[str, Any]:
    """The service beside a ranker in training, then."""
    found: dict[str, Any] = {}
    for k, (name, nice) in enumerate(_TRAINERS.items()):
        load = Load(sent, bench.seconds, bench.rate, first=k * 997, seed=100 + k)
        progress(f"service, training {name}: {bench.rate:g}/s for {bench.seconds:g} s")
        if name == "quiet":
            figures = summary(drive(running, load, folder / f"training-{name}.npz"))
        else:
            with training(running, nice=nice):
                figures = summary(drive(running, load, folder / f"training-{name}.npz"))
        found[name] = {k: figures[k] for k in ("p50_ms", "p99_ms", "failed", "verdict", "driver_lag_p99_ms")}
    quiet = found["quiet"]["p99_ms"]
    for name in tuple(_TRAINERS)[1:]:
        found[f"p99_ratio_{name}"] = round(found[name]["p99_ms"] / quiet, 2)
    return found


def _ratios(document: dict[str, Any]) -> dict[str, float]:
    """What the figures are held against, each a ratio within this run."""
    inside, service, empty = (document[k] for k in ("in_process", "service", "empty"))
    return {
        "service_p50_to_floor": round(service["p50_ms"] / (inside["p50_ms"] + 1.5 * empty["p50_ms"]), 3),
        "peak_to_split_default_proxy": round(
            service["peak_rps"] / max(1e-9, document["split_default_proxy"]["peak_rps"]), 2
        ),
        "stages_to_whole": round(sum(document["stages_us"].values()) / document["whole_us"], 4),
    }
