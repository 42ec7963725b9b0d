"""The one definition of what the ranker sees of a candidate.

Called by the trainer (on replayed state) and by the rank stage (on live state): the same
compiled code, so batch and online features are equal bit for bit.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from data.state import State
from models.candidate_kernel import features_into, match_into, user_scores_into

__all__ = [
    "CATEGORICAL",
    "FEATURES",
    "FEATURE_SCHEMA",
    "Context",
    "candidate_features",
    "candidate_scores",
    "text_match",
]

FEATURES = (
    "text_match", "query_tokens", "vector_score", "user_score", "category_prob",
    "log_price", "relative_price", "discount", "rating", "log_rating_count", "log_age_days",
    "category", "brand", "colour", "material", "item_gender",
    "log_exposure_1d", "log_exposure_7d", "click_rate_1d", "click_rate_7d", "cart_rate_7d", "order_rate_7d",
    "query_click_rate", "log_query_exposure",
    "user_category", "user_brand", "user_colour", "user_material", "price_to_user", "log_user_weight",
    "user_gender", "user_age", "purchasing_power", "log_user_clicks",
    "session_category", "session_brand", "session_colour", "session_material", "session_item",
    "session_clicks", "surface", "hour",
)  # fmt: skip
CATEGORICAL = tuple(
    FEATURES.index(n) for n in ("category", "brand", "colour", "material", "item_gender", "surface")
)
_VERSION = 1  # raise when the meaning of a feature changes
FEATURE_SCHEMA = hashlib.sha256(f"{_VERSION} {FEATURES} {CATEGORICAL}".encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Context:
    """What is known of a request, beside its candidates.

    `now_us`: shop time; `user_row` and `session_id`: -1 none; `surface`: index into SURFACES;
    `query_tokens`: uint32 [q] token hashes; `query_key`: key of the normalised query, 0 none;
    `category_codes`/`category_probs`: the classifiers' likely categories.
    """

    now_us: int
    user_row: int = -1
    session_id: int = -1
    surface: int = 0
    query_tokens: NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))
    query_key: int = 0
    category_codes: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    category_probs: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))


def text_match(
    state: State, query_tokens: NDArray[np.uint32], item_rows: NDArray[np.int32]
) -> NDArray[np.float32]:
    """The idf-weighted share of the query's tokens that each item's text has: float32 [n] in [0, 1]."""
    out = np.zeros(len(item_rows), np.float32)
    match_into(state.items.tokens, state.document_frequency, state.documents, query_tokens, item_rows, out)
    return out


def candidate_scores(
    state: State,
    context: Context,
    item_rows: NDArray[np.int32],
    vectors: NDArray[np.float32],
    query_vector: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Vector products of query and user with each candidate.

    `vectors`: float32 [rows, dim] by state row; `query_vector`: float32 [dim]. Returns
    (query · item [n], user · item [n] with NaN for a user without clicks, the user's unit vector [dim]).
    """
    scores = np.empty((2, len(item_rows)), np.float32)
    user_vector = user_scores_into(
        state.users,
        state.sessions,
        vectors,
        context.user_row,
        context.session_id,
        item_rows,
        query_vector,
        scores,
    )
    return scores[0], scores[1], user_vector


def candidate_features(
    state: State,
    context: Context,
    item_rows: NDArray[np.int32],
    *,
    vector_scores: NDArray[np.float32],
    user_scores: NDArray[np.float32],
    category_probs: NDArray[np.float32],
) -> NDArray[np.float32]:
    """float32 [n, len(FEATURES)] for candidates given by state row (-1: a row of NaN)."""
    n = len(item_rows)
    out = np.empty((n, len(FEATURES)), np.float32)
    features_into(
        state.items,
        state.users,
        state.sessions,
        state.pairs,
        state.category_price,
        state.document_frequency,
        state.documents,
        context.now_us,
        context.user_row,
        context.session_id,
        context.surface,
        context.query_tokens,
        context.query_key,
        item_rows,
        vector_scores,
        user_scores,
        category_probs,
        np.empty(n, np.float32),
        out,
    )
    return out
