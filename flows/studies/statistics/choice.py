"""Which policy to recommend: the longest interval that is shown to be good enough, or the best for a budget.

Chosen on one half of the slices, reported on the other, so that the report is not flattered by the
choice. "Retrain rarely" is an answer like any other. It sees quality by slice and cost, no model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flows.studies.statistics.intervals import block_bootstrap, block_length, interval, of_draws, upper_bound
from infra.clock import DAY_US, HOUR_US
from infra.errors import InputError
from models.metrics import Interval

__all__ = ["MARGIN", "Policy", "Recommendation", "choose", "halves", "interval_name", "pareto"]

MARGIN = 0.015
"""NDCG@10 that a policy may lose and still count as not worse, unless asked otherwise.

What the instrument is calibrated at: half of 14 slices, with trainings of 10,000 rows or more, can show it.
"""


@dataclass(frozen=True)
class Policy:
    """A way to retrain: each `interval_us` (None: never), on a fraction of the data, cold or warm.

    `quality` float64 [s]: mean NDCG@10 of each slice under it; `cpu_s_per_day`: what its trainings cost.
    """

    interval_us: int | None
    fraction: float
    quality: NDArray[np.float64]
    cpu_s_per_day: float
    start: str = "cold"

    @property
    def name(self) -> str:
        """Such as "12 h, 60 %"."""
        warm = ", warm" if self.start == "warm" else ""
        return f"{interval_name(self.interval_us)}, {self.fraction:.0%}{warm}".replace("%", " %")


@dataclass(frozen=True)
class Recommendation:
    """What to do, why in words, and how it did on the slices that it was not chosen on.

    `difference`: the reference less the recommended policy on the reported half (above 0: the reference
    is better); the reference is the shortest interval on most data, or for a budget the best of all
    policies. `holds`: whether the claim passed there as well; a claim of less power than the choice.
    """

    interval_us: int | None
    fraction: float
    start: str
    why: str
    difference: Interval
    quality: Interval
    cpu_s_per_day: float
    holds: bool
    margin: float
    budget: float | None
    chosen_on: tuple[int, ...]
    reported_on: tuple[int, ...]

    def as_dict(self) -> dict[str, Any]:
        """As JSON; the interval in words, and in microseconds."""
        return {
            "interval": interval_name(self.interval_us),
            "interval_us": self.interval_us,
            "fraction": self.fraction,
            "start": self.start,
            "why": self.why,
            "difference": self.difference.as_dict(),
            "ndcg10": self.quality.as_dict(),
            "cpu_s_per_day": self.cpu_s_per_day,
            "holds": self.holds,
            "margin": self.margin,
            "budget": self.budget,
            "chosen_on": list(self.chosen_on),
            "reported_on": list(self.reported_on),
        }


def choose(
    policies: Sequence[Policy],
    *,
    margin: float = MARGIN,
    budget: float | None = None,
    block: int | None = None,
    repeats: int = 2_000,
    seed: int = 0,
) -> Recommendation:
    """Recommend a policy.

    Without a budget: the longest interval whose loss against the shortest (on most data) is below
    `margin` (NDCG@10) with 95 % confidence, one-sided, on the chosen half; then the smallest fraction for
    which that still holds. With a `budget` (CPU-seconds a day): the best quality within it. InputError
    where there is nothing to choose from.
    """
    if not policies:
        raise InputError("no policies to choose from; expected at least one interval and fraction")
    if not (np.isfinite(margin) and margin > 0):
        raise InputError(f"the margin is {margin}; expected an NDCG@10 above 0, such as {MARGIN:g}")
    held = np.flatnonzero(np.isfinite(np.stack([p.quality for p in policies])).all(0))
    if len(held) < 2:
        raise InputError(
            f"{len(held)} slices have every policy's quality; expected at least 2, better 8: "
            "ask for more slices or shorter ages"
        )
    first, second = (held[h] for h in halves(len(held), block=block))
    resample = partial(block_bootstrap, block=block, repeats=repeats, seed=seed)
    if budget is None:
        reference = min(policies, key=lambda p: (_length(p), -p.fraction, p.start))
        pick, why = _longest(policies, reference, margin, first, resample)
    else:
        reference = max(policies, key=lambda p: float(p.quality[first].mean()))
        pick, why = _affordable(policies, reference, budget, first)
    gap = reference.quality - pick.quality
    draws = resample(gap[second], trend=[pick.interval_us is None])[:, 0]
    difference = of_draws(float(gap[second].mean()), draws)
    return Recommendation(
        interval_us=pick.interval_us,
        fraction=pick.fraction,
        start=pick.start,
        why=why,
        difference=difference,
        quality=interval(
            pick.quality[second], block=block, repeats=repeats, seed=seed, trend=pick.interval_us is None
        ),
        cpu_s_per_day=pick.cpu_s_per_day,
        holds=pick is reference or upper_bound(draws) < margin,
        margin=margin,
        budget=budget,
        chosen_on=tuple(first.tolist()),
        reported_on=tuple(second.tolist()),
    )


def halves(slices: int, *, block: int | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two interleaved halves of the slices, in turns of a block: int64 each."""
    length = block or block_length(slices)
    length = max(1, min(length, slices // 2))
    even = (np.arange(slices) // length) % 2 == 0
    return np.flatnonzero(even), np.flatnonzero(~even)


def pareto(cost: ArrayLike, quality: ArrayLike) -> NDArray[np.int64]:
    """The policies that none beats in both: indices int64, by rising cost; of equals the first."""
    c, q = np.asarray(cost, np.float64), np.asarray(quality, np.float64)
    front: list[int] = []
    best = -np.inf
    for i in np.lexsort((-q, c)).tolist():
        if np.isfinite(q[i]) and q[i] > best:
            front.append(i)
            best = q[i]
    return np.array(front, np.int64)


def interval_name(interval_us: int | None) -> str:
    """Such as "6 h", "2 d", "never"."""
    if interval_us is None:
        return "never"
    if interval_us % DAY_US == 0:
        return f"{interval_us // DAY_US} d"
    return f"{interval_us / HOUR_US:g} h" if interval_us < 2 * DAY_US else f"{interval_us / DAY_US:g} d"


def _length(policy: Policy) -> float:
    return float("inf") if policy.interval_us is None else float(policy.interval_us)


def _longest(
    policies: Sequence[Policy],
    reference: Policy,
    margin: float,
    on: NDArray[np.int64],
    resample: Callable[..., NDArray[np.float64]],
) -> tuple[Policy, str]:
    gaps = np.stack([(reference.quality - p.quality)[on] for p in policies], axis=1)
    draws = resample(gaps, trend=[p.interval_us is None for p in policies])
    bound = [0.0 if p is reference else upper_bound(draws[:, k]) for k, p in enumerate(policies)]
    enough = [k for k in range(len(policies)) if bound[k] < margin]
    longest = max(_length(policies[k]) for k in enough)
    at = min(
        (k for k in enough if _length(policies[k]) == longest),
        key=lambda k: (policies[k].fraction, policies[k].cpu_s_per_day),
    )
    pick = policies[at]
    if pick is reference:
        why = f"No other policy was shown to be within {margin:g} of {reference.name}."
    else:
        why = (
            f"{pick.name} loses {gaps[:, at].mean():.4f} against {reference.name}, "
            f"with 95 % confidence less than {bound[at]:.4f}, which is within the margin of {margin:g}."
        )
    return pick, f"{why} {_next_longer(policies, gaps, draws, bound, longest, margin)}".strip()


def _next_longer(
    policies: Sequence[Policy],
    gaps: NDArray[np.float64],
    draws: NDArray[np.float64],
    bound: Sequence[float],
    longest: float,
    margin: float,
) -> str:
    """Why not the next longer interval: it is worse, or too little is known."""
    longer = [k for k in range(len(policies)) if _length(policies[k]) > longest]
    if not longer:
        return "No longer interval was asked for."
    k = min(longer, key=lambda i: (_length(policies[i]), -policies[i].fraction))
    found = of_draws(float(gaps[:, k].mean()), draws[:, k])
    if found.low > margin:
        told = "is worse by more than the margin"
    elif found.low > 0:
        told = "is worse, perhaps by more than the margin"
    else:
        told = "may be as good, but the slices are too few to show it"
    return f"{policies[k].name} {told} (loses {found.mean:.4f}, up to {bound[k]:.4f})."


def _affordable(
    policies: Sequence[Policy], best: Policy, budget: float, on: NDArray[np.int64]
) -> tuple[Policy, str]:
    within = [p for p in policies if p.cpu_s_per_day <= budget]
    if not within:
        least = min(policies, key=lambda p: p.cpu_s_per_day)
        raise InputError(
            f"the budget is {budget:g} CPU-seconds a day; the cheapest policy ({least.name}) takes "
            f"{least.cpu_s_per_day:.2f}: raise it, or ask for longer intervals"
        )
    pick = max(within, key=lambda p: (float(p.quality[on].mean()), -p.cpu_s_per_day))
    why = (
        f"{pick.name} is the best within {budget:g} CPU-seconds a day: NDCG@10 {pick.quality[on].mean():.4f} "
        f"for {pick.cpu_s_per_day:.2f}; the best of all ({best.name}) has {best.quality[on].mean():.4f} "
        f"for {best.cpu_s_per_day:.2f}."
    )
    return pick, why
