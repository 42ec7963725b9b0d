"""Publish a release, let the gate judge it, and make it champion if it passes.

Publishing what is published already changes nothing, so that a refresh that was interrupted may simply run
again. Who is champion, and what a crash in between leaves, is `flows/offline/crown.py`.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from dataclasses import asdict
from typing import Any

from flows.offline.crown import barred, crown, lift, promoting, reconcile, rollback
from flows.offline.gate import MARGIN, GateLimits, Verdict, judge, refused
from flows.offline.inputs import GATE_SLICE_US, Inputs, load_inputs
from flows.offline.refusals import note_verdict
from flows.offline.train import Parts, drop_checkpoints
from infra.clock import DAY_US, Clock
from infra.errors import DataError
from infra.registry import Registry, open_registry
from infra.resources import measured
from infra.settings import Home, Settings
from models.blobs import intact
from models.release import (
    Artifact,
    Manifest,
    Release,
    champion,
    list_releases,
    load_release,
    make_release,
    publish,
    read_manifest,
    release_folder,
)

__all__ = ["promote", "publish_parts", "reconcile", "rollback"]

# Built anew from the same snapshot its files have other names and contents, which mean the same.
_NAMED_BY_SNAPSHOT = frozenset({"lexical_index"})


def publish_parts(settings: Settings, parts: Parts, inputs: Inputs, *, clock: Clock) -> Manifest:
    """Make a release of the parts and record it in the registry, each training and release once."""
    layout = settings.layout
    registry = open_registry(layout.mlflow)
    registry.champion_release()  # says now if it cannot be used: nothing is published then
    manifest = _twin(layout, parts, inputs.watermark_us) or make_release(
        parts.artifacts,
        watermark_us=inputs.watermark_us,
        created_us=clock.now_us(),
        parent=champion(layout) or "",
        metrics=_headline(parts),
    )
    publish(layout, manifest)
    for name in parts.made:
        artifact, cost = manifest.artifacts[name], parts.costs[name]
        registry.log_training(
            name,
            params={k: v for k, v in inputs.snapshot.items() if k in ("window_d", "fraction", "commit")},
            metrics=artifact.metrics,
            snapshot=artifact.snapshot,
            lineage={"parent_release": manifest.parent, "requires": artifact.requires},
            artifact={"version": artifact.version, "files": artifact.files, "size": artifact.size},
            resources=asdict(cost),
            key=_digest([_made_of(artifact), artifact.snapshot]),
        )
    registry.register_release(asdict(manifest))
    drop_checkpoints(settings, parts.made)
    return manifest


def promote(
    settings: Settings,
    *,
    release_id: str | None = None,
    margin: float = MARGIN,
    limits: GateLimits | None = None,
    inputs: Inputs | None = None,
    by_hand: bool = False,
) -> dict[str, Any]:
    """Judge a release (default: the newest) against the champion, and make it champion if it passes.

    `limits`: of the gate, None the default ones with this `margin`; `by_hand`: a user named the release,
    so that one that was rolled back is let in again. Returns {"release_id", "promoted", "verdict",
    "champion"}. Serialised: one promotion of a home at a time.
    """
    layout = settings.layout
    limits = limits or GateLimits(margin=margin)
    with promoting(settings, "promote"):
        registry = open_registry(layout.mlflow)
        reconcile(settings, registry=registry)
        if release_id is None:
            held = list_releases(layout)
            if not held:
                raise DataError(f"no release in {layout.root}; `shelflife refresh` makes one")
            release_id = held[-1].release_id
        elif not release_folder(layout, release_id).is_dir():
            read_manifest(layout, release_id)  # says which there are
        current = champion(layout)
        if release_id == current:
            return {"release_id": release_id, "promoted": False, "verdict": None, "champion": current}
        if by_hand:
            lift(layout, release_id)
        with measured() as cost:
            verdict = _verdict(settings, release_id, current, limits, inputs)
        _record(layout, registry, verdict, asdict(cost))
        if verdict.passed:
            crown(settings, registry, release_id, by="hand" if by_hand else "gate")
        return {
            "release_id": release_id,
            "promoted": verdict.passed,
            "verdict": verdict.as_dict(),
            "champion": champion(layout),
        }


def _verdict(
    settings: Settings, release_id: str, current: str | None, limits: GateLimits, inputs: Inputs | None
) -> Verdict:
    layout = settings.layout
    out = barred(layout).get(release_id)
    if out is not None:
        at = datetime.datetime.fromtimestamp(out["wall_us"] / 1e6, datetime.UTC)
        when = f"{at:%Y-%m-%d at %H:%M} (UTC)"
        reason = f"it was rolled back on {when}; `shelflife promote {release_id}` takes it again"
        return refused(release_id, current, reason, limits)
    old = _loaded(layout, current)
    try:
        new = load_release(layout, release_id, previous=old)
    except DataError as error:
        return refused(release_id, current, f"it cannot be loaded: {error}", limits)
    return judge(inputs or load_inputs(layout, window_d=GATE_SLICE_US / DAY_US), new, old, limits=limits)


def _loaded(layout: Home, current: str | None) -> Release | None:
    """The champion; None if there is none, or none that can be read: a new one shall take its place."""
    try:
        return load_release(layout, current) if current else None
    except DataError:
        return None


def _record(layout: Home, registry: Registry, verdict: Verdict, cost: dict[str, float]) -> None:
    """The verdict in the registry, with its figures as a run, and beside the releases for `status`."""
    try:
        registry.register_release(asdict(read_manifest(layout, verdict.challenger)))
        registry.record_verdict(verdict.challenger, verdict.as_dict())
    except DataError:  # its manifest is damaged and the registry never heard of it: the run tells
        pass
    figures = verdict.figures() | {f"resources/{k}": v for k, v in cost.items()}
    told = {"challenger": verdict.challenger, "champion": verdict.champion}
    told["reasons"] = "; ".join(verdict.reasons)
    registry.log_run("gate", metrics=figures, params=told)
    note_verdict(layout, verdict.as_dict())


def _twin(layout: Home, parts: Parts, watermark_us: int) -> Manifest | None:
    """The newest published release of the very same parts; an interrupted refresh may have left it.

    None whose files are damaged: an index that was built anew has other files and does not mend them.
    """
    wanted = {name: _made_of(artifact) for name, artifact in parts.artifacts.items()}
    for manifest in reversed(list_releases(layout)):
        found = {name: _made_of(artifact) for name, artifact in manifest.artifacts.items()}
        if manifest.watermark_us == watermark_us and found == wanted and _is_intact(layout, manifest):
            return manifest
    return None


def _is_intact(layout: Home, manifest: Manifest) -> bool:
    return all(intact(layout.blobs, artifact.files) for artifact in manifest.artifacts.values())


def _made_of(artifact: Artifact) -> str:
    if artifact.name in _NAMED_BY_SNAPSHOT and artifact.snapshot:
        return _digest([artifact.snapshot, artifact.requires, artifact.metrics])
    return artifact.content


def _headline(parts: Parts) -> dict[str, float]:
    return {
        f"{name}.{key}": value
        for name, artifact in parts.artifacts.items()
        for key, value in artifact.metrics.items()
        if key in ("valid_ndcg10", "accuracy")
    }


def _digest(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
