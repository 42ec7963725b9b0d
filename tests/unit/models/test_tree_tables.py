"""Tables on the disk: mapped they are the same, and what would lead compiled code astray is not taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.tree_tables import SPARE_LEAVES, Tables, map_tables, write_tables


def tables(**other: Any) -> Tables:
    """Two trees over three features, the last of them a category of two known codes."""
    of = {
        "starts": np.array([0, 2, 3], np.int32),
        "features": np.array([0, 1, 1], np.int32),
        "thresholds": np.array([0.5, -1.0, 2.0], np.float32),
        "nan_right": np.array([True, False, False]),
        "words": np.array([1, 2, 3], np.uint32),
        "leaf_starts": np.array([0, 3, 6], np.int32),
        "leaves": np.arange(6.0 + SPARE_LEAVES),
        "cat_features": np.array([2], np.int32),
        "slot_starts": np.array([0, 4], np.int32),
        "slots": np.array([0, 1, 0, 2], np.int32),
        "cat_words": np.full((3, 2), 7, np.uint32),
    }
    return Tables(**(of | other))


def again(folder: Path, given: Tables, *, width: int = 3, **other: Any) -> Tables | None:
    about = json.loads(json.dumps(write_tables(folder / "tables.bin", given))) | other
    return map_tables(folder / "tables.bin", about, width=width)


def test_mapped_they_are_the_same(tmp_path: Path) -> None:
    found = again(tmp_path, tables())
    assert found is not None
    for one, other in zip(found, tables(), strict=True):
        assert one.dtype == other.dtype
        assert not one.flags.writeable
        np.testing.assert_array_equal(one, other)


def test_a_model_without_categories_and_one_of_a_single_leaf_fit(tmp_path: Path) -> None:
    none: dict[str, Any] = {
        "cat_features": np.zeros(0, np.int32),
        "slot_starts": np.zeros(1, np.int32),
        "slots": np.zeros(0, np.int32),
        "cat_words": np.zeros((0, 2), np.uint32),
    }
    assert again(tmp_path, tables(**none)) is not None
    (tmp_path / "one").mkdir()
    leaf: dict[str, Any] = {
        "starts": np.zeros(2, np.int32),
        "features": np.zeros(0, np.int32),
        "thresholds": np.zeros(0, np.float32),
        "nan_right": np.zeros(0, np.bool_),
        "words": np.zeros(0, np.uint32),
        "leaf_starts": np.array([0, 1], np.int32),
        "leaves": np.zeros(1 + SPARE_LEAVES),
        "cat_words": np.zeros((0, 1), np.uint32),
    }
    assert again(tmp_path / "one", tables(**(none | leaf))) is not None


@pytest.mark.parametrize(
    "other",
    [
        {"features": np.array([0, 3, 1], np.int32)},
        {"features": np.array([0, -1, 1], np.int32)},
        {"starts": np.array([0, 4, 3], np.int32)},
        {"starts": np.array([1, 2, 3], np.int32)},
        {"starts": np.array([0, 2, 9], np.int32)},
        {"starts": np.array([0, 3], np.int32)},
        {"thresholds": np.zeros(2, np.float32)},
        {"leaf_starts": np.array([0, 3, 7], np.int32)},
        {"leaf_starts": np.array([0, 0, 6], np.int32)},
        {"leaves": np.zeros(6)},  # none to spare
        {"cat_features": np.array([3], np.int32)},
        {"slot_starts": np.array([0, 5], np.int32)},
        {"slot_starts": np.array([0], np.int32)},
        {"slots": np.array([0, 1, 3, 2], np.int32)},
        {"cat_words": np.zeros((3, 1), np.uint32)},
        {"cat_words": np.zeros((2, 2), np.uint32)},
    ],
)
def test_an_index_that_points_to_nothing_is_not_taken(tmp_path: Path, other: dict[str, Any]) -> None:
    assert again(tmp_path, tables(**other)) is None


def test_another_form_other_arrays_or_a_short_file_are_not_taken(tmp_path: Path) -> None:
    assert again(tmp_path, tables(), form=99) is None
    assert again(tmp_path, tables(), shapes={"starts": [3]}) is None
    assert again(tmp_path, tables(), width=2) is None
    about = write_tables(tmp_path / "tables.bin", tables())
    whole = (tmp_path / "tables.bin").read_bytes()
    for data in (whole[:-64], b""):
        (tmp_path / "tables.bin").write_bytes(data)
        assert map_tables(tmp_path / "tables.bin", about, width=3) is None
    (tmp_path / "tables.bin").unlink()
    assert map_tables(tmp_path / "tables.bin", about, width=3) is None
