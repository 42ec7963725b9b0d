"""A small shop whose answers are known: what its shoppers value drifts with a given half-life.

An item's worth is w(t)·z, its attributes weighed by what shoppers value now, plus its popularity, which
the state tells. Models learn w, so that a model ages as w drifts; the state knows the popularity, so that
a frozen state ages with that. Both revert to their mean (Ornstein–Uhlenbeck); None never changes.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from flows.studies.panels.panel import DEPTH, Panel, Slice
from infra.clock import DAY_US, HOUR_US
from models.metrics import grouped_dcg
from models.training_rows import TrainingRows

__all__ = ["START_US", "synthetic_panel"]

START_US = 1_767_225_600_000_000  # 2026-01-01 UTC
_ATTRIBUTES = 6
_STEP_US = HOUR_US
_LABEL_DELAY_US = HOUR_US // 6


def synthetic_panel(
    *,
    seed: int = 7,
    days: float = 12,
    slices: int = 4,
    drift_half_life_d: float | None = 2.0,
    state_half_life_d: float | None = 4.0,
    burn_in_d: float = 5,
    requests_a_day: int = 200,
    queries: int = 40,
    items: int = 300,
    shown: int = 8,
    pool: int = 20,
    strength: float = 2.5,
    new_items: float = 0.1,
    resolution_us: int = HOUR_US,
    shift_us: int = 0,
) -> Panel:
    """`days` of requests with `shown` items each; `slices` of one hour, spread over the days after burn-in.

    `strength`: of what a model can learn; `new_items`: share that the horizon's start does not know;
    `shift_us`: moves all dates.
    """
    rng = np.random.default_rng(seed)
    start_us = START_US + shift_us
    steps = int(days * DAY_US / _STEP_US) + 2
    z = rng.normal(size=(items, _ATTRIBUTES)).astype(np.float32)
    values = strength * _reverting(rng, steps, _ATTRIBUTES, drift_half_life_d) / np.sqrt(_ATTRIBUTES)
    popularity = _reverting(rng, steps, items, state_half_life_d)

    def features(item: NDArray[np.int64], step: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.hstack([z[item], popularity[step, item][:, None]]).astype(np.float32)

    def worth(item: NDArray[np.int64], step: NDArray[np.int64]) -> NDArray[np.float64]:
        return (z[item] * values[step]).sum(axis=1) + popularity[step, item]

    asked = int(days * requests_a_day)
    time_us = start_us + np.sort(rng.integers(0, int(days * DAY_US), asked))
    item = rng.integers(0, items, asked * shown)
    step = np.repeat((time_us - start_us) // _STEP_US, shown)
    place = np.tile(np.arange(shown), asked)
    liked = 1 / (1 + np.exp(-(worth(item, step) - 1.5)))
    clicked = rng.random(len(item)) < liked / (1 + 0.2 * place)
    bought = clicked & (rng.random(len(item)) < 0.2)
    session = rng.permutation(asked) // 2
    rows = TrainingRows(
        features=features(item, step),
        labels=(clicked + 2 * bought).astype(np.int8),
        positions=place.astype(np.int16),
        groups=np.full(asked, shown, np.int32),
        request_ids=np.arange(asked, dtype=np.int64),
        user_ids=session % 50,
        session_ids=session,
        time_us=time_us,
        propensity=np.where(place == shown - 1, 1 / items, np.nan).astype(np.float32),
    )
    horizon_us = start_us + int(burn_in_d * DAY_US)
    end_us = start_us + int(days * DAY_US)
    since = horizon_us + (np.arange(slices) + 0.5) * (end_us - horizon_us) / max(1, slices)
    known = np.arange(items) >= round(new_items * items)
    parts = []
    for k, at in enumerate(since.astype(np.int64) // HOUR_US * HOUR_US):
        part = rng.integers(0, items, queries * pool)
        now = np.full(len(part), (at - start_us) // _STEP_US)
        then = np.full(len(part), (horizon_us - start_us) // _STEP_US)
        gains = np.exp2(4 / (1 + np.exp(-(worth(part, now) - 1.0)))) - 1
        groups = np.full(queries, pool, np.int32)
        parts.append(
            Slice(
                start_us=int(at),
                end_us=int(at) + HOUR_US,
                groups=groups,
                item_ids=part,
                gains=gains,
                ideal=grouped_dcg(gains, gains, groups, DEPTH),
                fresh=features(part, now),
                frozen=features(part, then),
                known=known[part],
                query_ids=10**9 + k * queries + np.arange(queries, dtype=np.int64),
                clusters=k * queries + np.arange(queries, dtype=np.int64) // 2,
            )
        )
    made_of = repr((seed, days, slices, drift_half_life_d, state_half_life_d, burn_in_d, requests_a_day))
    made_of += repr((queries, items, shown, pool, strength, new_items, resolution_us, shift_us))
    return Panel(
        source="synthetic",
        key=hashlib.sha256(made_of.encode()).hexdigest()[:16],
        names=(*(f"attribute_{i}" for i in range(_ATTRIBUTES)), "popularity"),
        categorical=(),
        rows=rows,
        label_us=time_us + _LABEL_DELAY_US,
        slices=tuple(parts),
        first_us=start_us,
        horizon_us=horizon_us,
        end_us=end_us,
        resolution_us=resolution_us,
        about={"source": "synthetic", "seed": seed, "drift_half_life_d": drift_half_life_d},
    )


def _reverting(
    rng: np.random.Generator, steps: int, width: int, half_life_d: float | None
) -> NDArray[np.float64]:
    """Standard normal processes that revert with a half-life: float64 [steps, width], one step an hour."""
    found = rng.normal(size=(steps, width))
    keep = 1.0 if half_life_d is None else 0.5 ** (_STEP_US / (half_life_d * DAY_US))
    for i in range(1, steps):
        found[i] = keep * found[i - 1] + np.sqrt(1 - keep**2) * found[i]
    return found
