"""What a home's recorded trainings and refreshes cost, in CPU-seconds: what an estimate rests on.

The newest trainings of each artifact count, of the same window, fraction, start and half-life where there are
any. It knows no trigger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flows.offline.refresh import PLAN, components_of
from flows.policies.policy import WEIGH_BY_AGE, ComponentPolicy
from infra.errors import DataError
from infra.registry import Registry

__all__ = ["NEWEST", "Costs", "Recorded"]

NEWEST = 30  # trainings of an artifact that count: what they cost follows the data

_LISTED = 1_000  # runs that a registry lists at most


@dataclass(frozen=True)
class Recorded:
    """CPU-seconds of one run of something: their mean, the spread from run to run (None for a single one).

    `scaled`: in proportion to the data, from runs with another window or fraction; `other_start`: from runs
    that began warm instead of cold, or the other way about.
    """

    runs: int
    mean: float
    sd: float | None
    scaled: bool = False
    other_start: bool = False

    @classmethod
    def of(
        cls, values: Sequence[float], *, scaled: bool = False, other_start: bool = False
    ) -> Recorded | None:
        """Of recorded values; None without any."""
        if not values:
            return None
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return cls(len(values), float(np.mean(values)), sd, scaled, other_start)

    def of_a_day(self, times: float) -> tuple[float, float]:
        """Mean and variance of so many runs: their own spread, and that the mean is known from a few only."""
        variance = (self.sd or 0.0) ** 2
        return times * self.mean, times * variance + times**2 * variance / self.runs


@dataclass(frozen=True)
class _Training:
    cpu_s: float
    window_d: float | None
    fraction: float
    half_life_d: float | None
    warm: bool


class Costs:
    """What is recorded in a home, read once. `log_days`: of its log, None before the first ingest."""

    def __init__(
        self, registry: Registry, refreshes: Sequence[Mapping[str, Any]], *, log_days: float | None
    ) -> None:
        self._registry, self._log_days = registry, log_days
        self._held: dict[str, tuple[_Training, ...]] = {}
        self.needless = _needless(refreshes)
        """Artifacts that the last refresh that was to make them had nothing to make of."""
        self.besides = Recorded.of(_besides(refreshes))
        """Of each refresh less those of what it made: ingest, reading, publishing, the gate."""

    def of(self, artifact: str, part: ComponentPolicy) -> Recorded | None:
        """Of making an artifact as a component's policy asks for; None where none was recorded."""
        if artifact in self.needless:
            return None
        found: dict[tuple[bool, bool, bool], list[float]] = {}
        for t in self._trainings(artifact):
            same = artifact in PLAN["index"] or (t.window_d == part.window_d and t.fraction == part.fraction)
            other_start = artifact not in PLAN["index"] and t.warm != (part.start == "warm")
            other_age = artifact in WEIGH_BY_AGE and t.half_life_d != part.half_life_d
            ratio = self._amount(part.window_d, part.fraction) / self._amount(t.window_d, t.fraction)
            wrong = (other_start, not same, other_age)  # age comes last: weights are as dear as none
            found.setdefault(wrong, []).append(t.cpu_s if same else t.cpu_s * ratio)
        if not found:
            return None
        other_start, scaled, _ = best = min(found)
        return Recorded.of(found[best], scaled=scaled, other_start=other_start)

    def _trainings(self, artifact: str) -> tuple[_Training, ...]:
        """The newest ones, from the registry's versions, which say how each began."""
        if artifact not in self._held:
            found: list[_Training] = []
            version = self._newest(artifact)
            while version and len(found) < NEWEST:
                record = self._record(artifact, version)
                version -= 1
                if (cpu_s := record.get("resources", {}).get("cpu_s")) is not None:
                    params, recipe = record["params"], record["snapshot"].get("recipe", {})
                    window, fraction = params.get("window_d"), params.get("fraction")
                    found.append(
                        _Training(
                            float(cpu_s),
                            None if window is None else float(window),
                            1.0 if fraction is None else float(fraction),
                            record["snapshot"].get("half_life_d"),
                            bool(recipe.get("warm")),
                        )
                    )
            self._held[artifact] = tuple(found)
        return self._held[artifact]

    def _newest(self, artifact: str) -> int:
        """A version that is not older than the newest one: runs that were killed may have none."""
        version = len(self._registry.recorded(artifact))
        step = 1 << 16 if version >= _LISTED else 0
        while step:
            if self._record(artifact, version + step):
                version += step
            else:
                step //= 2
        return version

    def _record(self, artifact: str, version: int) -> dict[str, Any]:
        """What is recorded of a training; nothing where there is no such version."""
        try:
            return self._registry.training(artifact, str(version))
        except DataError:
            return {}

    def _amount(self, window_d: float | None, fraction: float) -> float:
        whole = self._log_days or 1e9
        return fraction * min(whole if window_d is None else window_d, whole)


def _besides(refreshes: Sequence[Mapping[str, Any]]) -> list[float]:
    return [
        max(0.0, float(r["process_cpu_s"]) - sum(float(c) for c in r["train_cpu_s"].values()))
        for r in refreshes
        if "process_cpu_s" in r
    ]


def _needless(refreshes: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    made: dict[str, bool] = {}
    for refresh in refreshes:
        for artifact in components_of(str(refresh["component"])):
            made[artifact] = artifact in refresh.get("made", (artifact,))
    return frozenset(artifact for artifact, was in made.items() if not was)
