"""Whom to recommend what: the user's vector, and what never to recommend.

A user is the mean of what he clicked last, newer clicks weighing more; the same definition
serves the ranker's user score. It knows rows and vectors, not how they are searched.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data.state import State

__all__ = ["HALF_WEIGHT_CLICKS", "excluded", "user_scores", "user_vector"]

HALF_WEIGHT_CLICKS = 4.0  # a click that many places back counts half


def user_vector(
    vectors: NDArray[np.float32], recent: NDArray[np.int32]
) -> NDArray[np.float32] | None:
    """The unit vector of a user from `recent` rows, newest first: float32 [dim]; None if there is nothing.

    `vectors`: float32 [n, dim] by row, zero where unknown.
    """
    if not len(recent) or not vectors.shape[1]:
        return None
    weights = np.exp2(-np.arange(len(recent), dtype=np.float32) / np.float32(HALF_WEIGHT_CLICKS))
    mean = weights @ vectors[recent]
    norm = float(np.sqrt(mean @ mean))
    return None if norm < 1e-6 else mean / np.float32(norm)


def user_scores(
    vectors: NDArray[np.float32], recent: NDArray[np.int32], rows: NDArray[np.int32]
) -> NDArray[np.float32]:
    """The user's score of each of `rows`: float32 [n], zeros for a user without clicks."""
    user = user_vector(vectors, recent)
    return np.zeros(len(rows), np.float32) if user is None else vectors[rows] @ user


def excluded(state: State, user_row: int, *, item_row: int = -1) -> NDArray[np.int32]:
    """Rows not to offer: what the user bought lately, and the item that similar ones are sought for."""
    bought = state.bought(user_row)
    return bought if item_row < 0 else np.append(bought, np.int32(item_row))
