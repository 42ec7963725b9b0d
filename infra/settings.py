"""Where things lie and which ports are used; read once at the edge and passed down.

Settings come from `SHELFLIFE_*` variables or keyword arguments; unknown keys are refused.
It knows paths and ports, nothing of what the files hold.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from infra.errors import ConfigError

__all__ = ["REPOSITORY", "Home", "Settings", "load_settings"]

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Home:
    """The runtime folder (`--home`, default `var/`) and the place of everything in it."""

    root: Path

    @property
    def segments(self) -> Path:
        """Immutable Parquet files, `YYYY-MM-DD/HH/<name>.parquet`."""
        return self.root / "segments"

    @property
    def journal(self) -> Path:
        """One folder a writer."""
        return self.root / "journal"

    @property
    def store(self) -> Path:
        """The DuckDB file that only ingest opens."""
        return self.root / "store" / "store.duckdb"

    @property
    def snapshots(self) -> Path:
        """What ingest publishes: immutable event parts and one status document."""
        return self.root / "snapshots"

    @property
    def states(self) -> Path:
        """Published state snapshots, one folder each."""
        return self.root / "states"

    @property
    def blobs(self) -> Path:
        """Content-addressed files of releases."""
        return self.root / "blobs"

    @property
    def releases(self) -> Path:
        """One folder a release, and the champion pointer."""
        return self.root / "releases"

    @property
    def world(self) -> Path:
        """The world's public description (no truth)."""
        return self.root / "world"

    @property
    def truth(self) -> Path:
        """The world's hidden relevance: only `eval` and simulated shoppers read it."""
        return self.root / "truth"

    @property
    def mlflow(self) -> Path:
        """The registry: `mlflow.db` and the artifacts."""
        return self.root / "mlflow"

    @property
    def prefect(self) -> Path:
        """The private `PREFECT_HOME`."""
        return self.root / "prefect"

    @property
    def checkpoints(self) -> Path:
        """What trainings under way have learnt so far, one file a component."""
        return self.root / "checkpoints"

    @property
    def run(self) -> Path:
        """Process ids, ports and logs of what is running."""
        return self.root / "run"

    @property
    def making(self) -> Path:
        """Artifacts that a refresh is saving; what lies there without one is left of a crash."""
        return self.run / "making"

    @property
    def serving_status(self) -> Path:
        """What the replica last wrote of itself: health, releases, every try to swap."""
        return self.run / "serving-status.json"

    @property
    def reports(self) -> Path:
        """HTML reports and their JSON."""
        return self.root / "reports"

    @property
    def clock(self) -> Path:
        """The shop clock, shared by all processes."""
        return self.root / "clock.json"


@dataclass(frozen=True)
class Settings:
    """Everything that a user may set. Ports are on 127.0.0.1; 0 means any free one.

    `train_memory_mb`: what a training may take; 0 is three quarters of the machine's memory.
    `kept_releases`: the newest ones whose files stay on the disk.
    """

    home: Path = REPOSITORY / "var"
    cache: Path = REPOSITORY / "var" / "cache"
    host: str = "127.0.0.1"
    http_port: int = 8000
    prefect_port: int = 4200
    mlflow_port: int = 5000
    haproxy_stats_port: int = 8404
    haproxy_metrics_port: int = 9101
    seed: int = 7
    retention_d: int = 0  # shop days of events that are kept; 0: all
    train_memory_mb: int = 0
    kept_releases: int = 20

    @property
    def layout(self) -> Home:
        """The layout of the home folder."""
        return Home(self.home)


def load_settings(**overrides: Any) -> Settings:
    """Settings from `SHELFLIFE_<NAME>` variables, then `overrides` that are not None.

    Raises ConfigError for an unknown variable or a value of the wrong type.
    """
    known = {f.name: f for f in fields(Settings)}
    values: dict[str, Any] = {}
    for name, text in os.environ.items():
        if not name.startswith("SHELFLIFE_"):
            continue
        key = name.removeprefix("SHELFLIFE_").lower()
        if key not in known:
            raise ConfigError(
                f"unknown setting {name}; expected one of "
                + ", ".join(f"SHELFLIFE_{k.upper()}" for k in known)
            )
        values[key] = _parse(name, text, known[key].type)
    unknown = set(overrides) - set(known)
    if unknown:
        raise ConfigError(f"unknown setting {sorted(unknown)[0]}; expected one of {sorted(known)}")
    values |= {k: v for k, v in overrides.items() if v is not None}
    settings = replace(Settings(), **values)
    if settings.kept_releases < 1:
        raise ConfigError(f"SHELFLIFE_KEPT_RELEASES is {settings.kept_releases}; expected 1 or more")
    return replace(
        settings, home=settings.home.expanduser().resolve(), cache=settings.cache.expanduser().resolve()
    )


def _parse(name: str, text: str, kind: Any) -> Any:
    if kind == "Path":
        return Path(text)
    if kind == "int":
        try:
            return int(text)
        except ValueError:
            raise ConfigError(f"{name} is {text!r}; expected a whole number") from None
    return text
