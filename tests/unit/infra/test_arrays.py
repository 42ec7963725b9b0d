"""Mapped arrays are what NumPy wrote, and leave no garbage."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from infra.arrays import mapped


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.int64),
        np.arange(12, dtype=np.float32).reshape(3, 4),
        np.asfortranarray(np.arange(12, dtype=np.float64).reshape(3, 4)),
        np.zeros((0, 4), np.int8),
        np.zeros(0, np.uint64),
        np.array(7, np.int32),
        np.array([True, False]),
        np.array(["a", "bc"]),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_it_is_what_numpy_saved(tmp_path: Path, array: NDArray[Any]) -> None:
    np.save(tmp_path / "a.npy", array)
    found = mapped(tmp_path / "a.npy")
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(found, array)
    assert found.flags.f_contiguous == array.flags.f_contiguous
    with pytest.raises(ValueError, match="read-only"):
        found[...] = 0


@pytest.mark.parametrize("damage", ["empty", "short", "long header", "text", "objects", "cut"])
def test_another_file_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.npy"
    if damage == "objects":
        np.save(path, np.array([{}], object), allow_pickle=True)
    else:
        np.save(path, np.arange(1_000))
    whole = path.read_bytes()
    if damage == "cut":
        path.write_bytes(whole[:-1])
    elif damage != "objects":
        path.write_bytes(
            {"empty": b"", "short": whole[:9], "long header": whole[:60], "text": b"x" * 99}[damage]
        )
    with pytest.raises(ValueError, match=r"npy|empty"):
        mapped(path)


def test_it_leaves_no_garbage(tmp_path: Path) -> None:
    """Less than one object a call: others in this process may leave some meanwhile."""
    np.save(tmp_path / "a.npy", np.arange(1_000).reshape(10, 100))
    calls = 200
    gc.collect()
    gc.disable()
    try:
        for _ in range(calls):
            mapped(tmp_path / "a.npy")
        assert gc.collect() < calls, "a circle or more a call"
    finally:
        gc.enable()
