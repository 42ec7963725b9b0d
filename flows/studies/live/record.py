"""What a live study found: one record that is its JSON document. It draws and decides nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flows.studies.live.freshness import Stage
from flows.studies.live.tail import Tail
from flows.studies.live.verdict import Verdict
from flows.studies.telling.record import Arms, Document, Floats
from models.metrics import Interval

__all__ = ["Band", "ClosedLoop", "LiveRecord", "Lived", "Over"]


@dataclass(frozen=True)
class Band:
    """A stretch of wall seconds since the load began, in which a condition held."""

    condition: str
    begin_s: float
    end_s: float


@dataclass(frozen=True)
class Over:
    """Latency over wall time: p50 and p99 in ms float64 [b] of bins that begin at `start_s` float64 [b]."""

    bin_s: float
    start_s: Floats
    p50_ms: Floats
    p99_ms: Floats
    bands: tuple[Band, ...] = ()


@dataclass(frozen=True)
class Lived:
    """One policy as it was lived through. Figures by day float64 [d] are of the scored `days` [d].

    `runs`: that the policy started; `refreshes`: of them, `refused` by the gate, `failed_runs` without
    result; `cpu_s_per_day`: of the refreshes' own processes, over all days; `share`s and arms: of the days
    on which a release of the policy was live (of a control: all); `late_s`: wall seconds by which a day ended
    behind its stretch of the trace, at most; `without_slots`: no randomised slots; `over_control`: its `full`
    arm less the control's, on the same queries of the same days; `afterwards`: the verdict, were `hindcast`
    predicted: what the instrument tells from the log that the policy itself wrote.
    """

    name: str
    triggers: Mapping[str, str]
    control: bool
    without_slots: bool
    requests: int
    failed: int
    load: str
    load_reasons: tuple[str, ...]
    runs: int
    refreshes: int
    refused: int
    failed_runs: int
    swaps: int
    releases_served: int
    arms: Arms
    full_minus_state_fresh: Interval
    state_fresh_minus_frozen: Interval
    weights_share: Interval | None
    state_share: Interval | None
    cpu_s_per_day: float
    cpu_s_per_refresh: float
    run_s: float
    tail: Tail
    freshness: tuple[Stage, ...]
    verdict: Verdict
    days: Floats
    frozen: Floats
    state_fresh: Floats
    full: Floats
    predicted: Floats
    hindcast: Floats
    over: Over
    catalogue_failed: int = 0
    over_control: Interval | None = None
    afterwards: Verdict | None = None
    crowd_requests: int = 0
    late_s: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClosedLoop:
    """The same policy without randomised slots: its `full` arm less that with them, on the same queries."""

    policy: str
    without_minus_with: Interval
    weights_with: Interval
    weights_without: Interval
    days: int


@dataclass(frozen=True)
class LiveRecord(Document):
    """One finished live study. `sentences`: the claim of each policy, with its figures, or what cannot be
    told.

    `failed`: requests of all policies; `promises`: what was broken that must not be.
    """

    question: str
    source: str
    policies: tuple[Lived, ...]
    sentences: tuple[str, ...]
    closed_loop: tuple[ClosedLoop, ...]
    requests: int
    failed: int
    seed: int
    margin: float
    days: int
    through: str
    drift: str = ""
    wall_s: float = math.nan
    command: str = ""
    commit: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    study: str = "live"
    version: int = 1

    @property
    def main(self) -> Lived:
        """The first policy that is no control, else the first."""
        return next((p for p in self.policies if not p.control), self.policies[0])

    @property
    def promises(self) -> tuple[str, ...]:
        """What was promised and broken."""
        return tuple(
            f"under {p.name} {p.failed} of {p.requests} requests and {p.catalogue_failed} catalogue "
            "changes failed; expected none"
            for p in self.policies
            if p.failed or p.catalogue_failed
        )
