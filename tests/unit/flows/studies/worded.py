"""A small shop in which what words mean drifts: classifier and encoder have to be retrained to know it.

Each word means one category, and another with a given half-life. Shoppers click what the word means now;
titles name the category by a word that never changes. Scorers of the burn-in said nothing: their columns
are zero.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from data.fractions import in_fraction
from flows.studies.panels.panel import DEPTH, Panel, Slice
from flows.studies.panels.recent import REMEMBERED
from flows.studies.panels.texts import FOR_EVER_US
from infra.clock import DAY_US, HOUR_US
from models.metrics import grouped_dcg
from models.training_rows import TrainingRows
from tests.unit.flows.studies.panels import START_US

__all__ = ["CATEGORIES", "NAMES", "worded_panel"]

CATEGORIES = ("boot", "lamp", "mirror", "kettle", "carpet")
NAMES = ("vector_score", "user_score", "category_prob", "luck")
_WORDS = 20
_SHOWN, _POOL = 6, 15


def worded_panel(
    *,
    seed: int = 3,
    days: float = 6,
    slices: int = 2,
    burn_in_d: float = 3,
    half_life_d: float | None = 3.0,
    requests_a_day: int = 900,
    queries: int = 40,
    items: int = 90,
) -> Panel:
    """`half_life_d` of what words mean; None: they never change."""
    rng = np.random.default_rng(seed)
    hours = int(days * 24) + 1
    means = np.empty((hours, _WORDS), np.int64)
    means[0] = rng.integers(0, len(CATEGORIES), _WORDS)
    change = 0.0 if half_life_d is None else 1 - 0.5 ** (1 / (24 * half_life_d))
    for h in range(1, hours):
        redrawn = rng.integers(0, len(CATEGORIES), _WORDS)
        means[h] = np.where(rng.random(_WORDS) < change, redrawn, means[h - 1])
    category = np.arange(items) % len(CATEGORIES)

    texts = ["", *(f"word{w:02d}x" for w in range(_WORDS)), *CATEGORIES]
    first_title = len(texts)
    texts += [f"{CATEGORIES[category[i]]} number{i}" for i in range(items)]
    held = [t.encode() for t in texts]

    def asked(n: int, times: NDArray[np.int64], each: int) -> tuple[NDArray[np.int64], ...]:
        """(word [n], items [n * each], whether each is what the word means [n * each])."""
        word, item = rng.integers(0, _WORDS, n), rng.integers(0, items, n * each)
        meant = means[(times - START_US) // HOUR_US, word]
        return word, item, (category[item] == np.repeat(meant, each)).astype(np.int64)

    n = int(days * requests_a_day)
    time_us = START_US + np.sort(rng.integers(0, int(days * DAY_US), n))
    word, item, meant = asked(n, time_us, _SHOWN)
    clicked = rng.random(len(item)) < np.where(meant, 0.7, 0.04)
    session = rng.permutation(n) // 2
    at = np.flatnonzero(clicked)
    request = at // _SHOWN
    at = at[in_fraction(session[request], 0.5, salt="scorers")]
    request = at // _SHOWN
    horizon_us, end_us = START_US + int(burn_in_d * DAY_US), START_US + int(days * DAY_US)

    def recent(g: int) -> NDArray[np.int32]:
        found = np.full((g, REMEMBERED), -1, np.int32)
        found[::2, 0] = rng.integers(0, items, len(found[::2]))
        return found

    def features(n: int) -> NDArray[np.float32]:
        out = np.zeros((n, len(NAMES)), np.float32)
        out[:, 1] = np.nan
        out[:, 3] = rng.random(n)
        return out

    parts = []
    for since in (horizon_us + (np.arange(slices) + 0.5) * (end_us - horizon_us) / slices).astype(np.int64):
        since = int(since) // HOUR_US * HOUR_US
        asked_word, pool, fits = asked(queries, np.full(queries, since), _POOL)
        gains, groups = fits.astype(np.float64), np.full(queries, _POOL, np.int32)
        fresh = features(len(pool))
        parts.append(
            Slice(
                since,
                since + HOUR_US,
                groups=groups,
                item_ids=pool,
                gains=gains,
                ideal=grouped_dcg(gains, gains, groups, DEPTH),
                fresh=fresh,
                frozen=fresh.copy(),
                known=np.ones(len(pool), bool),
                query_ids=since + np.arange(queries),
                clusters=np.arange(queries),
                extra={
                    "text": (1 + asked_word).astype(np.int32),
                    "item": pool.astype(np.int32),
                    "recent": recent(queries),
                    "frozen_recent": recent(queries),
                },
            )
        )
    made_of = repr((seed, days, slices, burn_in_d, half_life_d, requests_a_day, queries, items))
    return Panel(
        source="a shop of words",
        key=hashlib.sha256(made_of.encode()).hexdigest()[:16],
        names=NAMES,
        categorical=(),
        rows=TrainingRows(
            features=features(len(item)),
            labels=clicked.astype(np.int8),
            positions=np.tile(np.arange(_SHOWN), n).astype(np.int16),
            groups=np.full(n, _SHOWN, np.int32),
            request_ids=np.arange(n),
            user_ids=session,
            session_ids=session,
            time_us=time_us,
            propensity=np.full(len(item), 1 / items, np.float32),
        ),
        label_us=time_us + HOUR_US // 6,
        slices=tuple(parts),
        first_us=START_US,
        horizon_us=horizon_us,
        end_us=end_us,
        resolution_us=HOUR_US,
        extra={
            "text_bytes": np.frombuffer(b"".join(held), np.uint8),
            "text_starts": np.concatenate([[0], np.cumsum([len(b) for b in held])]).astype(np.int64),
            "item_ids": np.arange(items),
            "item_since_us": np.full(items, START_US - DAY_US),
            "item_until_us": np.full(items, FOR_EVER_US),
            "word_item": np.arange(items, dtype=np.int32),
            "word_us": np.full(items, START_US - DAY_US),
            "word_text": (first_title + np.arange(items)).astype(np.int32),
            "word_title": (first_title + np.arange(items)).astype(np.int32),
            "word_category": (1 + _WORDS + category).astype(np.int32),
            "click_text": (1 + word[request]).astype(np.int32),
            "click_item": item[at].astype(np.int32),
            "click_us": time_us[request],
            "click_session": session[request],
            "click_weight": np.ones(len(at), np.float32),
            "row_text": (1 + word).astype(np.int32),
            "row_item": item.astype(np.int32),
            "row_recent": recent(n),
        },
    )
