"""Small worlds with known answers, made in a fraction of a second, to calibrate the instrument on.

Shoppers weigh an item's attributes by values that drift, and like groups of items by tastes of their own;
the state is a real fold over their simulated clicks, by which it follows those tastes. Values are in the
weights of a model only: there is no counter of an item's clicks here, which would follow them too.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flows.studies.panels.panel import DEPTH, Panel, Slice
from flows.studies.statistics.staleness import AgeScores
from infra.clock import DAY_US, HOUR_US
from models.metrics import grouped_dcg
from models.training_rows import TrainingRows

__all__ = ["SmallWorld", "SmallWorldConfig", "small_world", "true_scores"]

_START_US = 20_458 * DAY_US  # 2026-01-05 00:00 UTC
_STEP_US = 3 * HOUR_US  # drift moves, and the fold is read, at these steps
_LABEL_US = HOUR_US // 6
_ATTRIBUTES, _GROUPS, _USERS, _ITEMS = 16, 8, 100, 400
_PAGE, _RANDOM, _PROPENSITY = 10, (2, 7), 1 / 100
_POOL = 30
_KEEP = 0.5 ** (_STEP_US / (3 * DAY_US))  # the fold's counts lose half in three days
_BIAS, _QUALITY = -2.2, 0.3


@dataclass(frozen=True)
class SmallWorldConfig:
    """The knobs of a small world; sizes in log-odds, half-lives in days (None: no such drift).

    `values`: OU size of what all value; `tastes`: of single users' liking of a group; `churn`: share of the
    items replaced in a day; `shift_d`: the day on which values jump to unrelated ones; `weekly`: size of a
    swing of seven days; `shuffled`: clicks depend on the place alone. `later_us` moves all dates,
    `renamed` permutes the ids of users, items and requests, `pieces` folds each step in so many parts:
    none of these three may matter.
    """

    seed: int = 7
    days: int = 46
    burn_in_d: int = 18
    slices: int = 14
    queries: int = 100
    requests_a_day: int = 700
    value_half_life_d: float | None = None
    values: float = 0.4
    taste_half_life_d: float | None = None
    tastes: float = 1.2
    churn: float = 0.0
    shift_d: float | None = None
    weekly: float = 0.0
    shuffled: bool = False
    later_us: int = 0
    renamed: bool = False
    pieces: int = 1


@dataclass(frozen=True)
class SmallWorld:
    """A panel, and what is hidden from it.

    `values` float64 [steps, 16]: what attributes are worth at each step; of each slice: `attributes`
    float64 [n, 16] of the candidates and `liking` float64 [n], what else of their worth a model can know.
    """

    config: SmallWorldConfig
    panel: Panel
    values: NDArray[np.float64]
    attributes: tuple[NDArray[np.float64], ...] = field(repr=False)
    liking: tuple[NDArray[np.float64], ...] = field(repr=False)


def small_world(config: SmallWorldConfig) -> SmallWorld:
    """Make the world of a config: the same config, the same world."""
    made = _Maker(config)
    rows, label_us = made.log()
    slices = [made.slice(k) for k in range(config.slices)]
    start = made.start_us
    panel = Panel(
        source="calibration",
        key=hashlib.sha256(repr(config).encode()).hexdigest()[:16],
        names=(
            *(f"attribute_{i}" for i in range(_ATTRIBUTES)),
            "group",
            "user_group_rate",
            "user_group_views",
        ),
        categorical=(_ATTRIBUTES,),
        rows=rows,
        label_us=label_us,
        slices=tuple(s[0] for s in slices),
        first_us=start,
        horizon_us=start + config.burn_in_d * DAY_US,
        end_us=start + config.days * DAY_US,
        resolution_us=_STEP_US,
        about={"source": "calibration", "seed": config.seed},
    )
    return SmallWorld(config, panel, made.values, tuple(s[1] for s in slices), tuple(s[2] for s in slices))


def true_scores(
    world: SmallWorld, ages_us: NDArray[np.float64], true_us: NDArray[np.int64], *, window_us: int
) -> AgeScores:
    """The true curve: slices ordered by the true values, averaged over the window of a model of each age.

    `true_us` int64 [s, a]: the models' ages at each slice, `ages_us` their means. The horizon-start model
    is `never`.
    """
    panel = world.panel

    def scored(k: int, age_us: int) -> NDArray[np.float64]:
        until = (panel.slices[k].start_us - age_us - panel.first_us) / _STEP_US
        since = until - window_us / _STEP_US
        at = np.arange(max(0, round(since)), max(1, round(until)))
        known = world.values[at].mean(0)
        return panel.slices[k].ndcg(world.attributes[k] @ known + world.liking[k])

    queries = [
        np.stack([scored(k, int(age)) for age in true_us[k]], axis=1) for k in range(len(panel.slices))
    ]
    never = [scored(k, part.start_us - panel.horizon_us).mean() for k, part in enumerate(panel.slices)]
    return AgeScores(
        ages_us=ages_us,
        ndcg=np.array([q.mean(0) for q in queries]),
        queries=queries,
        never=np.array(never),
        cpu_s=0.0,
        starts_us=np.array([s.start_us for s in panel.slices]),
        clusters=tuple(s.clusters for s in panel.slices),
        window_us=window_us,
    )


class _Maker:
    """The parts of a world while it is made."""

    def __init__(self, config: SmallWorldConfig) -> None:
        self.config = config
        self.start_us = _START_US + config.later_us
        self.steps = config.days * DAY_US // _STEP_US
        rng = np.random.default_rng((config.seed, 1))
        births = round(config.churn * _ITEMS * config.days)
        self.items = _ITEMS + births
        self.born = np.concatenate([np.zeros(_ITEMS), np.sort(rng.integers(1, self.steps, births))])
        self.dead = np.full(self.items, self.steps + 1)
        for item in range(_ITEMS, self.items):  # each birth ends the life of a random item
            alive = np.flatnonzero((self.born < self.born[item]) & (self.dead > self.born[item]))
            self.dead[rng.choice(alive)] = self.born[item]
        self.z = rng.standard_normal((self.items, _ATTRIBUTES))
        self.group = rng.integers(0, _GROUPS, self.items)
        self.quality = _QUALITY * rng.standard_normal(self.items)
        self.logged = rng.standard_normal(_ATTRIBUTES) / np.sqrt(_ATTRIBUTES)
        self.values = self._values()
        rng = np.random.default_rng((config.seed, 3))
        self.tastes = config.tastes * _reverting(rng, self.steps, _USERS * _GROUPS, config.taste_half_life_d)
        self.tastes = self.tastes.reshape(self.steps, _USERS, _GROUPS)
        self.clicks = np.zeros((self.steps + 1, _USERS, _GROUPS))
        self.views = np.zeros((self.steps + 1, _USERS, _GROUPS))
        names = np.random.default_rng((config.seed, 9))
        self.user_ids = names.permutation(_USERS) if config.renamed else np.arange(_USERS)
        self.item_ids = names.permutation(self.items) if config.renamed else np.arange(self.items)

    def _values(self) -> NDArray[np.float64]:
        config = self.config
        rng = np.random.default_rng((config.seed, 2))
        mean = 0.25 * rng.standard_normal(_ATTRIBUTES)
        drift = config.value_half_life_d is not None
        path = mean + config.values * drift * _reverting(
            rng, self.steps, _ATTRIBUTES, config.value_half_life_d
        )
        if config.shift_d is not None:
            after = np.arange(self.steps) * _STEP_US >= config.shift_d * DAY_US
            path[after] += 1.5 * config.values * rng.standard_normal(_ATTRIBUTES) - mean
        turn = 2 * np.pi * np.arange(self.steps)[:, None] * _STEP_US / (7 * DAY_US)
        phase = np.pi / 2 * (np.arange(_ATTRIBUTES) % 2)
        return np.asarray(path + config.weekly * np.cos(turn + phase))

    def worth(
        self, user: NDArray[np.int64], item: NDArray[np.int64], step: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """The true relevance in (0, 1) of items to users at steps, all [n]."""
        liked = (self.z[item] * self.values[step]).sum(1) + self.tastes[step, user, self.group[item]]
        return np.asarray(1 / (1 + np.exp(-(_BIAS + liked + self.quality[item]))))

    def features(
        self, user: NDArray[np.int64], item: NDArray[np.int64], state: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """What the ranker sees, float32 [n, 19], by the state at the start of steps [n]."""
        group = self.group[item]
        views = self.views[state, user, group]
        mean = self.clicks[state, user].sum(1) / np.maximum(1.0, self.views[state, user].sum(1))
        rate = (self.clicks[state, user, group] + 3 * mean) / (views + 3)
        parts = [self.z[item], group[:, None], rate[:, None], np.log1p(views)[:, None]]
        return np.hstack(parts).astype(np.float32)

    def candidates(self, rng: np.random.Generator, step: int, n: int) -> NDArray[np.int64]:
        """Items that are alive at a step, drawn evenly: int64 [n]."""
        alive = np.flatnonzero((self.born <= step) & (self.dead > step))
        return np.asarray(alive[rng.integers(0, len(alive), n)])

    def log(self) -> tuple[TrainingRows, NDArray[np.int64]]:
        """All labelled requests by time, and when their labels were known; folds the clicks on the way."""
        config = self.config
        rng = np.random.default_rng((config.seed, 4))
        asked = config.days * config.requests_a_day
        at_us = np.sort(rng.integers(0, config.days * DAY_US, asked))
        step = at_us // _STEP_US
        within = (at_us - step * _STEP_US) / _STEP_US * (_STEP_US - _LABEL_US)  # labels are known in the step
        at_us = step * _STEP_US + within.astype(np.int64)
        user = rng.integers(0, _USERS, asked)
        counts = np.bincount(step, minlength=self.steps)
        item = np.concatenate(
            [self.candidates(rng, k, int(c) * _PAGE) for k, c in enumerate(counts.tolist())]
        ).reshape(asked, _PAGE)
        fixed = np.setdiff1d(np.arange(_PAGE), _RANDOM)
        score = self.z[item[:, fixed]] @ self.logged + 0.5 * rng.standard_normal((asked, len(fixed)))
        item[:, fixed] = np.take_along_axis(item[:, fixed], np.argsort(-score, axis=1), axis=1)
        flat, who, when = item.ravel(), np.repeat(user, _PAGE), np.repeat(step, _PAGE)
        place = np.tile(np.arange(_PAGE), asked)
        worth = np.full(len(flat), 0.15) if config.shuffled else self.worth(who, flat, when)
        chance = rng.random((3, len(flat)))
        clicked = chance[0] < worth / (1 + 0.12 * place)
        carted = clicked & (chance[1] < 0.2 + 0.4 * worth)
        ordered = carted & (chance[2] < 0.5)
        self._fold(when, who, self.group[flat], clicked)
        session = np.arange(asked)
        request = np.random.default_rng((config.seed, 8)).permutation(asked) if config.renamed else session
        rows = TrainingRows(
            features=self.features(who, flat, when),
            labels=(clicked.astype(np.int8) + carted + ordered).astype(np.int8),
            positions=place.astype(np.int16),
            groups=np.full(asked, _PAGE, np.int32),
            request_ids=request,
            user_ids=self.user_ids[user],
            session_ids=session,
            time_us=self.start_us + at_us,
            propensity=np.where(np.isin(place, _RANDOM), _PROPENSITY, np.nan).astype(np.float32),
        )
        return rows, self.start_us + at_us + _LABEL_US

    def _fold(
        self,
        step: NDArray[np.int64],
        user: NDArray[np.int64],
        group: NDArray[np.int64],
        clicked: NDArray[np.bool_],
    ) -> None:
        """Decayed counts of views and clicks of each user and group, as of the start of each step."""
        cell = user * _GROUPS + group
        bounds = np.searchsorted(step, np.arange(self.steps + 1))
        for k in range(self.steps):
            views, clicks = self.views[k].ravel().copy(), self.clicks[k].ravel().copy()
            for part in np.array_split(np.arange(bounds[k], bounds[k + 1]), self.config.pieces):
                np.add.at(views, cell[part], 1.0)
                np.add.at(clicks, cell[part], clicked[part])
            self.views[k + 1] = _KEEP * views.reshape(_USERS, _GROUPS)
            self.clicks[k + 1] = _KEEP * clicks.reshape(_USERS, _GROUPS)

    def slice(self, k: int) -> tuple[Slice, NDArray[np.float64], NDArray[np.float64]]:
        """A slice, the attributes of its candidates and what else is known of their worth."""
        config = self.config
        rng = np.random.default_rng((config.seed, 5, k))
        horizon = config.burn_in_d * DAY_US
        length = (config.days * DAY_US - horizon) / config.slices
        step = int((horizon + (k + rng.random()) * length) // _STEP_US)
        n = config.queries * _POOL
        user = np.repeat(rng.integers(0, _USERS, config.queries), _POOL)
        item = self.candidates(rng, step, n)
        now, then = np.full(n, step), np.full(n, horizon // _STEP_US)
        gains = np.exp2(4 * self.worth(user, item, now)) - 1
        groups = np.full(config.queries, _POOL, np.int32)
        part = Slice(
            start_us=self.start_us + step * _STEP_US,
            end_us=self.start_us + (step + 1) * _STEP_US,
            groups=groups,
            item_ids=self.item_ids[item],
            gains=gains,
            ideal=grouped_dcg(gains, gains, groups, DEPTH),
            fresh=self.features(user, item, now),
            frozen=self.features(user, item, then),
            known=self.born[item] <= horizon // _STEP_US,
            query_ids=10**9 + k * config.queries + np.arange(config.queries),
            clusters=self.user_ids[user[::_POOL]],
        )
        return part, self.z[item], self.tastes[now, user, self.group[item]]


def _reverting(
    rng: np.random.Generator, steps: int, width: int, half_life_d: float | None
) -> NDArray[np.float64]:
    """Standard normal processes that revert with a half-life: float64 [steps, width]; None never moves."""
    keep = 1.0 if half_life_d is None else 0.5 ** (_STEP_US / (half_life_d * DAY_US))
    found = rng.standard_normal((steps, width))
    for i in range(1, steps):
        found[i] = keep * found[i - 1] + np.sqrt(1 - keep**2) * found[i]
    return found
