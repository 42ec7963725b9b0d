"""Publish a release, let the gate judge it, make it champion, roll back.

The registry's alias says who is champion; the pointer that replicas watch follows it. A crash
between the two is repaired by `reconcile`, which the next promotion and refresh call.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flows.offline.gate import MARGIN, Verdict, judge
from flows.offline.inputs import Inputs, load_inputs
from flows.offline.refusals import record_refusals
from flows.offline.train import Parts, drop_checkpoints
from infra.clock import Clock, open_clock
from infra.errors import DataError
from infra.processes import exclusive
from infra.registry import Registry, open_registry
from infra.settings import Settings
from models.release import (
    Manifest,
    Release,
    champion,
    champion_record,
    list_releases,
    load_release,
    make_release,
    publish,
    read_manifest,
    set_champion,
)

__all__ = ["promote", "publish_parts", "reconcile", "rollback"]


def publish_parts(settings: Settings, parts: Parts, inputs: Inputs, *, clock: Clock) -> Manifest:
    """Make a release of the parts and record it in the registry."""
    layout = settings.layout
    metrics = {
        f"{name}.{key}": value
        for name, artifact in parts.artifacts.items()
        for key, value in artifact.metrics.items()
        if key in ("valid_ndcg10", "accuracy")
    }
    manifest = make_release(
        parts.artifacts,
        watermark_us=inputs.watermark_us,
        created_us=clock.now_us(),
        parent=champion(layout) or "",
        metrics=metrics,
    )
    publish(layout, manifest)
    registry = open_registry(layout.mlflow)
    for name in parts.made:
        artifact, cost = parts.artifacts[name], parts.costs[name]
        registry.log_training(
            name,
            params={k: v for k, v in inputs.snapshot.items() if k in ("window_d", "fraction", "commit")},
            metrics=artifact.metrics,
            snapshot=artifact.snapshot,
            lineage={"parent_release": manifest.parent, "requires": artifact.requires},
            artifact={"version": artifact.version, "files": artifact.files, "size": artifact.size},
            resources=asdict(cost),
        )
    registry.register_release(asdict(manifest))
    drop_checkpoints(settings, parts.made)
    return manifest


def promote(
    settings: Settings,
    *,
    release_id: str | None = None,
    margin: float = MARGIN,
    inputs: Inputs | None = None,
) -> dict[str, Any]:
    """Judge a release (default: the newest) against the champion, and make it champion if it passes.

    Returns {"release_id", "promoted", "verdict"}. Serialised: one promotion of a home at a time.
    """
    layout = settings.layout
    with exclusive(layout.run / "promote", "promote"):
        registry = open_registry(layout.mlflow)
        reconcile(settings, registry=registry)
        if release_id is None:
            held = list_releases(layout)
            if not held:
                raise DataError(f"no release in {layout.root}; `shelflife refresh` makes one")
            release_id = held[-1].release_id
        current = champion(layout)
        if release_id == current:
            return {"release_id": release_id, "promoted": False, "verdict": None, "champion": current}
        old = load_release(layout, current) if current else None
        new = load_release(layout, release_id, previous=old)
        verdict = _judged(inputs or load_inputs(layout, window_d=None), new, old, margin)
        registry.register_release(asdict(new.manifest))
        registry.record_verdict(release_id, verdict.as_dict())
        if verdict.passed:
            _crown(settings, registry, release_id, by="gate")
        return {
            "release_id": release_id,
            "promoted": verdict.passed,
            "verdict": verdict.as_dict(),
            "champion": champion(layout),
        }


def rollback(settings: Settings) -> dict[str, Any]:
    """Make the champion's predecessor the champion again."""
    layout = settings.layout
    with exclusive(layout.run / "promote", "rollback"):
        registry = open_registry(layout.mlflow)
        reconcile(settings, registry=registry)
        record = champion_record(layout)
        if record is None:
            raise DataError(f"no champion in {layout.root}; `shelflife refresh` makes one")
        target = record["previous"] or read_manifest(layout, record["release_id"]).parent
        if not target:
            raise DataError(f"{record['release_id']} is the first champion; there is none to go back to")
        load_release(layout, target)
        _crown(settings, registry, target, by="rollback")
        return {"release_id": target, "was": record["release_id"]}


def reconcile(settings: Settings, *, registry: Registry | None = None) -> str | None:
    """Make the pointer follow the registry's alias after a crash between the two; returns the champion.

    What the service refused since is recorded too. A pointer without an alias (the registry was lost) is
    taken into the registry instead.
    """
    layout = settings.layout
    registry = registry or open_registry(layout.mlflow)
    record_refusals(layout, registry)
    named = registry.champion_release()
    try:
        pointed = champion(layout)
    except DataError:
        if named is None:
            raise
        pointed = None  # damaged: the alias mends it
    if named == pointed:
        return named
    if named is not None:
        try:
            read_manifest(layout, named)
        except DataError as error:
            if pointed is None:
                raise
            registry.set_champion(pointed)
            raise DataError(
                f"the registry's champion {named} cannot be read ({error}); {pointed} stays champion"
            ) from error
        set_champion(layout, named, at_us=open_clock(layout.clock).now_us(), by="reconcile")
        return named
    assert pointed is not None
    registry.register_release(asdict(read_manifest(layout, pointed)))
    registry.set_champion(pointed)
    return pointed


def _judged(inputs: Inputs, new: Release, old: Release | None, margin: float) -> Verdict:
    return judge(inputs, new, old, margin=margin)


def _crown(settings: Settings, registry: Registry, release_id: str, *, by: str) -> None:
    registry.set_champion(release_id)
    set_champion(settings.layout, release_id, at_us=open_clock(settings.layout.clock).now_us(), by=by)
