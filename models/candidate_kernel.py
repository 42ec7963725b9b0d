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
from data.state_kernel import pair_slot, session_slot
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
                wanted = query[q]
                found = 0
                for t in range(tokens.shape[1]):  # to the end, padding too: no branch, so vectorised
                    found += tokens[row, t] == wanted
                if found and wanted != 0:
                    got += idf[q]
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
    n, bound = len(rows), len(vectors)
    zero = np.float32(0.0)
    for start in range(0, n, 4):  # four rows at a time hide each other's latency; each adds in order
        i1, i2, i3 = min(start + 1, n - 1), min(start + 2, n - 1), min(start + 3, n - 1)
        r0, r1, r2, r3 = rows[start], rows[i1], rows[i2], rows[i3]
        k0, k1, k2, k3 = 0 <= r0 < bound, 0 <= r1 < bound, 0 <= r2 < bound, 0 <= r3 < bound
        v0, v1 = vectors[r0 if k0 else 0], vectors[r1 if k1 else 0]
        v2, v3 = vectors[r2 if k2 else 0], vectors[r3 if k3 else 0]
        a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = zero
        if k0 or k1 or k2 or k3:
            for d in range(dim):
                q = query_vector[d]
                a0 += q * v0[d]
                a1 += q * v1[d]
                a2 += q * v2[d]
                a3 += q * v3[d]
            if known:
                for d in range(dim):
                    m = mean[d]
                    b0 += m * v0[d]
                    b1 += m * v1[d]
                    b2 += m * v2[d]
                    b3 += m * v3[d]
        scores[0, i3], scores[1, i3] = a3 if k3 else zero, b3 if k3 else zero
        scores[0, i2], scores[1, i2] = a2 if k2 else zero, b2 if k2 else zero
        scores[0, i1], scores[1, i1] = a1 if k1 else zero, b1 if k1 else zero
        scores[0, start], scores[1, start] = a0 if k0 else zero, b0 if k0 else zero
    if not known:
        scores[1, :] = np.nan
    return mean


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
    n = len(rows)
    match_into(items.tokens, frequency, documents, query, rows, matches)
    clicked = np.full(IN_SESSION, -1, np.int32)
    n_clicked = 0
    if session != -1:
        slot = session_slot(session)
        if sessions.session_ids[slot] == session:
            n_clicked = min(sessions.recent_n[slot], IN_SESSION)
            clicked[:] = sessions.recent[slot]
    # First what lies scattered in memory, without a branch or a call, so that many loads wait together.
    prices = np.empty((2, n), np.float32)
    ages = np.empty((2, n), np.int64)
    counts = np.empty((n, 6))
    for i in range(n):
        row = max(rows[i], 0)
        f = out[i]
        prices[0, i] = items.price[row]
        prices[1, i] = items.list_price[row]
        ages[0, i] = max(now_us - items.created_us[row], 0)
        ages[1, i] = max(now_us - items.counted_us[row], 0)
        f[8] = items.rating[row]
        f[9] = items.rating_count[row]
        f[11] = items.category[row]
        f[12] = items.brand[row]
        f[13] = items.colour[row]
        f[14] = items.material[row]
        f[15] = items.gender[row]
        c = items.counters[row]
        counts[i, 0], counts[i, 1] = c[0, 0], c[0, 2]
        counts[i, 2], counts[i, 3], counts[i, 4], counts[i, 5] = c[1, 0], c[1, 2], c[1, 3], c[1, 4]
    _pairs_into(pairs, items.item_ids, now_us, query_key, rows, out)
    hour = (now_us % DAY_US) / HOUR_US
    for i in range(n):
        f = out[i]
        f[0] = matches[i]
        f[1] = len(query)
        f[2] = vector_scores[i]
        f[3] = user_scores[i]
        f[4] = category_probs[i]
        list_price = prices[1, i]
        f[7] = 1.0 - prices[0, i] / list_price if list_price > 0 else 0.0
        f[9] = np.log1p(f[9])
        f[10] = np.log1p(ages[0, i] / DAY_US)
        _rates_into(counts[i], ages[1, i], f)
        f[39] = n_clicked
        f[40] = surface
        f[41] = hour
    _prices_and_user_into(items, users, category_price, now_us, user, rows, prices[0], out)
    _session_into(items, clicked, n_clicked, rows, out)
    for i in range(n):
        if rows[i] < 0:
            out[i, :] = np.nan


@njit(cache=True)
def _rates_into(c: Any, age: int, f: Any) -> None:
    """Exposure and rates of an item, from its counters that were valid `age` us ago."""
    if c[0] == 0 and c[1] == 0:
        f[16], f[18] = 0.0, _PRIOR_RATE
    else:
        short = 2.0 ** (-age / HALF_LIVES_US[0])
        f[16] = np.log1p(c[0] * short)
        f[18] = (c[1] * short + _PRIOR_RATE) / (c[0] * short + 1.0)
    if c[2] == 0 and c[3] == 0 and c[4] == 0 and c[5] == 0:
        f[17], f[19], f[20], f[21] = 0.0, _PRIOR_RATE, 0.03, 0.01
    else:
        long = 2.0 ** (-age / HALF_LIVES_US[1])
        f[17] = np.log1p(c[2] * long)
        f[19] = (c[3] * long + _PRIOR_RATE) / (c[2] * long + 1.0)
        f[20] = (c[4] * long + 0.03) / (c[2] * long + 1.0)
        f[21] = (c[5] * long + 0.01) / (c[2] * long + 1.0)


@njit(cache=True)
def _pairs_into(pairs: Any, item_ids: Any, now_us: int, query_key: int, rows: Any, out: Any) -> None:
    """What this query's shoppers did with each item."""
    if query_key == 0:
        out[:, 22:24] = np.nan
        return
    for i in range(len(rows)):
        slot = pair_slot(query_key, item_ids[max(rows[i], 0)])
        exposed, clicks = pairs.exposure[slot], pairs.clicks[slot]
        if exposed == 0 and clicks == 0:
            out[i, 22], out[i, 23] = _PRIOR_RATE, 0.0
            continue
        left = 2.0 ** (-max(now_us - pairs.counted_us[slot], 0) / PAIR_HALF_LIFE_US)
        exposure = exposed * left
        out[i, 22] = (clicks * left + _PRIOR_RATE) / (exposure + 1.0)
        out[i, 23] = np.log1p(exposure)


@njit(cache=True)
def _prices_and_user_into(
    items: Any, users: Any, category_price: Any, now_us: int, user: int, rows: Any, prices: Any, out: Any
) -> None:
    """The price among its category's, and how the item suits what the user clicked."""
    total = 0.0
    price_mean = np.nan
    weight = clicks = 0.0
    gender = age = power = np.nan
    if user >= 0:
        fade = 2.0 ** (-max(now_us - users.counted_us[user], 0) / USER_HALF_LIFE_US)
        total = users.total[user]
        if total > 0:
            price_mean = users.price_sum[user] / total
        weight = np.log1p(total * fade)
        clicks = np.log1p(users.recent_n[user])
        gender = users.gender[user] if users.gender[user] >= 0 else np.nan
        age = users.age[user] if users.age[user] >= 0 else np.nan
        power = users.purchasing_power[user] if users.purchasing_power[user] >= 0 else np.nan
    for i in range(len(rows)):
        row = max(rows[i], 0)
        f = out[i]
        price = prices[i]
        relative = 0.0
        f[5] = f[6] = np.nan
        if price > 0:
            log_price = np.log(price)
            category = items.category[row]
            count = category_price[category, 1]
            if count > 0:
                relative = log_price - category_price[category, 0] / count
            f[5] = log_price
            f[6] = relative
        f[24] = f[25] = f[26] = f[27] = 0.0
        f[28] = np.nan
        if user >= 0:
            f[28] = relative - price_mean
            if total > 0:
                f[24] = users.affinity[user, items.category[row] % AFFINITY[0]] / total
                f[25] = users.affinity[user, _A1 + items.brand[row] % AFFINITY[1]] / total
                f[26] = users.affinity[user, _A2 + items.colour[row] % AFFINITY[2]] / total
                f[27] = users.affinity[user, _A3 + items.material[row] % AFFINITY[3]] / total
        f[29] = weight
        f[30] = gender
        f[31] = age
        f[32] = power
        f[33] = clicks


@njit(cache=True)
def _session_into(items: Any, clicked: Any, n_clicked: int, rows: Any, out: Any) -> None:
    """The share of the session's clicks that fell on items like this one."""
    out[:, 34:39] = 0.0
    if n_clicked == 0:
        return
    share = 1.0 / n_clicked
    for k in range(n_clicked):
        other = clicked[k]
        if other < 0:
            continue
        category, brand = items.category[other], items.brand[other]
        colour, material = items.colour[other], items.material[other]
        for i in range(len(rows)):
            row = max(rows[i], 0)
            f = out[i]
            f[34] += items.category[row] == category
            f[35] += items.brand[row] == brand
            f[36] += items.colour[row] == colour
            f[37] += items.material[row] == material
            f[38] += other == row
    for i in range(len(rows)):
        for k in range(34, 38):
            out[i, k] *= share
