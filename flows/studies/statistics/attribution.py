"""How much of the gain is fresh weights, and how much fresh state: the three arms on every slice.

`frozen`: the horizon-start model on the horizon-start state; `state_fresh`: the same model, the state as
of the query; `full`: a fresh model on fresh state. It sees only their quality by slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flows.studies.statistics.intervals import block_bootstrap, cluster_error, of_draws
from models.metrics import Interval

__all__ = ["Attribution", "arms"]


@dataclass(frozen=True)
class Attribution:
    """The arms, what lies between them, and the shares; all over slices.

    `weights` = full − state_fresh, `state` = state_fresh − frozen, `whole` = full − frozen, `excess` =
    weights − state. The shares of the whole are None where the whole is not above zero beyond chance.
    """

    frozen: Interval
    state_fresh: Interval
    full: Interval
    weights: Interval
    state: Interval
    whole: Interval
    excess: Interval
    weights_share: Interval | None
    state_share: Interval | None

    @property
    def source(self) -> str:
        """Where the gain lies: "weights" or "state" (clearly more), "both", or "neither" (no gain shown)."""
        if self.weights.low > 0 and self.excess.low > 0:
            return "weights"
        if self.state.low > 0 and self.excess.high < 0:
            return "state"
        return "both" if self.whole.low > 0 else "neither"

    def as_dict(self) -> dict[str, Any]:
        """As the study's result has it: `arms`, the two differences and their shares."""
        return {
            "arms": {n: getattr(self, n).as_dict() for n in ("frozen", "state_fresh", "full")},
            "full_minus_state_fresh": self.weights.as_dict(),
            "state_fresh_minus_frozen": self.state.as_dict(),
            "full_minus_frozen": self.whole.as_dict(),
            "weights_share": None if self.weights_share is None else self.weights_share.as_dict(),
            "state_share": None if self.state_share is None else self.state_share.as_dict(),
            "source": self.source,
        }


def arms(
    frozen: ArrayLike,
    state_fresh: ArrayLike,
    full: ArrayLike,
    *,
    queries: Sequence[NDArray[np.float64]] = (),
    clusters: Sequence[NDArray[np.int64]] | None = None,
    block: int | None = None,
    repeats: int = 2_000,
    seed: int = 0,
    worlds: ArrayLike | None = None,
) -> Attribution:
    """Attribute the gain: quality of each arm float64 [s] on the same slices.

    `queries`: of each slice float64 [q, 3] in the order frozen, state_fresh, full, with their `clusters`
    int64 [q]: intervals are then never narrower than the queries alone make them. NaN in any arm leaves
    the slice out. What is frozen grows older with each slice, so that a line over them is no chance.
    """
    x = np.stack([np.asarray(v, np.float64) for v in (frozen, state_fresh, full)], axis=1)
    held = np.isfinite(x).all(1)
    columns = _columns(x[held])
    within = None
    if len(queries):
        kept = np.flatnonzero(held).tolist()
        within = cluster_error(
            [_columns(queries[i]) for i in kept], None if not clusters else [clusters[i] for i in kept]
        )
    if not len(columns):
        no = Interval(np.nan, np.nan, np.nan)
        return Attribution(no, no, no, no, no, no, no, None, None)
    labels = None if worlds is None else np.asarray(worlds)[held]
    draws = block_bootstrap(
        columns,
        block=block,
        repeats=repeats,
        seed=seed,
        worlds=labels,
        within=within,
        trend=np.ones(columns.shape[1], bool),
    )
    mean = columns.mean(0)
    found = [of_draws(mean[k], draws[:, k]) for k in range(columns.shape[1])]
    arm_frozen, arm_fresh, arm_full, weights, state, whole, excess = found
    shares: list[Interval | None] = [None, None]
    if whole.low > 0:
        total = draws[:, 3] + draws[:, 4]
        above = total > 0
        shares = [of_draws(mean[k] / mean[5], draws[above, k] / total[above]) for k in (3, 4)]
    return Attribution(arm_frozen, arm_fresh, arm_full, weights, state, whole, excess, shares[0], shares[1])


def _columns(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """frozen, state_fresh, full, weights, state, whole, excess: float64 [n, 7] of arms [n, 3]."""
    frozen, fresh, full = x.T
    weights, state = full - fresh, fresh - frozen
    return np.stack([frozen, fresh, full, weights, state, weights + state, weights - state], axis=1)
