"""What shoppers do with a page: examine by position, click by relevance, then cart and order.

Random numbers are a function of (seed, request, item): two shops that show the same item to the
same request meet the same shopper. It knows relevance as a number, not where it comes from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.schema import CART, CLICK, ORDER
from data.world.config import PAGE_SIZE
from data.world.draws import hashed_uniform, keyed
from infra.clock import SECOND_US

__all__ = ["PLACEBO_RELEVANCE", "Reaction", "examination", "react"]

PLACEBO_RELEVANCE = 0.12  # what every item is worth to shoppers whose clicks tell nothing


@dataclass(frozen=True)
class Reaction:
    """What came of the shown items [n], in the order shown; times int64 us, 0 where it did not happen."""

    item_ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    clicked: NDArray[np.bool_]
    carted: NDArray[np.bool_]
    ordered: NDArray[np.bool_]
    click_us: NDArray[np.int64]
    cart_us: NDArray[np.int64]
    order_us: NDArray[np.int64]

    def rows(self) -> tuple[NDArray[np.int8], NDArray[np.int64], NDArray[np.int64]]:
        """(kind, index into the shown items, time_us) of each click, cart and order."""
        found = [np.flatnonzero(mask) for mask in (self.clicked, self.carted, self.ordered)]
        kinds = np.repeat(np.array([CLICK, CART, ORDER], np.int8), [len(f) for f in found])
        times = [t[f] for t, f in zip((self.click_us, self.cart_us, self.order_us), found, strict=True)]
        return kinds, np.concatenate(found), np.concatenate(times)


def examination(positions: NDArray[np.int64]) -> NDArray[np.float64]:
    """Probability that a shopper looks at a position (0-based over all pages): float64 [n].

    1 / (1 + 0.12 p) for place p of the page, times 0.98 a page that was turned.
    """
    page, place = np.divmod(positions, PAGE_SIZE)
    return np.asarray(0.98**page / (1.0 + 0.12 * place))


def react(
    seed: int,
    request_id: NDArray[np.int64] | int,
    time_us: NDArray[np.int64] | int,
    item_ids: NDArray[np.int64],
    positions: NDArray[np.int64],
    relevances: NDArray[np.float64],
    price_levels: NDArray[np.float64],
    *,
    placebo: bool = False,
) -> Reaction:
    """What shoppers do; `request_id` and `time_us` are each item's, or one for all.

    Click: examination x relevance. Cart after a click: 0.2 + 0.4 relevance. Order after a cart:
    logistic(0.2 - 0.5 price level). With `placebo`, all three depend on the position alone.
    """
    if placebo:
        h = keyed(seed, "placebo", request_id, positions)
        relevances = np.full(len(item_ids), PLACEBO_RELEVANCE)
        price_levels = np.zeros(len(item_ids))
    else:
        h = keyed(seed, "reaction", request_id, item_ids)
    clicked = hashed_uniform(h) < examination(positions) * relevances
    n = len(item_ids)
    carted, ordered = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    click_us, cart_us, order_us = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
    at = np.flatnonzero(clicked)
    if len(at):
        h, place = h[at], positions[at] % PAGE_SIZE
        start: NDArray[np.int64] = np.broadcast_to(np.asarray(time_us, dtype=np.int64), (n,))[at]
        click_us[at] = start + _delay(2.0 + 1.5 * place.astype(np.float64), 8.0, h, 11)
        carted[at] = hashed_uniform(h, 1) < 0.2 + 0.4 * relevances[at]
        cart_us[at] = np.where(carted[at], click_us[at] + _delay(5.0, 20.0, h, 12), 0)
        odds = 1.0 / (1.0 + np.exp(0.5 * price_levels[at] - 0.2))
        ordered[at] = carted[at] & (hashed_uniform(h, 2) < odds)
        order_us[at] = np.where(ordered[at], cart_us[at] + _delay(15.0, 90.0, h, 13), 0)
    return Reaction(item_ids, positions, clicked, carted, ordered, click_us, cart_us, order_us)


def _delay(
    least_s: NDArray[np.float64] | float, mean_s: float, h: NDArray[np.uint64], salt: int
) -> NDArray[np.int64]:
    seconds = least_s - mean_s * np.log1p(-hashed_uniform(h, salt))
    return np.asarray((seconds * SECOND_US).astype(np.int64))
