"""Overload, measured: quiet, then a multiple of the service's own peak for a while, then quiet again.

What arrives: Poisson, open loop, three stretches in one run. What is timed: each request from the moment it
was due, accepted (200) and refused (429) ones apart. The headline is the accepted p99 while overloaded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.load.arrivals import Trace, poisson_arrivals
from components.load.process import drive_in_process
from components.load.result import LoadResult
from data.shop import Request
from flows.bench.catalogue import bench_requests, copy_home, prepare
from flows.bench.hosts import http_requests, on_any_ports, serving
from infra.cluster import serve_url
from infra.settings import Home, Settings

__all__ = ["Limits", "Plan", "judge_overload", "overload", "overload_at", "stretches"]

Progress = Callable[..., None]

_REFUSED = 429
_WINDOW_US = 1_000_000


@dataclass(frozen=True)
class Plan:
    """The stretches: `quiet_rate` requests a second before and after `factor` times the peak.

    `peak_connections`, `peak_s`: the closed loop that finds the peak. `connections`: the most that the open
    loop has in flight; one that is due while all are busy waits, its latency running.
    """

    factor: float = 2.5
    quiet_rate: float = 200.0
    quiet_s: float = 15.0
    overload_s: float = 30.0
    after_s: float = 20.0
    peak_connections: int = 16
    peak_s: float = 8.0
    warm_s: float = 5.0
    connections: int = 512
    timeout_s: float = 5.0


@dataclass(frozen=True)
class Limits:
    """What is promised: see docs/faults.md. `slow_share`: of a second's requests, beyond quiet p99."""

    accepted_p99_ms: float = 250.0
    rejected_p99_ms: float = 50.0
    recovery_s: float = 5.0
    slow_share: float = 0.05


def overload(
    settings: Settings,
    *,
    items: int = 100_000,
    plan: Plan | None = None,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Serve a prepared shop of `items` items on free ports, overload it, and say what happened."""
    plan = plan or Plan()
    made = prepare(settings, items=items, progress=progress)
    with tempfile.TemporaryDirectory(prefix="shelflife-overload-") as scratch:
        layout = Home(Path(scratch) / "home")
        copy_home(made.layout, layout)
        progress("starting the service")
        with serving(on_any_ports(settings, layout.root), "service") as own:
            requests = bench_requests(layout, most=20_000)
            document = overload_at(
                serve_url(own), requests, plan, scratch=Path(scratch), seed=settings.seed, progress=progress
            )
    return {"items": items, "shop": made.about(), **document}


def overload_at(
    url: str,
    requests: Sequence[Request],
    plan: Plan,
    *,
    scratch: Path,
    seed: int,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Find the peak of the service at `url`, then offer it `plan`; the judged document."""
    host, _, port = url.removeprefix("http://").partition(":")
    where: dict[str, Any] = {"host": host, "port": int(port), "timeout_s": plan.timeout_s}
    targets = http_requests(requests)
    closed = Trace(np.arange(len(targets)), targets)
    for seconds, name in ((plan.warm_s, "warming"), (plan.peak_s, "finding the peak")):
        progress(name)
        found = drive_in_process(
            closed, scratch / "peak.npz", connections=plan.peak_connections, closed_s=seconds, **where
        )
    peak = float(np.count_nonzero(found.ok)) / found.duration_s
    due, ends = stretches(plan, peak=peak, seed=seed)
    progress(f"{plan.factor:g} times {peak:.0f}/s for {plan.overload_s:g} s")
    trace = Trace(due, [targets[i % len(targets)] for i in range(len(due))])
    result = drive_in_process(trace, scratch / "overload.npz", connections=plan.connections, **where)
    return {"peak_rps": round(peak, 1), "factor": plan.factor, **judge_overload(result, ends)}


def stretches(plan: Plan, *, peak: float, seed: int) -> tuple[NDArray[np.int64], tuple[int, int]]:
    """Due times int64 [n] us from the start, and where the overload begins and ends."""
    quiet_rate = min(plan.quiet_rate, peak / 2)
    parts = ((quiet_rate, plan.quiet_s), (plan.factor * peak, plan.overload_s), (quiet_rate, plan.after_s))
    begun_us, due = 0, []
    for i, (rate, seconds) in enumerate(parts):
        due.append(begun_us + poisson_arrivals(rate, seconds, seed=seed + i))
        begun_us += round(seconds * 1e6)
    first = round(plan.quiet_s * 1e6)
    return np.concatenate(due), (first, first + round(plan.overload_s * 1e6))


def judge_overload(
    result: LoadResult, ends: tuple[int, int], *, limits: Limits | None = None
) -> dict[str, Any]:
    """The figures of a run whose overload lay between `ends` (us from its start), and which promises broke.

    `recovery_s`: from the end of the overload until the first second of which at most `slow_share` of the
    requests were slower than the quiet p99 or failed; None if there was none.
    """
    limits = limits or Limits()
    due = result.due_us - result.began_wall_us
    latency_ms = (result.done_us - result.due_us) / 1e3
    quiet, after = due < ends[0], due >= ends[1]
    loaded = ~(quiet | after)
    accepted, refused = result.ok & loaded, (result.status == _REFUSED) & loaded
    quiet_p99 = _percentiles(latency_ms[quiet & result.ok])["p99"]
    settled = after & (due >= ends[1] + limits.recovery_s * 1e6)
    recovery_s = _recovery(due, latency_ms, result.ok, ends[1], quiet_p99, limits.slow_share)
    n = int(np.count_nonzero(loaded))
    document: dict[str, Any] = {
        "requests": len(result),
        "offered_rps": round(n / ((ends[1] - ends[0]) / 1e6), 1),
        "accepted_rps": round(int(np.count_nonzero(accepted)) / ((ends[1] - ends[0]) / 1e6), 1),
        "accepted_share": round(int(np.count_nonzero(accepted)) / max(n, 1), 4),
        "accepted_ms": _percentiles(latency_ms[accepted]),
        "rejected_ms": _percentiles(latency_ms[refused]),
        "statuses": _statuses(result.status[loaded]),
        "statuses_around": _statuses(result.status[~loaded]),
        "quiet_ms": _percentiles(latency_ms[quiet & result.ok]),
        "after_5s_ms": _percentiles(latency_ms[settled & result.ok]),
        "recovery_s": recovery_s,
        "driver_lag_p99_ms": round(float(np.percentile(result.lag_us, 99)) / 1e3, 3),
        "peak_in_flight": result.peak_in_flight,
    }
    others = n - int(np.count_nonzero(accepted)) - int(np.count_nonzero(refused))
    promises = {
        f"accepted p99 under {limits.accepted_p99_ms:g} ms": bool(accepted.any())
        and _under(document["accepted_ms"]["p99"], limits.accepted_p99_ms),
        f"refused within {limits.rejected_p99_ms:g} ms (p99)": _under(
            document["rejected_ms"]["p99"], limits.rejected_p99_ms
        ),
        "nothing but 200 and 429": others == 0,
        f"quiet again within {limits.recovery_s:g} s": recovery_s is not None
        and recovery_s <= limits.recovery_s,
    }
    return {**document, "broken": [name for name, kept in promises.items() if not kept]}


def _recovery(
    due: NDArray[np.int64],
    latency_ms: NDArray[np.float64],
    ok: NDArray[np.bool_],
    end_us: int,
    quiet_p99: float | None,
    share: float,
) -> float | None:
    if quiet_p99 is None:
        return None
    slow = ~ok | (latency_ms > quiet_p99)
    for begin in range(end_us, int(due[-1]) - _WINDOW_US + 1 if len(due) else end_us, _WINDOW_US // 4):
        window = (due >= begin) & (due < begin + _WINDOW_US)
        if window.any() and slow[window].mean() <= share:
            return round((begin - end_us) / 1e6, 2)
    return None


def _percentiles(values: NDArray[np.float64]) -> dict[str, Any]:
    names = (("p50", 50), ("p90", 90), ("p99", 99), ("max", 100))
    if not len(values):
        return {"n": 0, **dict.fromkeys((name for name, _ in names), None)}
    found = np.percentile(values, [q for _, q in names]).round(3).tolist()
    return {"n": len(values), **dict(zip((name for name, _ in names), found, strict=True))}


def _statuses(status: NDArray[np.int16]) -> dict[str, int]:
    values, counts = np.unique(status, return_counts=True)
    return {str(v): int(n) for v, n in zip(values.tolist(), counts.tolist(), strict=True)}


def _under(value: float | None, limit: float) -> bool:
    return value is None or value < limit
