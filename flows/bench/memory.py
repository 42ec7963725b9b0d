"""How much memory a process holds over time: its resident set, ten times a second, in a thread."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np
import psutil

from infra.clock import wall_us

__all__ = ["MemoryWatch"]

_EVERY_S = 0.1


class MemoryWatch:
    """`with MemoryWatch(pid) as memory:` samples until it is left."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._samples: list[tuple[int, int]] = []
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
                self._samples.append((wall_us(), self._process.memory_info().rss))
            except psutil.NoSuchProcess:
                return

    def figures(self, flips_us: Sequence[int]) -> dict[str, Any]:
        """Peak, first and last level in MB; MB a swap over the second half of the flips (a line's slope)."""
        at = np.array([t for t, _ in self._samples], np.int64)
        mb = np.array([size / 1e6 for _, size in self._samples])
        if not len(at):
            names = ("peak_memory_mb", "first_memory_mb", "last_memory_mb", "memory_mb_per_swap")
            return dict.fromkeys(names)
        found = {
            "peak_memory_mb": round(float(mb.max()), 1),
            "first_memory_mb": round(float(mb[0]), 1),
            "last_memory_mb": round(float(mb[-1]), 1),
            "memory_mb_per_swap": None,
        }
        flips = np.sort(np.asarray(flips_us, np.int64))[len(flips_us) // 2 :]
        if len(flips) >= 3:
            levels = mb[np.minimum(np.searchsorted(at, flips), len(at) - 1)]
            found["memory_mb_per_swap"] = round(float(np.polyfit(np.arange(len(flips)), levels, 1)[0]), 4)
        return found
