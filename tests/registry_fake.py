"""The registry in memory, held to the same contract suite as the real one."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from infra.errors import DataError

__all__ = ["FakeRegistry"]


class FakeRegistry:
    """`infra.registry.Registry` on dictionaries."""

    def __init__(self) -> None:
        self._trainings: dict[str, list[str]] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self.runs: list[dict[str, Any]] = []
        self._releases: list[dict[str, Any]] = []
        self._manifests: dict[str, str] = {}
        self._champion: str | None = None
        self._at_us = 0

    def log_training(self, component: str, *, key: str | None = None, **record: Mapping[str, Any]) -> str:
        """As Registry.log_training."""
        if key is not None and (component, key) in self._keys:
            return self._keys[component, key]
        kept = self._trainings.setdefault(component, [])
        kept.append(json.dumps({"component": component, **record}, default=str))
        if key is not None:
            self._keys[component, key] = str(len(kept))
        return str(len(kept))

    def log_run(
        self,
        name: str,
        *,
        metrics: Mapping[str, float],
        params: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> None:
        """As Registry.log_run."""
        if key is not None and any(r["key"] == key for r in self.runs):
            return
        run = {"name": name, "metrics": dict(metrics), "params": dict(params or {}), "key": key}
        self.runs.append(run)

    def recorded(self, name: str, *, most: int = 1_000) -> list[dict[str, Any]]:
        """As Registry.recorded."""
        trainings = [json.loads(text) for text in self._trainings.get(name, [])]
        runs = [r for r in self.runs if r["name"] == name]
        found = [
            (t["metrics"] | {f"resources/{k}": v for k, v in t["resources"].items()}, t["params"])
            for t in trainings
        ] + [(r["metrics"], r["params"]) for r in runs]
        return [
            {
                "run_id": str(i),
                "page": f"#/experiments/1/runs/{i}",
                "wall_us": i,
                "metrics": m,
                "params": {k: str(v) for k, v in p.items()},
            }
            for i, (m, p) in reversed(list(enumerate(found, start=1)))
        ][:most]

    def training(self, component: str, version: str) -> dict[str, Any]:
        """As Registry.training."""
        kept = self._trainings.get(component, [])
        if not (version.isdigit() and 1 <= int(version) <= len(kept)):
            raise DataError(f"{component} has no version {version!r} in the registry")
        record: dict[str, Any] = json.loads(kept[int(version) - 1])
        return record

    def register_release(
        self, manifest: Mapping[str, Any], *, verdict: Mapping[str, Any] | None = None
    ) -> str:
        """As Registry.register_release."""
        for row in self._releases:
            if row["release_id"] == manifest["release_id"]:
                row["verdict"] = row["verdict"] if verdict is None else dict(verdict)
                return str(row["version"])
        self._manifests[str(manifest["release_id"])] = json.dumps(manifest, default=str)
        self._releases.append(
            {
                "version": str(len(self._releases) + 1),
                "release_id": manifest["release_id"],
                "parent": manifest.get("parent") or None,
                "components": {k: str(a["version"]) for k, a in manifest.get("artifacts", {}).items()},
                "metrics": dict(manifest.get("metrics") or {}),
                "verdict": None if verdict is None else dict(verdict),
                "created_us": manifest["created_us"],
                "promoted_us": None,
                "promotions": [],
            }
        )
        return str(len(self._releases))

    def manifest(self, release_id: str) -> dict[str, Any]:
        """As Registry.manifest."""
        self._known(release_id)
        found: dict[str, Any] = json.loads(self._manifests[release_id])
        return found

    def releases(self) -> list[dict[str, Any]]:
        """As Registry.releases."""
        return [
            {**row, "alias": "champion" if row["release_id"] == self._champion else None}
            for row in reversed(self._releases)
        ]

    def record_verdict(self, release_id: str, verdict: Mapping[str, Any]) -> None:
        """As Registry.record_verdict."""
        self._known(release_id)["verdict"] = dict(verdict)

    def champion_release(self) -> str | None:
        """As Registry.champion_release."""
        return self._champion

    def set_champion(self, release_id: str, *, expected: str | None = None, by: str = "") -> None:
        """As Registry.set_champion."""
        row = self._known(release_id)
        if expected is not None and expected != self._champion:
            raise DataError(f"the champion is {self._champion}, expected {expected}")
        if self._champion == release_id:
            return
        self._at_us = max(time.time_ns() // 1_000, self._at_us + 1)  # two in a microsecond are told apart
        row["promoted_us"] = self._at_us
        row["promotions"].append({"wall_us": row["promoted_us"], "by": by})
        self._champion = release_id

    def _known(self, release_id: str) -> dict[str, Any]:
        for row in self._releases:
            if row["release_id"] == release_id:
                return row
        raise DataError(f"no release {release_id!r} in the registry")
