"""The policy of a home and the state of its triggers: two files in `HOME/policy`, written atomically.

A home without a policy file has the default one. It asks no trigger.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flows.policies.engine import Firing
from flows.policies.policy import Policy, load_policy, parse_policy, policy_text
from infra.errors import DataError
from infra.files import write_atomic
from infra.settings import Home

__all__ = [
    "DEFAULT",
    "default_policy",
    "firing_of",
    "policy_of",
    "policy_path",
    "policy_stamp",
    "read_state",
    "record_of",
    "set_policy",
    "write_state",
]

DEFAULT = """\
name: default
components:
  indexes:
    trigger: {kind: interval, every: 1h}
  ranker:
    trigger: {kind: interval, every: 1d}
  text_classifier:
    trigger: {kind: interval, every: 1d}
  encoder:
    trigger: {kind: interval, every: 1w}
  image_classifier:
    trigger: {kind: interval, every: 1w}
"""
_FORMAT = 1


def default_policy() -> Policy:
    """Indexes each hour, ranker and text classifier each day, everything each week."""
    return parse_policy(DEFAULT, source="the default policy")


def policy_path(layout: Home) -> Path:
    """Where the policy of a home lies, if it has one of its own."""
    return layout.root / "policy" / "policy.yaml"


def policy_of(layout: Home) -> Policy:
    """The policy of a home. ConfigError where its file is wrong."""
    path = policy_path(layout)
    return load_policy(path) if path.exists() else default_policy()


def policy_stamp(layout: Home) -> tuple[int, int, int]:
    """Changes when the policy's file does."""
    try:
        about = policy_path(layout).stat()
    except FileNotFoundError:
        return (0, 0, 0)
    return (about.st_mtime_ns, about.st_ino, about.st_size)


def set_policy(layout: Home, policy: Policy) -> None:
    """Make this the policy of a home; a flow runner that runs takes it up at its next tick."""
    write_atomic(policy_path(layout), policy_text(policy).encode())


def read_state(layout: Home) -> dict[str, Any] | None:
    """What the triggers of a home remember, its open runs and what came of the last ones; None at first.

    Raises DataError where the file is of a newer version or is none at all.
    """
    path = _state(layout)
    try:
        state: dict[str, Any] = json.loads(path.read_bytes())
        version = int(state["format"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}); expected what `shelflife up` wrote; remove it: "
            "triggers then begin anew"
        ) from None
    if version > _FORMAT:
        raise DataError(
            f"{path} is of format {version}; expected {_FORMAT}; use the newer Shelflife, or remove it"
        )
    return state


def write_state(layout: Home, state: dict[str, Any]) -> None:
    """Keep it: the old file or the whole new one."""
    write_atomic(_state(layout), json.dumps({**state, "format": _FORMAT}).encode())


def record_of(firing: Firing) -> dict[str, Any]:
    """A firing as plain JSON."""
    return {**asdict(firing), "components": list(firing.components), "whys": dict(firing.whys)}


def firing_of(record: dict[str, Any]) -> Firing:
    """And back."""
    return Firing(
        int(record["number"]),
        int(record["at_us"]),
        tuple(record["components"]),
        dict(record["whys"]),
        int(record["tries"]),
    )


def _state(layout: Home) -> Path:
    return layout.root / "policy" / "state.json"
