"""What a process that answers requests does once for itself, whoever started it: a replica, or a bench.

It knows neither Ray nor what the engine answers.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.serving.engine import Engine, EngineConfig
from data.sources.fashion_mnist import is_cached, load
from infra.clock import open_clock
from infra.garbage import collect_young_often, freeze
from infra.settings import Home

__all__ = ["cached_photos", "start_engine"]

_YOUNG = 2_000  # new objects at which they are looked through: with 50,000 a request waited 27 ms
_SWITCH_S = 0.002  # for how long a background thread may keep a request waiting for the interpreter


def start_engine(home: str | Path, config: EngineConfig, *, cache: str | None = None) -> Engine:
    """The engine of this process, which has caught up with all journals of the home.

    Requests have the interpreter soon, whatever background threads do, and a collection of garbage walks
    little: not what is loaded by now. `cache`: where fetched photos lie, for photo queries.
    """
    sys.setswitchinterval(_SWITCH_S)
    layout = Home(Path(home))
    engine = Engine(layout, open_clock(layout.clock), config=config, photos=cached_photos(cache))
    engine.start()
    gc.collect()
    freeze()
    gc.set_threshold(_YOUNG)
    collect_young_often()
    return engine


def cached_photos(cache: str | None) -> NDArray[np.uint8] | None:
    """The photos, if they were fetched: without them photo queries are answered as `degraded`."""
    if cache is None or not is_cached(Path(cache)):
        return None
    return load(Path(cache))[0]
