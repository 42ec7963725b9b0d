"""Events as numpy arrays, ready for the fold: strings reduced to keys, upserts kept apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from data.codes import query_key
from data.schema import ITEM_UPSERT

__all__ = ["Batch"]


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
        self.position = column("position", np.int16)
        queries = events["query"].combine_chunks().dictionary_encode()
        if isinstance(queries, pa.ChunkedArray):
            queries = queries.combine_chunks()
        keys = np.array([query_key(q) for q in queries.dictionary.to_pylist()] or [0], np.int64)
        self.query_key = keys[queries.indices.to_numpy(zero_copy_only=False)]
        self.changes = np.flatnonzero(self.kind >= ITEM_UPSERT)
        texts = events["payload"].take(pa.array(self.changes)).to_pylist()
        self._payloads = dict(zip(self.changes.tolist(), texts, strict=True))

    def payload(self, i: int) -> dict[str, Any]:
        """The JSON object of the upsert at position i."""
        found = orjson.loads(self._payloads[i] or "{}")
        return found if isinstance(found, dict) else {}
