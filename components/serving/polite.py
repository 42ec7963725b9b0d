"""Work beside requests that goes on only while none is being answered.

Threads of one process take turns at the interpreter, and a turn knows no priority: a thread that loads a
release makes each request take twice as long. Here such a thread looks, at each of its calls, whether a
request is being answered, and lets it end first. Nor is garbage looked for while it works: a collection
stops all threads to walk the many objects that a release is made of. It knows neither releases nor requests.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from infra.garbage import freeze

__all__ = ["polite"]

_LOOK_S = 0.0002
_CALLS = ("call", "c_call")
_FEW = 5_000  # objects that are looked through in a fraction of a millisecond


@contextmanager
def polite(busy: Callable[[], bool], *, at_a_time_s: float = 0.005, in_all_s: float = 5.0) -> Iterator[None]:
    """Run the block in this thread, waiting at its calls while `busy()`.

    `at_a_time_s`: the longest wait at one call, as the block may hold a lock that the request needs.
    `in_all_s`: after so much waiting the block takes its turns like any other thread: under load without
    end it has to end too. What was made within is left out of later collections; it is freed when nothing
    refers to it, which a circle would prevent: where few objects were made, their circles are freed first.
    """
    left_s = in_all_s

    def look(_: FrameType, event: str, __: Any) -> None:
        nonlocal left_s
        if event not in _CALLS or not busy():
            return
        began = time.perf_counter()
        waited = 0.0
        while waited < at_a_time_s and busy():
            time.sleep(_LOOK_S)
            waited = time.perf_counter() - began
        left_s -= waited
        if left_s <= 0:
            sys.setprofile(before)

    before, collects = sys.getprofile(), gc.isenabled()
    gc.disable()
    sys.setprofile(look)
    try:
        yield
    finally:
        sys.setprofile(before)
        if collects:
            if gc.get_count()[0] < _FEW:
                gc.collect(0)
            freeze()
            gc.enable()
