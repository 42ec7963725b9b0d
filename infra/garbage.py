"""Leaves what is loaded by now out of the collections of garbage, for as long as the process lives.

At its end all takes part again: modules hold each other in circles, and what they hold is freed with them.
"""

from __future__ import annotations

import atexit
import functools
import gc

__all__ = ["freeze"]


def freeze() -> None:
    """As `gc.freeze`, until the interpreter ends: DuckDB's bindings else say there that they were leaked."""
    gc.freeze()
    _thaw_at_the_end()


@functools.cache
def _thaw_at_the_end() -> None:
    atexit.register(gc.unfreeze)
