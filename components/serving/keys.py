"""Which client events were accepted lately, so that a repeat is harmless. Bounded; not thread-safe."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

__all__ = ["Acknowledged", "RecentKeys"]


class RecentKeys:
    """The last `capacity` event ids that carried a key, with their future until they are durable.

    Older repeats, and those after a restart, are journalled again and dropped by ingest, which
    knows every event_id.
    """

    def __init__(self, capacity: int = 200_000) -> None:
        self._capacity = capacity
        self._keys: OrderedDict[int, Future[int] | None] = OrderedDict()

    def unseen(self, keys: Sequence[int | None]) -> tuple[list[int], list[Future[int]]]:
        """Indices of those without a key or not seen before, and what the repeats must wait for."""
        keep: list[int] = []
        waits: list[Future[int]] = []
        within: set[int] = set()
        for i, key in enumerate(keys):
            if key is None:
                keep.append(i)
            elif key in self._keys:
                pending = self._keys[key]
                if pending is not None:
                    waits.append(pending)
            elif key not in within:
                keep.append(i)
                within.add(key)
        return keep, waits

    def remember(self, key: int, future: Future[int]) -> None:
        """Take a key as accepted, unless its future fails."""
        self._keys[key] = future
        if len(self._keys) > self._capacity:
            self._keys.popitem(last=False)

        def settled(done: Future[int]) -> None:
            if done.exception() is not None:
                self._keys.pop(key, None)
            elif key in self._keys:
                self._keys[key] = None

        future.add_done_callback(settled)


@dataclass(frozen=True)
class Acknowledged:
    """Events on their way to the disk: acknowledged once all of `futures` are done."""

    rows: int
    duplicates: int
    futures: tuple[Future[int], ...]

    def wait(self, timeout_s: float = 30.0) -> int:
        """Wait until all is durable; the number of rows. Raises OSError if it cannot be written."""
        for future in self.futures:
            future.result(timeout_s)
        return self.rows
