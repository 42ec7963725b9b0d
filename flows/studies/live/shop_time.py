"""The shop clock of a live study: fast between events, at the wall's own pace while a run is under way.

So training and publishing are charged at their real cost, however fast the days go by otherwise. Each
stretch has one rate; the list of them turns wall times into shop times afterwards. It knows no policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.clock import ScaledClock, wall_us

__all__ = ["ShopTime", "rate_at", "shop_of"]


@dataclass
class ShopTime:
    """The clock of a home while a study sets its pace. `pieces`: every stretch so far, oldest first."""

    path: Path
    pieces: list[ScaledClock] = field(default_factory=list)

    def go(self, rate: float, *, until_us: int | None = None, at_us: int | None = None) -> ScaledClock:
        """From now on (or from `at_us`) shop time goes at `rate`, and stands once it is `until_us`."""
        wall = wall_us()
        shop = self.now_us(wall) if at_us is None else at_us
        piece = ScaledClock(shop, wall, rate, until_us)
        piece.save(self.path)
        self.pieces.append(piece)
        return piece

    def now_us(self, at_wall_us: int | None = None) -> int:
        """Shop time now, or at a wall time of the last stretch."""
        last = self.pieces[-1]
        wall = wall_us() if at_wall_us is None else at_wall_us
        now = last.shop_start_us + int((wall - last.wall_start_us) * last.rate)
        return now if last.shop_end_us is None else min(now, last.shop_end_us)

    def to_json(self) -> list[dict[str, Any]]:
        """The stretches as plain JSON."""
        return [asdict(p) for p in self.pieces]


def shop_of(pieces: Sequence[ScaledClock], at_wall_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """Shop times of wall times int64 [n]; before the first stretch its beginning."""
    which, first, begins, rates, ends = _of(pieces, at_wall_us)
    shop = first[which] + ((at_wall_us - begins[which]) * rates[which]).astype(np.int64)
    return np.asarray(np.clip(shop, first[0], ends[which]), np.int64)


def rate_at(pieces: Sequence[ScaledClock], at_wall_us: NDArray[np.int64]) -> NDArray[np.float64]:
    """Shop seconds a wall second at wall times: float64 [n], 0 where the clock stood."""
    which, first, begins, rates, ends = _of(pieces, at_wall_us)
    stood = first[which] + (at_wall_us - begins[which]) * rates[which] > ends[which]
    return np.where(stood, 0.0, rates[which])


def _of(pieces: Sequence[ScaledClock], at_wall_us: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
    begins = np.array([p.wall_start_us for p in pieces], np.int64)
    which = np.maximum(np.searchsorted(begins, at_wall_us, side="right") - 1, 0)
    far = 1 << 62
    return (
        which,
        np.array([p.shop_start_us for p in pieces], np.int64),
        begins,
        np.array([p.rate for p in pieces]),
        np.array([far if p.shop_end_us is None else p.shop_end_us for p in pieces], np.int64),
    )
