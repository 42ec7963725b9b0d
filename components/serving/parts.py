"""One stage of the path on a state and a release of its own, and how a request travels to it.

Everything that each of them has of its own (release, view, state) stays where it is: only its name is
packed. It knows neither HTTP nor Ray.
"""

from __future__ import annotations

import io
import pickle
import time
from typing import Any

from components.search.live import Live, ReleaseView
from components.search.work import Work
from components.serving.engine import Engine, EngineConfig
from components.serving.process import start_engine
from data.state import State
from models.release import Release

__all__ = ["PARTS", "StagePart", "pack", "unpack"]

PARTS = {"understand": "meaning", "retrieve": "candidates", "rank": "ranked"}
"""What each stage that runs elsewhere fills in of a `Work`."""

_EVERYWHERE: tuple[type, ...] = (Release, ReleaseView, Live, State)


class _Packer(pickle.Pickler):
    """Leaves out what every deployment has of its own: only its name travels."""

    def persistent_id(self, obj: Any) -> str | None:
        return type(obj).__name__ if isinstance(obj, _EVERYWHERE) else None


class _Unpacker(pickle.Unpickler):
    def __init__(self, data: bytes, engine: Engine) -> None:
        super().__init__(io.BytesIO(data))
        live = engine.live
        assert live is not None, "no release is live"
        view = live.view
        self._here = {
            "Release": live.release,
            "ReleaseView": view,
            "Live": view.live,
            "State": live.pipeline.state,
        }

    def persistent_load(self, pid: Any) -> Any:
        return self._here[pid]


def pack(thing: Any) -> bytes:
    """A work or a part of one, to travel between deployments."""
    out = io.BytesIO()
    _Packer(out, protocol=5).dump(thing)
    return out.getvalue()


def unpack(data: bytes, engine: Engine) -> Any:
    """What `pack` gave, on the release and the state of the engine that is here."""
    return _Unpacker(data, engine).load()


class StagePart:
    """One stage of the path, on a state and a release of its own."""

    def __init__(self, home: str, cache: str | None, stage: str) -> None:
        self.engine = start_engine(home, EngineConfig(writer=f"split-{stage}"), cache=cache)
        live = self.engine.live
        assert live is not None, "no release is live"
        self._call = {s.name: s.call for s in live.pipeline.stages}[stage]
        self._part = PARTS[stage]

    async def run(self, parcel: bytes) -> bytes:
        """The work's next part, microseconds it took, and what it left out."""
        work: Work = unpack(parcel, self.engine)
        began = time.perf_counter_ns()
        with self.engine.gate.read():
            self._call(work)
        took_us = (time.perf_counter_ns() - began) // 1_000
        return pack((getattr(work, self._part), took_us, work.degraded))
