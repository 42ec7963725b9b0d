"""How long each stage of a request took: a fixed ring of recent requests, summed up on demand.

Recording is one row of integers under a lock (about 1 us). It knows names and kinds of stages
(`ai`, `non_ai`), nothing of what they do; client-side latency is `latency.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infra.errors import ConfigError

__all__ = ["KINDS", "NOT_RUN", "Span", "SpanLog", "SpanSummary"]

KINDS = ("ai", "non_ai")
NOT_RUN = -1


@dataclass(frozen=True)
class Span:
    """One stage of one request: `duration_us` of a stage of `kind`, begun `start_us` after entry."""

    name: str
    kind: str
    start_us: int
    duration_us: int


@dataclass(frozen=True)
class SpanSummary:
    """A stage over the remembered requests that ran it; times in microseconds."""

    name: str
    kind: str
    count: int
    mean_us: float
    p50_us: float
    p90_us: float
    p99_us: float


class SpanLog:
    """The stage times of the last `capacity` requests; safe to use from several threads."""

    def __init__(self, names: Sequence[str], kinds: Sequence[str], *, capacity: int = 8_192) -> None:
        if len(names) != len(kinds) or len(set(names)) != len(names) or not set(kinds) <= set(KINDS):
            raise ConfigError(
                f"stages {list(names)} of kinds {list(kinds)}: expected distinct names and one kind of "
                f"{list(KINDS)} for each"
            )
        if capacity < 1:
            raise ConfigError(f"a span log of {capacity} requests; expected at least 1")
        self.names = tuple(names)
        self.kinds = tuple(kinds)
        self._ring = np.full((capacity, len(names)), NOT_RUN, np.int32)
        self._recorded = 0
        self._lock = threading.Lock()

    @property
    def recorded(self) -> int:
        """Requests recorded since the start or the last `clear`."""
        return self._recorded

    def record(self, durations_us: Sequence[int]) -> None:
        """Remember one request: microseconds of each stage, NOT_RUN for one that was passed over."""
        with self._lock:
            self._ring[self._recorded % len(self._ring)] = durations_us
            self._recorded += 1

    def clear(self) -> None:
        """Forget everything, for instance after warming up."""
        with self._lock:
            self._ring[:] = NOT_RUN
            self._recorded = 0

    def rows(self) -> NDArray[np.int32]:
        """A copy of what is remembered, oldest first: int32 [requests, stages], NOT_RUN where passed over."""
        with self._lock:
            held = len(self._ring)
            if self._recorded <= held:
                return self._ring[: self._recorded].copy()
            return np.roll(self._ring, -(self._recorded % held), axis=0)

    def summary(self) -> list[SpanSummary]:
        """One line a stage, then `total`, then the sums over `ai` and over `non_ai` stages."""
        rows = self.rows()
        ran = rows != NOT_RUN
        times = np.where(ran, rows, 0)
        found = [
            _summarise(name, kind, times[ran[:, i], i])
            for i, (name, kind) in enumerate(zip(self.names, self.kinds, strict=True))
        ]
        found.append(_summarise("total", "all", times.sum(1)))
        for kind in KINDS:
            of_kind = [i for i, k in enumerate(self.kinds) if k == kind]
            found.append(_summarise(kind, kind, times[:, of_kind].sum(1)))
        return found


def _summarise(name: str, kind: str, times_us: NDArray[np.int32]) -> SpanSummary:
    if not len(times_us):
        return SpanSummary(name, kind, 0, float("nan"), float("nan"), float("nan"), float("nan"))
    p50, p90, p99 = np.percentile(times_us, (50, 90, 99)).tolist()
    return SpanSummary(name, kind, len(times_us), float(times_us.mean()), p50, p90, p99)
