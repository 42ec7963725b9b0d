"""Models of hashed words as bytes: what training changed, not the random numbers that it began with.

A table has 32,768 rows, of which a small shop's words use a few thousand; the others are as the seed drew
them, and are drawn again. Should a training begin otherwise, all rows are kept: larger, not wrong.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.text_classifier import TextClassifier

__all__ = ["packed", "started", "unpacked"]


def packed(
    rows: NDArray[np.float32], seed: int, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]
) -> bytes:
    """A table float32 [buckets, dim] with other weights, and what JSON can say of them."""
    from safetensors.numpy import save

    changed = np.flatnonzero((rows != _drawn(seed, *rows.shape)).any(axis=1))
    told = json.dumps({"seed": seed, "shape": rows.shape, **about}).encode()
    held: dict[str, NDArray[Any]] = {
        "about": np.frombuffer(told, np.uint8),
        "at": changed.astype(np.int32),
        "rows": rows[changed],
    }
    return save({**held, **arrays})


def unpacked(model: bytes) -> tuple[NDArray[np.float32], dict[str, NDArray[Any]], dict[str, Any]]:
    """(table float32 [buckets, dim], the other weights, what was said of them)."""
    from safetensors.numpy import load

    arrays = load(model)
    about: dict[str, Any] = json.loads(bytes(arrays.pop("about")))
    rows = _drawn(about["seed"], *about["shape"]).copy()
    rows[arrays.pop("at")] = arrays.pop("rows")
    return rows, arrays, about


@lru_cache(maxsize=1)
def started() -> None:
    """Train on two words: what torch does once a process, three seconds, is no training's cost."""
    TextClassifier.fit(["red", "blue"], ["warm", "cold"], seed=0, epochs=1)


@lru_cache(maxsize=2)
def _drawn(seed: int, buckets: int, dim: int) -> NDArray[np.float32]:
    """What both text models begin with, cold: their generator's first draw."""
    rng = np.random.default_rng(seed)
    return rng.normal(0.0, 1.0 / np.sqrt(dim), (buckets, dim)).astype(np.float32)
