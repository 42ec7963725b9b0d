"""A ranker's trees as arrays, and as one file that is mapped instead of read.

A mapped file takes no memory of the process' own, and nothing has to be parsed when a release is loaded.
Compiled code checks no index, so the file is taken only where none of them leaves its array. It knows
neither LightGBM's text nor what the trees score.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from infra.arrays import mapped_bytes

__all__ = ["SPARE_LEAVES", "Tables", "map_tables", "write_tables"]

SPARE_LEAVES = 32
"""Leaves of no tree after the last: a word without a bit, which no true tree has, counts 32 of them."""
_FORM = 1  # of the file; raised with each change of what the arrays mean
_ALIGNED = 64


class Tables(NamedTuple):
    """Numeric conditions by tree (tree t: `starts[t]` to `starts[t + 1]`), leaves, and categories.

    Categories of feature `cat_features[c]`: code x has slot `slots[slot_starts[c] + 1 + x]`, one that is in
    no condition `slots[slot_starts[c]]`; `cat_words[slot, t]` are the leaves of tree t that its conditions on
    the feature leave. `leaves` ends with `SPARE_LEAVES` of no tree.
    """

    starts: NDArray[np.int32]
    features: NDArray[np.int32]
    thresholds: NDArray[np.float32]
    nan_right: NDArray[np.bool_]
    words: NDArray[np.uint32]
    leaf_starts: NDArray[np.int32]
    leaves: NDArray[np.float64]
    cat_features: NDArray[np.int32]
    slot_starts: NDArray[np.int32]
    slots: NDArray[np.int32]
    cat_words: NDArray[np.uint32]


_KINDS = {
    "thresholds": np.float32,
    "nan_right": np.bool_,
    "words": np.uint32,
    "leaves": np.float64,
    "cat_words": np.uint32,
}  # the others are int32


def write_tables(path: Path, tables: Tables) -> dict[str, Any]:
    """Write the file; the same tables make the same bytes. Returns what `map_tables` wants to know."""
    parts: list[bytes] = []
    shapes: dict[str, list[int]] = {}
    for name, array in tables._asdict().items():
        data = np.ascontiguousarray(array, _KINDS.get(name, np.int32)).tobytes()
        parts += [data, bytes(-len(data) % _ALIGNED)]
        shapes[name] = list(array.shape)
    path.write_bytes(b"".join(parts))
    return {"form": _FORM, "shapes": shapes}


def map_tables(path: Path, about: dict[str, Any], *, width: int) -> Tables | None:
    """The arrays of a file for items of `width` features, read-only; None where it does not hold them.

    That is: it is not there, of another form or too short, or an index in it points to nothing.
    """
    if about.get("form") != _FORM or set(about.get("shapes", ())) != set(Tables._fields):
        return None
    try:
        raw = mapped_bytes(path)
    except (OSError, ValueError):  # ValueError: an empty file
        return None
    arrays, at = {}, 0
    for name in Tables._fields:
        kind, shape = np.dtype(_KINDS.get(name, np.int32)), about["shapes"][name]
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        if len(shape) != (2 if name == "cat_words" else 1) or min(shape) < 0 or at + size > len(raw):
            return None
        arrays[name] = raw[at : at + size].view(kind).reshape(shape)
        at += size + -size % _ALIGNED
    tables = Tables(**arrays)
    return tables if _sound(tables, width) else None


def _sound(t: Tables, width: int) -> bool:
    """Whether compiled code can go through them without leaving an array, whatever the features are."""
    trees = len(t.leaf_starts) - 1
    return (
        trees >= 0
        and len(t.starts) == trees + 1
        and _rising(t.starts, len(t.features), least=0)
        and len(t.features) == len(t.thresholds) == len(t.nan_right) == len(t.words)
        and _within(t.features, width)
        and _rising(t.leaf_starts, len(t.leaves) - SPARE_LEAVES, least=1)
        and _within(t.cat_features, width)
        and len(t.slot_starts) == len(t.cat_features) + 1
        and _rising(t.slot_starts, len(t.slots), least=1)
        and t.cat_words.shape[1] == trees
        and _within(t.slots, len(t.cat_words))
    )


def _rising(starts: NDArray[np.int32], end: int, *, least: int) -> bool:
    """Whether parts begin at 0, have `least` entries or more each, and end at `end`."""
    steps = np.diff(starts.astype(np.int64))
    return int(starts[0]) == 0 and int(starts[-1]) == end and bool((steps >= least).all())


def _within(indexes: NDArray[np.int32], n: int) -> bool:
    return not len(indexes) or (int(indexes.min()) >= 0 and int(indexes.max()) < n)
