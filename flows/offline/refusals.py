"""Brings what the service refused into the registry: replicas cannot write there themselves.

A replica writes every try to swap into `run/serving-status.json`. Refreshes, promotions and `releases`
look there.
"""

from __future__ import annotations

import json
from typing import Any

from infra.registry import Registry
from infra.settings import Home

__all__ = ["record_refusals", "refusals"]


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
