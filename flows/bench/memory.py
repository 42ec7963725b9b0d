"""How much memory a process holds over time, fifty times a second, in a thread.

The resident set, and of it what is the process' own: pages of mapped files, which a release's indexes
are, belong to the system and can be read again. What one small swap costs drowns in what requests need
meanwhile and in the kernel's rounding: `swap_memory.py` measures that by itself.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from flows.bench.alignment import Window
from infra.clock import wall_us

__all__ = ["MemoryWatch"]

_EVERY_S = 0.02
_BEFORE_US = 1_000_000  # the quiet level: the median over this time
_RESAMPLES = 400


class MemoryWatch:
    """`with MemoryWatch(pid) as memory:` samples until it is left."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._samples: list[tuple[int, int, int]] = []  # wall us, resident bytes, own bytes
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(_EVERY_S):
            try:
                held = self._process.memory_info()
                self._samples.append((wall_us(), held.rss, held.rss - held.shared))
            except psutil.NoSuchProcess:
                return

    def figures(self, flips_us: Sequence[int]) -> dict[str, Any]:
        """Peak, first and last level in MB; MB a swap over the second half of the flips (a line's slope).

        `memory`: all that is resident, `private`: what is the process' own.
        """
        at = np.array([t for t, _, _ in self._samples], np.int64)
        flips = np.sort(np.asarray(flips_us, np.int64))[len(flips_us) // 2 :]
        found: dict[str, Any] = {}
        for column, name in ((1, "memory"), (2, "private")):
            mb = np.array([sample[column] / 1e6 for sample in self._samples])
            levels = (mb.max(), mb[0], mb[-1]) if len(mb) else (None, None, None)
            for which, level in zip(("peak", "first", "last"), levels, strict=True):
                found[f"{which}_{name}_mb"] = None if level is None else round(float(level), 1)
            found[f"{name}_mb_per_swap"] = None
            if len(mb) and len(flips) >= 3:
                then = mb[np.minimum(np.searchsorted(at, flips), len(at) - 1)]
                slope = np.polyfit(np.arange(len(flips)), then, 1)[0]
                found[f"{name}_mb_per_swap"] = round(float(slope), 4)
        return found

    def rise(
        self, installing: Sequence[Window], quiet: Sequence[Window], changed_bytes: float
    ) -> dict[str, Any]:
        """How far the process' own memory rises in windows, above its median in the second before each.

        Medians in MB: of the installations, and of as long windows in stretches of `quiet` seconds, where
        what requests need makes it rise too; `per_changed`: their difference over `changed_bytes`, with `low`
        and `high`, a 95 % bootstrap over windows. None of nothing.
        """
        at = np.array([t for t, _, _ in self._samples], np.int64)
        own = np.array([held for _, _, held in self._samples], np.float64)
        lasts = int(np.median([end - begin for begin, end in installing])) if installing else 0
        swaps = _rises(at, own, installing)
        still = _rises(at, own, _as_long(quiet, lasts))
        found: dict[str, Any] = {
            "rise_mb": round(float(np.median(swaps)) / 1e6, 3) if len(swaps) else None,
            "rise_quiet_mb": round(float(np.median(still)) / 1e6, 3) if len(still) else None,
            "windows_quiet": len(still),
        }
        if not (len(swaps) and len(still) and changed_bytes):
            return found | {"per_changed": None, "low": None, "high": None}
        rng = np.random.default_rng(0)
        drawn = [
            np.median(rng.choice(swaps, len(swaps))) - np.median(rng.choice(still, len(still)))
            for _ in range(_RESAMPLES)
        ]
        low, high = np.percentile(drawn, (2.5, 97.5)) / changed_bytes
        middle = (np.median(swaps) - np.median(still)) / changed_bytes
        return found | {
            name: round(float(value), 2)
            for name, value in (("per_changed", middle), ("low", low), ("high", high))
        }


def _rises(
    at_us: NDArray[np.int64], held: NDArray[np.float64], windows: Sequence[Window]
) -> NDArray[np.float64]:
    """The highest level in each window less the median before it; windows without samples are left out."""
    found = []
    for begin, end in windows:
        first, start, stop = np.searchsorted(at_us, (begin - _BEFORE_US, begin, end))
        if first < start < stop:
            found.append(held[start:stop].max() - np.median(held[first:start]))
    return np.array(found)


def _as_long(quiet: Sequence[Window], lasts_us: int) -> list[Window]:
    """Windows that last so long, each after the second that its level is taken from, in quiet stretches."""
    stretches: list[list[int]] = []
    for begin, end in sorted(quiet):
        if stretches and begin <= stretches[-1][1]:
            stretches[-1][1] = end
        else:
            stretches.append([begin, end])
    step = _BEFORE_US + lasts_us
    return [
        (start + _BEFORE_US, start + step)
        for begin, end in stretches
        for start in range(begin, end - step + 1, step)
    ]
