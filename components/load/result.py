"""What a load run leaves behind: one row a request, as arrays, on disk as .npz.

It knows neither the driver nor the service; latencies count from the due time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.load.reactions import ReactionCounts

__all__ = ["CONNECTION_FAILED", "TIMED_OUT", "LoadResult", "make_result"]

CONNECTION_FAILED = 0
TIMED_OUT = -1


@dataclass(frozen=True)
class LoadResult:
    """One row for each request that came due, in order of due time; all times are wall us.

    due_us, picked_us, sent_us, done_us: int64 [n]; status: int16 [n] (HTTP status, 0 connection
    failed, -1 timed out); label: int16 [n], index into `labels` (the release that answered);
    size: int32 [n], bytes of the body.
    """

    due_us: NDArray[np.int64]
    picked_us: NDArray[np.int64]
    sent_us: NDArray[np.int64]
    done_us: NDArray[np.int64]
    status: NDArray[np.int16]
    label: NDArray[np.int16]
    size: NDArray[np.int32]
    labels: tuple[str, ...]
    began_wall_us: int
    timeout_s: float
    offered: int  # requests in the trace; more than n if the run was stopped
    connections: int
    peak_in_flight: int
    reconnects: int
    cpu_s: float
    reactions: ReactionCounts | None = None

    def __len__(self) -> int:
        return len(self.due_us)

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Which requests were answered 2xx: bool [n]."""
        found: NDArray[np.bool_] = (self.status >= 200) & (self.status < 300)
        return found

    @property
    def failed(self) -> int:
        """How many were not answered 2xx."""
        return int(np.count_nonzero(~self.ok))

    @property
    def latency_us(self) -> NDArray[np.int64]:
        """From due to done: int64 [n]; a failure counts as at least the time-out."""
        latency = self.done_us - self.due_us
        return np.where(self.ok, latency, np.maximum(latency, int(self.timeout_s * 1e6)))

    @property
    def lag_us(self) -> NDArray[np.int64]:
        """How late the driver itself noticed each due request: int64 [n]."""
        return self.picked_us - self.due_us

    @property
    def duration_s(self) -> float:
        """From the start to the last reply."""
        return float(self.done_us.max() - self.began_wall_us) / 1e6 if len(self) else 0.0

    @property
    def cpu_s_per_1000(self) -> float:
        """What the driver cost: CPU-seconds of its thread for 1,000 requests."""
        return 1_000 * self.cpu_s / len(self) if len(self) else 0.0

    @classmethod
    def joined(cls, results: Sequence[LoadResult]) -> LoadResult:
        """Runs of one driver one after the other, as one; without what was done with replies."""
        first, labels = results[0], tuple(dict.fromkeys(name for r in results for name in r.labels))
        columns = ("due_us", "picked_us", "sent_us", "done_us", "status", "size")
        arrays: dict[str, Any] = {n: np.concatenate([getattr(r, n) for r in results]) for n in columns}
        return cls(
            **arrays,
            label=_relabelled(results, labels),
            labels=labels,
            began_wall_us=first.began_wall_us,
            timeout_s=first.timeout_s,
            offered=sum(r.offered for r in results),
            connections=first.connections,
            peak_in_flight=max(r.peak_in_flight for r in results),
            reconnects=sum(r.reconnects for r in results),
            cpu_s=sum(r.cpu_s for r in results),
        )

    def save(self, path: Path) -> None:
        """Write the arrays and the rest to one .npz file."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self)}
        rest = {k: arrays.pop(k) for k in list(arrays) if not isinstance(arrays[k], np.ndarray)}
        rest["reactions"] = asdict(self.reactions) if self.reactions else None
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as f:
            np.savez(f, rest=np.frombuffer(json.dumps(rest).encode(), np.uint8), **arrays)

    @classmethod
    def load(cls, path: Path) -> LoadResult:
        """What `save` wrote."""
        with np.load(path) as saved:
            values: dict[str, Any] = {k: saved[k] for k in saved.files if k != "rest"}
            rest = json.loads(saved["rest"].tobytes())
        rest["labels"] = tuple(rest["labels"])
        rest["reactions"] = ReactionCounts(**rest["reactions"]) if rest["reactions"] else None
        return cls(**values, **rest)


def _relabelled(results: Sequence[LoadResult], labels: tuple[str, ...]) -> NDArray[np.int16]:
    places = [np.array([labels.index(name) for name in r.labels] or [0], np.int16) for r in results]
    return np.concatenate([place[r.label] for place, r in zip(places, results, strict=True)])


def make_result(
    *,
    due_us: NDArray[np.int64],
    picked_ns: Sequence[int],
    sent_ns: Sequence[int],
    done_ns: Sequence[int],
    status: Sequence[int],
    label: Sequence[str],
    size: Sequence[int],
    began_ns: int,
    began_wall_us: int,
    **rest: Any,
) -> LoadResult:
    """A result from the driver's monotonic records (ns) and the wall time at which it began (us)."""

    def wall(monotonic_ns: Sequence[int]) -> NDArray[np.int64]:
        return (np.asarray(monotonic_ns, np.int64) - began_ns) // 1_000 + began_wall_us

    labels = tuple(dict.fromkeys(label))
    code = {name: i for i, name in enumerate(labels)}
    return LoadResult(
        due_us=due_us + began_wall_us,
        picked_us=wall(picked_ns),
        sent_us=wall(sent_ns),
        done_us=wall(done_ns),
        status=np.asarray(status, np.int16),
        label=np.fromiter((code[name] for name in label), np.int16, len(label)),
        size=np.asarray(size, np.int32),
        labels=labels,
        began_wall_us=began_wall_us,
        **rest,
    )
