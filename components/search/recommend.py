"""Whom to recommend what: the user's vector, and what is never offered.

The vector is the recency-weighted mean of what the session and the user clicked, as
`models.candidate_features.candidate_scores` defines it for training too. It knows rows and
vectors, not how they are searched.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data.state import State
from models.candidate_features import Context, candidate_scores

__all__ = ["excluded", "user_vector"]


def user_vector(state: State, context: Context, vectors: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """The asking user's unit vector, float32 [dim]; None where nothing is known of him.

    `vectors`: float32 [rows, dim] by state row, zero where unknown.
    """
    nothing = np.zeros(vectors.shape[1], np.float32)
    _, _, vector = candidate_scores(state, context, np.empty(0, np.int32), vectors, nothing)
    return vector if vector.any() else None


def excluded(state: State, user_row: int, *, item_row: int = -1) -> NDArray[np.int32]:
    """Rows not to offer: what the user bought lately, and the item that similar ones are sought for."""
    bought = state.bought(user_row)
    return bought if item_row < 0 else np.append(bought, np.int32(item_row))
