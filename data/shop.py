"""What shoppers ask and what a shop answers.

The same simulated shoppers drive the pipeline in process, the service over HTTP, and the
logging policy that made the history: each is a Shop.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from data.schema import NONE_ID

__all__ = ["Filters", "Reply", "Request", "Shop"]


@dataclass(frozen=True)
class Filters:
    """What every item of the reply has to be: of a category or department, within prices, in stock."""

    category: str = ""
    price_min: float | None = None
    price_max: float | None = None
    in_stock: bool = False


@dataclass(frozen=True)
class Request:
    """One request. `surface` is of SURFACES; `offset` and `size` select the page; `filters` None: none."""

    surface: str
    time_us: int
    query: str = ""
    photo: int = -1
    item_id: int = NONE_ID
    user_id: int = NONE_ID
    session_id: int = NONE_ID
    request_id: int = NONE_ID
    offset: int = 0
    size: int = 10
    cursor: str = ""
    filters: Filters | None = None


@dataclass(frozen=True)
class Reply:
    """The page: item_ids int64 [n] in order of position; propensity float32 [n] (NaN: not randomised).

    `notes`: sentences for the shopper, such as why a filter leaves nothing.
    """

    request_id: int
    release_id: str
    item_ids: NDArray[np.int64]
    propensity: NDArray[np.float32]
    offset: int = 0
    total: int = 0
    cursor: str = ""
    degraded: tuple[str, ...] = ()
    timings_us: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Shop(Protocol):
    """Anything that answers shoppers."""

    def respond(self, request: Request) -> Reply:
        """The page of items for a request."""
        ...
