"""Events as numpy arrays, ready for the fold: strings reduced to keys, upserts kept apart."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.codes import query_key
from data.payloads import object_of
from data.plain import numpy_of
from data.schema import ITEM_UPSERT, NONE_ID

__all__ = ["Batch", "Rows"]

_SMALL = 512  # up to here a loop over plain integers is faster than sorting arrays
_known_key = lru_cache(maxsize=8_192)(query_key)


@dataclass(frozen=True)
class Rows:
    """Which rows of a state the batch's events are about, those included that they will make.

    `item_row`, `user_row` int32 [n] (-1: no such item or user in state and batch); `new_users` int64
    ids in order of first appearance, `new_users_at` int64 their first positions.
    """

    item_row: NDArray[np.int32]
    user_row: NDArray[np.int32]
    new_users: NDArray[np.int64]
    new_users_at: NDArray[np.int64]


class Batch:
    """Columns of an event table as numpy arrays, strings reduced to keys."""

    def __init__(self, events: pa.Table) -> None:
        def column(name: str, dtype: Any) -> NDArray[Any]:
            # Arrow gives its own memory or a copy, as chunks fall: compiled code takes these for two types.
            array: NDArray[Any] = numpy_of(events[name]).astype(dtype, copy=False).view()
            array.flags.writeable = False
            return array

        self.kind = column("kind", np.int8)
        self.event_us = column("event_time", np.int64)
        self.known_us = column("known_time", np.int64)
        self.item_id = column("item_id", np.int64)
        self.user_id = column("user_id", np.int64)
        self.session_id = column("session_id", np.int64)
        self.request_id = column("request_id", np.int64)
        self.position = column("position", np.int16)
        self.query_key = _query_keys(events["query"])
        self.changes = np.flatnonzero(self.kind >= ITEM_UPSERT)
        self._payloads: dict[int, str] = {}
        if len(self.changes):
            texts = events["payload"].take(pa.array(self.changes)).to_pylist()
            self._payloads = dict(zip(self.changes.tolist(), texts, strict=True))

    def rows_in(self, item_rows: dict[int, int], user_rows: dict[int, int]) -> Rows:
        """The rows of these events in a state whose known rows are given.

        Rows are handed out in order of first upsert (items) or first appearance (users): what
        a fold of these events, cut anywhere, will do too.
        """
        if len(self.kind) <= _SMALL:
            return self._few_rows_in(item_rows, user_rows)
        upserts = self.changes[self.kind[self.changes] == ITEM_UPSERT]
        new_items = _first_seen(self.item_id[upserts], item_rows)[0]
        new_users, at = _first_seen(self.user_id, user_rows)
        held = new_users != NONE_ID
        new_users, at = new_users[held], at[held]
        return Rows(
            _rows(self.item_id, item_rows, new_items),
            _rows(self.user_id, user_rows, new_users),
            new_users,
            at,
        )

    def _few_rows_in(self, item_rows: dict[int, int], user_rows: dict[int, int]) -> Rows:
        items, users = self.item_id.tolist(), self.user_id.tolist()
        new_items: dict[int, int] = {}
        for i in self.changes.tolist():
            if self.kind[i] == ITEM_UPSERT and items[i] not in item_rows:
                new_items.setdefault(items[i], len(item_rows) + len(new_items))
        new_users: dict[int, int] = {}
        at = []
        for i, user in enumerate(users):
            if user not in user_rows and user not in new_users and user != NONE_ID:
                new_users[user] = len(user_rows) + len(new_users)
                at.append(i)
        item_of, user_of = item_rows.get, user_rows.get
        if new_items:
            of_item = [item_of(i, new_items.get(i, -1)) for i in items]
        else:
            of_item = [item_of(i, -1) for i in items]
        return Rows(
            np.array(of_item, np.int32),
            np.array([user_of(i, new_users.get(i, -1)) for i in users], np.int32),
            np.array(list(new_users), np.int64),
            np.array(at, np.int64),
        )

    def payload(self, i: int) -> dict[str, Any]:
        """The JSON object of the upsert at position i; empty where it cannot be read: ingest lets none in."""
        return object_of(self._payloads[i]) or {}


def _query_keys(queries: pa.ChunkedArray) -> NDArray[np.int64]:
    if len(queries) <= _SMALL:
        return np.array([_known_key(q) for q in queries.to_pylist()], np.int64)
    coded = queries.combine_chunks().dictionary_encode()
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.combine_chunks()
    keys = np.array([query_key(q) for q in coded.dictionary.to_pylist()] or [0], np.int64)
    found: NDArray[np.int64] = keys[coded.indices.to_numpy(zero_copy_only=False)]
    return found


def _first_seen(ids: NDArray[np.int64], known: dict[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids that are not known, in order of first appearance, and where that is."""
    unique, first = np.unique(ids, return_index=True)
    new = np.fromiter((i not in known for i in unique.tolist()), np.bool_, len(unique))
    unique, first = unique[new], first[new]
    order = np.argsort(first)
    return unique[order], first[order].astype(np.int64)


def _rows(ids: NDArray[np.int64], known: dict[int, int], new: NDArray[np.int64]) -> NDArray[np.int32]:
    unique, inverse = np.unique(ids, return_inverse=True)
    to_be = {i: len(known) + k for k, i in enumerate(new.tolist())}
    rows = np.fromiter((known.get(i, to_be.get(i, -1)) for i in unique.tolist()), np.int32, len(unique))
    return rows[inverse.reshape(-1)]
