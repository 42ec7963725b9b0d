"""A panel of a log without impressions: what will the next basket hold?

A query is a basket before its first interaction: its user, that moment, one pool of candidates.
Gains are 1 for what the basket held, and the ideal is of all that it held, in the pool or not.
Features are of counters folded up to then, strictly. It knows no model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.sources.interactions import InteractionLog, log_of_home
from flows.studies.panels.next_item.baskets import Baskets, baskets_of, chosen_baskets, sampled_baskets
from flows.studies.panels.next_item.features import (
    CATEGORICAL,
    NAMES,
    POOL,
    Popular,
    features,
    pool,
    popular_now,
)
from flows.studies.panels.next_item.fold import Counters, Keys, empty_counters, fold, frozen_copy, keys_of
from flows.studies.panels.panel import DEPTH, Panel, Slice
from infra.clock import DAY_US
from infra.errors import DataError
from infra.settings import Home
from models.metrics import discounts, grouped_dcg
from models.training_rows import TrainingRows

__all__ = ["MAX_ROWS", "NEGATIVES", "next_item_panel"]

NEXT_ITEM_VERSION = 1  # raise when a pool, a feature or a sample changes
NEGATIVES = 40  # candidates a training query keeps of those that the basket did not hold
MAX_ROWS = 264_000  # training rows of the whole panel, about; docs/studies has what 600,000 give
_FEW_ROWS = 6  # positives in the pool of a basket, about


@dataclass
class _Rows:
    """Training rows as they come in."""

    features: list[NDArray[np.float32]] = field(default_factory=list)
    labels: list[NDArray[np.bool_]] = field(default_factory=list)
    at: list[int] = field(default_factory=list)


@dataclass
class _Queries:
    """The queries of a slice as they come in."""

    at: list[int] = field(default_factory=list)
    rows: list[NDArray[np.int64]] = field(default_factory=list)
    gains: list[NDArray[np.bool_]] = field(default_factory=list)
    fresh: list[NDArray[np.float32]] = field(default_factory=list)
    frozen: list[NDArray[np.float32]] = field(default_factory=list)


def next_item_panel(
    source: InteractionLog | Home,
    *,
    name: str | None = None,
    burn_in_d: float,
    horizon_d: float,
    slices: int,
    queries: int,
    seed: int,
    max_rows: int = MAX_ROWS,
    progress: Callable[..., None] | None = None,
) -> Panel:
    """The panel of a log, or of a home's clicks and orders.

    The horizon begins `burn_in_d` after the first interaction. It is cut into `slices` stretches of one
    length; a slice is a window of whole days somewhere in its stretch, long enough for about `queries`
    baskets, of which at most that many are drawn. Training rows are of a sample of the baskets of the
    whole log, so many that there are about `max_rows`: the candidates that the basket held and 40 of
    the others. Raises DataError where the log is too short, or a stretch has no basket.
    """
    log = source if isinstance(source, InteractionLog) else log_of_home(source)
    say = progress or _silent
    name = name or log.name
    first_us = int(log.time_us[0])
    horizon_us = first_us + round(burn_in_d * DAY_US)
    end_us = horizon_us + round(horizon_d * DAY_US)
    if end_us > log.time_us[-1] + DAY_US:
        raise DataError(
            f"{name} spans {log.span_d:.1f} days; {burn_in_d:g} days of burn-in and a horizon of "
            f"{horizon_d:g} days do not fit: shorten one of them"
        )
    say("finding baskets")
    keys = keys_of(log)
    baskets = baskets_of(log, keys)
    windows, queried = chosen_baskets(baskets, horizon_us, end_us, slices, queries, seed, name)
    trained = sampled_baskets(baskets, end_us, max_rows // (NEGATIVES + _FEW_ROWS), seed)
    slice_of = np.full(len(baskets.ids), -1)
    for s, rows in enumerate(queried):
        slice_of[rows] = s
    wanted = np.flatnonzero(trained | (slice_of >= 0))
    found = [_Queries() for _ in queried]
    taught = _Rows()
    counters = empty_counters(keys)
    frozen: Counters | None = None
    popular: Popular | None = None
    at = 0
    for done, k in enumerate(wanted.tolist()):
        if done % 500 == 0:
            say("features of baskets", f"{done:,} of {len(wanted):,}")
        now = int(baskets.begin_us[k])
        if frozen is None and now >= horizon_us:
            at = _fold_to(counters, keys, at, horizon_us)
            frozen = frozen_copy(counters)
        midnight = now // DAY_US * DAY_US
        if popular is None or midnight > popular.at_us:
            at = _fold_to(counters, keys, at, midnight)
            popular = popular_now(counters, keys, midnight)
        at = _fold_to(counters, keys, at, now)
        user = int(baskets.user[k])
        rows = pool(counters, keys, popular, user, now, repeats=log.repeats)
        gains = np.isin(rows, baskets.items(keys, k))
        s = int(slice_of[k])
        if s < 0 and not gains.any():
            continue
        x = features(counters, keys, user, rows, now_us=now, asked_us=now)
        if trained[k] and gains.any():
            keep = gains | _some(~gains, NEGATIVES, seed=(seed, k))
            taught.features.append(x[keep])
            taught.labels.append(gains[keep])
            taught.at.append(k)
        if s >= 0 and frozen is not None and len(rows):
            held = found[s]
            held.at.append(k)
            held.rows.append(rows)
            held.gains.append(gains)
            held.fresh.append(x)
            held.frozen.append(features(frozen, keys, user, rows, now_us=horizon_us, asked_us=now))
    if frozen is None or not taught.at:
        raise DataError(f"{name}: no basket held anything that was to be expected; is it a log of repeats?")
    half_life = _best_popularity(taught, baskets, horizon_us)
    known = frozen.item_first_us >= 0
    user_ids = np.unique(log.user_ids)
    say("putting together")
    return Panel(
        source=name,
        key=_key(log, name, burn_in_d, horizon_d, slices, queries, seed, max_rows),
        names=NAMES,
        categorical=CATEGORICAL,
        rows=_training_rows(taught, baskets, user_ids),
        label_us=baskets.end_us[taught.at] + log.settle_us,
        slices=tuple(
            _slice(q, w, baskets, log, user_ids, known, half_life)
            for q, w in zip(found, windows, strict=True)
        ),
        first_us=first_us,
        horizon_us=horizon_us,
        end_us=end_us,
        resolution_us=log.resolution_us,
        about=dict(log.about)
        | {
            "interactions": len(log.time_us),
            "baskets": len(baskets.ids),
            "users": len(user_ids),
            "items": len(log.items),
            "days": round(log.span_d, 1),
            "repeats": log.repeats,
            "training_baskets": len(taught.at),
            "popularity": half_life,
            "reachable": _reachable(found, baskets),
        },
    )


def _silent(*_message: object) -> None:
    return None


def _fold_to(counters: Counters, keys: Keys, at: int, until_us: int) -> int:
    """Fold what happened strictly before and is not folded yet; where the log stands then."""
    stop = max(at, int(np.searchsorted(keys.time_us, until_us, side="left")))
    fold(counters, keys, at, stop)
    return stop


def _some(where: NDArray[np.bool_], most: int, *, seed: tuple[int, int]) -> NDArray[np.bool_]:
    """At most so many of them, drawn for each basket by itself."""
    rows = np.flatnonzero(where)
    if len(rows) > most:
        rows = np.random.default_rng(seed).choice(rows, most, replace=False)
    out = np.zeros(len(where), bool)
    out[rows] = True
    return out


def _best_popularity(taught: _Rows, baskets: Baskets, horizon_us: int) -> str:
    """The half-life whose popularity orders the burn-in's rows best: what the baseline uses."""
    before = [i for i, k in enumerate(taught.at) if baskets.begin_us[k] < horizon_us] or range(len(taught.at))
    groups = np.array([len(taught.labels[i]) for i in before], np.int32)
    gains = np.concatenate([taught.labels[i] for i in before]).astype(float)
    x = np.concatenate([taught.features[i][:, :3] for i in before]).astype(float)
    quality = [float(grouped_dcg(x[:, h], gains, groups, DEPTH).mean()) for h in range(3)]
    return NAMES[int(np.argmax(quality))]


def _training_rows(taught: _Rows, baskets: Baskets, user_ids: NDArray[np.int64]) -> TrainingRows:
    labels = np.concatenate(taught.labels).astype(np.int8)
    users = user_ids[baskets.user[taught.at]]
    return TrainingRows(
        features=np.concatenate(taught.features),
        labels=labels,
        positions=np.zeros(len(labels), np.int16),  # nothing was shown, so no place was better
        groups=np.array([len(held) for held in taught.labels], np.int32),
        request_ids=baskets.ids[taught.at],
        user_ids=users,
        session_ids=users,  # a user is of a fraction or is not
        time_us=baskets.begin_us[taught.at],
        propensity=np.full(len(labels), np.nan, np.float32),
    )


def _slice(
    queries: _Queries,
    window: tuple[int, int],
    baskets: Baskets,
    log: InteractionLog,
    user_ids: NDArray[np.int64],
    known: NDArray[np.bool_],
    popularity: str,
) -> Slice:
    rows = np.concatenate(queries.rows)
    fresh = np.concatenate(queries.fresh)
    best = np.concatenate([[0.0], np.cumsum(discounts(DEPTH))])
    return Slice(
        start_us=window[0],
        end_us=window[1],
        groups=np.array([len(r) for r in queries.rows], np.int32),
        item_ids=log.items[rows],
        gains=np.concatenate(queries.gains).astype(np.float64),
        ideal=best[np.minimum(baskets.held[queries.at], DEPTH)],
        fresh=fresh,
        frozen=np.concatenate(queries.frozen),
        known=known[rows],
        query_ids=baskets.ids[queries.at],
        clusters=user_ids[baskets.user[queries.at]],
        extra={"popularity": fresh[:, NAMES.index(popularity)].astype(np.float64)},
    )


def _reachable(found: list[_Queries], baskets: Baskets) -> float:
    """The share of what the slices' baskets held that was in their pools of at most 120."""
    held = sum(int(baskets.held[q.at].sum()) for q in found)
    return round(sum(int(g.sum()) for q in found for g in q.gains) / max(held, 1), 4)


def _key(log: InteractionLog, *arguments: Any) -> str:
    digest = hashlib.sha256(json.dumps([NEXT_ITEM_VERSION, POOL, NEGATIVES, *arguments]).encode())
    parts: tuple[NDArray[Any], ...] = (
        log.user_ids, log.item_ids, log.basket_ids, log.time_us, log.positive, log.price, log.items,
        log.category, log.brand, log.department,
    )  # fmt: skip
    for part in parts:
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()[:16]
