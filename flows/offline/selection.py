"""Which of the published events a training learns from, and how much each counts. It reads nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infra.clock import DAY_US, HOUR_US
from infra.errors import ConfigError

__all__ = ["LABEL_DELAY_US", "Selection"]

LABEL_DELAY_US = HOUR_US // 2  # a request is labelled once its shopper had this long to react


@dataclass(frozen=True)
class Selection:
    """Which of the published events a training learns from, and how much each counts.

    `window_d`: shop days before the watermark (a sliding window), None all (cumulative); `fraction`: of
    the window's sessions, nested; `half_life_d`: age at which a request counts half (exponential
    forgetting), None never; `label_delay_us`: requests of the newest stretch, whose shoppers may still
    react, are left out. Raises ConfigError for what is impossible.
    """

    window_d: float | None = 7.0
    fraction: float = 1.0
    half_life_d: float | None = None
    label_delay_us: int = LABEL_DELAY_US

    def __post_init__(self) -> None:
        for name in ("window_d", "half_life_d"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and np.isfinite(value)):
                raise ConfigError(f"{name} is {value:g}; expected more than 0, or none")
        if not 0 < self.fraction <= 1:
            raise ConfigError(f"fraction is {self.fraction:g}; expected above 0 and at most 1")
        if self.label_delay_us < 0:
            raise ConfigError(f"label_delay_us is {self.label_delay_us}; expected 0 or more")

    def weights(self, known_us: NDArray[np.int64], *, now_us: int) -> NDArray[np.float64]:
        """How much what was known at these times counts at `now_us`: float64 [n] in (0, 1]."""
        if self.half_life_d is None:
            return np.ones(len(known_us))
        age_d = np.maximum(now_us - known_us, 0) / DAY_US
        return np.asarray(np.exp2(-age_d / self.half_life_d), np.float64)
