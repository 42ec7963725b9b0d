"""A hash of a set of events that depends on neither their order nor how they were split.

Each row gives 64 bits: a fixed random combination of its columns (strings by md5), mixed; the
rows' sum is the hash, so that a store adds what is new. The same in every process and version.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data.schema import EVENT_SCHEMA, stable_hash, stable_hashes

__all__ = ["content_hash", "content_sum", "hash_text"]


def content_sum(events: pa.Table) -> int:
    """The sum of the rows' hashes modulo 2^64; all columns of EVENT_SCHEMA count."""
    total = 0
    texts = {f.name: _bits(events[f.name]) for f in EVENT_SCHEMA if pa.types.is_string(f.type)}
    for start in range(0, events.num_rows, 1 << 18):  # what is at hand stays in the cache
        rows = np.zeros(min(1 << 18, events.num_rows - start), np.uint64)
        part = events.slice(start, len(rows))
        for field in EVENT_SCHEMA:
            factor = np.uint64((stable_hash(f"column {field.name}") & (2**64 - 1)) | 1)
            bits = texts.get(field.name)
            bits = _bits(part[field.name]) if bits is None else bits[start : start + len(rows)]
            rows += bits * factor
        total += int(_mix(rows).sum(dtype=np.uint64))
    return total % 2**64


def content_hash(events: pa.Table) -> str:
    """The hash of these events, as the store publishes it for all that it holds."""
    return hash_text(events.num_rows, content_sum(events))


def hash_text(rows: int, total: int) -> str:
    """The hash as text: the number of rows and the sum of their hashes, hexadecimal."""
    return f"{rows:x}-{total % 2**64:016x}"


def _bits(column: Any) -> NDArray[np.uint64]:
    """64 bits a value: uint64 [n]."""
    if pa.types.is_string(column.type):
        coded = pc.dictionary_encode(column).combine_chunks()
        if isinstance(coded, pa.ChunkedArray):
            coded = coded.chunk(0)
        hashes = stable_hashes(coded.dictionary.to_pylist()).view(np.uint64)
        indices: NDArray[np.int32] = coded.indices.to_numpy()
        return hashes[indices]
    values: NDArray[Any] = column.to_numpy()
    if values.dtype == np.float32:
        values = np.where(np.isnan(values), np.float32("nan"), values).view(np.int32)
    return values.astype(np.int64).view(np.uint64)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
