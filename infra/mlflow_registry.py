"""The narrow seam around MLflow: SQLite and a folder beside it, without a server.

mlflow costs 2 s and 170 MB: it is imported at first use. What each method promises stands in
`infra/registry.py`; nothing else of Shelflife knows mlflow.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from infra.errors import DataError, EnvironmentError_
from infra.files import write_atomic

__all__ = ["MlflowRegistry"]

EXPERIMENT = "shelflife"
RELEASE = "shelflife-release"
CHAMPION = "champion"
PARAM_LENGTH = 6_000  # MLflow refuses longer ones
_ADVICE = {  # by what SQLite and MLflow say
    "locked": "another program holds it; wait or end that program",
    "out-of-date database schema": "another MLflow made it; use the Shelflife that this home was made with",
    "Can't locate revision": "a newer MLflow made it; use the Shelflife that this home was made with",
}


class MlflowRegistry:
    """The registry on MLflow's SQLite store, without a server; writes of all processes hold a file lock."""

    def __init__(self, folder: Path, *, busy_s: float = 30.0) -> None:
        self.folder = folder
        self.busy_s = busy_s
        self._opened: tuple[Any, str] | None = None

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
        """As Registry.log_training."""
        record = {
            "component": component,
            "params": dict(params),
            "metrics": dict(metrics),
            "snapshot": dict(snapshot),
            "lineage": dict(lineage),
            "artifact": dict(artifact),
            "resources": dict(resources),
        }
        text = json.dumps(record, sort_keys=True, default=str)
        at_ms = time.time_ns() // 1_000_000
        numbers = {**metrics, **{f"resources/{k}": v for k, v in resources.items()}}
        name = f"shelflife-{component}"
        with self._write() as (client, experiment):
            from mlflow.entities import Metric, Param, RunTag

            if key is not None and (old := self._tagged(client, name, "key", key)) is not None:
                return str(old.version)
            run = client.create_run(experiment, run_name=component).info
            client.log_batch(
                run.run_id,
                metrics=[Metric(k, float(v), at_ms, 0) for k, v in numbers.items()],
                params=[Param(k, str(v)[:PARAM_LENGTH]) for k, v in params.items()],
                tags=[RunTag("component", component)],
            )
            folder = self.folder / "artifacts" / component / run.run_id
            write_atomic(folder / "training.json", text.encode())
            self._make_model(client, name)
            tags = {} if key is None else {"key": key}
            version = client.create_model_version(name, source=str(folder), run_id=run.run_id, tags=tags)
            client.set_terminated(run.run_id)
            return str(version.version)

    def log_run(
        self,
        name: str,
        *,
        metrics: Mapping[str, float],
        params: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> None:
        """As Registry.log_run."""
        at_ms = time.time_ns() // 1_000_000
        with self._write() as (client, experiment):
            from mlflow.entities import Metric, Param, RunTag

            if key is not None:
                told = "tags.key = '{}' and attributes.status = 'FINISHED'".format(key.replace("'", ""))
                if client.search_runs([experiment], told, max_results=1):
                    return
            run = client.create_run(experiment, run_name=name).info
            client.log_batch(
                run.run_id,
                metrics=[Metric(k, float(v), at_ms, 0) for k, v in metrics.items() if math.isfinite(v)],
                params=[Param(k, str(v)[:PARAM_LENGTH]) for k, v in (params or {}).items()],
                tags=[] if key is None else [RunTag("key", key)],
            )
            client.set_terminated(run.run_id)

    def recorded(self, name: str, *, most: int = 1_000) -> list[dict[str, Any]]:
        """As Registry.recorded."""
        wanted = "attributes.run_name = '{}' and attributes.status = 'FINISHED'".format(name.replace("'", ""))
        with self._read() as (client, experiment):
            found = client.search_runs([experiment], wanted, max_results=most)
        return [
            {
                "run_id": run.info.run_id,
                "page": f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}",
                "wall_us": int(run.info.start_time) * 1_000,
                "metrics": dict(run.data.metrics),
                "params": dict(run.data.params),
            }
            for run in found
        ]

    def training(self, component: str, version: str) -> dict[str, Any]:
        """As Registry.training."""
        with self._read() as (client, _):
            found = _or_none(lambda: client.get_model_version(f"shelflife-{component}", version))
        if found is None:
            raise DataError(
                f"{component} has no version {version!r} in the registry; `shelflife releases` lists them"
            )
        record: dict[str, Any] = json.loads((Path(found.source) / "training.json").read_text())
        return record

    def register_release(
        self, manifest: Mapping[str, Any], *, verdict: Mapping[str, Any] | None = None
    ) -> str:
        """As Registry.register_release."""
        release_id = str(manifest["release_id"])
        components = {name: str(a["version"]) for name, a in manifest.get("artifacts", {}).items()}
        tags = {
            "release_id": release_id,
            "parent": str(manifest.get("parent") or ""),
            "created_us": str(manifest["created_us"]),
            "watermark_us": str(manifest.get("watermark_us", "")),
            "components": json.dumps(components),
            "metrics": json.dumps(_finite(manifest.get("metrics") or {})),
            "verdict": json.dumps(verdict),
        }
        with self._write() as (client, _):
            self._make_model(client, RELEASE)
            old = self._version(client, release_id)
            if old is not None:
                if verdict is not None:
                    client.set_model_version_tag(RELEASE, old.version, "verdict", tags["verdict"])
                return str(old.version)
            path = self._manifest_path(release_id)
            write_atomic(path, json.dumps(manifest, default=str).encode())
            return str(client.create_model_version(RELEASE, source=str(path.parent), tags=tags).version)

    def manifest(self, release_id: str) -> dict[str, Any]:
        """As Registry.manifest. The file alone: neither the database nor mlflow is needed."""
        path = self._manifest_path(release_id)
        try:
            found: dict[str, Any] = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise _no_release(release_id) from None
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read ({error}); publish the release again") from error
        return found

    def releases(self) -> list[dict[str, Any]]:
        """As Registry.releases."""
        with self._read() as (client, _):
            versions, page = [], None
            while True:
                found = client.search_model_versions(f"name='{RELEASE}'", max_results=1_000, page_token=page)
                versions += found
                page = found.token
                if not page:
                    break
            champion = self._champion(client)
        rows = [_row(v, champion) for v in versions]
        return sorted(rows, key=lambda row: int(row["version"]), reverse=True)

    def record_verdict(self, release_id: str, verdict: Mapping[str, Any]) -> None:
        """As Registry.record_verdict."""
        with self._write() as (client, _):
            version = self._known(client, release_id)
            client.set_model_version_tag(
                RELEASE, version.version, "verdict", json.dumps(verdict, default=str)
            )

    def champion_release(self) -> str | None:
        """As Registry.champion_release."""
        with self._read() as (client, _):
            found = self._champion(client)
            return None if found is None else str(found.tags["release_id"])

    def set_champion(self, release_id: str, *, expected: str | None = None, by: str = "") -> None:
        """As Registry.set_champion. MLflow has no compare-and-swap: the file lock makes it one."""
        with self._write() as (client, _):
            version = self._known(client, release_id)
            champion = self._champion(client)
            now = None if champion is None else champion.tags["release_id"]
            if expected is not None and now != expected:
                raise DataError(
                    f"the champion is {now}, expected {expected}: it was changed meanwhile; "
                    "look at `shelflife releases` and repeat"
                )
            if now == release_id:
                return
            at_us = time.time_ns() // 1_000
            told = [*json.loads(version.tags.get("promotions", "[]")), {"wall_us": at_us, "by": by}]
            client.set_model_version_tag(RELEASE, version.version, "promoted_us", str(at_us))
            client.set_model_version_tag(RELEASE, version.version, "promotions", json.dumps(told))
            client.set_registered_model_alias(RELEASE, CHAMPION, version.version)

    def _manifest_path(self, release_id: str) -> Path:
        return self.folder / "artifacts" / "release" / release_id / "manifest.json"

    def _client(self) -> tuple[Any, str]:
        if self._opened is None:
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
            os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
            os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
            from mlflow.tracking import MlflowClient

            logging.getLogger("alembic").setLevel(logging.WARNING)  # a line a migration otherwise
            uri = f"sqlite:///{self.folder / 'mlflow.db'}?timeout={self.busy_s:g}"
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            found = client.get_experiment_by_name(EXPERIMENT)
            experiment = (
                found.experiment_id
                if found is not None
                else client.create_experiment(EXPERIMENT, (self.folder / "artifacts").as_uri())
            )
            self._opened = (client, str(experiment))
            self._end_orphans(client, str(experiment))
        return self._opened

    def _end_orphans(self, client: Any, experiment: str) -> None:
        """End runs that a killed process left open: whoever writes holds the lock, so nobody is at them."""
        for run in client.search_runs([experiment], "attributes.status = 'RUNNING'"):
            client.set_terminated(run.info.run_id, status="KILLED")

    @contextlib.contextmanager
    def _write(self) -> Iterator[tuple[Any, str]]:
        with self._clear_errors(), self._lock() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self._client()

    def _lock(self) -> IO[str]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return (self.folder / "lock").open("a")
        except OSError as error:
            raise EnvironmentError_(
                f"the registry {self.folder} cannot be used: {error.strerror}; expected a folder to write "
                "in: make room or access, or move away what is there"
            ) from error

    @contextlib.contextmanager
    def _read(self) -> Iterator[tuple[Any, str]]:
        if self._opened is None:
            with self._write():
                pass  # two processes must not migrate a new database at once
        with self._clear_errors():
            yield self._client()

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as e:
            # By module, so that neither is imported before it is needed.
            if type(e).__module__.partition(".")[0] not in ("mlflow", "sqlalchemy", "sqlite3"):
                raise
            reason = str(getattr(e, "orig", None) or e).splitlines()[0].partition(". Take a backup")[0]
            advice = next(
                (then for word, then in _ADVICE.items() if word in reason),
                "restore the file, or move it away and refresh",
            )
            raise EnvironmentError_(
                f"the registry {self.folder / 'mlflow.db'} cannot be used: {reason.rstrip('.')}; {advice}"
            ) from e

    def _make_model(self, client: Any, name: str) -> None:
        if _or_none(lambda: client.get_registered_model(name)) is None:
            client.create_registered_model(name)

    def _version(self, client: Any, release_id: str) -> Any:
        return self._tagged(client, RELEASE, "release_id", release_id)

    def _tagged(self, client: Any, model: str, tag: str, value: str) -> Any:
        """The first version of a model with this tag; None if there is none."""
        quoted = value.replace("'", "")
        found = client.search_model_versions(f"name='{model}' and tags.{tag}='{quoted}'", max_results=1)
        return found[0] if found else None

    def _known(self, client: Any, release_id: str) -> Any:
        found = self._version(client, release_id)
        if found is None:
            raise _no_release(release_id)
        return found

    def _champion(self, client: Any) -> Any:
        return _or_none(lambda: client.get_model_version_by_alias(RELEASE, CHAMPION))


def _no_release(release_id: str) -> DataError:
    return DataError(
        f"no release {release_id!r} in the registry; `shelflife releases` lists those that there are"
    )


def _or_none(call: Any) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return call()
    except MlflowException as e:
        # An alias or version that is not there is an "invalid parameter" in some releases of MLflow.
        if e.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _row(version: Any, champion: Any) -> dict[str, Any]:
    tags = version.tags
    promoted = tags.get("promoted_us")
    return {
        "version": str(version.version),
        "release_id": tags["release_id"],
        "parent": tags["parent"] or None,
        "components": json.loads(tags["components"]),
        "metrics": json.loads(tags["metrics"]),
        "verdict": json.loads(tags["verdict"]),
        "alias": CHAMPION if champion is not None and champion.version == version.version else None,
        "created_us": int(tags["created_us"]),
        "promoted_us": int(promoted) if promoted else None,
        "promotions": json.loads(tags.get("promotions", "[]")),
    }


def _finite(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in metrics.items() if not (isinstance(v, float) and not math.isfinite(v))}
