"""Work beside requests that goes on only while none is being answered.

Threads of one process take turns at the interpreter, and a turn knows no priority: a thread that loads a
release makes each request take twice as long. Here such a thread looks, wherever its work gives way, whether
a request is being answered, and lets it end first. It waits in compiled code: to look again in Python it
would need the interpreter, and take it from the request. Nor is garbage looked for while it works: a
collection stops all threads to walk the many objects that a release is made of. It knows neither releases nor
requests.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from infra.garbage import freeze
from infra.give_way import giving_way

__all__ = ["compile_waiting", "polite"]

_LOOK_US = 100

_sleep_us = types.ExternalFunction("usleep", types.int32(types.uint32))  # the C library's


@njit(cache=True, nogil=True)
def _wait(busy: Any, looks: int, still: int) -> None:
    """Sleep until it was not `busy` for `still` looks in a row, looking at most so many times."""
    quiet = 0
    for _ in range(looks):
        quiet = 0 if busy[0] else quiet + 1
        if quiet >= still:
            return
        _sleep_us(_LOOK_US)


def compile_waiting() -> None:
    """Have the waiting compiled before there is a request to wait for: compiling would hold it up."""
    _wait(np.zeros(1, np.int64), 1, 1)


@contextmanager
def polite(
    busy: NDArray[np.int64],
    *,
    at_a_time_s: float = 0.005,
    idle_s: float = 0.1,
    still_s: float = 0.0006,
    in_all_s: float = 10.0,
) -> Iterator[None]:
    """Run the block in this thread; where it gives way it waits while the one number in `busy` is not 0.

    `at_a_time_s`: the longest wait at one place, as the block may hold a lock that the request needs;
    `idle_s`: where it holds none and waits until none was answered for `still_s`, so that none is in line.
    `in_all_s`: after so much waiting the block takes its turns like any other thread: under load without
    end it has to end too. What was made within, unless it fails, is left out of later collections; it is
    freed when nothing refers to it, so it should hold no circles.
    """
    left_s = in_all_s
    looks, idle_looks, still = (max(1, round(s * 1e6 / _LOOK_US)) for s in (at_a_time_s, idle_s, still_s))

    def wait(until_idle: bool) -> None:
        nonlocal left_s
        if left_s <= 0 or not (busy[0] or until_idle):
            return
        began = time.perf_counter()
        if until_idle:
            _wait(busy, idle_looks, still)
        else:
            _wait(busy, looks, 1)
        left_s -= time.perf_counter() - began

    collects = gc.isenabled()
    gc.disable()
    try:
        with giving_way(wait):
            yield
        freeze()
    finally:
        if collects:
            gc.enable()
