"""Ranked lists kept for page turns: bounded, shared by the pipelines of a replica.

A turned page comes of the list that the first page came of, whatever release is live by then.
It knows keys and lists, not how they are made.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace
from typing import Any

from components.search.rank import Ranked
from data.schema import NONE_ID
from infra.errors import ConfigError

__all__ = ["PageCache"]


class PageCache:
    """The last `capacity` lists, by request and by what was asked in which session; thread-safe.

    A list of 200 candidates takes about 10 kB (features are not kept).
    """

    def __init__(self, capacity: int = 4_096) -> None:
        if capacity < 1:
            raise ConfigError(f"a page cache of {capacity} lists; expected at least 1")
        self._capacity = capacity
        self._lists: OrderedDict[int, Ranked] = OrderedDict()
        self._newest: dict[tuple[Any, ...], int] = {}
        self._lock = threading.Lock()
        self.hits = self.misses = 0  # turned pages whose list was there, and was not

    def __len__(self) -> int:
        return len(self._lists)

    def put(self, ranked: Ranked) -> None:
        """Keep a list, at the cost of the one that was used longest ago."""
        kept = ranked if ranked.features is None else replace(ranked, features=None)
        with self._lock:
            self._lists[ranked.request_id] = kept
            self._lists.move_to_end(ranked.request_id)
            self._newest[ranked.key] = ranked.request_id
            while len(self._lists) > self._capacity:
                gone, old = self._lists.popitem(last=False)
                if self._newest.get(old.key) == gone:
                    del self._newest[old.key]

    def by_request(self, request_id: int) -> Ranked | None:
        """The list that the request got."""
        with self._lock:
            return self._used(request_id)

    def by_key(self, key: tuple[Any, ...]) -> Ranked | None:
        """The newest list of what `key` says was asked, in one session."""
        with self._lock:
            request_id = self._newest.get(key)
            return self._used(NONE_ID if request_id is None else request_id)

    def _used(self, request_id: int) -> Ranked | None:
        found = self._lists.get(request_id)
        if found is not None:
            self._lists.move_to_end(request_id)
            self.hits += 1
        else:
            self.misses += 1
        return found
