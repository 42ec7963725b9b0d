"""What the gate and the service refused, and why, kept where `status` and `releases` find it.

The gate's verdicts are lines of `run/verdicts.jsonl`, beside the registry. Replicas cannot write to the
registry: they write every try to swap into `run/serving-status.json`; refreshes, promotions and `releases`
bring what was refused there into the registry.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from infra.clock import wall_us
from infra.files import append_line
from infra.registry import Registry
from infra.settings import Home

__all__ = ["last_verdict", "last_verdicts", "note_verdict", "record_refusals", "refusals"]

_VERDICTS = "verdicts.jsonl"


def note_verdict(layout: Home, verdict: Mapping[str, Any]) -> None:
    """Keep a verdict of the gate for `last_verdicts`."""
    line = json.dumps({"wall_us": wall_us(), **verdict}, default=str)
    append_line(layout.run / _VERDICTS, line.encode())


def last_verdicts(layout: Home, count: int = 5) -> list[dict[str, Any]]:
    """The newest verdicts of the gate, newest first; a torn line is passed over."""
    try:
        lines = (layout.run / _VERDICTS).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found: list[dict[str, Any]] = []
    for line in reversed(lines):
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
        if len(found) == count:
            break
    return found


def last_verdict(layout: Home, release_id: str) -> dict[str, Any] | None:
    """The gate's newest verdict on a release; None if it is not among the newest hundred."""
    found = last_verdicts(layout, 100)
    return next((v for v in found if v.get("challenger") == release_id), None)


def refusals(layout: Home) -> dict[str, dict[str, Any]]:
    """Releases that the replica refused when it last tried them: {id: {"reason", "wall_us"}}."""
    try:
        tries = json.loads(layout.serving_status.read_bytes())["swaps"]
    except (OSError, ValueError, KeyError):  # nothing was served yet, or the file is of another version
        return {}
    last = {str(t["release_id"]): t for t in tries if t["release_id"]}
    return {
        name: {"reason": str(t["reason"])[:500], "wall_us": int(t["begin_wall_us"])}
        for name, t in last.items()
        if not t["flipped"]
    }


def record_refusals(layout: Home, registry: Registry) -> list[str]:
    """Add `"serving": {"reason", "wall_us"}` to the verdicts of refused releases; those that were new."""
    found = refusals(layout)
    if not found:
        return []
    made = []
    for row in registry.releases():
        refused = found.get(row["release_id"])
        verdict = row["verdict"] or {}
        if refused is not None and verdict.get("serving") != refused:
            registry.record_verdict(row["release_id"], {**verdict, "serving": refused})
            made.append(row["release_id"])
    return made
