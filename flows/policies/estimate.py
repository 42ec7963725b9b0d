"""What a policy will cost a day, in CPU-seconds, from the runs that this home has recorded.

How often it fires: a replay, of the clock alone or of the home's own log. What a run costs: each artifact's
trainings in the registry, and what refreshes took besides. It says how many runs it rests on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from data.snapshots import published
from flows.offline.refresh import PLAN, read_refreshes
from flows.policies.engine import Firing
from flows.policies.log import log_of
from flows.policies.policy import ComponentPolicy, Policy
from flows.policies.replay import EMPTY, replay
from infra.clock import DAY_US
from infra.errors import DataError
from infra.registry import Registry, open_registry
from infra.settings import Settings

__all__ = ["Recorded", "estimate"]

DAYS = 28  # that are replayed, or as many as the log has


@dataclass(frozen=True)
class Recorded:
    """CPU-seconds of one run of something: their mean, the spread from run to run (None for a single one)."""

    runs: int
    mean: float
    sd: float | None
    scaled: bool = False

    @classmethod
    def of(cls, values: Sequence[float], *, scaled: bool = False) -> Recorded | None:
        """Of recorded values; None without any."""
        if not values:
            return None
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return cls(len(values), float(np.mean(values)), sd, scaled)

    def of_a_day(self, times: float) -> tuple[float, float]:
        """Mean and variance of so many runs: their own spread, and that the mean is known from a few only."""
        variance = (self.sd or 0.0) ** 2
        return times * self.mean, times * variance + times**2 * variance / self.runs


def estimate(policy: Policy, settings: Settings, *, registry: Registry | None = None) -> dict[str, Any]:
    """Runs and CPU-seconds a day, with their 95 % range; what is not known is None, and said in `notes`."""
    notes: list[str] = []
    fired, days, basis, log_days = _fired(policy, settings, notes)
    registry = registry or open_registry(settings.layout.mlflow)
    parts: dict[str, Any] = {}
    mean = variance = 0.0
    spread = True
    fewest: list[int] = []
    for name, part in policy.components.items():
        runs = None if fired is None else sum(name in f.components for f in fired) / days
        costs = _artifacts(name, part, registry, log_days)
        missing = sorted(a for a, c in costs.items() if c is None)
        if missing and len(missing) == len(costs):
            notes.append(f"no recorded run of {name}: its cost is not known; `shelflife refresh` makes one")
        known = {a: c for a, c in costs.items() if c is not None}
        a_day = [c.of_a_day(runs or 0.0) for c in known.values()]
        parts[name] = {
            "runs_per_day": runs,
            "cpu_s_per_run": sum(c.mean for c in known.values()) if known else None,
            "cpu_s_per_day": None if runs is None or not known else sum(m for m, _ in a_day),
            "artifacts": {a: asdict(c) for a, c in known.items()},
        }
        if any(c.scaled for c in known.values()):
            notes.append(
                f"{name}: scaled in proportion to the data, from runs with another window or fraction"
            )
        if any(c.sd is None for c in known.values()):
            spread = False
            notes.append(f"{name}: a single recorded run; its spread is not known")
        mean, variance = mean + sum(m for m, _ in a_day), variance + sum(v for _, v in a_day)
        fewest += [c.runs for c in known.values()]
    besides = Recorded.of(_besides(read_refreshes(settings.layout)))
    runs = None if fired is None else len(fired) / days
    if besides is None:
        notes.append("no recorded refresh: what a run costs beside its trainings is not known")
    else:
        spread = spread and besides.sd is not None
        m, v = besides.of_a_day(runs or 0.0)
        mean, variance = mean + m, variance + v
    if policy.ingest is not None:
        notes.append("what ingest costs between runs is not in it")
    known_at_all = runs is not None and bool(fewest)
    reach = 1.96 * math.sqrt(variance)
    return {
        "policy": policy.name,
        "basis": basis,
        "runs_per_day": runs,
        "cpu_s_per_day": mean if known_at_all else None,
        "low": max(0.0, mean - reach) if known_at_all and spread else None,
        "high": mean + reach if known_at_all and spread else None,
        "recorded_runs": min(fewest, default=0),
        "components": parts,
        "besides_per_run": None if besides is None else asdict(besides),
        "notes": notes,
    }


def _fired(
    policy: Policy, settings: Settings, notes: list[str]
) -> tuple[tuple[Firing, ...] | None, float, str, float | None]:
    """Firings of a replay, its days, what was replayed, and the days of the home's log."""
    try:
        held = published(settings.layout)
        first = min((a for a, _ in held.spans), default=held.watermark_us)
        log_days = (held.watermark_us - first) / DAY_US
    except DataError:
        held, first, log_days = None, 0, None
    if not policy.needs_data:
        fired = replay(policy, EMPTY, since_us=0, until_us=DAYS * DAY_US + policy.tick)
        return fired, float(DAYS), f"the clock over {DAYS} days", log_days
    if held is None or not log_days:
        notes.append("nothing is ingested here: how often triggers fire that wait for data is not known")
        return None, 1.0, "nothing", log_days
    since = max(first, held.watermark_us - DAYS * DAY_US)
    days = (held.watermark_us - since) / DAY_US
    fired = replay(policy, log_of(settings.layout), since_us=since, until_us=held.watermark_us)
    if not fired:
        notes.append(f"no trigger fired in the {days:.1f} days of this home's log")
    return fired, days, f"a replay of the last {days:.1f} days of this home's log", log_days


def _artifacts(
    name: str, part: ComponentPolicy, registry: Registry, log_days: float | None
) -> dict[str, Recorded | None]:
    """What each artifact of a component cost; an encoder's ranker too."""
    component = "index" if name == "indexes" else name
    return {a: _training(a, part, registry, log_days) for a in PLAN[component]}


def _training(
    artifact: str, part: ComponentPolicy, registry: Registry, log_days: float | None
) -> Recorded | None:
    same, scaled = [], []
    for run in registry.recorded(artifact):
        cpu = run["metrics"].get("resources/cpu_s")
        if cpu is None:
            continue
        window = _number(run["params"].get("window_d"))
        fraction = _number(run["params"].get("fraction")) or 1.0
        if artifact in PLAN["index"] or (window == part.window_d and fraction == part.fraction):
            same.append(cpu)
        else:
            ratio = _amount(part.window_d, part.fraction, log_days) / _amount(window, fraction, log_days)
            scaled.append(cpu * ratio)
    return Recorded.of(same) or Recorded.of(scaled, scaled=True)


def _amount(window_d: float | None, fraction: float, log_days: float | None) -> float:
    whole = log_days or 1e9
    return fraction * min(whole if window_d is None else window_d, whole)


def _besides(refreshes: Sequence[Mapping[str, Any]]) -> list[float]:
    """CPU-seconds of each refresh less those of what it made: ingest, reading, publishing, the gate."""
    return [
        max(0.0, float(r["process_cpu_s"]) - sum(float(c) for c in r["train_cpu_s"].values()))
        for r in refreshes
        if "process_cpu_s" in r
    ]


def _number(text: str | None) -> float | None:
    return None if text in (None, "None") else float(str(text))
