"""From what happened live to what the report shows: figures with intervals, marks on one time axis."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.load.verdict import judge
from components.measure.latency import Interval as Stretch
from components.measure.latency import by_condition
from data.schema import CART, CLICK, ORDER
from data.snapshots import published, read_events
from data.world.shop import World
from flows.demo.live import Live
from flows.evaluation.arms import ARMS
from flows.offline.history import recorded_manifest
from flows.offline.refresh import read_refreshes
from flows.report.record import ArmsPoint, DemoRecord, RefreshMark, SwapMark
from infra.clock import DAY_US
from infra.machine import describe_machine, source_commit
from infra.settings import Settings
from models.metrics import bootstrap_mean
from models.release import diff

__all__ = ["freshness_s", "record_of"]


def record_of(
    settings: Settings, live: Live, given: dict[str, float], *, wall_s: float, report: Path
) -> DemoRecord:
    """The record of a demo whose live part is over. `given`: seconds, rate, scale, days, day_seconds."""
    day_seconds = given["day_seconds"]
    layout = settings.layout
    assert live.load is not None
    load, began = live.load, live.began_wall_us
    swaps = [s for s in live.release["swaps"] if s["flipped"] and s["flip_wall_us"] >= began]
    refreshes = read_refreshes(layout)
    during = [r for r in refreshes if r["end_wall_us"] >= began]
    stretches = [Stretch("training", r["begin_wall_us"], r["end_wall_us"]) for r in during]
    stretches += [Stretch("installing", s["begin_wall_us"], s["flip_wall_us"]) for s in swaps]
    latency = {n: h.summary() for n, h in by_condition(load.latency_us, load.due_us, stretches).items()}
    installing = by_condition(
        load.latency_us, load.due_us, [s for s in stretches if s.condition == "installing"]
    )
    verdict = judge(load, intervals=stretches)
    waits = freshness_s(settings, live, swaps)
    state = live.release.get("state") or {}
    document: dict[str, Any] = {
        "requests": len(load),
        "failed": load.failed,
        "crowd_requests": live.crowd_requests,
        "swaps": len(swaps),
        "releases_served": sum(1 for n in verdict.figures["labels"].values() if n),
        "ndcg10": {arm: live.tally.mean(arm).as_dict() for arm in ARMS},
        "full_minus_state_fresh": live.tally.difference("full", "state_fresh").as_dict(),
        "state_fresh_minus_frozen": live.tally.difference("state_fresh", "frozen").as_dict(),
        "latency_ms": {
            "p50": _percentile(load.latency_us, 50),
            "p99": _percentile(load.latency_us, 99),
            "p99_installing": round(installing["installing"].ms(99), 3) if swaps else None,
            "by_condition": latency,
        },
        "freshness_s": {"p50": _or_none(waits, 50), "p99": _or_none(waits, 99), "events": len(waits)},
        "state_freshness_ms": state.get("lag_ms"),
        "train_cpu_s": round(sum(r["cpu_s"] for r in during), 2),
        "train_process_cpu_s": round(sum(r["process_cpu_s"] for r in during), 2),
        "first_release_cpu_s": round(sum(r["cpu_s"] for r in refreshes[:1]), 2),
        "refreshes": len(during),
        "refused": sum(not r["promoted"] for r in during),
        "load": verdict.word,
        "load_reasons": list(verdict.reasons),
        "driver_cpu_s_per_1000": verdict.figures["driver_cpu_s_per_1000"],
        "crowd_lag_s": round(live.crowd_lag_s, 2),
        "http_catalogue_changes": live.http_changes,
        "shop_days": round((load.due_us[-1] - began) / 1e6 / day_seconds, 2),
        **given,
        "first_watermark_day": _day_of(live, recorded_manifest(layout, live.first_release).watermark_us),
        "wall_s": round(wall_s, 1),
        "seed": settings.seed,
        "report": str(report),
    }
    return DemoRecord(
        document=document,
        arms=_points(live),
        swaps=_swap_marks(settings, live, swaps),
        refreshes=tuple(
            RefreshMark(
                (r["begin_wall_us"] - began) / 1e6,
                (r["end_wall_us"] - began) / 1e6,
                r["component"],
                r["promoted"],
                tuple((r["verdict"] or {}).get("reasons", ())),
                r["cpu_s"],
            )
            for r in during
        ),
        due_s=(load.due_us - began) / 1e6,
        latency_ms=load.latency_us / 1e3,
        ok=load.ok,
        freshness_s=waits,
        state_freshness_ms=np.empty(0),
        machine={k: str(v) for k, v in describe_machine().items()},
        world=asdict(World.open(layout).config),
        commit=source_commit(),
        day_seconds=day_seconds,
    )


def freshness_s(settings: Settings, live: Live, swaps: list[dict[str, Any]]) -> NDArray[np.float64]:
    """Wall seconds from each live click, cart or order to the first swap to a release trained past it.

    Only events that some served release had seen by the end: float64 [n].
    """
    since = World.open(settings.layout).start_of(live.first_day)
    events = read_events(
        published(settings.layout),
        since_us=since,
        kinds=[CLICK, CART, ORDER],
        columns=["known_time", "wall_time"],
    )
    known, wall = events["known_time"].to_numpy(), events["wall_time"].to_numpy()
    first = np.full(len(known), np.inf)
    for swap in swaps:
        seen = known <= swap["watermark_us"]
        first[seen] = np.minimum(first[seen], swap["flip_wall_us"])
    wait = (first - wall) / 1e6
    held: NDArray[np.float64] = wait[np.isfinite(wait) & (wall > 0)]
    return held


def _points(live: Live) -> tuple[ArmsPoint, ...]:
    return tuple(
        ArmsPoint(
            shop_day=_day_of(live, s.shop_us),
            wall_s=(s.wall_us - live.began_wall_us) / 1e6,
            queries=len(s.scores["full"]),
            release_id=s.release_id,
            **{arm: bootstrap_mean(s.scores[arm]) for arm in ARMS},
        )
        for s in live.stretches
    )


def _swap_marks(settings: Settings, live: Live, swaps: list[dict[str, Any]]) -> tuple[SwapMark, ...]:
    marks = []
    for swap in swaps:
        old, new = (recorded_manifest(settings.layout, swap[k]) for k in ("previous", "release_id"))
        changed = diff(old, new)
        marks.append(
            SwapMark(
                swap["release_id"],
                (swap["begin_wall_us"] - live.began_wall_us) / 1e6,
                (swap["flip_wall_us"] - live.began_wall_us) / 1e6,
                _day_of(live, swap["watermark_us"]),
                (*changed["changed"], *changed["added"]),
            )
        )
    return tuple(marks)


def _day_of(live: Live, shop_us: int) -> float:
    """The shop day of a shop time; the live traffic begins with the first stretch."""
    return live.first_day + (shop_us - live.stretches[0].shop_us) / DAY_US


def _percentile(latency_us: NDArray[np.int64], q: float) -> float:
    return round(float(np.percentile(latency_us, q)) / 1e3, 3)


def _or_none(values: NDArray[np.float64], q: float) -> float | None:
    return round(float(np.percentile(values, q)), 2) if len(values) else None
