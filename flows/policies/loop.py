"""The offline loop as Prefect flows: each task wraps a plain function of `flows/offline`.

A flow reads as a table of contents. Everything here can be had without Prefect in
`flows/offline/refresh.py`; here it gains schedules, one run at a time, states, logs and artifacts.
The gate's limits are those of the home's policy, as for the same commands by hand.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run

from flows.offline import refresh as plain
from flows.offline.artifacts import artifacts_of, tell
from flows.offline.backlog import cancel_missed
from flows.offline.ingest import ingest
from flows.offline.inputs import Inputs, load_inputs
from flows.offline.promote import Limits, promote, publish_parts
from flows.offline.tidy import tidy
from flows.offline.train import Parts
from flows.offline.unrecorded import keep, tell_kept
from flows.policies.limits import limits_in_force
from infra.clock import open_clock
from infra.cluster import mlflow_url
from infra.errors import EnvironmentError_
from infra.processes import exclusive
from infra.registry import open_registry
from infra.resources import Cost, measured, nice_down
from infra.settings import Settings, load_settings
from models.release import Release

__all__ = ["index_flow", "ingest_flow", "promote_flow", "refresh_flow", "train_flow"]

_ARTIFACTS = "artifacts"

# Trying again helps where a file or the registry was busy for a moment, not where data is wrong.
BUSY: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": 2,
    "retry_condition_fn": lambda _t, _r, state: _is_busy(state),
}


def _is_busy(state: Any) -> bool:
    try:
        state.result()
    except EnvironmentError_:
        return True
    except BaseException:
        return False
    return False


@task(name="ingest", cache_policy=NO_CACHE, **BUSY)
def ingest_task(settings: Settings) -> dict[str, Any]:
    """New events, each once; published with the state that they fold into."""
    return ingest(settings)


@task(name="open-champion", **BUSY, cache_policy=NO_CACHE)
def champion_task(settings: Settings) -> Release | None:
    """The live release, whose parts stay where nothing replaces them."""
    return plain.opened(settings)


@task(name="make", task_run_name="make-{name}", cache_policy=NO_CACHE)
def make_task(name: str, settings: Settings, inputs: Inputs, parts: Parts, *, warm: bool) -> Parts:
    """One artifact trained or built anew."""
    return plain.make(name, settings, inputs, parts, warm=warm)


@task(name="publish", cache_policy=NO_CACHE)
def publish_task(settings: Settings, parts: Parts, inputs: Inputs) -> str:
    """The release among the blobs and in the registry; not live yet."""
    return publish_parts(settings, parts, inputs, clock=open_clock(settings.layout.clock)).release_id


@task(name="promote", **BUSY, cache_policy=NO_CACHE)
def promote_task(
    settings: Settings, release_id: str | None, limits: Limits, inputs: Inputs | None = None
) -> dict[str, Any]:
    """The gate, and the champion's alias and pointer."""
    return promote(settings, release_id=release_id, limits=limits, inputs=inputs)


@flow(name="ingest")
def ingest_flow(home: str, seed: int = 7) -> dict[str, Any]:
    """Take new events in."""
    return ingest_task(_settings(home, seed))


@flow(name="train")
def train_flow(
    home: str,
    component: str = "ranker",
    fraction: float = 1.0,
    window_d: float | None = plain.WINDOW_D,
    start: str = "cold",
    seed: int = 7,
) -> str:
    """Train components on what is ingested, and publish the release without promoting it."""
    settings = _settings(home, seed)
    plain.check_choices(component=component, fraction=fraction, start=start)
    with exclusive(settings.layout.run / "refresh", "train"):
        nice_down()
        inputs, parts = _opened(settings, window_d, fraction)
        for name in plain.plan_of(component, parts):
            parts = make_task(name, settings, inputs, parts, warm=start == "warm")
        return publish_task(settings, parts, inputs)


@flow(name="index")
def index_flow(home: str, seed: int = 7) -> str:
    """Build the indexes anew around the champion's models, and publish the release."""
    release_id: str = train_flow.fn(home, component="index", seed=seed)
    return release_id


@flow(name="promote")
def promote_flow(
    home: str,
    release_id: str | None = None,
    seed: int = 7,
    gate: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Judge a release (default: the newest) and make it champion if it passes. `gate`: as of `refresh`."""
    settings = _settings(home, seed)
    return promote_task(settings, release_id, limits_in_force(settings.layout, gate))


@flow(name="refresh", on_running=[cancel_missed])
def refresh_flow(
    home: str,
    component: str = "all",
    fraction: float = 1.0,
    window_d: float | None = plain.WINDOW_D,
    start: str = "cold",
    seed: int = 7,
    gate: dict[str, Any] | None = None,
    why: str = "by hand",
    half_life_d: float | None = None,
) -> dict[str, Any]:
    """Ingest, retrain, rebuild, judge, promote. `gate`: limits by name, in place of the home's policy's."""
    settings = _settings(home, seed)
    limits = limits_in_force(settings.layout, gate)
    plain.check_choices(component=component, fraction=fraction, start=start)
    steps: dict[str, Cost] = {}
    with exclusive(settings.layout.run / "refresh", "refresh"):
        nice_down()
        with measured() as cost:
            with measured() as steps["ingest"]:
                ingested = ingest_task(settings)
            with measured() as steps["open"]:
                inputs, parts = _opened(settings, window_d, fraction, half_life_d)
            for name in plain.plan_of(component, parts):
                with measured() as steps[name]:
                    parts = make_task(name, settings, inputs, parts, warm=start == "warm")
            with measured() as steps["publish"]:
                release_id = publish_task(settings, parts, inputs)
            with measured() as steps["gate"]:
                outcome = promote_task(settings, release_id, limits, inputs)
            outcome["removed"] = tidy(settings)
        report = plain.report(
            settings, component, ingested, parts, inputs, outcome, cost,
            start=start, flow_run_id=str(flow_run.id or ""), steps=steps,
        )  # fmt: skip
    _show(settings, report, why)
    return report


def _opened(
    settings: Settings, window_d: float | None, fraction: float, half_life_d: float | None = None
) -> tuple[Inputs, Parts]:
    release = champion_task(settings)
    inputs = load_inputs(settings.layout, window_d=window_d, fraction=fraction, half_life_d=half_life_d)
    return inputs, Parts.of(release)


def _settings(home: str, seed: int) -> Settings:
    return load_settings(home=Path(home), seed=seed)


def _show(settings: Settings, report: Mapping[str, Any], why: str) -> None:
    """What came of it, among Prefect's artifacts; kept for the next run where Prefect does not take them."""
    verdict = report["verdict"] or {}
    reasons = "; ".join(verdict.get("reasons", ("it is the champion",)))
    get_run_logger().info("%s: %s", report["release_id"], reasons)
    pages = _pages(settings, report)
    told = {"artifacts": artifacts_of(report, why=why, runs=pages, mlflow_url=mlflow_url(settings))}
    try:
        tell_kept(settings.layout, _ARTIFACTS, _tell)
        _tell(told)
    except (PrefectException, httpx.HTTPError, OSError) as error:  # what was promoted is promoted
        what = f"the artifacts of {report['release_id']} in Prefect"
        keep(settings.layout, _ARTIFACTS, told, what=what, why=f"{type(error).__name__}: {error}")
        get_run_logger().warning("not recorded now: %s (%s); the next refresh will", what, error)


def _tell(told: Mapping[str, Any]) -> None:
    tell(told["artifacts"])


def _pages(settings: Settings, report: Mapping[str, Any]) -> dict[str, str]:
    """Where MLflow's pages show the run of each artifact that was made, and the gate's."""
    registry = open_registry(settings.layout.mlflow)
    found = {}
    with contextlib.suppress(EnvironmentError_):  # then without links
        for name in (*report["made"], "gate"):
            if newest := registry.recorded(name, most=1):
                found[name] = str(newest[0]["page"])
    return found
