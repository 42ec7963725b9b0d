"""Publish a release, let the gate judge it, and make it champion if it passes.

Publishing what is published already changes nothing, so that a refresh that was interrupted may simply run
again. Who is champion, and what a crash in between leaves, is `flows/offline/crown.py`.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from flows.offline.crown import barred, crown, intended, promoting, reconcile, rollback
from flows.offline.gate import MARGIN, GateLimits, Unloadable, Verdict, judge, refused
from flows.offline.history import recorded_manifest
from flows.offline.inputs import GATE_SLICE_US, Inputs, load_inputs
from flows.offline.refusals import last_verdict, note_verdict
from flows.offline.train import Parts, drop_checkpoints
from infra.clock import DAY_US, Clock
from infra.errors import DataError, EnvironmentError_
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

__all__ = [
    "CHOSEN",
    "Limits",
    "LimitsOf",
    "promote",
    "publish_parts",
    "reconcile",
    "rollback",
]

LimitsOf = Callable[[str], GateLimits]
"""The gate's limits of a release, by its id: they may depend on what is new in it."""
Limits = GateLimits | LimitsOf

CHOSEN = ("commit", "fraction", "half_life_d", "label_delay_us", "watermark_us", "window_d")
"""What of a snapshot was chosen, or tells which data it was: among the parameters in the registry."""
_TRIES = 3  # to judge a release against a champion that stays one meanwhile

log = logging.getLogger("shelflife.promote")


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
            params=_choices(artifact, inputs),
            metrics=artifact.metrics,
            snapshot=artifact.snapshot,
            lineage={"parent_release": manifest.parent, "requires": artifact.requires},
            artifact={"version": artifact.version, "files": artifact.files, "size": artifact.size},
            resources=asdict(cost),
            key=_digest([artifact.content, artifact.snapshot]),
        )
    registry.register_release(asdict(manifest))
    drop_checkpoints(settings, parts.made)
    return manifest


def promote(
    settings: Settings,
    *,
    release_id: str | None = None,
    margin: float = MARGIN,
    limits: Limits | None = None,
    inputs: Inputs | None = None,
    by_hand: bool = False,
) -> dict[str, Any]:
    """Judge a release (default: the newest) against the champion, and make it champion if it passes.

    `limits`: of the gate, or what tells those of a release, None the default ones with this `margin`;
    `by_hand`: a user named the release, so that one that was rolled back is let in again. Returns
    {"release_id", "promoted", "verdict", "champion"}; a promotion that was interrupted before and is
    finished now counts as promoted.

    It is judged while others may promote or roll back, and judged again where the champion has changed
    meanwhile; EnvironmentError_ where that goes on.
    """
    layout = settings.layout
    limits = limits or GateLimits(margin=margin)
    registry = open_registry(layout.mlflow)
    with promoting(settings, "promote"):
        interrupted = intended(layout)
        reconcile(settings, registry=registry)
        if release_id is None:
            release_id = _newest(layout)
        elif not release_folder(layout, release_id).is_dir():
            read_manifest(layout, release_id)  # says which there are
        current = champion(layout)
        if release_id == current:
            done = interrupted == release_id
            return _outcome(layout, release_id, done, last_verdict(layout, release_id) if done else None)
    for _ in range(_TRIES):
        judged = current
        asked = limits if isinstance(limits, GateLimits) else limits(release_id)
        with measured() as cost:
            verdict = _verdict(settings, release_id, judged, asked, inputs, by_hand=by_hand)
        with promoting(settings, "promote"):
            reconcile(settings, registry=registry)
            current = champion(layout)
            if current == release_id:  # another command promoted it
                return _outcome(layout, release_id, False, None)
            barred_now = verdict.passed and not by_hand and release_id in barred(layout)
            if current != judged or barred_now:
                log.info("the champion was %s and is %s now; %s is judged again", judged, current, release_id)
                continue
            if verdict.passed:
                read_manifest(layout, release_id)  # it may have been removed meanwhile
            _record(layout, registry, verdict, asdict(cost))
            if verdict.passed:
                crown(settings, registry, release_id, by="hand" if by_hand else "gate", lifts=by_hand)
            return _outcome(layout, release_id, verdict.passed, verdict.as_dict())
    raise EnvironmentError_(
        f"the champion changed {_TRIES} times while {release_id} was judged, the last time to {current}; "
        "wait for who promotes or rolls back, and repeat"
    )


def _newest(layout: Home) -> str:
    held = list_releases(layout)
    if not held:
        raise DataError(f"no release in {layout.root}; `shelflife refresh` makes one")
    return held[-1].release_id


def _outcome(layout: Home, release_id: str, promoted: bool, verdict: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "release_id": release_id,
        "promoted": promoted,
        "verdict": verdict,
        "champion": champion(layout),
    }


def _verdict(
    settings: Settings,
    release_id: str,
    current: str | None,
    limits: GateLimits,
    inputs: Inputs | None,
    *,
    by_hand: bool,
) -> Verdict:
    layout = settings.layout
    out = None if by_hand else barred(layout).get(release_id)
    if out is not None:
        at = datetime.datetime.fromtimestamp(out["wall_us"] / 1e6, datetime.UTC)
        when = f"{at:%Y-%m-%d at %H:%M} (UTC)"
        reason = f"it was rolled back on {when}; `shelflife promote {release_id}` takes it again"
        return refused(release_id, current, reason, limits)
    old = _loaded(layout, current)
    try:
        new = load_release(layout, release_id, previous=old if isinstance(old, Release) else None)
    except DataError as error:
        return refused(release_id, current, f"it cannot be loaded: {error}", limits)
    return judge(inputs or load_inputs(layout, window_d=GATE_SLICE_US / DAY_US), new, old, limits=limits)


def _loaded(layout: Home, current: str | None) -> Release | Unloadable | None:
    """The champion; None if there is none."""
    if current is None:
        return None
    try:
        return load_release(layout, current)
    except DataError as error:
        size = None
        with contextlib.suppress(DataError):
            size = recorded_manifest(layout, current).size
        return Unloadable(current, str(error), size)


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

    None whose files are damaged.
    """
    wanted = {name: artifact.content for name, artifact in parts.artifacts.items()}
    for manifest in reversed(list_releases(layout)):
        found = {name: artifact.content for name, artifact in manifest.artifacts.items()}
        if manifest.watermark_us == watermark_us and found == wanted and _is_intact(layout, manifest):
            return manifest
    return None


def _is_intact(layout: Home, manifest: Manifest) -> bool:
    return all(intact(layout.blobs, artifact.files) for artifact in manifest.artifacts.values())


def _choices(artifact: Artifact, inputs: Inputs) -> dict[str, Any]:
    """The parameters of a training: what it read, and of what is trained how it began, and the seed."""
    params = {k: v for k, v in inputs.snapshot.items() if k in CHOSEN}
    if recipe := artifact.snapshot.get("recipe"):
        begun = recipe["warm"][:16]
        asked = recipe.get("start", "warm" if begun else "cold")
        params |= {"start": asked, "seed": recipe["seed"], "goes_on_from": begun or "nothing"}
    return params


def _headline(parts: Parts) -> dict[str, float]:
    return {
        f"{name}.{key}": value
        for name, artifact in parts.artifacts.items()
        for key, value in artifact.metrics.items()
        if key in ("valid_ndcg10", "accuracy")
    }


def _digest(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
