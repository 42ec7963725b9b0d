"""Keeps collections of garbage short: what is loaded stays out of them, and the young are looked at often.

A collection stops all threads to walk objects, a microsecond for each that has left the processor's caches.
Python collects when there are 2,000 objects more than before; where as many go as come, as in a cache that is
full, it waits, and then walks all that came since.
"""

from __future__ import annotations

import atexit
import functools
import gc
import threading

__all__ = ["collect_young_often", "freeze"]


def freeze() -> None:
    """As `gc.freeze`, until the interpreter ends: DuckDB's bindings else say there that they were leaked."""
    gc.freeze()
    _thaw_at_the_end()


@functools.cache
def collect_young_often(every_s: float = 0.1) -> threading.Thread:
    """From now on look through what came since the last look; not where collections are switched off.

    What stays is older then. The older ones are hardly ever looked through: `freeze` leaves them out.
    """
    young, _, _ = gc.get_threshold()
    gc.set_threshold(young, 100_000, 100)
    thread = threading.Thread(target=_collect_young, args=(every_s,), name="garbage", daemon=True)
    thread.start()
    return thread


def _collect_young(every_s: float) -> None:
    pause = threading.Event()
    while not pause.wait(every_s):
        if gc.isenabled():
            gc.collect(0)


@functools.cache
def _thaw_at_the_end() -> None:
    atexit.register(gc.unfreeze)
