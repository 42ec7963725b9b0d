"""What the offline loop asks of a registry: trainings, releases, the alias `champion`.

It takes and gives plain dictionaries and knows nothing of what they describe. Replicas never import it: they
follow the pointer that the release keeps on disk. The one on MLflow is `infra/mlflow_registry.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from infra.mlflow_registry import MlflowRegistry

__all__ = ["MlflowRegistry", "Registry", "open_registry"]


class Registry(Protocol):
    """What the offline loop asks of a registry; `tests/contract` holds what each method promises."""

    def log_training(
        self,
        component: str,
        *,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        snapshot: Mapping[str, Any],
        lineage: Mapping[str, Any],
        artifact: Mapping[str, Any],
        resources: Mapping[str, float],
        key: str | None = None,
    ) -> str:
        """Record one training as a run and a new version of `shelflife-<component>`; returns the version.

        `snapshot` is what it read, `lineage` what it came of, `artifact` where its files are, `resources`
        what it cost. All of it can be had again with `training`. `key`: what was recorded with an equal
        one before is the same version, not a new one.
        """
        ...

    def log_run(
        self,
        name: str,
        *,
        metrics: Mapping[str, float],
        params: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> None:
        """Record figures of a step as a run of that name; what is not a number is left out.

        `key`: nothing where a run was recorded with an equal one before.
        """
        ...

    def recorded(self, name: str, *, most: int = 1_000) -> list[dict[str, Any]]:
        """The runs of a component's trainings, or those that `log_run` recorded by that name, newest first.

        Each with run_id, page (of MLflow's own pages, below their address), wall_us, metrics
        (`resources/cpu_s` and so on of a training) and params (texts).
        """
        ...

    def training(self, component: str, version: str) -> dict[str, Any]:
        """What `log_training` recorded; DataError if there is no such version."""
        ...

    def register_release(
        self, manifest: Mapping[str, Any], *, verdict: Mapping[str, Any] | None = None
    ) -> str:
        """Record a release by its `release_id`; returns its version, the old one if it was there already."""
        ...

    def manifest(self, release_id: str) -> dict[str, Any]:
        """The manifest that a release was registered with, also once its files were removed; DataError."""
        ...

    def releases(self) -> list[dict[str, Any]]:
        """All releases, newest first.

        Each with version, release_id, parent, components (name → version), metrics, verdict (None before the
        gate), alias (`champion` or None), created_us, promoted_us (wall time; None if it never was champion),
        and promotions: [{"wall_us", "by"}], each time that it became champion.
        """
        ...

    def record_verdict(self, release_id: str, verdict: Mapping[str, Any]) -> None:
        """Keep what the gate said of a release; a later verdict replaces it."""
        ...

    def champion_release(self) -> str | None:
        """The release that the alias names; None before the first promotion."""
        ...

    def set_champion(self, release_id: str, *, expected: str | None = None, by: str = "") -> None:
        """Move the alias; nothing where it is there already. `by`: who or what decided.

        With `expected`, only if that release is champion now; DataError otherwise.
        """
        ...


def open_registry(folder: Path) -> Registry:
    """The registry of a home (`layout.mlflow`); the database is made at first use, which takes about 2 s."""
    return MlflowRegistry(folder)
