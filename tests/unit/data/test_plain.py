"""Plain numbers go between NumPy and Arrow as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.plain import arrow_of, numpy_of


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("n", [0, 1, 1_000])
def test_there_and_back_in_the_same_memory(dtype: Any, n: int) -> None:
    values = np.arange(n).astype(dtype)
    array = arrow_of(values, pa.from_numpy_dtype(dtype))
    assert array is not None
    array.validate(full=True)
    assert array.to_pylist() == values.tolist()
    back = numpy_of(pa.chunked_array([array]))
    assert back.dtype == values.dtype
    np.testing.assert_array_equal(back, values)
    assert n == 0 or np.shares_memory(back, values)


def test_what_is_not_plain_is_left_to_arrow() -> None:
    assert arrow_of([1, 2], pa.int64()) is None
    assert arrow_of(np.arange(3), pa.int8()) is None
    assert arrow_of(np.arange(6)[::2], pa.int64()) is None
    assert arrow_of(np.zeros((2, 2), np.int64), pa.int64()) is None
    assert arrow_of(np.array(["a"]), pa.string()) is None


def test_slices_chunks_and_nulls_of_a_column() -> None:
    whole = pa.chunked_array([pa.array(range(10), pa.int32())])
    assert numpy_of(whole.slice(3, 4)).tolist() == [3, 4, 5, 6]
    two = pa.chunked_array([pa.array([1], pa.int64()), pa.array([2], pa.int64())])
    assert numpy_of(two).tolist() == [1, 2]
    assert numpy_of(pa.chunked_array([], pa.int64())).tolist() == []
    holed = numpy_of(pa.chunked_array([pa.array([1.5, None], pa.float32())]))
    assert holed[0] == 1.5
    assert np.isnan(holed[1])
    assert numpy_of(pa.chunked_array([pa.array([True, False])])).tolist() == [True, False]
