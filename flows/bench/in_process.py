"""The floor of the service: the same engine asked by a direct call, in a process of its own.

    python -m flows.bench.in_process --home HOME --requests FILE --rate R --seconds S [--before N]

Timed: N calls of one caller who asks as fast as he is answered; then paced, Poisson at R a second, open
loop, from the due time. A call is the engine's answer and its JSON body, journalled as the service does
it. The last line of standard output is one JSON document. It knows no HTTP.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.load.arrivals import poisson_arrivals
from components.serving.api import page_body
from components.serving.engine import Engine, EngineConfig
from components.serving.process import start_engine
from data.schema import NONE_ID
from data.shop import Request
from infra.machine import sharp_timers
from infra.settings import Home

__all__ = ["main", "measure"]

ENGINE = (
    "engine"  # the part of a call around the stages: release, gate, the reply's arrays, the journal's queue
)
BODY = "reply"  # the part of a call after the engine: the JSON body


def main(arguments: list[str] | None = None) -> int:
    """The process' entry."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--requests", type=Path, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--before", type=int, default=1_000, help="calls one after the other, first")
    parser.add_argument("--cache", type=str)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args(arguments)
    requests: list[Request] = pickle.loads(given.requests.read_bytes())
    found = measure(
        Home(given.home), requests, rate=given.rate, seconds=given.seconds, before=given.before,
        cache=given.cache, seed=given.seed,
    )  # fmt: skip
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


def measure(
    layout: Home,
    requests: list[Request],
    *,
    rate: float,
    seconds: float,
    before: int,
    cache: str | None,
    seed: int,
) -> dict[str, Any]:
    """Percentiles paced, the most calls a second, and where the time goes (means in us).

    `before`: calls one after the other, first, from which the paced ones go on, as caches are filled.
    """
    engine = start_engine(layout.root, EngineConfig(writer="in-process"), cache=cache)
    try:
        peak = _tight(engine, requests, before)
        with sharp_timers():
            paced = _paced(engine, requests, before, rate=rate, seconds=seconds, seed=seed)
    finally:
        engine.close()
    return paced | {"peak_rps": peak}


def _call(engine: Engine, request: Request) -> tuple[dict[str, int], int]:
    """One call: microseconds by stage and part, and in all."""
    began = time.perf_counter_ns()
    asked = replace(request, request_id=NONE_ID, time_us=engine.clock.now_us())
    answer = engine.answer(asked, arrived_ns=began)
    answered = time.perf_counter_ns()
    page_body(answer)
    ended = time.perf_counter_ns()
    parts = {span.name: span.duration_us for span in answer.spans}
    parts |= {ENGINE: (answered - began) // 1_000 - answer.reply.timings_us["total"]}
    return parts | {BODY: (ended - answered) // 1_000}, (ended - began) // 1_000


def _paced(
    engine: Engine, requests: list[Request], first: int, *, rate: float, seconds: float, seed: int
) -> dict[str, Any]:
    due_s = poisson_arrivals(rate, seconds, seed=seed) / 1e6
    latency: NDArray[np.float64] = np.empty(len(due_s))
    whole: NDArray[np.float64] = np.empty(len(due_s))
    stages: dict[str, list[int]] = {}
    began = time.perf_counter() + 0.05
    for k, due in enumerate(due_s.tolist()):
        left = began + due - time.perf_counter()
        if left > 0:
            time.sleep(left)
        parts, whole[k] = _call(engine, requests[(first + k) % len(requests)])
        latency[k] = time.perf_counter() - began - due
        for name, us in parts.items():
            stages.setdefault(name, []).append(us)
    kinds = {s.name: s.kind for s in engine.live.pipeline.stages} if engine.live is not None else {}
    means = {name: sum(times) / len(due_s) for name, times in stages.items()}
    p50, p99 = np.percentile(latency * 1e3, (50, 99)).tolist()
    return {
        "p50_ms": round(p50, 3),
        "p99_ms": round(p99, 3),
        "calls": len(due_s),
        "call_p50_us": float(np.median(whole)),
        "whole_us": round(float(whole.mean()), 1),
        "stages_us": {name: round(us, 1) for name, us in means.items()},
        "stages_p99_us": {name: float(np.percentile(times, 99)) for name, times in stages.items()},
        "ai_share": round(
            sum(us for n, us in means.items() if kinds.get(n) == "ai") / sum(means.values()), 4
        ),
    }


def _tight(engine: Engine, requests: list[Request], calls: int) -> float:
    """One call after the other: how many a second, but for the first fifth, which warms up."""
    warm = calls // 5
    for k in range(warm):
        _call(engine, requests[k % len(requests)])
    began = time.perf_counter()
    for k in range(warm, calls):
        _call(engine, requests[k % len(requests)])
    return round((calls - warm) / (time.perf_counter() - began), 1)


if __name__ == "__main__":
    sys.exit(main())
