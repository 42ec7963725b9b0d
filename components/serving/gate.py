"""Lets requests read the state while nobody writes it, without making them wait for each other.

Readers are requests, shadow checks and the building of a view; the writer is the one thread that
applies events, in short pieces. Readers go first: the writer waits for a moment without any.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

__all__ = ["Gate"]


class _Reading:
    """`with` of a reader; holds nothing of its own, so that one serves all threads."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def __enter__(self) -> None:
        gate = self._gate
        with gate.lock:
            while gate.writing:
                gate.freed.wait()
            gate.readers += 1

    def __exit__(self, *_: object) -> None:
        gate = self._gate
        with gate.lock:
            gate.readers -= 1
            if gate.writers_wait and not gate.readers:
                gate.freed.notify_all()


class _Serving(_Reading):
    """The same for a request that somebody waits for."""

    def __enter__(self) -> None:
        super().__enter__()
        self._gate.serving[0] = 1

    def __exit__(self, *told: object) -> None:
        self._gate.serving[0] = 0
        super().__exit__(*told)


class Gate:
    """A lock of many readers or one writer; readers have precedence. Not reentrant for the writer."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.freed = threading.Condition(self.lock)
        self.readers = 0
        self.writers_wait = 0
        self.writing = False
        self.serving: NDArray[np.int64] = np.zeros(1, np.int64)
        """1 while a request is being answered; an array, so that compiled code can look at it. Of one thread
        that answers; with several a moment may be missed."""
        self._reading, self._serving = _Reading(self), _Serving(self)

    def read(self) -> _Reading:
        """Hold off the writer."""
        return self._reading

    def serve(self) -> _Reading:
        """Hold off the writer to answer a request."""
        return self._serving

    @contextmanager
    def write(self) -> Iterator[None]:
        """Be alone."""
        with self.lock:
            self.writers_wait += 1
            try:
                while self.writing or self.readers:
                    self.freed.wait()
            finally:
                self.writers_wait -= 1
            self.writing = True
        try:
            yield
        finally:
            with self.lock:
                self.writing = False
                self.freed.notify_all()
