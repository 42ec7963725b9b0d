"""How long the online path takes in process, stage by stage, and what a request costs in CPU.

    python benchmarks/online_path.py [--home HOME] [--seconds S] [--rate R]

Asks a copy of a home's champion what its world's shoppers ask in the days after the history; without
a home it makes a small world and a release (about two minutes). Timed: `tight`, one request after the
other; `paced`, at R a second, in open loop, from the due time; `engine`, the same with JSON body,
reactions and journal, whose headline is CPU a request over all threads; `apply`, small batches into
the state. The first tenth of each is warm-up. The last line of standard output is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from components.search.live import ReleaseView
from components.search.pipeline import SearchPipeline
from components.serving.api import page_body
from components.serving.engine import Engine, EngineConfig
from data.replica import current_state
from data.schema import IMPRESSION, SEARCH, event_table
from data.shop import Request
from data.state import State
from data.world.sessions import DayPlan
from data.world.shop import World
from flows.bench.catalogue import copy_home
from flows.live.traffic import reaction_events
from infra.clock import ManualClock
from infra.settings import Home, load_settings
from models.release import champion, load_release

Figures = dict[str, Any]
_DAYS = 6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, help="a home with a world and a champion; it is copied")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each part")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second where paced")
    parser.add_argument("--scale", type=float, default=0.5, help="size of the world that is made")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shelflife-bench-") as folder:
        layout = Home(Path(folder) / "home")
        if given.home is None:
            _make(layout, given.scale)
        else:
            copy_home(Home(given.home), layout)
        found = measure(layout, seconds=given.seconds, rate=given.rate)
    for part in ("tight", "paced"):
        for name, (p50, p99) in found[part].items():
            _say(f"{part:6} {name:11} p50 {p50:8.1f} us   p99 {p99:8.1f} us")
    _say(f"engine {found['engine']}")
    _say(f"apply  {found['apply']}")
    _say(json.dumps(found))


def measure(layout: Home, *, seconds: float, rate: float) -> Figures:
    """All figures of a home: times in us, CPU in us a request."""
    world = World.open(layout)
    plan = world.day(world.config.days)
    requests: list[Request] = []
    for day in range(world.config.days, world.config.days + _DAYS):
        some = world.day(day)  # first pages only: a turned page is looked up, not made
        requests += [some.request(i) for i in np.flatnonzero(some.page == 0).tolist()]
    release_id = champion(layout)
    assert release_id is not None, f"{layout.root} has no champion"
    release, state = load_release(layout, release_id), current_state(layout)
    pipeline = SearchPipeline(release, ReleaseView(release, state), state)
    assert release.ranker is not None
    return {
        "items": state.n_items,
        "release_id": release_id,
        "ranker_compiled": release.ranker.is_compiled,
        "tight": _stages(pipeline, requests, seconds, rate=None),
        "paced": _stages(pipeline, requests, seconds, rate=rate),
        "engine": _engine(layout, world, plan, seconds, rate),
        "apply": _apply(state, requests),
    }


def _stages(
    pipeline: SearchPipeline, requests: list[Request], seconds: float, *, rate: float | None
) -> dict[str, tuple[float, float]]:
    """(p50, p99) by stage and in all; `latency` counts from when the request was due."""
    latency: list[float] = []
    pipeline.times.clear()
    cpu_s = time.process_time()
    began = time.perf_counter()
    for k, request in enumerate(requests):
        due = began + k / rate if rate else time.perf_counter()
        if due - began > seconds:
            break
        _wait_until(due)
        pipeline.answer(request)
        latency.append((time.perf_counter() - due) * 1e6)
    cpu_us = (time.process_time() - cpu_s) / len(latency) * 1e6
    kept = pipeline.times.rows()[len(latency) // 10 :]
    found = {name: kept[kept[:, i] >= 0, i] for i, name in enumerate(pipeline.times.names)}
    figures = {name: _spread(times) for name, times in found.items()}
    figures["latency"] = _spread(np.array(latency[len(latency) // 10 :]))
    figures["cpu"] = (round(cpu_us, 1), round(cpu_us, 1))
    return figures


def _engine(layout: Home, world: World, plan: DayPlan, seconds: float, rate: float) -> Figures:
    """The engine with body, journal and reactions: latency and CPU of all threads by request."""
    clock = ManualClock(world.start_of(world.config.days))
    engine = Engine(layout, clock, config=EngineConfig(writer="bench"))
    engine.start()
    latency: list[float] = []
    react_s = 0.0
    try:
        warm, most = max(1, round(seconds * rate / 10)), round(seconds * rate)
        cpu_s = time.process_time()
        began = time.perf_counter()
        for k in range(min(most, len(plan))):
            if k == warm:
                cpu_s, react_s, latency = time.process_time(), 0.0, []
            request = plan.request(k)
            clock.time_us = max(clock.time_us, int(plan.time_us[k]))
            due = began + k / rate
            _wait_until(due)
            answer = engine.answer(request)
            page_body(answer)
            latency.append((time.perf_counter() - due) * 1e6)
            before = time.thread_time()
            items = answer.reply.item_ids
            reaction = world.react(plan, k, items, answer.reply.offset + np.arange(len(items)))
            events = list(reaction_events(reaction, plan, k, str(answer.reply.request_id)))
            react_s += time.thread_time() - before
            if events:
                engine.events(events)
        while not engine.settled:
            time.sleep(0.02)
        cpu_s = time.process_time() - cpu_s - react_s
    finally:
        engine.close()
    p50, p99 = _spread(np.array(latency))
    return {"p50_us": p50, "p99_us": p99, "cpu_us": round(cpu_s / len(latency) * 1e6, 1), "rate": rate}


def _apply(state: State, requests: list[Request]) -> dict[str, float]:
    """Median us to fold a batch as the service journals it: a search and ten impressions a request."""
    rng = np.random.default_rng(0)
    found = {}
    for rows in (11, 55, 220):
        times = []
        for _ in range(100):
            some = [requests[i] for i in rng.integers(len(requests), size=rows // 11)]
            now = state.as_of_us
            table = event_table(
                {
                    "event_id": np.arange(rows),
                    "kind": np.tile(np.array([SEARCH] + [IMPRESSION] * 10, np.int8), rows // 11),
                    "event_time": now,
                    "known_time": now + np.arange(rows),
                    "user_id": np.repeat([r.user_id for r in some], 11),
                    "session_id": np.repeat([r.session_id for r in some], 11),
                    "request_id": np.repeat([r.request_id for r in some], 11),
                    "query": np.repeat(np.array([r.query for r in some], object), 11),
                    "item_id": rng.choice(state.item_ids, rows),
                    "position": np.tile(np.arange(-1, 10), rows // 11),
                }
            )
            began = time.perf_counter()
            state.apply(table)
            times.append((time.perf_counter() - began) * 1e6)
        found[str(rows)] = round(float(np.median(times)), 1)
    return found


def _make(layout: Home, scale: float) -> None:
    from data.sources import fashion_mnist
    from data.world.config import world_config
    from data.world.history import generate
    from flows.offline.refresh import refresh

    settings = load_settings(home=layout.root)
    fashion_mnist.fetch(settings.cache)
    labels = fashion_mnist.load(settings.cache)[1]
    generate(world_config("none", scale=scale, days=3, seed=0), layout, labels=labels)
    refresh(settings, component="all")


def _wait_until(due_s: float) -> None:
    left = due_s - time.perf_counter()
    if left > 0:
        time.sleep(left)


def _spread(times: Any) -> tuple[float, float]:
    p50, p99 = np.percentile(times, (50, 99)).tolist() if len(times) else (float("nan"),) * 2
    return round(p50, 1), round(p99, 1)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
