"""Panels by the name of their source: opened from the cache where they are there, else made once.

Sources: a simulated world, two real logs without impressions, and the folder of a home. What is damaged
or was made by other code is made anew. It knows no policy and no model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

from data.snapshots import published
from data.sources import completejourney, movielens
from data.sources.interactions import InteractionLog, log_of_home
from data.world.config import WorldConfig, world_config
from flows.offline.refresh import read_refreshes
from flows.studies.panels.key import panel_key
from flows.studies.panels.log import BURN_IN, LEAST_DAYS, has_impressions, log_key, log_panel
from flows.studies.panels.next_item.panel import next_item_panel
from flows.studies.panels.panel import Panel
from flows.studies.panels.scorers import SCORERS_PART
from flows.studies.panels.world import ACTIVITY, Deployed, world_key, world_panel
from infra.clock import SECOND_US
from infra.errors import ConfigError, DataError, EnvironmentError_
from infra.processes import exclusive
from infra.settings import Settings

__all__ = ["INSTALL_S", "LOADERS", "REFRESH_S", "SOURCES", "Progress", "open_panel", "publish_delay"]

Progress = Callable[..., None]
SOURCES = ("world", "completejourney", "movielens")
LOADERS: dict[str, Callable[[Path], InteractionLog]] = {
    "completejourney": completejourney.load,
    "movielens": movielens.load,
}
# Days of burn-in and horizon where nobody says: a world is made as long, of real logs it is a part.
_DAYS = {"world": (10.0, 14.0), "completejourney": (182.0, 168.0), "movielens": (112.0, 84.0)}

# Measured on a home with the default world (scale 0.5, 24 days, 2 million events; 2 cores, niceness 19):
# `refresh --component ranker` took 3.7, 4.0 and 6.3 s from ingest to promotion.
REFRESH_S = 4.0
# Of a replica, from the pointer to the first reply: 0.25 s between looks, loading, warming, shadow check.
INSTALL_S = 2.0


def open_panel(
    settings: Settings,
    source: str,
    *,
    drift: str = "strong",
    scale: float = 0.5,
    seed: int | None = None,
    burn_in_d: float | None = None,
    horizon_d: float | None = None,
    window_d: float | None = 4.0,
    slices: int = 14,
    queries: int = 150,
    deployed: Deployed | None = None,
    progress: Progress = lambda *_: None,
    **knobs: Any,
) -> tuple[Panel, Path]:
    """The panel of a source and its folder below the cache, made if it is not there.

    `source`: of SOURCES, or the folder of a home; `seed`: of the world and of every sample, None that of
    the settings; `drift`, `scale`, `knobs` (data.world.config), `window_d`, `deployed`: of a world only.
    Raises ConfigError for an unknown source or knob and for impossible numbers, DataError for a source that
    holds too little, EnvironmentError_ where the panel cannot be written or is being made by another command.
    """
    settings = settings if seed is None else replace(settings, seed=seed)
    cut = _Cut(burn_in_d, horizon_d, slices, queries)
    if source != "world" and knobs:
        raise ConfigError(
            f"{next(iter(knobs))} is a knob of a world; {source} is a log as it is: leave it out"
        )
    if source == "world":
        cut = cut.filled(*_DAYS[source])
        knobs = {"activity": ACTIVITY, "scale": scale, "seed": settings.seed} | knobs
        key, make = _world(
            settings, world_config(drift, **knobs, days=ceil(cut.span_d)), cut, window_d, deployed, progress
        )
    elif source in LOADERS:
        key, make = _real(settings, source, cut.filled(*_DAYS[source]), progress)
    elif Path(source).expanduser().is_dir():
        home = replace(settings, home=Path(source).expanduser().resolve())
        key, make = _home(home, cut, progress)
    else:
        raise ConfigError(
            f"unknown source {source!r}; expected one of {', '.join(SOURCES)}, or the folder of a home"
        )
    return _kept(settings.cache / "panels", key, progress, make)


def publish_delay(settings: Settings) -> int:
    """From the newest event that a training reads to the first reply of its model: us of shop time at rate 1.

    The median time of this home's own refreshes of the ranker (ingest, training, gate, publishing), without
    any REFRESH_S, and INSTALL_S for the replicas.
    """
    documents = [d for d in read_refreshes(settings.layout) if "ranker" in d.get("made", {})]
    alone = [d for d in documents if len(d["made"]) == 1] or documents
    refresh_s = median(float(d["seconds"]) for d in alone) if alone else REFRESH_S
    return round((refresh_s + INSTALL_S) * SECOND_US)


@dataclass(frozen=True)
class _Cut:
    """How a source is cut; None: not said. ConfigError for an impossible number."""

    burn_in_d: float | None
    horizon_d: float | None
    slices: int
    queries: int

    def __post_init__(self) -> None:
        for name, days in (("burn-in", self.burn_in_d), ("horizon", self.horizon_d)):
            if days is not None and not 0 < days < 10_000:
                raise ConfigError(f"a {name} of {days:g} days; expected more than 0 and less than 10,000")
        for name, count in (("slices", self.slices), ("queries", self.queries)):
            if count < 1:
                raise ConfigError(f"{name} is {count}; expected 1 or more")

    def filled(self, burn_in_d: float, horizon_d: float) -> _Cut:
        """With these days where none are said."""
        return replace(
            self,
            burn_in_d=float(burn_in_d if self.burn_in_d is None else self.burn_in_d),
            horizon_d=float(horizon_d if self.horizon_d is None else self.horizon_d),
        )

    @property
    def days(self) -> tuple[float, float]:
        """Burn-in and horizon, both said."""
        assert self.burn_in_d is not None, "a cut without a burn-in"
        assert self.horizon_d is not None, "a cut without a horizon"
        return self.burn_in_d, self.horizon_d

    @property
    def span_d(self) -> float:
        """Days of both."""
        return sum(self.days)


_Made = tuple[str, Callable[[], Panel]]  # the key of a panel, and how it is made


def _world(
    settings: Settings,
    config: WorldConfig,
    cut: _Cut,
    window_d: float | None,
    deployed: Deployed | None,
    progress: Progress,
) -> _Made:
    burn_in_d = config.days - cut.days[1]  # what a world has beyond whole days is burn-in
    key = world_key(
        settings, config, burn_in_d=burn_in_d, slices=cut.slices, queries=cut.queries, deployed=deployed
    )
    return key, lambda: world_panel(
        settings,
        config,
        burn_in_d=burn_in_d,
        window_d=(1 - SCORERS_PART) * burn_in_d if window_d is None else window_d,
        slices=cut.slices,
        queries=cut.queries,
        deployed=deployed,
        progress=progress,
    )


def _real(settings: Settings, name: str, cut: _Cut, progress: Progress) -> _Made:
    key = panel_key(name, seed=settings.seed, **asdict(cut))
    return key, lambda: _next_items(LOADERS[name](settings.cache), name, cut, settings.seed, progress)


def _home(settings: Settings, cut: _Cut, progress: Progress) -> _Made:
    """What was shown and clicked, where the home has it; else clicks and orders alone."""
    layout = settings.layout
    held = published(layout)
    if not held.kinds.get("item_upsert"):
        waiting = sum(held.quarantine.values())
        raise DataError(
            f"the log of {layout.root} has no items"
            + (f"; {waiting:,} of its events were put aside by `shelflife ingest`" if waiting else "")
            + "; import a table of them beside what happened, and run `shelflife ingest`"
        )
    if has_impressions(layout):
        return log_key(settings, **asdict(cut)), lambda: log_panel(settings, progress=progress, **asdict(cut))
    content = held.content_hash
    key = panel_key("next-item", content=content, seed=settings.seed, **asdict(cut))

    def make() -> Panel:
        log = log_of_home(layout)
        if log.span_d < LEAST_DAYS:
            raise DataError(
                f"the log of {layout.root} spans {log.span_d:.1f} days; expected {LEAST_DAYS:g} or more: a "
                "study needs days to learn from and days to compare on"
            )
        rest = log.span_d * (1 - BURN_IN) if cut.burn_in_d is None else log.span_d - cut.burn_in_d
        whole = cut.filled(log.span_d - (cut.horizon_d or rest), rest)
        if min(whole.days) <= 0:
            raise DataError(
                f"the log of {layout.root} spans {log.span_d:.1f} days, which is no more than the burn-in or "
                "the horizon alone: shorten them"
            )
        return _next_items(log, str(layout.root), whole, settings.seed, progress)

    return key, make


def _next_items(log: InteractionLog, name: str, cut: _Cut, seed: int, progress: Progress) -> Panel:
    burn_in_d, horizon_d = cut.days
    return next_item_panel(
        log,
        name=name,
        burn_in_d=burn_in_d,
        horizon_d=horizon_d,
        slices=cut.slices,
        queries=cut.queries,
        seed=seed,
        progress=progress,
    )


def _kept(panels: Path, key: str, progress: Progress, make: Callable[[], Panel]) -> tuple[Panel, Path]:
    """The panel of that key, made and saved where it is not there or cannot be read."""
    folder = panels / key
    found = _opened(folder, key)
    if found is not None:
        return found, folder
    try:
        with exclusive(panels / f".{key}.lock", "study"):
            found = _opened(folder, key)  # another command may have made it meanwhile
            if found is None:
                progress("making the panel")
                replace(make(), key=key).save(folder)
                found = _opened(folder, key)
    except OSError as error:
        raise EnvironmentError_(
            f"cannot write the panel {folder}: {error.strerror or f'not all of it fits ({error})'}; "
            "free space and try again"
        ) from error
    if found is None:
        raise EnvironmentError_(f"the panel {folder} cannot be read back; check the disk and try again")
    return found, folder


def _opened(folder: Path, key: str) -> Panel | None:
    """A saved panel; None where there is none that is whole and of this version."""
    try:
        panel = Panel.load(folder)
    except (OSError, EOFError, ValueError, KeyError, TypeError, DataError):
        return None
    return panel if panel.key == key else None
