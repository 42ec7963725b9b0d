"""What is refreshed when: the schedules of a home, read by the flow runner.

Intervals are wall seconds; a home without `schedules.json` has the defaults below.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from flows.offline.gate import MARGIN
from flows.offline.refresh import WINDOW_D, components_of
from infra.errors import ConfigError
from infra.files import write_atomic
from infra.settings import Home

__all__ = ["DEFAULTS", "Schedule", "read_schedules", "write_schedules"]


@dataclass(frozen=True)
class Schedule:
    """Refresh `component` (one or several, with commas) every `interval_s` wall seconds.

    `margin`: NDCG@10 by which the gate lets the new release be worse.
    """

    name: str
    component: str
    interval_s: float
    fraction: float = 1.0
    window_d: float | None = WINDOW_D
    start: str = "cold"
    first_after_s: float | None = None  # None: one interval
    margin: float = MARGIN

    def __post_init__(self) -> None:
        components_of(self.component)
        if not self.interval_s >= 1:
            raise ConfigError(f"schedule {self.name}: interval_s is {self.interval_s}; expected 1 or more")
        if not 0 < self.fraction <= 1:
            raise ConfigError(
                f"schedule {self.name}: fraction is {self.fraction}; expected above 0, at most 1"
            )
        if not 0 <= self.margin < 1:
            raise ConfigError(f"schedule {self.name}: margin is {self.margin}; expected 0 to below 1")
        if self.start not in ("cold", "warm"):
            raise ConfigError(f"schedule {self.name}: start is {self.start!r}; expected cold or warm")


DEFAULTS = (
    Schedule("hourly-index", "index", 3_600.0),
    Schedule("daily-ranker", "ranker,text_classifier", 86_400.0),
    Schedule("weekly-all", "all", 7 * 86_400.0),
)


def _path(layout: Home) -> Path:
    return layout.root / "schedules.json"


def read_schedules(layout: Home) -> tuple[Schedule, ...]:
    """The schedules of a home. ConfigError for unknown keys or impossible values."""
    path = _path(layout)
    try:
        rows = json.loads(path.read_text())
    except FileNotFoundError:
        return DEFAULTS
    except ValueError as error:
        raise ConfigError(f"{path} is no JSON ({error}); expected a list of schedules") from None
    known = {f.name for f in fields(Schedule)}
    for row in rows:
        if unknown := set(row) - known:
            raise ConfigError(f"{path}: unknown key {sorted(unknown)[0]!r}; expected one of {sorted(known)}")
    return tuple(Schedule(**row) for row in rows)


def write_schedules(layout: Home, schedules: Sequence[Schedule]) -> None:
    """Make these the schedules of a home; the runner reads them when it starts."""
    write_atomic(_path(layout), json.dumps([asdict(s) for s in schedules], indent=1).encode())
