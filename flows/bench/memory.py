"""How much memory a process holds over time, ten times a second, in a thread.

The resident set, and of it what is the process' own: pages of mapped files, which a release's indexes
are, belong to the system and can be read again.
"""

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
