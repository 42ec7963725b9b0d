"""Who is champion: the registry's alias and the pointer that replicas follow move together, or not at all.

Before either moves, what is meant is written down. A crash at any step is repaired by `reconcile`, which
the next promotion, refresh and `up` call: it finishes what was begun. It judges nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from flows.offline.refusals import record_refusals
from flows.offline.unrecorded import record_kept
from infra.clock import open_clock, wall_us
from infra.errors import DataError, EnvironmentError_
from infra.files import write_atomic
from infra.processes import exclusive
from infra.registry import Registry, open_registry
from infra.settings import Home, Settings
from models.release import (
    champion,
    champion_record,
    list_releases,
    load_release,
    read_manifest,
    set_champion,
)

__all__ = ["barred", "crown", "intended", "promoting", "reconcile", "rollback"]

_INTENT, _BARRED = "promotion.json", "barred.json"
_WAIT_S = 60.0  # for another promotion of this home


@contextmanager
def promoting(settings: Settings, what: str, *, wait_s: float = _WAIT_S) -> Iterator[None]:
    """One promotion of a home at a time; the next one waits, EnvironmentError_ when it waited too long."""
    until = time.monotonic() + wait_s
    while True:
        held = exclusive(settings.layout.run / "promote", what)
        try:
            held.__enter__()
            break
        except EnvironmentError_:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
    try:
        yield
    finally:
        held.__exit__(None, None, None)


def crown(
    settings: Settings,
    registry: Registry,
    release_id: str,
    *,
    by: str,
    bars: str | None = None,
    lifts: bool = False,
) -> None:
    """Make a release champion. `bars`: one that no policy may promote again; `lifts`: policies may this one.

    EnvironmentError_ where it was begun and cannot be finished now: `reconcile` will.
    """
    intent = {"release_id": release_id, "by": by, "bars": bars, "lifts": lifts, "wall_us": wall_us()}
    write_atomic(settings.layout.releases / _INTENT, json.dumps(intent).encode())
    try:
        _finish(settings, registry, intent)
    except EnvironmentError_ as error:
        raise EnvironmentError_(
            f"{error} (the promotion of {release_id} is begun: the next refresh, promote or up finishes it)"
        ) from error


def intended(layout: Home) -> str | None:
    """The release whose promotion was interrupted, which `reconcile` will finish; None mostly."""
    try:
        intent = json.loads((layout.releases / _INTENT).read_bytes())
        return None if intent["by"] == "rollback" else str(intent["release_id"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def rollback(settings: Settings) -> dict[str, Any]:
    """Make the champion's predecessor champion again, and keep policies from promoting this one again.

    Returns {"release_id", "was"}.
    """
    layout = settings.layout
    with promoting(settings, "rollback"):
        registry = open_registry(layout.mlflow)
        reconcile(settings, registry=registry)
        record = champion_record(layout)
        if record is None:
            raise DataError(f"no champion in {layout.root}; `shelflife refresh` makes one")
        was = str(record["release_id"])
        target = _predecessor(layout, record)
        load_release(layout, target)
        crown(settings, registry, target, by="rollback", bars=was)
        return {"release_id": target, "was": was}


def reconcile(settings: Settings, *, registry: Registry | None = None) -> str | None:
    """Finish what a crash left half done, and make the pointer follow the registry; returns the champion.

    What the service refused since, and what could not be recorded when it happened, is recorded too. A
    champion that the registry does not know (it was deleted there, or the registry was lost) is taken into
    it again. Hold `promoting` around it.
    """
    layout = settings.layout
    registry = registry or open_registry(layout.mlflow)
    record_refusals(layout, registry)
    record_kept(layout, registry)
    _resume(settings, registry)
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
            _take_in(layout, registry, pointed)
            raise DataError(
                f"the registry's champion {named} cannot be read ({error}); {pointed} stays champion"
            ) from error
        set_champion(layout, named, at_us=open_clock(layout.clock).now_us(), by="reconcile")
        return named
    assert pointed is not None
    _take_in(layout, registry, pointed)
    return pointed


def barred(layout: Home) -> dict[str, dict[str, Any]]:
    """Releases that were rolled back, which only a promotion by name takes again: {id: {"wall_us", "by"}}."""
    try:
        found: dict[str, dict[str, Any]] = json.loads((layout.releases / _BARRED).read_bytes())
        return found
    except FileNotFoundError:
        return {}
    except ValueError as error:
        path = layout.releases / _BARRED
        raise DataError(
            f"{path} is damaged ({error}); remove it to let policies promote all again"
        ) from error


def _resume(settings: Settings, registry: Registry) -> None:
    """Finish the promotion that a crash interrupted; forget one whose release is gone."""
    path = settings.layout.releases / _INTENT
    try:
        intent = json.loads(path.read_bytes())
        read_manifest(settings.layout, intent["release_id"])
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError, DataError):
        path.unlink(missing_ok=True)
        return
    _finish(settings, registry, intent)


def _finish(settings: Settings, registry: Registry, intent: dict[str, Any]) -> None:
    """The steps of a promotion; each may be done again."""
    layout, release_id = settings.layout, str(intent["release_id"])
    if intent["bars"] is not None or intent.get("lifts"):
        held = barred(layout)
        if intent["bars"] is not None:
            held.setdefault(intent["bars"], {"wall_us": intent["wall_us"], "by": intent["by"]})
        if intent.get("lifts"):
            held.pop(release_id, None)
        write_atomic(layout.releases / _BARRED, json.dumps(held).encode())
    _take_in(layout, registry, release_id, by=intent["by"])
    if _pointed(layout) != release_id:
        set_champion(layout, release_id, at_us=open_clock(layout.clock).now_us(), by=intent["by"])
    (layout.releases / _INTENT).unlink(missing_ok=True)


def _take_in(layout: Home, registry: Registry, release_id: str, *, by: str = "reconcile") -> None:
    registry.register_release(asdict(read_manifest(layout, release_id)))
    registry.set_champion(release_id, by=by)


def _pointed(layout: Home) -> str | None:
    try:
        return champion(layout)
    except DataError:  # damaged: it is written anew
        return None


def _predecessor(layout: Home, record: dict[str, Any]) -> str:
    """Who was champion before: by the pointer, else by descent; never one that was rolled back itself."""
    was, out = str(record["release_id"]), barred(layout)
    known = {m.release_id: m.parent for m in list_releases(layout)}
    candidate = record["previous"]
    if not candidate or candidate in out or candidate not in known:
        candidate = known.get(was) or ""
        while candidate and candidate in out:
            candidate = known.get(candidate) or ""
    if not candidate:
        raise DataError(f"{was} is the first champion; there is none to go back to")
    return str(candidate)
