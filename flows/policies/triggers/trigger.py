"""The protocol of triggers: told of new data, a trigger says whether to fire, and why.

A trigger that is due stays due until it is told `fired`: a run may have to wait for an earlier one. All
that it remembers is plain JSON in `memory`, so that it survives a restart. It knows no component.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Decision", "NewData", "Trigger", "shop_time"]


@dataclass(frozen=True)
class NewData:
    """What became known since a trigger was last informed.

    `rows`, `events` (clicks, carts, orders) and `bytes` of the log; `outcomes`: for each measure of quality
    float64 [n], one a session, in order; `version`: of the component's artifact that is live.
    """

    now_us: int
    rows: int = 0
    events: int = 0
    bytes: int = 0
    outcomes: Mapping[str, NDArray[np.float64]] = field(default_factory=lambda: MappingProxyType({}))
    version: str = ""


@dataclass(frozen=True)
class Decision:
    """Whether to fire now, and the reason in words."""

    fire: bool
    why: str


class Trigger(Protocol):
    """Decides when a component is made anew."""

    memory: dict[str, Any]

    def inform(self, new: NewData) -> Decision:
        """Take new data in, and say whether to fire. Times never go back from one call to the next."""
        ...

    def fired(self, now_us: int) -> None:
        """The component is being made anew: begin to wait again."""
        ...

    def next_us(self) -> int | None:
        """The shop time of the next firing; None where that is not known, or nothing was informed yet."""
        ...


def shop_time(us: int) -> str:
    """A shop time in words, UTC."""
    return f"{datetime.datetime.fromtimestamp(us / 1e6, datetime.UTC):%Y-%m-%d %H:%M:%S}"
