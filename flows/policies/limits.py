"""The gate's limits for a release that no policy's run made: the home's policy's for what is new in it.

`refresh` and `promote` take them, by hand and through Prefect. Where several components are new each limit is
the strictest of theirs. It judges nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from flows.offline.gate import GateLimits
from flows.offline.history import recorded_manifest
from flows.offline.promote import LimitsOf
from flows.policies.home import policy_of
from flows.policies.policy import BRINGS, Policy
from infra.errors import ConfigError, DataError
from infra.settings import Home
from models.manifest import Manifest, diff
from models.release import champion, read_manifest

__all__ = ["changed_components", "given_limits", "limits_for", "limits_in_force", "overridden"]

_COMPONENT = {
    "vector_index": "indexes",
    "lexical_index": "indexes",
    "image_index": "indexes",
    "speller": "indexes",
}
_INDEX_OF = {"encoder": "vector_index", "image_classifier": "image_index"}


def limits_in_force(layout: Home, given: Mapping[str, Any] | None = None) -> LimitsOf:
    """The limits of a release, told by its id: those of the home's policy as it is now, less those `given`.

    Raises ConfigError at once, before anything is trained, where the policy or one of those given is wrong.
    """
    policy, given = policy_of(layout), given or {}
    overridden(GateLimits(), given)
    return lambda release_id: overridden(limits_for(layout, release_id, policy), given)


def limits_for(layout: Home, release_id: str, policy: Policy) -> GateLimits:
    """What a policy asks of this release; the defaults where it names nothing that is new in it."""
    try:
        new = read_manifest(layout, release_id)
        name = champion(layout)
        old = None if name is None else recorded_manifest(layout, name)
    except DataError:  # damaged: whoever judges it says so
        return GateLimits()
    return _strictest(policy, changed_components(old, new))


def changed_components(old: Manifest | None, new: Manifest) -> tuple[str, ...]:
    """The components of a policy whose runs made what differs, less what an encoder's run brings along."""
    if old is None:
        changed = set(new.artifacts)
    else:
        found = diff(old, new)
        changed = {*found["changed"], *found["added"], *found["removed"]}
    for name in ("encoder", "image_classifier"):
        if name in changed:
            changed -= {_INDEX_OF[name], *BRINGS.get(name, ())}
    return tuple(sorted({_COMPONENT.get(name, name) for name in changed}))


def given_limits(margin: float | None, limits: Sequence[str]) -> dict[str, Any]:
    """The limits that a command line names: --margin X, --limit NAME=VALUE. ConfigError for another form."""
    given: dict[str, Any] = {} if margin is None else {"margin": margin}
    for text in limits:
        name, equals, value = text.partition("=")
        if not equals or not value:
            raise ConfigError(f"--limit is {text!r}; expected NAME=VALUE, such as segment_margin=0.05")
        given[name.strip()] = value.strip()
    return given


def overridden(limits: GateLimits, given: Mapping[str, Any]) -> GateLimits:
    """Limits with some in place of theirs, as texts or numbers. ConfigError for one that cannot be."""
    known: dict[str, type[Any]] = {name: type(value) for name, value in asdict(GateLimits()).items()}
    values: dict[str, Any] = {}
    for name, text in ((n, str(v)) for n, v in given.items()):
        if name not in known:
            raise ConfigError(f"unknown limit {name!r} of the gate; expected one of {', '.join(known)}")
        try:
            values[name] = known[name](text)
        except ValueError:
            kind = "a whole number" if known[name] is int else "a number"
            raise ConfigError(f"the gate's {name} is {text!r}; expected {kind}") from None
    return replace(limits, **values)


def _strictest(policy: Policy, components: tuple[str, ...]) -> GateLimits:
    parts = {str(name): part for name, part in policy.components.items()}
    gates = [parts[name].gate.model_dump() for name in components if name in parts]
    if not gates:
        return GateLimits()
    numbers = [name for name in asdict(GateLimits()) if name != "undecided"]
    limits: dict[str, Any] = {name: min(g[name] for g in gates) for name in numbers}
    limits["undecided"] = "refuse" if any(g["undecided"] == "refuse" for g in gates) else "mean"
    return GateLimits(**limits)
