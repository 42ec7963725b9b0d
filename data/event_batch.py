"""Events as numpy arrays, ready for the fold: strings reduced to keys, upserts kept apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from data.codes import query_key
from data.schema import ITEM_UPSERT, NONE_ID

__all__ = ["Batch", "Rows"]


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
            array: NDArray[Any] = events[name].to_numpy().astype(dtype, copy=False)
            return array

        self.kind = column("kind", np.int8)
        self.event_us = column("event_time", np.int64)
        self.known_us = column("known_time", np.int64)
        self.item_id = column("item_id", np.int64)
        self.user_id = column("user_id", np.int64)
        self.session_id = column("session_id", np.int64)
        self.request_id = column("request_id", np.int64)
        self.position = column("position", np.int16)
        queries = events["query"].combine_chunks().dictionary_encode()
        if isinstance(queries, pa.ChunkedArray):
            queries = queries.combine_chunks()
        keys = np.array([query_key(q) for q in queries.dictionary.to_pylist()] or [0], np.int64)
        self.query_key = keys[queries.indices.to_numpy(zero_copy_only=False)]
        self.changes = np.flatnonzero(self.kind >= ITEM_UPSERT)
        texts = events["payload"].take(pa.array(self.changes)).to_pylist()
        self._payloads = dict(zip(self.changes.tolist(), texts, strict=True))

    def rows_in(self, item_rows: dict[int, int], user_rows: dict[int, int]) -> Rows:
        """The rows of these events in a state whose known rows are given.

        Rows are handed out in order of first upsert (items) or first appearance (users): what
        a fold of these events, cut anywhere, will do too.
        """
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

    def payload(self, i: int) -> dict[str, Any]:
        """The JSON object of the upsert at position i."""
        found = orjson.loads(self._payloads[i] or "{}")
        return found if isinstance(found, dict) else {}


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
