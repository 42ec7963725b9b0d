"""When requests are due: a trace computed wholly before the run.

Poisson arrivals, thinned by a rate curve. It knows nothing of what the requests say, and no
reply can change it: that is what makes the loop open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infra.errors import ConfigError, DataError

__all__ = ["Trace", "diurnal", "http_get", "http_post", "poisson_arrivals", "read_trace", "write_trace"]

_TROUGH_HOUR, _PEAK_HOUR = 4.0, 22.0
_TROUGH_SHARE = 6.5 / 100.0


@dataclass(frozen=True)
class Trace:
    """due_us: int64 [n], ascending, us from the start of the run; requests: [n] whole HTTP/1.1 requests."""

    due_us: NDArray[np.int64]
    requests: Sequence[bytes]

    def __post_init__(self) -> None:
        """Refuse a trace that cannot be sent."""
        if len(self.due_us) != len(self.requests):
            raise DataError(
                f"a trace of {len(self.due_us)} due times and {len(self.requests)} requests; "
                "expected one request for each due time"
            )
        if len(self.due_us) and (self.due_us[0] < 0 or bool(np.any(np.diff(self.due_us) < 0))):
            raise DataError("due times are negative or not ascending; sort the trace by due time")

    def __len__(self) -> int:
        return len(self.due_us)

    @property
    def duration_s(self) -> float:
        """From the start to the last due time."""
        return float(self.due_us[-1]) / 1e6 if len(self.due_us) else 0.0


def poisson_arrivals(
    rate_per_s: float,
    duration_s: float,
    *,
    seed: int,
    curve: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None,
) -> NDArray[np.int64]:
    """Due times of a Poisson process: int64 [n], ascending, in us.

    `curve` maps seconds from the start to a share in [0, 1] of `rate_per_s`, which is then the peak
    rate (thinning after Lewis and Shedler, 1979). The same seed gives the same times.
    """
    if rate_per_s <= 0 or duration_s <= 0:
        raise ConfigError(f"rate {rate_per_s}/s for {duration_s} s; expected both above 0")
    rng = np.random.default_rng(seed)
    n = rng.poisson(rate_per_s * duration_s)
    times = np.sort(rng.random(n)) * duration_s  # given their number, Poisson arrivals are uniform
    if curve is not None:
        share = np.asarray(curve(times), np.float64)
        if len(share) and not (share.min() >= 0 and share.max() <= 1 + 1e-9):
            raise ConfigError(
                f"the rate curve gives shares from {share.min():.3g} to {share.max():.3g}; "
                "expected shares of the peak rate in [0, 1]"
            )
        times = times[rng.random(len(times)) < share]
    return (times * 1e6).astype(np.int64)


def diurnal(hour: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of the peak rate at an hour of the day, after the published search trace.

    6.5 million queries an hour at 04:00, 100 million at 22:00 (AIBench Scenario); a cosine in between.
    """
    hour = np.mod(hour, 24.0)
    rising = np.mod(hour - _TROUGH_HOUR, 24.0)
    up = _PEAK_HOUR - _TROUGH_HOUR
    phase = np.where(rising < up, rising / up, 1.0 + (rising - up) / (24.0 - up))
    share: NDArray[np.float64] = _TROUGH_SHARE + (1 - _TROUGH_SHARE) * (1 - np.cos(np.pi * phase)) / 2
    return share


def http_get(target: str, *, host: str = "127.0.0.1") -> bytes:
    """The bytes of a keep-alive GET; `target` is a path with its query, percent-encoded."""
    return f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("ascii")


def http_post(
    target: str, body: bytes, *, content_type: str = "application/json", host: str = "127.0.0.1"
) -> bytes:
    """The bytes of a keep-alive POST."""
    head = (
        f"POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body


def write_trace(trace: Trace, path: Path) -> None:
    """Save a trace as .npz."""
    np.savez(
        path,
        due_us=trace.due_us,
        lengths=np.fromiter(map(len, trace.requests), np.int64, len(trace)),
        requests=np.frombuffer(b"".join(trace.requests), np.uint8),
    )


def read_trace(path: Path) -> Trace:
    """What `write_trace` saved."""
    with np.load(path) as saved:
        text = saved["requests"].tobytes()
        ends = np.cumsum(saved["lengths"]).tolist()
        due_us = saved["due_us"]
    return Trace(due_us, list(_pieces(text, ends)))


def _pieces(text: bytes, ends: Iterable[int]) -> Iterable[bytes]:
    begin = 0
    for end in ends:
        yield text[begin:end]
        begin = end
