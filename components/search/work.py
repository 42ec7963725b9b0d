"""What a request is on its way through the stages, and what a stage is.

Each stage fills in its part and relies on those before it. It knows no stage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from components.search.live import Live
from components.search.rank import Ranked
from components.search.request import DeadlinePassed
from components.search.retrieve import Candidates
from components.search.understand import Meaning
from data.schema import NONE_ID
from data.shop import Request

__all__ = ["Stage", "Work", "done", "still_waited_for"]

_Part = TypeVar("_Part")


@dataclass(slots=True)
class Work:
    """A request on its way through the stages; each fills in its part."""

    request: Request
    arrived_ns: int
    live: Live
    deadline_ms: float | None = None
    stated: bool = False  # the deadline is the request's own: nobody waits after it
    upload: NDArray[np.uint8] | None = None
    want_features: bool = False
    request_id: int = NONE_ID
    list_id: int = NONE_ID  # of the request that the list is, or was, made for; it seeds exploration
    offset: int = 0
    key: tuple[Any, ...] = ()
    photo: NDArray[np.uint8] | None = None
    meaning: Meaning | None = None
    candidates: Candidates | None = None
    ranked: Ranked | None = None
    degraded: tuple[str, ...] = ()
    positions: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))
    hits: bytes = b"[]"


@dataclass(frozen=True)
class Stage:
    """One step of the path. `kind` is `ai` where learned models do the work, else `non_ai`."""

    name: str
    kind: str
    call: Callable[[Work], None]


def still_waited_for(work: Work, now_ns: int) -> None:
    """Raise DeadlinePassed where the deadline is over."""
    spent_ms = (now_ns - work.arrived_ns) / 1e6
    if work.deadline_ms is not None and spent_ms > work.deadline_ms:
        raise DeadlinePassed(
            f"{spent_ms:.0f} ms spent; expected an answer within the deadline of {work.deadline_ms:.0f} ms; "
            "give it more time, or ask again when there is less to do"
        )


def done(part: _Part | None) -> _Part:
    """A part that an earlier stage has filled in."""
    assert part is not None, "a stage ran before the one that it needs"
    return part
