"""Points at which long work lets others go first, if whoever started it wants that.

Threads of one process take turns at the interpreter, and a turn knows no priority. Long work calls `give_way`
between its parts; within `giving_way` it then waits as that says, and elsewhere nothing happens.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["give_way", "giving_way"]

_here = threading.local()


def give_way() -> None:
    """Let others go first, within `giving_way`."""
    wait = getattr(_here, "wait", None)
    if wait is not None:
        wait()


@contextmanager
def giving_way(wait: Callable[[], None]) -> Iterator[None]:
    """Have `give_way` call `wait` in this thread."""
    before = getattr(_here, "wait", None)
    _here.wait = wait
    try:
        yield
    finally:
        _here.wait = before
