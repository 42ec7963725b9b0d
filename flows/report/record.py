"""What a demo leaves behind for its report: the types, and the figures that follow from them.

Pure numpy: it draws nothing, writes nothing and knows neither HTML nor words. A failed request counts
as infinitely slow in every percentile, so that failures are never averaged away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.metrics import Interval

__all__ = [
    "ArmsPoint",
    "DemoRecord",
    "Floats",
    "RefreshMark",
    "SwapMark",
    "as_interval",
    "by_condition",
    "completed",
    "conditions",
    "live_age",
    "mean_of",
    "per_second",
    "quantile",
    "shop_day_at",
    "waits",
    "weights_share",
]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class ArmsPoint:
    """One shop day on which the three arms answered the same queries: NDCG@10 by hidden relevance.

    `wall_s` is when that shop day was, in wall seconds since the live traffic began; the shop's calendar
    in the report is drawn through these points.
    """

    shop_day: float
    wall_s: float
    queries: int
    release_id: str  # the release that `full` used
    frozen: Interval
    state_fresh: Interval
    full: Interval


@dataclass(frozen=True)
class SwapMark:
    """One hot swap, in wall seconds since the live traffic began."""

    release_id: str
    begin_s: float
    flip_s: float
    watermark_day: float
    changed: tuple[str, ...]


@dataclass(frozen=True)
class RefreshMark:
    """One run of the offline loop, in wall seconds since the live traffic began."""

    begin_s: float
    end_s: float
    component: str
    promoted: bool
    reasons: tuple[str, ...]
    cpu_s: float


@dataclass(frozen=True)
class DemoRecord:
    """All that the report of `shelflife demo` shows. `document` is the demo's JSON line."""

    document: dict[str, Any]
    arms: tuple[ArmsPoint, ...]
    swaps: tuple[SwapMark, ...]
    refreshes: tuple[RefreshMark, ...]
    due_s: Floats  # [requests] wall seconds since the live traffic began
    latency_ms: Floats  # [requests] from the due time
    ok: Bools  # [requests]
    freshness_s: Floats  # [events] wall s until the first reply by a release whose training saw the event
    state_freshness_ms: Floats  # [events] until the event was in the live state; may be empty
    machine: dict[str, str]
    world: dict[str, Any]
    commit: str
    day_seconds: float


def as_interval(found: Any) -> Interval:
    """An interval of a `{"mean", "low", "high"}`, an Interval, a number, or nothing (all NaN)."""
    if isinstance(found, Interval):
        return found
    if isinstance(found, Mapping):
        return Interval(*(_number(found.get(k)) for k in ("mean", "low", "high")))
    x = _number(found)
    return Interval(x, np.nan, np.nan)


def mean_of(found: Any) -> float:
    """The mean of what `as_interval` takes."""
    return as_interval(found).mean


def _number(found: Any) -> float:
    return float(found) if isinstance(found, (int, float, np.number)) else float("nan")


def quantile(values: ArrayLike, q: float) -> float:
    """The smallest value that a share q of the values does not exceed; NaN without values."""
    x = np.asarray(values, float)
    x = x[~np.isnan(x)]
    return float(np.quantile(x, q, method="inverted_cdf")) if len(x) else float("nan")


def weights_share(state: Interval, weights: Interval) -> Interval | None:
    """The weights' share of the whole gain; None where the whole gain is not above zero.

    The bounds are those of the corners of both intervals, hence cautious: NaN where a corner has no gain.
    """
    whole = state.mean + weights.mean
    if not whole > 0:
        return None
    low = high = float("nan")
    if state.low >= 0 and state.low + weights.low > 0:
        low = weights.low / (weights.low + (state.high if weights.low > 0 else state.low))
        high = weights.high / (weights.high + (state.low if weights.high > 0 else state.high))
    return Interval(weights.mean / whole, low, high)


def shop_day_at(record: DemoRecord, wall_s: ArrayLike) -> Floats:
    """The shop day at wall seconds of the live traffic: linear between the scored days and beyond them."""
    t = np.asarray(wall_s, float)
    known = sorted((p.wall_s, p.shop_day) for p in record.arms if np.isfinite([p.wall_s, p.shop_day]).all())
    if not known:
        first = _number(record.world.get("days"))
        return (0.0 if np.isnan(first) else first) + t / record.day_seconds
    walls, first_of = np.unique([wall for wall, _ in known], return_index=True)
    days = np.array([day for _, day in known])[first_of]
    inside: Floats = np.interp(t, walls, days)
    outside = (np.minimum(t - walls[0], 0) + np.maximum(t - walls[-1], 0)) / record.day_seconds
    found: Floats = inside + outside
    return found


def conditions(record: DemoRecord) -> dict[str, Bools]:
    """Which requests were due while a release was being installed, while one trained, or in quiet."""
    due = record.due_s
    installing = _within(due, [(s.begin_s, s.flip_s) for s in record.swaps])
    training = _within(due, [(r.begin_s, r.end_s) for r in record.refreshes]) & ~installing
    return {"quiet": ~installing & ~training, "training": training, "installing": installing}


def _within(t: Floats, spans: list[tuple[float, float]]) -> Bools:
    found = np.zeros(len(t), bool)
    for begin, end in spans:
        found |= (t >= begin) & (t <= end)
    return found


def waits(record: DemoRecord) -> Floats:
    """Latency of each request in ms, infinite where it failed: float64 [requests]."""
    return np.where(record.ok, record.latency_ms, np.inf)


def by_condition(record: DemoRecord) -> dict[str, dict[str, float]]:
    """Requests, failures and latency percentiles in ms of each condition and of all."""
    ms = waits(record)
    masks = {**conditions(record), "all": np.ones(len(ms), bool)}
    return {
        name: {
            "requests": int(held.sum()),
            "failed": int((held & ~record.ok).sum()),
            "p50_ms": quantile(ms[held], 0.5),
            "p90_ms": quantile(ms[held], 0.9),
            "p99_ms": quantile(ms[held], 0.99),
            "max_ms": quantile(ms[held], 1.0),
        }
        for name, held in masks.items()
    }


def per_second(record: DemoRecord, *, bins: int = 150) -> tuple[float, Floats, Floats, Floats]:
    """(width in s, starts, p50, p99 in ms) of the live traffic in bins of whole seconds, at most `bins`."""
    if not len(record.due_s):
        return 1.0, np.empty(0), np.empty(0), np.empty(0)
    width = float(max(1, np.ceil((record.due_s.max() + 1e-9) / bins)))
    which = np.floor(record.due_s / width).astype(int)
    ms, starts = waits(record), np.unique(which)
    split = [ms[which == b] for b in starts]
    p50, p99 = (np.array([quantile(x, q) for x in split]) for q in (0.5, 0.99))
    return width, starts * width, p50, p99


def live_age(record: DemoRecord) -> tuple[Floats, Floats]:
    """(wall s, age in shop days) of what the live release's training saw: a saw, one tooth a swap.

    The first release's watermark is `document["first_watermark_day"]`, else the begin of the traffic.
    """
    end = max([0.0, *record.due_s[-1:], *(s.flip_s for s in record.swaps)])
    first = _number(record.document.get("first_watermark_day"))
    seen = float(shop_day_at(record, 0.0)) if np.isnan(first) else first
    t, age = [0.0], [float(shop_day_at(record, 0.0)) - seen]
    for swap in sorted(record.swaps, key=lambda s: s.flip_s):
        day = float(shop_day_at(record, swap.flip_s))
        t += [swap.flip_s, swap.flip_s]
        age += [day - seen, day - swap.watermark_day]
        seen = swap.watermark_day
    return np.array([*t, end]), np.array([*age, float(shop_day_at(record, end)) - seen])


def completed(record: DemoRecord) -> dict[str, Any]:
    """The demo's document with what follows from the record; what the demo itself says is kept.

    Adds `latency_ms.p99_otherwise`, `shop_days`, `train_cpu_s_per_shop_day` and, where there is a gain
    to divide, `weights_share`.
    """
    document = dict(record.document)
    latency = dict(document.get("latency_ms") or {})
    ms, installing = waits(record), conditions(record)["installing"]
    latency.setdefault("p50", quantile(ms, 0.5))
    latency.setdefault("p99", quantile(ms, 0.99))
    latency.setdefault("p99_installing", quantile(ms[installing], 0.99))
    latency.setdefault("p99_otherwise", quantile(ms[~installing], 0.99))
    document["latency_ms"] = latency
    if "shop_days" not in document and len(record.due_s):
        document["shop_days"] = float(np.ptp(shop_day_at(record, [0.0, record.due_s.max()])))
    days, cpu = _number(document.get("shop_days")), _number(document.get("train_cpu_s"))
    if days > 0 and np.isfinite(cpu):
        document.setdefault("train_cpu_s_per_shop_day", cpu / days)
    share = weights_share(
        as_interval(document.get("state_fresh_minus_frozen")),
        as_interval(document.get("full_minus_state_fresh")),
    )
    if share is not None:
        document.setdefault("weights_share", share.as_dict())
    return document
