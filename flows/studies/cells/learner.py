"""What a study retrains: one component, fitted from a panel and scored on its slices.

A learner knows no schedule and no cache. What it fits is bytes, so that a cell can be kept on disk,
moved between processes, and scored again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from flows.studies.panels.panel import Panel

__all__ = ["Fit", "Fitted", "Learner"]


@dataclass(frozen=True)
class Fit:
    """One training: when, from what, how. `window_us` None is all there was; `seed` of the training."""

    trained_us: int
    fraction: float = 1.0
    window_us: int | None = None
    seed: int = 7


@dataclass(frozen=True)
class Fitted:
    """What a training made, and what it cost: CPU-seconds of its process."""

    model: bytes
    cpu_s: float
    rows: int
    metrics: dict[str, float] = field(default_factory=dict)


class Learner(Protocol):
    """A component under study."""

    @property
    def name(self) -> str:
        """The component."""
        ...

    @property
    def key(self) -> str:
        """Hash of its configuration and version: equal keys, equal models."""
        ...

    def fit(self, panel: Panel, fit: Fit, *, parent: bytes | None = None) -> Fitted:
        """Train; `parent`: a warm start from this model. Raises DataError where there is nothing to learn."""
        ...

    def score(self, panel: Panel, model: bytes, at: int, *, frozen: bool = False) -> NDArray[np.float64]:
        """NDCG@10 of each query of slice `at`: float64 [g]; `frozen`: by the state of the horizon's start."""
        ...

    def candidates(self, panel: Panel, model: bytes, at: int, *, frozen: bool = False) -> NDArray[np.float64]:
        """The score of each candidate of slice `at`: float64 [n]."""
        ...
