"""What a live study is asked: which policies, on which world, how long, under what load; checked beforehand.

It knows neither services nor models.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data.world.config import FUTURE_DAYS, WorldConfig, world_config
from data.world.history import read_summary
from flows.policies.engine import INGEST
from flows.policies.policy import Policy, load_policy, parse_policy
from flows.policies.replay import EMPTY, replay
from flows.studies.panels.key import code_hash
from flows.studies.statistics.choice import MARGIN
from infra.clock import DAY_US
from infra.errors import ConfigError, InputError
from infra.settings import Home

__all__ = ["CONTROL", "DAILY", "NO_SLOTS", "THROUGH", "LiveAsk", "Trial", "live_ask"]

DAILY = """\
name: daily
components:
  ranker:
    trigger: {kind: interval, every: 1d}
    window: 4d
"""
NEVER = """\
name: never
components:
  ranker:
    trigger: {kind: never}
    window: 4d
"""
CONTROL = "never"
NO_SLOTS = "without-slots"
THROUGH = ("prefect", "process")
REQUESTS_OF_A_USER = 11.0  # a day, of a user who is active on it: what the world's shoppers ask
_SCORING_S = 2.5  # wall seconds a day in which the arms are scored
_SPARE = 1.4  # requests that there are for each one that is sent


@dataclass(frozen=True)
class Trial:
    """One policy to run; `slots`: randomised slots of the service's pages, None its own default."""

    policy: Policy
    slots: int | None = None

    @property
    def name(self) -> str:
        """Of its folder and in reports."""
        return self.policy.name if self.slots is None else f"{self.policy.name}-{NO_SLOTS}"


@dataclass(frozen=True)
class LiveAsk:
    """One live study, complete.

    `trials`: in the order they run; `config`: of the world, whose last `days` are lived through; `qps`:
    requests a wall second over HTTP; `day_seconds`: wall seconds in which a shop day goes by;
    `quiet_seconds`: of each day, with nothing but the load; `run_seconds`: that are set aside for each run of
    a policy; `window_d`: the longest window of a policy's ranker, also of the first release; `queries`:
    scored by each arm a day; `margin`: NDCG@10 by which live may differ from predicted and still agree;
    `through`: who starts runs.
    """

    trials: tuple[Trial, ...]
    config: WorldConfig
    source: str = "world"
    drift: str = "strong"
    days: int = 31
    window_d: float = 4.0
    seed: int = 7
    qps: float = 50.0
    day_seconds: float = 5.0
    quiet_seconds: float = 6.5
    run_seconds: float = 18.0
    queries: int = 200
    margin: float = MARGIN
    through: str = "prefect"
    files: tuple[str, ...] = ()
    closed_loop: bool = False

    @property
    def first_day(self) -> int:
        """The first day that is lived through."""
        return self.config.days - self.days

    def trace_s(self, trial: Trial) -> list[float]:
        """`walls_s`, and days that come after, whose shoppers ask where runs take longer than set aside."""
        walls = self.walls_s(trial)
        return walls + [walls[-1]] * (2 + self.days // 2)

    @property
    def key(self) -> str:
        """Names the study's folder: 12 hex digits over all that decides what comes of it."""
        document = {
            "trials": [[t.policy.model_dump(mode="json"), t.slots] for t in self.trials],
            "config": self.config.to_json(),
            "code": code_hash("world"),
            "version": _VERSION,
            **{n: getattr(self, n) for n in _OWN},
        }
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:12]

    def walls_s(self, trial: Trial) -> list[float]:
        """Wall seconds set aside for each day of a trial."""
        always_s = self.day_seconds + self.quiet_seconds + _SCORING_S
        return [always_s + n * self.run_seconds for n in runs_by_day(trial.policy, self.days)]

    def arguments(self) -> dict[str, Any]:
        """For the record."""
        own = {n: getattr(self, n) for n in (*_OWN, "source", "drift", "closed_loop")}
        return own | {"policies": [t.name for t in self.trials], "world": self.config.to_json()}

    def command(self) -> str:
        """The command line that repeats this study."""
        parts = ["shelflife study live", *(f"--policies {f}" for f in self.files)]
        first = LiveAsk((), self.config)
        parts += [] if self.source == "world" else [f"--source {self.source}"]
        parts += [f"--drift {self.drift}"] if self.source == "world" and self.drift != first.drift else []
        if self.source == "world" and self.config.scale != SCALE:
            parts.append(f"--scale {self.config.scale:g}")
        for name in (*(n for n in _OWN if n != "window_d"), "closed_loop"):
            value = getattr(self, name)
            if value != getattr(first, name) or name == "seed":
                option = f"--{name.replace('_', '-')}"
                parts.append(option if value is True else f"{option} {value}")
        return " ".join(parts) + ("" if any(t.name == CONTROL for t in self.trials) else " --no-control")


SCALE = 0.3
_VERSION = 2  # raise when the same ask would begin with another start, or be told otherwise
BURN_IN_D = 2.5  # windows of history before the first day: half of it teaches a study's scorers
_OWN = (
    "days",
    "window_d",
    "seed",
    "qps",
    "day_seconds",
    "quiet_seconds",
    "run_seconds",
    "queries",
    "margin",
    "through",
)


def live_ask(
    policies: Sequence[Path] = (),
    *,
    source: str = "world",
    drift: str = "strong",
    scale: float = SCALE,
    control: bool = True,
    closed_loop: bool = False,
    **given: Any,
) -> LiveAsk:
    """An ask made of what a user says; ConfigError or InputError for what makes no sense."""
    chosen = [load_policy(p) for p in policies] or [parse_policy(DAILY)]
    names = [p.name for p in chosen]
    if len(set(names)) < len(names):
        raise InputError(f"two policies have the same name ({', '.join(names)}); expected each of its own")
    trials = [Trial(p) for p in chosen]
    if control and CONTROL not in names:
        trials.append(Trial(parse_policy(NEVER)))
    if closed_loop:
        trials += [Trial(p, 0) for p in chosen if p.name != CONTROL]
    blank = LiveAsk((), WorldConfig())
    values = {n: getattr(blank, n) if given.get(n) is None else given[n] for n in _OWN}
    windows = [p.components["ranker"].window_d for p in chosen if "ranker" in p.components]
    values["window_d"] = max((w for w in windows if w is not None), default=blank.window_d)
    _check(values, source, drift)
    ask = LiveAsk(
        tuple(trials),
        WorldConfig(),
        source=source,
        drift=drift,
        files=tuple(str(p) for p in policies),
        closed_loop=closed_loop,
        **values,
    )
    config = _config(ask, scale) if source == "world" else _config_of(Path(source), ask)
    return replace(ask, config=config)


def runs_by_day(policy: Policy, days: int) -> list[float]:
    """How many runs a policy starts on each day, by the clock; in the mean where data decides."""
    alone = policy.model_copy(update={"ingest": None})
    fired = replay(alone, EMPTY, since_us=0, until_us=days * DAY_US)
    counts = [0.0] * days
    for firing in fired:
        counts[firing.at_us // DAY_US] += firing.components != (INGEST,)
    if policy.needs_data:  # once a day beside the clock's, and each taking in of data
        counts = [n + 1.0 for n in counts]
    every = 0.0 if policy.ingest is None else DAY_US / policy.ingest
    return [n + every for n in counts]


def _config(ask: LiveAsk, scale: float) -> WorldConfig:
    """A world whose shoppers ask a little more than what is sent."""
    days = math.ceil(BURN_IN_D * ask.window_d) + ask.days
    blank = world_config(ask.drift, scale=scale, seed=ask.seed, days=days)
    longest = max(w for t in ask.trials for w in ask.walls_s(t))
    wanted = _SPARE * ask.qps * longest / (REQUESTS_OF_A_USER * blank.n_users)
    if wanted > 0.9:
        raise InputError(
            f"{ask.qps:g} requests a second for {longest:.0f} s a shop day are more than {blank.n_users:,} "
            "users ask; take a larger --scale, or a smaller --qps"
        )
    return world_config(ask.drift, scale=scale, seed=ask.seed, days=days, activity=round(wanted, 4))


def _config_of(home: Path, ask: LiveAsk) -> WorldConfig:
    """The world of a home: its last days are lived through anew."""
    folder = home.expanduser()
    if not folder.is_dir():
        raise InputError(f"--source is {str(home)!r}; expected world or the folder of a home")
    found = read_summary(Home(folder.resolve()))
    if found is None:
        raise InputError(
            f"{folder} has a log, and no simulated shoppers: a log cannot say what people would have done "
            "with other pages; expected a home with a world (`shelflife world generate`), or --source world; "
            "what a log can tell, `shelflife study interval --source` tells"
        )
    config = WorldConfig.from_json(found.config)
    least = math.ceil(2 * ask.window_d) + 1
    if config.days - ask.days < least:
        raise InputError(
            f"the world of {folder} has {config.days} days; {ask.days} to live through and {least} of "
            "history before them do not fit: ask for fewer --days"
        )
    return config


def _check(values: dict[str, Any], source: str, drift: str) -> None:
    if source == "world" and drift not in ("none", "mild", "strong"):
        raise ConfigError(f"--drift is {drift!r}; expected none, mild or strong")
    if values["through"] not in THROUGH:
        raise ConfigError(f"--through is {values['through']!r}; expected one of {', '.join(THROUGH)}")
    if not 2 <= values["days"] <= FUTURE_DAYS:
        raise ConfigError(f"--days is {values['days']}; expected 2 to {FUTURE_DAYS}")
    limits = {
        "qps": 2_000,
        "day_seconds": 3_600,
        "quiet_seconds": 3_600,
        "run_seconds": 600,
        "window_d": 100,
        "margin": 1,
    }
    for name, most in limits.items():
        if not 0 < values[name] < most:
            raise ConfigError(
                f"--{name.replace('_', '-')} is {values[name]:g}; expected above 0 and below {most:,}"
            )
    if values["queries"] < 10:
        raise ConfigError(f"--queries is {values['queries']}; expected 10 or more")
