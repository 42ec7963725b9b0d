"""A record of a study as large as the default one: thirty policies, made up but consistent."""

from __future__ import annotations

import numpy as np

from flows.studies.cells.asks import duration_us, interval_ask
from flows.studies.telling.record import (
    Arms,
    Baseline,
    Curve,
    Heat,
    PolicyResult,
    Recommendation,
    StudyRecord,
    Timeline,
)
from flows.studies.telling.words import question
from infra.clock import DAY_US
from models.metrics import Interval

__all__ = ["around", "study"]


def around(mean: float, half: float = 0.004) -> Interval:
    """An interval of that half width."""
    return Interval(mean, mean - half, mean + half)


def study(*, components: tuple[str, ...] = ("ranker",), slices: int = 14, seed: int = 7) -> StudyRecord:
    """Decay with a half-life of 4 days; half of what freshness is worth is 0.05 NDCG@10."""
    rng = np.random.default_rng(seed)
    ask = interval_ask("world", seed=seed, component=components[0])
    horizon = 14.0

    def loss(days: float) -> float:
        return float(0.1 * (1 - np.exp2(-days / 4)))

    policies = []
    for component in components:
        scale = 1.0 if component == "ranker" else 0.15
        for name in ask.intervals:
            length = duration_us(name)
            days = 24.0 if length is None else length / DAY_US
            for fraction in ask.fractions:
                lost = scale * loss(days / 2) + 0.02 * (1 - fraction)
                mean = 0.42 - lost + 0.0005 * float(rng.normal())
                cost = 0.0 if length is None else 3.1 * (0.2 + 0.8 * fraction) / days
                never = 0.42 - scale * loss(12)
                policies.append(
                    PolicyResult(
                        component, name, fraction, "cold", around(mean, 0.02), cost,
                        over_never=None if length is None else around(mean - never),
                        minus_shortest=None if len(policies) % 30 == 4 else around(mean - 0.42),
                        by_slice=mean + 0.03 * rng.normal(size=slices),
                    )
                )  # fmt: skip
    ages = np.geomspace(0.01, 24, 13)
    curves, heats = [], []
    for component in components:
        scale = 1.0 if component == "ranker" else 0.15
        curve = -scale * np.array([loss(a) - loss(ages[0]) for a in ages])
        width = 0.002 + 0.003 * np.sqrt(ages)
        curves.append(
            Curve(
                component, ages, curve, curve - width, curve + width,
                half_life_d=Interval(4.1, 3.0, 5.6) if scale == 1 else None,
                truth=curve + 0.002 if component == "ranker" else None,
            )
        )  # fmt: skip
        starts = np.linspace(0, horizon - 1, slices)
        ndcg = 0.42 + 0.03 * rng.normal(size=(slices, 1)) + curve + 0.004 * rng.normal(size=(slices, 13))
        ndcg[ages[None, :] > starts[:, None] + 10] = np.nan
        heats.append(Heat(component, starts, ages, ndcg))
    timelines = []
    for name in ("6h", "2d", "never"):
        length = duration_us(name)
        day = np.linspace(0, horizon, 600)
        step = day if length is None else day % (length / DAY_US)
        timelines.append(Timeline(f"each {name}" if length else name, day, step + 0.02))
    return StudyRecord(
        question=question(components[0] if len(components) == 1 else "all"),
        source="world",
        policies=tuple(
            PolicyResult(**{**vars(p), "on_front": p.fraction == 1.0 and p.component == components[0]})
            for p in policies
        ),
        recommendation=Recommendation(
            "12h", 0.8, "12h, 80 % loses 0.0041 against 6h, with 95 % confidence less than 0.0083.",
            component=components[0], cpu_s_per_day=5.2, difference=around(0.0041), chosen_on=7, reported_on=7,
        ),
        arms=Arms(around(0.31, 0.02), around(0.35, 0.02), around(0.42, 0.02)),
        full_minus_state_fresh=around(0.07),
        state_fresh_minus_frozen=around(0.04),
        weights_share=Interval(0.636, 0.6, 0.67),
        half_life_d=Interval(4.1, 3.0, 5.6),
        cells=196,
        train_cpu_s=301.2,
        each_policy_alone_cpu_s=1423.9,
        exact_grid_cpu_s=2210.5,
        seed=seed,
        margin=0.01,
        publish_delay_s=31.5,
        finding="decay",
        curves=tuple(curves),
        heats=tuple(heats),
        timelines=tuple(timelines),
        baselines=(Baseline("popularity", around(0.25), around(0.17), "decayed counts of clicks"),),
        findings=("A <surprise>: 60 % of the data is as good as all of it.",),
        drift="strong",
        wall_s=611.0,
        cells_reused=12,
        command=ask.command(),
        commit="0123456789abcdef",
        arguments={"intervals": ask.intervals},
        method={"slices": slices, "queries": 150, "window_d": 4.0, "seeds": 1},
        about={"scale": 0.5, "knobs": {"value_drift": 1.5}},
        machine={"cores": 2},
    )  # fmt: skip
