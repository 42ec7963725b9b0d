"""The day's shoppers and what they ask: sessions, page turns, gaps, queries and hidden intents.

Statistics follow the published trace (REFERENCE: 3.33 billion sessions). A day draws from its own
streams. It knows nothing of what is answered.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.schema import SURFACES
from data.shop import Request
from data.world.catalogue import Catalogue, category_open_days, open_words
from data.world.config import PAGE_SIZE, START_US, WorldConfig
from data.world.draws import stream
from data.world.photos import Photos
from data.world.queries import query_text
from data.world.shoppers import Shoppers
from data.world.truth import INTENT, Truth
from data.world.words import CATEGORIES, STYLES, Vocabulary
from infra.clock import DAY_US, SECOND_US

__all__ = ["RECOMMENDED", "DayPlan", "diurnal_weights", "gap_seconds", "plan_day", "session_lengths"]

SEARCHED, PHOTOGRAPHED, RECOMMENDED = (SURFACES.index(s) for s in ("search", "image", "recommend"))
MAX_LENGTH = 200
P_LENGTH_ONE = 0.216
# Burr XII (c, k, scale) of the length beyond one, fitted to mean 10.66, P(<= 20) = 0.868 and a median of 5.
_LENGTH = (1.01983, 2.55397, 18.8357)
_GAP = (1.6, 0.9, 15.0)  # Burr XII (c, k, scale in seconds); the trace names the family only
MAX_GAP_S = 1_800.0
NEW_QUERY = 0.15  # of the requests after the first; the rest turn the page
BACK = 0.25  # of the new queries: back to an earlier one of the session (0.195 distinct a request)
RECOMMEND = 0.10  # of the sessions start with a recommend request
PHOTO = 0.01  # of the queries are a photo
SECOND_SESSION = 0.08  # of the active users come a second time in the day
STAY = 0.5  # of the new queries stay in the category of the one before
SURE = 0.25  # spread of the category that a recommend request is for, beside that of a query
VAGUE = 0.12  # of the text queries name the department's word only
TREND = 0.12  # of the queries look for a new style, once there is one
_ASKED = np.array([1.0, 1.0, 0.25, 0.40, 0.20, 0.35])  # how often each part of an intent is asked for
_BUSIEST_H, _QUIETEST_H, _PEAK = 22, 4, 100 / 6.5  # REFERENCE: 6.5 million queries at 04:00, 100 at 22:00
_LONGEST_US = 12 * 3_600 * SECOND_US


@dataclass(frozen=True)
class DayPlan:
    """A day's requests as struct of arrays, by time. `first`: the request that started its query.

    `intent` int16 [n, 6] (data.world.truth.INTENT; -1 not asked for) is hidden from the shop.
    """

    day: int
    request_id: NDArray[np.int64]
    session_id: NDArray[np.int64]
    user_id: NDArray[np.int64]
    time_us: NDArray[np.int64]
    surface: NDArray[np.int8]
    query: list[str]
    photo: NDArray[np.int32]
    page: NDArray[np.int16]
    first: NDArray[np.int32]
    intent: NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.request_id)

    def request(self, i: int) -> Request:
        """Request i as a shop gets it."""
        return Request(
            surface=SURFACES[self.surface[i]],
            time_us=int(self.time_us[i]),
            query=self.query[i],
            photo=int(self.photo[i]),
            user_id=int(self.user_id[i]),
            session_id=int(self.session_id[i]),
            request_id=int(self.request_id[i]),
            offset=int(self.page[i]) * PAGE_SIZE,
            size=PAGE_SIZE,
        )


def _burr(u: NDArray[np.float64], c: float, k: float, scale: float) -> NDArray[np.float64]:
    return np.asarray(scale * ((1.0 - u) ** (-1.0 / k) - 1.0) ** (1.0 / c))


def session_lengths(rng: np.random.Generator, n: int) -> NDArray[np.int64]:
    """Requests a session, 1 to 200: int64 [n]."""
    one, tail = rng.random(n) < P_LENGTH_ONE, np.ceil(_burr(rng.random(n), *_LENGTH))
    return np.where(one, 1, np.minimum(1 + np.maximum(tail, 1), MAX_LENGTH)).astype(np.int64)


def gap_seconds(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Seconds between two requests of a session: float64 [n], 0.5 s to half an hour."""
    return np.clip(_burr(rng.random(n), *_GAP), 0.5, MAX_GAP_S)


def diurnal_weights() -> NDArray[np.float64]:
    """The share of a day's sessions that start in each hour: float64 [24]; log-cosine from 04:00 to 22:00."""
    hour = np.arange(24)
    rising = (hour - _QUIETEST_H) % 24 / ((_BUSIEST_H - _QUIETEST_H) % 24)
    falling = (hour - _BUSIEST_H) % 24 / ((_QUIETEST_H - _BUSIEST_H) % 24)
    height = np.where(rising <= 1, 0.5 - 0.5 * np.cos(np.pi * rising), 0.5 + 0.5 * np.cos(np.pi * falling))
    weight = _PEAK**height
    return np.asarray(weight / weight.sum())


def plan_day(
    config: WorldConfig,
    truth: Truth,
    items: Catalogue,
    users: Shoppers,
    vocabulary: Vocabulary,
    pictures: Photos,
    day: int,
) -> DayPlan:
    """All requests of a day."""
    rng = stream(config.seed, "sessions", day)
    active = np.flatnonzero(rng.random(len(users)) < users.visits_per_day)
    who = np.concatenate([active, active[rng.random(len(active)) < SECOND_SESSION]])
    lengths = session_lengths(rng, len(who))
    session = np.repeat(np.arange(len(who)), lengths)
    head = np.cumsum(lengths) - lengths
    place = np.arange(len(session)) - head[session]
    time_us = _times(rng, day, lengths, session, head, place)
    recommend = rng.random(len(who)) < RECOMMEND
    new = (place == 0) | (rng.random(len(session)) < NEW_QUERY) | ((place == 1) & recommend[session])
    group = np.cumsum(new) - 1
    starts = np.flatnonzero(new)
    surface = np.where(recommend[session[starts]] & (place[starts] == 0), RECOMMENDED, SEARCHED).astype(
        np.int8
    )
    intent, source, photo, texts = _ask(
        config, truth, items, vocabulary, pictures, day, who[session[starts]], session[starts], surface
    )
    surface[photo >= 0] = PHOTOGRAPHED
    surface = surface[source]
    order = np.lexsort((session, time_us))
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order))
    group = group[order]
    base = (day + 1) << 32
    return DayPlan(
        day,
        base + np.arange(len(order), dtype=np.int64),
        base + session[order],
        who[session[order]] + 1,
        time_us[order],
        surface[group],
        [texts[g] for g in source[group].tolist()],
        photo[source[group]],
        (order - starts[group]).astype(np.int16),
        rank[starts[group]],
        intent[source[group]],
    )


def _times(
    rng: np.random.Generator,
    day: int,
    lengths: NDArray[np.int64],
    session: NDArray[np.int64],
    head: NDArray[np.int64],
    place: NDArray[np.int64],
) -> NDArray[np.int64]:
    """When each request is due; a session ends before midnight, so that each day stands alone."""
    gaps = np.where(place == 0, 0, (gap_seconds(rng, len(session)) * SECOND_US).astype(np.int64))
    total = np.cumsum(gaps)
    since = total - total[head[session]] if len(session) else total
    lasts = since[head + lengths - 1] if len(session) else since
    squeeze = np.minimum(1.0, _LONGEST_US / np.maximum(lasts, 1))
    since = (since * squeeze[session]).astype(np.int64)
    lasts = np.minimum(lasts, _LONGEST_US)
    hour = rng.choice(24, len(lengths), p=diurnal_weights())
    start = ((hour + rng.random(len(lengths))) / 24 * DAY_US).astype(np.int64)
    start = np.minimum(start, DAY_US - 1 - lasts)
    return np.asarray(START_US + day * DAY_US + start[session] + since)


def _ask(
    config: WorldConfig,
    truth: Truth,
    items: Catalogue,
    vocabulary: Vocabulary,
    pictures: Photos,
    day: int,
    user: NDArray[np.int64],
    session: NDArray[np.int64],
    surface: NDArray[np.int8],
) -> tuple[NDArray[np.int16], NDArray[np.int64], NDArray[np.int32], list[str]]:
    """(intent [g, 6], source [g], photo [g], text [g]) of each query; a query's `source` is its repeat's."""
    rng = stream(config.seed, "queries", day)
    n = len(user)
    opened = category_open_days(config) <= day
    odds = np.where(opened, truth.affinity[user], -np.inf)
    chance = np.where(surface == RECOMMENDED, SURE, 1.0)[
        :, None
    ]  # who waits for recommendations wants the usual
    category = (odds + chance * rng.gumbel(size=odds.shape)).argmax(1)
    opener = np.r_[True, session[1:] != session[:-1]][:n]
    stays = ~opener & (rng.random(n) < STAY)
    category = category[np.maximum.accumulate(np.where(stays, 0, np.arange(n)))]
    back, pick = ~opener & (rng.random(n) < BACK), rng.random(n)
    photo_query, vague = rng.random(n) < PHOTO, rng.random(n) < VAGUE
    trend = rng.random(n) < TREND
    target, trendy = _targets(items, day, category, rng.random(n), trend & (open_words(config, day)[0] > 0))
    parts = np.stack([getattr(items, name)[target] for name in INTENT], axis=1)
    parts[trendy, 5] = items.style2[target[trendy]]
    parts[:, 1] = category
    parts[:, 0] = np.array([c.department for c in CATEGORIES])[category]
    asked = rng.random((n, 6)) < _ASKED
    asked[:, :2] = True
    photo_query &= surface == SEARCHED
    plain = photo_query | (surface == RECOMMENDED)
    asked[plain | (target < 0), 2:] = False
    asked[trendy & ~plain, 5] = True
    intent = np.where(asked, parts, -1).astype(np.int16)
    first = np.maximum.accumulate(np.where(opener, np.arange(n), 0))
    source = np.where(back, first + (pick * (np.arange(n) - first)).astype(np.int64), np.arange(n))
    source = np.where(surface[source] == RECOMMENDED, np.arange(n), source)
    while np.any(source[source] != source):  # a repeat of a repeat is a repeat of the first
        source = source[source]
    photo = np.full(n, -1, np.int32)
    photo[photo_query] = pictures.pick(
        intent[photo_query, 0], rng.random(int(photo_query.sum())), held_out=True
    )
    luck = rng.random((n, 6))
    synonyms = open_words(config, day)[1]
    texts = [
        ""
        if silent
        else query_text(vocabulary, intent[g].tolist(), luck[g].tolist(), bool(vague[g]), synonyms)
        for g, silent in enumerate(plain.tolist())
    ]
    return intent, source, photo, texts


def _targets(
    items: Catalogue, day: int, category: NDArray[np.int64], u: NDArray[np.float64], trend: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The item that each shopper has in mind (row; -1 none) and whether it was picked for its new style."""
    rows: NDArray[np.int64] = np.arange(int(items.counts[day]))
    rows = rows[items.alive(rows, START_US + day * DAY_US)]
    target = _pick(items, rows, category, u)
    styled = rows[items.style2[rows] >= len(STYLES)]
    styled = styled[items.style2_us[styled] < START_US + (day + 1) * DAY_US]
    stylish = np.where(trend, _pick(items, styled, category, u), -1)
    return np.where(stylish >= 0, stylish, target), stylish >= 0


def _pick(
    items: Catalogue, rows: NDArray[np.int64], category: NDArray[np.int64], u: NDArray[np.float64]
) -> NDArray[np.int64]:
    """One of `rows` of each category by uniforms `u`; -1 where there is none."""
    if not len(rows):
        return np.full(len(category), -1)
    rows = rows[np.argsort(items.category[rows], kind="stable")]
    edges = np.searchsorted(items.category[rows], np.arange(len(CATEGORIES) + 1))
    many = edges[category + 1] - edges[category]
    at = np.minimum(edges[category] + (u * many).astype(np.int64), len(rows) - 1)
    return np.where(many > 0, rows[at], -1)
