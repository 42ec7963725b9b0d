"""What a shopper narrows a list to: category, price range, in stock; and which rows pass.

Retrieval sees one mask over the state's rows in place of "alive", and where few rows pass it searches all
of them: a narrow filter fills its page. Without a filter nothing here runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from components.search.catalogue import Catalogue
from components.search.retrieve_kernel import passing_mask
from data.shop import Filters
from data.state import State
from infra.errors import InputError

__all__ = ["EXHAUSTIVE", "MAX_CATEGORY", "Passing", "check_filters", "notes_of", "passing"]

EXHAUSTIVE = 10_000  # so many passing rows are searched one by one; of more, the index is asked for more hits
MAX_CATEGORY = 200  # characters
_MOST_TIMES = 16
_MOST = float(np.finfo(np.float32).max)  # of a price


@dataclass(frozen=True)
class Passing:
    """The rows that a filter lets through. `mask` bool [n] by state row; deleted items do not pass."""

    mask: NDArray[np.bool_]

    @cached_property
    def rows(self) -> NDArray[np.int32]:
        """int32, ascending."""
        return np.flatnonzero(self.mask).astype(np.int32)

    @property
    def few(self) -> bool:
        """Whether so few pass that all of them can be looked at."""
        return len(self.rows) <= EXHAUSTIVE

    @property
    def times(self) -> int:
        """How many times the usual hits an index is asked for, so that enough of them pass."""
        return min(_MOST_TIMES, 1 + math.ceil(len(self.mask) / max(1, len(self.rows))))


def check_filters(filters: Filters) -> None:
    """Refuse what no item can pass by mistake. Raises InputError."""
    if len(filters.category) > MAX_CATEGORY:
        raise InputError(
            f"a category of {len(filters.category)} characters; expected at most {MAX_CATEGORY}: shorten it"
        )
    for name, price in (("price_min", filters.price_min), ("price_max", filters.price_max)):
        if price is not None and not (math.isfinite(price) and price >= 0):
            raise InputError(f"{name} is {price}; expected a number from 0 up: correct {name}")
    low, high = filters.price_min, filters.price_max
    if low is not None and high is not None and low > high:
        raise InputError(
            f"price_min {low:g} is above price_max {high:g}; expected price_min at most price_max: swap them"
        )


def passing(filters: Filters, state: State, catalogue: Catalogue, n: int) -> Passing:
    """Which of the first `n` rows pass.

    A category is one or a department, by its words (normalised); an item without a price passes no price
    range.
    """
    wanted = catalogue.label(filters.category) if filters.category else -1
    if filters.category and wanted < 0:
        return Passing(np.zeros(n, np.bool_))
    priced = filters.price_min is not None or filters.price_max is not None
    low = np.float32(min(filters.price_min or 0.0, _MOST))
    high = np.float32(min(np.inf if filters.price_max is None else filters.price_max, _MOST))
    mask = passing_mask(
        state.items.alive[:n],
        state.items.stock,
        state.items.price,
        catalogue.category_label,
        catalogue.department_label,
        wanted,
        priced,
        low,
        high,
        filters.in_stock,
    )
    return Passing(mask)


def notes_of(filters: Filters, catalogue: Catalogue, found: int) -> tuple[str, ...]:
    """What to tell a shopper whose filter left nothing: one sentence, or none."""
    if found:
        return ()
    if filters.category and catalogue.label(filters.category) < 0:
        return (f"no item has the category or department {filters.category!r}",)
    return ("no item passes the filters",)
