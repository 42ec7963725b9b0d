"""Where on a horizon a study looks: one short stretch of queries in each of equally long slots.

Stretches lie at different hours, so that a study is of no hour of the day in particular. It knows
times only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infra.clock import HOUR_US
from infra.errors import DataError

__all__ = ["STRETCH_US", "Stretch", "stretches"]

STRETCH_US = 3 * HOUR_US  # how long a stretch is, where it holds enough queries
_GOLDEN = 0.618033988749895  # multiples of it, less their whole part, spread evenly over [0, 1)


@dataclass(frozen=True)
class Stretch:
    """[start_us, end_us), and the queries taken from it: numbers int64 [q], by time."""

    start_us: int
    end_us: int
    at: NDArray[np.int64]


def stretches(
    times_us: NDArray[np.int64], *, since_us: int, until_us: int, slices: int, queries: int, seed: int
) -> list[Stretch]:
    """One stretch of each of `slices` slots of [since_us, until_us), with at most `queries` queries.

    `times_us` int64 [n]: of all queries, ascending. A stretch starts anywhere in its slot, as often
    in a busy hour as there are queries in it, and is longer than `STRETCH_US` only where it takes longer
    to meet `queries` queries; of more, a sample is taken. Raises DataError for a slot without any.
    """
    edges = np.linspace(since_us, until_us, slices + 1).astype(np.int64)
    bounds = np.searchsorted(times_us, edges)
    offset = np.random.default_rng((seed, 11)).random()
    found = []
    for number, (a, b) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
        if a == b:
            hours = (edges[number + 1] - edges[number]) / HOUR_US
            raise DataError(
                f"slice {number + 1} of {slices} is empty: no query in {hours:.1f} h; "
                "ask for fewer slices, or for a shorter horizon that is all busy"
            )
        many = min(queries, b - a)
        first = a + int((offset + number * _GOLDEN) % 1.0 * (b - a - many + 1))
        last = max(first + many, int(np.searchsorted(times_us[:b], times_us[first] + STRETCH_US)))
        at = np.arange(first, last)
        if len(at) > many:
            at = np.sort(np.random.default_rng((seed, 12, number)).choice(at, many, replace=False))
        found.append(Stretch(int(times_us[first]), int(times_us[last - 1]) + 1, at))
    return found
