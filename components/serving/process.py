"""What a process that answers requests does once for itself, whoever started it: a replica, or a bench."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.sources.fashion_mnist import is_cached, load

__all__ = ["cached_photos", "keep_what_is_loaded", "prepare_interpreter"]

_SWITCH_S = 0.0005  # how long a background thread may keep a request waiting for the interpreter


def prepare_interpreter() -> None:
    """Let requests have the interpreter soon, whatever background threads do."""
    sys.setswitchinterval(_SWITCH_S)


def keep_what_is_loaded() -> None:
    """What is loaded now stays: collections need not walk it, nor come often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def cached_photos(cache: str | None) -> NDArray[np.uint8] | None:
    """The photos, if they were fetched: without them photo queries are answered as `degraded`."""
    if cache is None or not is_cached(Path(cache)):
        return None
    return load(Path(cache))[0]
