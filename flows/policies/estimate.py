"""What a policy will cost a day, in CPU-seconds, from the runs that this home has recorded.

How often it fires: a replay, of the clock alone or of the home's own log. What a run costs (`costs.py`):
what it makes, each artifact once however many components ask for it, and what refreshes took besides.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from data.snapshots import published
from flows.offline.refresh import components_of, read_refreshes
from flows.policies.costs import Costs, Recorded
from flows.policies.engine import Firing, with_brought
from flows.policies.log import log_of
from flows.policies.policy import NEEDS_DATA, ComponentPolicy, Policy
from flows.policies.replay import EMPTY, replay
from flows.policies.triggers.kinds import kinds_of
from infra.clock import DAY_US
from infra.errors import DataError
from infra.registry import Registry, open_registry
from infra.settings import Settings

__all__ = ["estimate"]

DAYS = 28  # that are replayed, or as many as the log has
FEWEST = 10  # firings of each component that a replay of the clock goes on for,
MOST = 10_000  # firings in all after which it does not, and
MOST_DAYS = DAYS << 8  # days: 20 years


@dataclass(frozen=True)
class _Often:
    """Runs a day of the components that are one run; the components of which that is not known."""

    rates: dict[tuple[str, ...], float]
    unknown: frozenset[str]
    basis: str

    def of(self, name: str) -> float | None:
        """Runs a day of a component."""
        if name in self.unknown:
            return None
        return sum(rate for names, rate in self.rates.items() if name in names)


def estimate(policy: Policy, settings: Settings, *, registry: Registry | None = None) -> dict[str, Any]:
    """Runs and CPU-seconds a day, with their 95 % range; what is not known is None, and said in `notes`.

    A component's `cpu_s_per_run` is of a run of it alone, its `cpu_s_per_day` without what an earlier
    component of the same run makes. Without the range, `cpu_s_per_day` is of what is known.
    """
    notes: list[str] = []
    log_days, since_us, until_us = _log(settings)
    often = _often(policy, settings, notes, since_us=since_us, until_us=until_us)
    registry = registry or open_registry(settings.layout.mlflow)
    costs = Costs(registry, read_refreshes(settings.layout), log_days=log_days)
    own: dict[str, ComponentPolicy] = {str(n): c for n, c in policy.components.items()}
    alone = {n: {a: costs.of(a, c) for a in _plan(n)} for n, c in own.items()}
    known = _noted(own, alone, costs, notes)
    mean, variance, a_day = _summed(own, often, costs)
    parts: dict[str, Any] = {}
    for name, found in alone.items():
        have = {a: r for a, r in found.items() if r is not None}
        runs = often.of(name)
        parts[name] = {
            "runs_per_day": runs,
            "cpu_s_per_run": sum(r.mean for r in have.values()) if have else None,
            "cpu_s_per_day": None if runs is None or not have else a_day[name],
            "artifacts": {a: asdict(r) for a, r in have.items()},
        }
    runs = sum(often.rates.values()) if often.rates or not often.unknown else None
    if costs.besides is None:
        notes.append("no recorded refresh: what a run costs beside its trainings is not known")
    else:
        m, v = costs.besides.of_a_day(runs or 0.0)
        mean, variance = mean + m, variance + v
        known = known and costs.besides.sd is not None
    if policy.ingest is not None:
        notes.append("what ingest costs between runs is not in it")
    fewest = [r.runs for found in alone.values() for r in found.values() if r is not None]
    total = runs is not None and (bool(fewest) or runs == 0)
    ranged = total and known and not often.unknown
    reach = 1.96 * math.sqrt(variance)
    return {
        "policy": policy.name,
        "basis": often.basis,
        "runs_per_day": runs,
        "cpu_s_per_day": mean if total else None,
        "low": max(0.0, mean - reach) if ranged else None,
        "high": mean + reach if ranged else None,
        "recorded_runs": min(fewest, default=0),
        "components": parts,
        "besides_per_run": None if costs.besides is None else asdict(costs.besides),
        "notes": notes,
    }


def _plan(*names: str) -> tuple[str, ...]:
    """What a run of these components makes, each artifact once."""
    return components_of(",".join("index" if n == "indexes" else n for n in names))


def _summed(
    own: Mapping[str, ComponentPolicy], often: _Often, costs: Costs
) -> tuple[float, float, dict[str, float]]:
    """Mean and variance of what is made in a day, and the mean by the first component that asks for it."""
    times: defaultdict[tuple[str, Recorded], float] = defaultdict(float)
    a_day = dict.fromkeys(own, 0.0)
    for names, rate in often.rates.items():
        for artifact in _plan(*names):
            cost = costs.of(artifact, own[names[0]])
            if cost is not None:
                times[artifact, cost] += rate
                a_day[next(n for n in names if artifact in _plan(n))] += rate * cost.mean
    found = [cost.of_a_day(rate) for (_, cost), rate in times.items()]
    return sum(m for m, _ in found), sum(v for _, v in found), a_day


def _noted(
    own: Mapping[str, ComponentPolicy],
    alone: Mapping[str, Mapping[str, Recorded | None]],
    costs: Costs,
    notes: list[str],
) -> bool:
    """Says what the costs do not rest on; whether they, and their spread, are all known."""
    asked = {n: alone[n] for n, c in own.items() if c.trigger.kind != "never"}
    missing = {a for found in asked.values() for a, r in found.items() if r is None}
    if needless := sorted(missing & costs.needless):
        notes.append(f"{', '.join(needless)}: this home has nothing to make of it, which costs nothing")
    if unknown := sorted(missing - costs.needless):
        notes.append(
            f"no recorded run of {', '.join(unknown)}: what that costs is not known and not in it; "
            "`shelflife refresh` makes one"
        )
    known = not unknown
    for name, found in asked.items():
        have = [r for r in found.values() if r is not None]
        if any(r.scaled for r in have):
            notes.append(
                f"{name}: scaled in proportion to the data, from runs with another window or fraction"
            )
        if any(r.other_start for r in have):
            notes.append(f"{name}: no recorded run that began {own[name].start}; from those that did not")
        if any(r.sd is None for r in have):
            known = False
            notes.append(f"{name}: a single recorded run; its spread is not known")
    return known


def _log(settings: Settings) -> tuple[float | None, int, int]:
    """Days of the home's log, and the first and last time of its last days; None before the first ingest."""
    try:
        held = published(settings.layout)
    except DataError:
        return None, 0, 0
    until = held.watermark_us
    first = min((a for a, _ in held.spans), default=until)
    return (until - first) / DAY_US, max(first, until - DAYS * DAY_US), until


def _often(policy: Policy, settings: Settings, notes: list[str], *, since_us: int, until_us: int) -> _Often:
    """A replay of the log where triggers wait for data; of the clock for those that it alone decides."""
    waits = {n for n, c in policy.components.items() if NEEDS_DATA & set(kinds_of(c.trigger))}
    asked = {n for n, c in policy.components.items() if c.trigger.kind != "never"}
    rates: dict[tuple[str, ...], float] = {}
    bases = []
    if waits and until_us > since_us:
        days = (until_us - since_us) / DAY_US
        log = log_of(settings.layout)
        rates = _rates(replay(policy, log, since_us=since_us, until_us=until_us), days)
        bases.append(f"a replay of the last {days:.1f} days of this home's log")
        if silent := sorted(waits - _fired(rates)):
            notes.append(
                f"{', '.join(silent)}: not fired in the {days:.1f} days of this home's log; how often is not "
                "known and not in it"
            )
    elif waits:
        notes.append("nothing is ingested here: how often triggers fire that wait for data is not known")
    if by_clock := asked - waits - _fired(rates):
        fired, whole_days = _by_clock(policy, by_clock)
        more = _rates(fired, whole_days)
        bases.append(f"the clock over {whole_days} days")
        if silent := sorted(by_clock - _fired(more)):
            notes.append(
                f"{', '.join(silent)}: not fired in {whole_days} days; how often is not known and not in it"
            )
        rates |= more
    return _Often(rates, frozenset(asked - _fired(rates)), " and ".join(bases) or "nothing")


def _by_clock(policy: Policy, names: Collection[str]) -> tuple[tuple[Firing, ...], int]:
    """Firings of these components alone, over as many days as each needs to fire some times."""
    few = {n: c for n, c in policy.components.items() if n in names}
    alone, days = policy.model_copy(update={"ingest": None, "components": few}), DAYS
    while True:
        fired = replay(alone, EMPTY, since_us=0, until_us=days * DAY_US + policy.tick)
        counts = Counter(n for f in fired for n in with_brought(f.components))
        if min(counts[n] for n in names) >= FEWEST or len(fired) >= MOST or days >= MOST_DAYS:
            return fired, days
        days *= 2


def _rates(fired: Collection[Firing], days: float) -> dict[tuple[str, ...], float]:
    return {names: n / days for names, n in Counter(f.components for f in fired).items()}


def _fired(rates: Collection[tuple[str, ...]]) -> set[str]:
    """Components that are made anew at all, on their own or brought along."""
    return {n for names in rates for n in with_brought(names)}
