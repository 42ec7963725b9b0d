"""A live study without a service: loads, scored days, policies and records made up for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from components.load.result import LoadResult, make_result
from components.measure.latency import Interval as Stretch
from data.world.config import START_US
from flows.studies.live import words
from flows.studies.live.ask import CONTROL, LiveAsk
from flows.studies.live.predict import Predicted
from flows.studies.live.record import Band, Lived, LiveRecord, Over
from flows.studies.live.shop_time import shop_of
from flows.studies.live.tail import conditions_of, tail_of
from flows.studies.live.trial import RAW
from flows.studies.live.verdict import Scored, judged
from flows.studies.statistics.attribution import arms
from flows.studies.telling.record import Arms
from infra.clock import DAY_US, ScaledClock
from models.metrics import Interval

S = 1_000_000


def result(due_s: Any, ms: Any, **more: Any) -> LoadResult:
    due = np.asarray(np.asarray(due_s) * 1e6, np.int64)
    done = (due * 1_000 + np.asarray(np.asarray(ms) * 1e6, np.int64)).tolist()
    n = len(due)
    given: dict[str, Any] = {
        "status": [200] * n, "label": ["r-1"] * n, "size": [1] * n, "timeout_s": 5.0, "offered": n,
        "connections": 8, "peak_in_flight": 1, "reconnects": 0, "cpu_s": 0.1,
    }  # fmt: skip
    sent = (due * 1_000).tolist()
    return make_result(
        due_us=due, picked_ns=sent, sent_ns=sent, done_ns=done, began_ns=0, began_wall_us=0, **(given | more)
    )


def day_of(seed: int = 0) -> tuple[LoadResult, list[Stretch], np.ndarray[Any, Any]]:
    """Two days of 100 s: 20 s of training at 30 ms or so in each, else 5; 2 s of measuring at 500."""
    rng = np.random.default_rng(seed)
    due = np.sort(rng.random(20_000)) * 200
    at = due % 100
    ms = 5 + rng.random(len(due))
    ms[(at >= 40) & (at < 60)] += 25
    ms[(at >= 80) & (at < 82)] += 495
    runs = [(40 * S, 60 * S), (140 * S, 160 * S)]
    measuring = [(80 * S, 82 * S), (180 * S, 182 * S)]
    return result(due, ms), conditions_of(runs, [], measuring), np.array([100, 200]) * S


def days(gain: float, *, spread: float, n: int = 20, seed: int = 3) -> list[Scored]:
    rng = np.random.default_rng(seed)
    found = []
    for day in range(n):
        state = 0.6 + 0.1 * rng.standard_normal(80)
        full = state + gain + spread * rng.standard_normal(80)
        queries = np.column_stack([state - 0.1, state, full])
        found.append(Scored(day, queries, np.arange(80), day > 0))
    return found


def predicted(gain: float, n: int = 20) -> Predicted:
    told = np.full(n, gain)
    return Predicted("daily", "1d", told, told, 0.001, Interval(gain, gain, gain), 0.015, 1)


def lived(name: str, gain: float, said: float | None, *, spread: float = 0.02, **more: Any) -> Lived:
    scored = days(gain, spread=spread)
    kept = [s for s in scored if s.fresh]
    means = np.array([s.queries.mean(0) for s in kept])
    found = arms(*means.T, queries=[s.queries for s in kept], clusters=[s.sessions for s in kept])
    load, stretches, ends = day_of()
    given: dict[str, Any] = {
        "name": name, "triggers": {"ranker": "every 1d"}, "control": name == CONTROL, "without_slots": False,
        "requests": len(load), "failed": 0, "load": "VALID", "load_reasons": (), "runs": 19, "refreshes": 19,
        "refused": 1, "failed_runs": 0, "swaps": 18, "releases_served": 19,
        "arms": Arms(found.frozen, found.state_fresh, found.full), "full_minus_state_fresh": found.weights,
        "state_fresh_minus_frozen": found.state, "weights_share": found.weights_share,
        "state_share": found.state_share, "cpu_s_per_day": 12.0, "cpu_s_per_refresh": 12.0, "run_s": 9.0,
        "tail": tail_of(load, stretches, days=2, day_ends_us=ends), "freshness": (),
        "verdict": judged(None if said is None else predicted(said), scored, margin=0.015, seed=7),
        "days": np.arange(20.0), "frozen": np.full(20, 0.5), "state_fresh": np.full(20, 0.6),
        "full": np.full(20, 0.6 + gain), "predicted": np.full(20, np.nan if said is None else said),
        "hindcast": np.full(20, np.nan),
        "over": Over(1.0, np.arange(5.0), np.full(5, 5.0), np.full(5, 9.0), (Band("training", 1.0, 2.0),)),
    }  # fmt: skip
    return Lived(**(given | more))


def record(*policies: Lived, **more: Any) -> LiveRecord:
    given: dict[str, Any] = {
        "question": words.QUESTION, "source": "world", "policies": policies,
        "sentences": tuple(words.sentence(p) for p in policies if not p.control), "closed_loop": (),
        "requests": sum(p.requests for p in policies), "failed": sum(p.failed for p in policies), "seed": 7,
        "margin": 0.015, "days": 20, "through": "process", "arguments": {"qps": 50.0},
    }  # fmt: skip
    return LiveRecord(**(given | more))


def kept(folder: Path, ask: LiveAsk) -> None:
    """What a trial of three days leaves: 30 s a day, a refresh of 10 s as each but the first begins."""
    day_s, rng = 30.0, np.random.default_rng(5)
    due = np.sort(rng.random(9_000)) * 3 * day_s
    training = (due >= day_s) & (due % day_s < 10)
    label = np.where(due < day_s + 12, "r-1", np.where(due < 2 * day_s + 12, "r-2", "r-3")).tolist()
    load = result(due, 4 + rng.random(len(due)) + 6 * training, label=label)
    load.save(folder / "load.npz")
    first = START_US + ask.first_day * DAY_US
    pieces, arrays, refreshes, swaps = [], {}, [], []
    fast = DAY_US / 1e6 / day_s
    for day in range(3):
        begin = round(day * day_s * 1e6)
        midnight = first + day * DAY_US
        if day:
            pieces.append(ScaledClock(midnight, begin, 1.0))
            refreshes.append(refresh_document(f"r-{day + 1}", begin, watermark_us=midnight))
            swaps.append({"release_id": f"r-{day + 1}", "watermark_us": midnight, "flipped": True,
                          "begin_wall_us": begin + 10 * S, "flip_wall_us": begin + 11 * S,
                          "end_wall_us": begin + 11 * S})  # fmt: skip
        start = begin + (12 * S if day else 0)
        pieces.append(ScaledClock(midnight + (12 * S if day else 0), start, 2 * fast, midnight + DAY_US))
        state = 0.6 + 0.05 * rng.standard_normal(60)
        for arm, values in (
            ("frozen", state - 0.1),
            ("state_fresh", state),
            ("full", state + 0.04 * (day > 0)),
        ):
            arrays[f"{arm}.{day}"] = values
        arrays[f"sessions.{day}"] = np.arange(60)
    wall = np.arange(13, 29, dtype=np.int64) * S
    np.savez(folder / "arrays.npz", event_known_us=shop_of(pieces, wall), event_wall_us=wall, **arrays)
    raw = {
        "began_wall_us": 0, "runs": [[b * 30 * S, b * 30 * S + 10 * S] for b in (1, 2)], "measuring": [],
        "shopping": [[20 * S, 21 * S]],
        "put_ms": [5.0], "put_failed": 0, "late_s": [0.0, 0.0, 4.0], "notes": [], "name": "daily",
        "scored": [{"day": ask.first_day + d, "shop_us": 0, "wall_us": 0, "release_id": f"r-{d + 1}"}
                   for d in range(3)],
        "pieces": [vars(p) for p in pieces], "walls_s": [day_s] * 3, "release": {"swaps": swaps},
        "refreshes": refreshes,
        "ended": [{"ended": "done", "said": ""}, {"ended": "failed", "said": "no luck"}],
        "crowd_requests": 3, "crowd_lag_s": 0.0,
    }  # fmt: skip
    (folder / RAW).write_text(json.dumps(raw))


def refresh_document(name: str, begin_us: int, *, watermark_us: int) -> dict[str, Any]:
    steps = {"ingest": 2.0, "open": 1.0, "ranker": 4.0, "publish": 1.0, "gate": 1.0}
    return {
        "release_id": name, "promoted": True, "begin_wall_us": begin_us, "end_wall_us": begin_us + 9 * S,
        "snapshot": {"watermark_us": watermark_us}, "process_cpu_s": 6.0,
        "steps": {n: {"wall_s": w} for n, w in steps.items()},
    }  # fmt: skip
