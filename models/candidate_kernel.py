"""The compiled row-by-row computation of candidate features: one code for training and serving.

It sees the state's arrays and scores, never strings. `candidate_features.py` names the columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from data.state_arrays import (
    AFFINITY,
    HALF_LIVES_US,
    IN_SESSION,
    PAIR_HALF_LIFE_US,
    RECENT,
    USER_HALF_LIFE_US,
)
from data.state_kernel import pair_slot, relative_price, session_slot
from infra.clock import DAY_US, HOUR_US

__all__ = ["RECENCY", "features_into", "match_into", "user_scores_into"]

_A1 = AFFINITY[0]
_A2 = _A1 + AFFINITY[1]
_A3 = _A2 + AFFINITY[2]
_DF_MASK = (1 << 16) - 1
_PRIOR_RATE = 0.1  # of a click at a fully examined position, before anything is known
RECENCY = 0.8  # weight of each older click in a user's vector


@njit(cache=True)
def match_into(tokens: Any, frequency: Any, documents: int, query: Any, rows: Any, out: Any) -> None:
    """out[i] = idf-weighted share of the query's tokens that item rows[i] has: float32 [n] in [0, 1]."""
    n_query = len(query)
    idf = np.zeros(n_query)
    total = 0.0
    for q in range(n_query):
        idf[q] = np.log1p(max(documents, 1) / (1.0 + max(frequency[query[q] & _DF_MASK], 0)))
        total += idf[q]
    for i in range(len(rows)):
        row = rows[i]
        got = 0.0
        if row >= 0:
            for q in range(n_query):
                for t in range(tokens.shape[1]):
                    held = tokens[row, t]
                    if held == 0:
                        break
                    if held == query[q]:
                        got += idf[q]
                        break
        out[i] = got / total if total > 0 else 0.0


@njit(cache=True)
def user_scores_into(
    users: Any,
    sessions: Any,
    vectors: Any,
    user: int,
    session: int,
    rows: Any,
    query_vector: Any,
    scores: Any,
) -> Any:
    """The vector of the user's recent clicks (session first), and its product with each item.

    scores[0, i] = query · item, scores[1, i] = user · item (NaN without clicks); returns the user's
    unit vector (zeros without clicks), float32 [dim].
    """
    dim = vectors.shape[1]
    mean = np.zeros(dim, np.float32)
    weight = np.float32(1.0)
    known = False
    if session != -1:
        slot = session_slot(session)
        if sessions.session_ids[slot] == session:
            count = sessions.recent_n[slot]
            for k in range(min(count, IN_SESSION)):
                row = sessions.recent[slot, (count - 1 - k) % IN_SESSION]
                if row < len(vectors):
                    for d in range(dim):
                        mean[d] += weight * vectors[row, d]
                    weight *= np.float32(RECENCY)
                    known = True
    if user >= 0:
        count = users.recent_n[user]
        for k in range(min(count, RECENT)):
            row = users.recent[user, (count - 1 - k) % RECENT]
            if row < len(vectors):
                for d in range(dim):
                    mean[d] += weight * vectors[row, d]
                weight *= np.float32(RECENCY)
                known = True
    norm = np.float32(0.0)
    for d in range(dim):
        norm += mean[d] * mean[d]
    if norm > 0:
        norm = np.sqrt(norm)
        for d in range(dim):
            mean[d] /= norm
    for i in range(len(rows)):
        row = rows[i]
        a = np.float32(0.0)
        b = np.float32(0.0)
        if 0 <= row < len(vectors):
            for d in range(dim):
                a += query_vector[d] * vectors[row, d]
                b += mean[d] * vectors[row, d]
        scores[0, i] = a
        scores[1, i] = b if known else np.nan
    return mean


@njit(cache=True)
def _share(affinity: Any, user: int, bucket: int, total: float) -> Any:
    return affinity[user, bucket] / total if total > 0 else 0.0


@njit(cache=True)
def features_into(
    items: Any,
    users: Any,
    sessions: Any,
    pairs: Any,
    category_price: Any,
    frequency: Any,
    documents: int,
    now_us: int,
    user: int,
    session: int,
    surface: int,
    query: Any,
    query_key: int,
    rows: Any,
    vector_scores: Any,
    user_scores: Any,
    category_probs: Any,
    matches: Any,
    out: Any,
) -> None:
    """Fill out float32 [n, F] in the order of `candidate_features.FEATURES`; unknown rows give NaN.

    A user or session never seen gives what one without clicks gives.
    """
    match_into(items.tokens, frequency, documents, query, rows, matches)
    hour = (now_us % DAY_US) / HOUR_US
    clicked = np.full(IN_SESSION, -1, np.int32)
    n_clicked = 0
    if session != -1:
        slot = session_slot(session)
        if sessions.session_ids[slot] == session:
            n_clicked = min(sessions.recent_n[slot], IN_SESSION)
            clicked[:] = sessions.recent[slot]
    total = 0.0
    price_mean = np.nan
    fade = 1.0
    clicks_known = 0
    if user >= 0:
        fade = 2.0 ** (-max(now_us - users.counted_us[user], 0) / USER_HALF_LIFE_US)
        total = users.total[user]
        clicks_known = users.recent_n[user]
        if total > 0:
            price_mean = users.price_sum[user] / total
    for i in range(len(rows)):
        row = rows[i]
        if row < 0:
            out[i, :] = np.nan
            continue
        f = out[i]
        f[0] = matches[i]
        f[1] = len(query)
        f[2] = vector_scores[i]
        f[3] = user_scores[i]
        f[4] = category_probs[i]
        price = items.price[row]
        relative = relative_price(items, category_price, row)
        f[5] = np.log(price) if price > 0 else np.nan
        f[6] = relative if price > 0 else np.nan
        list_price = items.list_price[row]
        f[7] = 1.0 - price / list_price if list_price > 0 else 0.0
        f[8] = items.rating[row]
        f[9] = np.log1p(items.rating_count[row])
        f[10] = np.log1p(max(now_us - items.created_us[row], 0) / DAY_US)
        f[11] = items.category[row]
        f[12] = items.brand[row]
        f[13] = items.colour[row]
        f[14] = items.material[row]
        f[15] = items.gender[row]
        age = max(now_us - items.counted_us[row], 0)
        short = 2.0 ** (-age / HALF_LIVES_US[0])
        long = 2.0 ** (-age / HALF_LIVES_US[1])
        c = items.counters[row]
        f[16] = np.log1p(c[0, 0] * short)
        f[17] = np.log1p(c[1, 0] * long)
        f[18] = (c[0, 2] * short + _PRIOR_RATE) / (c[0, 0] * short + 1.0)
        f[19] = (c[1, 2] * long + _PRIOR_RATE) / (c[1, 0] * long + 1.0)
        f[20] = (c[1, 3] * long + 0.03) / (c[1, 0] * long + 1.0)
        f[21] = (c[1, 4] * long + 0.01) / (c[1, 0] * long + 1.0)
        if query_key != 0:
            slot = pair_slot(query_key, items.item_ids[row])
            left = 2.0 ** (-max(now_us - pairs.counted_us[slot], 0) / PAIR_HALF_LIFE_US)
            exposure = pairs.exposure[slot] * left
            f[22] = (pairs.clicks[slot] * left + _PRIOR_RATE) / (exposure + 1.0)
            f[23] = np.log1p(exposure)
        else:
            f[22] = np.nan
            f[23] = np.nan
        if user >= 0:
            held = total * fade
            f[24] = _share(users.affinity, user, items.category[row] % AFFINITY[0], total)
            f[25] = _share(users.affinity, user, _A1 + items.brand[row] % AFFINITY[1], total)
            f[26] = _share(users.affinity, user, _A2 + items.colour[row] % AFFINITY[2], total)
            f[27] = _share(users.affinity, user, _A3 + items.material[row] % AFFINITY[3], total)
            f[28] = relative - price_mean
            f[29] = np.log1p(held)
            f[30] = users.gender[user] if users.gender[user] >= 0 else np.nan
            f[31] = users.age[user] if users.age[user] >= 0 else np.nan
            f[32] = users.purchasing_power[user] if users.purchasing_power[user] >= 0 else np.nan
            f[33] = np.log1p(clicks_known)
        else:
            f[24:28] = 0.0
            f[28] = np.nan
            f[29] = 0.0
            f[30:33] = np.nan
            f[33] = 0.0
        same_category = same_brand = same_colour = same_material = same_item = 0.0
        for k in range(n_clicked):
            other = clicked[k]
            if other < 0:
                continue
            same_category += items.category[other] == items.category[row]
            same_brand += items.brand[other] == items.brand[row]
            same_colour += items.colour[other] == items.colour[row]
            same_material += items.material[other] == items.material[row]
            same_item += other == row
        share = 1.0 / n_clicked if n_clicked > 0 else 0.0
        f[34] = same_category * share
        f[35] = same_brand * share
        f[36] = same_colour * share
        f[37] = same_material * share
        f[38] = same_item
        f[39] = n_clicked
        f[40] = surface
        f[41] = hour
