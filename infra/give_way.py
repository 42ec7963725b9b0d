"""Points at which long work lets others go first, if whoever started it wants that.

Threads of one process take turns at the interpreter, and a turn knows no priority. Long work calls `give_way`
between its parts; within `giving_way` it then waits as that says, and elsewhere nothing happens. Where it
holds nothing that others need it may ask to wait until nobody else has work for a while.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["give_way", "giving_way"]

_here = threading.local()


def give_way(*, until_idle: bool = False) -> None:
    """Let others go first, within `giving_way`; `until_idle`: also those who come in a moment."""
    wait = getattr(_here, "wait", None)
    if wait is not None:
        wait(until_idle)


@contextmanager
def giving_way(wait: Callable[[bool], None]) -> Iterator[None]:
    """Have `give_way` call `wait` in this thread, with its `until_idle`."""
    before = getattr(_here, "wait", None)
    _here.wait = wait
    try:
        yield
    finally:
        _here.wait = before
