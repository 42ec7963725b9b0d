"""Plain numbers between NumPy and Arrow, as views of the same memory.

Arrow's own conversions let go of the interpreter, one after the other for a few microseconds each. In a
thread beside requests each of them has to wait for it again, and takes it from a request: twenty columns of a
small batch cost twenty such changes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["arrow_of", "numpy_of"]

_TYPES: dict[pa.DataType, np.dtype[Any]] = {
    pa.int8(): np.dtype(np.int8),
    pa.int16(): np.dtype(np.int16),
    pa.int32(): np.dtype(np.int32),
    pa.int64(): np.dtype(np.int64),
    pa.float32(): np.dtype(np.float32),
    pa.float64(): np.dtype(np.float64),
}


def arrow_of(values: object, kind: pa.DataType) -> pa.Array | None:
    """An array of NumPy's as one of Arrow's, without nulls; None for what is no plain array of that type."""
    if not isinstance(values, np.ndarray) or values.dtype != _TYPES.get(kind) or values.ndim != 1:
        return None
    if not values.flags.c_contiguous:
        return None
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)], null_count=0)


def numpy_of(column: pa.ChunkedArray) -> NDArray[Any]:
    """A column of numbers as an array [n], read-only where it is the column's own memory.

    Raises ArrowInvalid for nulls that the type cannot tell, as `to_numpy` does.
    """
    dtype = _TYPES.get(column.type)
    if column.num_chunks != 1 or dtype is None:
        return np.asarray(column.to_numpy())
    chunk = column.chunk(0)
    held = chunk.buffers()[1]
    if held is None or chunk.null_count:
        return np.asarray(column.to_numpy())
    return np.frombuffer(held, dtype, len(chunk), chunk.offset * dtype.itemsize)
