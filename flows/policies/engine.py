"""Asks the triggers of a policy and says which runs to start: the same code live and in replay.

All that it remembers is plain JSON in `memory`. While a run is under way none is started: what becomes due
waits, and is one run then, however often it was due. It starts nothing itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from flows.policies.policy import BRINGS, WEIGH_BY_AGE, ComponentPolicy, Policy
from flows.policies.strict import duration_text
from flows.policies.triggers.interval import Interval
from flows.policies.triggers.trigger import Decision, NewData, Trigger

__all__ = ["INGEST", "TRIES", "Engine", "Firing", "with_brought"]

INGEST = "ingest"
TRIES = 3  # of one firing: a run whose machine failed is started again


@dataclass(frozen=True)
class Firing:
    """One run to start: of components that read the same data, or of `ingest` alone.

    `whys`: the reason of each component that was due; `number` counts the runs of a policy.
    """

    number: int
    at_us: int
    components: tuple[str, ...]
    whys: Mapping[str, str]
    tries: int = 1

    @property
    def why(self) -> str:
        """The reasons in one line."""
        reasons: dict[str, list[str]] = {}
        for name, why in self.whys.items():
            reasons.setdefault(why, []).append(name)
        return "; ".join(f"{', '.join(names)}: {why}" for why, names in reasons.items())


class Engine:
    """The triggers of a policy and what they remember."""

    def __init__(self, policy: Policy, memory: dict[str, Any]) -> None:
        self.policy, self.memory = policy, memory
        self._parts: dict[str, ComponentPolicy] = {str(n): c for n, c in policy.components.items()}
        held = memory.setdefault("triggers", {})
        specs: dict[str, Any] = {name: c.trigger for name, c in policy.components.items()}
        if policy.ingest is not None:
            every = duration_text(policy.ingest)
            specs[INGEST] = Interval.model_validate({"kind": "interval", "every": every})
        for name in set(held) - set(specs):
            del held[name]
        self.triggers: dict[str, Trigger] = {}
        for name, spec in specs.items():
            key = hashlib.sha256(json.dumps(spec.model_dump(mode="json")).encode()).hexdigest()[:16]
            if held.get(name, {}).get("spec") != key:  # another trigger begins anew
                held[name] = {"spec": key, "memory": {}}
            self.triggers[name] = spec.trigger(held[name]["memory"])

    def tick(self, now_us: int, told: Callable[[str, int], NewData], *, busy: bool = False) -> list[Firing]:
        """Inform every trigger of what is new to it, and return the runs to start now, in order.

        `told`: what is new for a component, but for what was known at a time: that of its last run, which
        took it in itself. `busy`: a run is under way, and nothing is started until it has ended.
        """
        since: dict[str, int] = self.memory.setdefault("since_us", {})
        again: dict[str, Any] = self.memory.setdefault("again", {})
        due: dict[str, tuple[str, int]] = {}
        for name, trigger in self.triggers.items():
            decision: Decision = trigger.inform(told(name, since.get(name, 0)))
            self.memory.setdefault("why", {})[name] = decision.why
            if name in again and not again[name]["not_before_us"] <= now_us:
                continue  # it waits for the machine
            if name in again:
                due[name] = (again[name]["why"], int(again[name]["tries"]))
            elif decision.fire:
                due[name] = (decision.why, 1)
        if busy:
            return []
        if len(due) > 1 and INGEST in due:  # the other runs take new events in anyway
            del due[INGEST]
            self.triggers[INGEST].fired(now_us)
        return [self._fire(now_us, names, due) for names in self._grouped(list(due))]

    def again(self, firing: Firing, why: str, *, not_before_us: int = 0) -> bool:
        """Make a firing due once more, if it was not tried too often; whether it is."""
        if firing.tries >= TRIES:
            return False
        for name in firing.components:
            if name in self.triggers:
                reason = firing.whys[name].partition("; again after ")[0]
                self.memory.setdefault("again", {})[name] = {
                    "why": f"{reason}; again after {why}",
                    "tries": firing.tries + 1,
                    "not_before_us": not_before_us,
                }
        return True

    def next_us(self) -> dict[str, int | None]:
        """When each component is made anew next, where that is known."""
        return {name: trigger.next_us() for name, trigger in self.triggers.items()}

    def _fire(self, now_us: int, names: tuple[str, ...], due: Mapping[str, tuple[str, int]]) -> Firing:
        self.memory["number"] = number = self.memory.get("number", 0) + 1
        for name in with_brought(names):
            if name in self.triggers and (name in names or self._reads_as(name, names)):
                self.triggers[name].fired(now_us)
                self.memory["again"].pop(name, None)
                self.memory["since_us"][name] = now_us
        tries = max(due[n][1] for n in names)
        return Firing(number, now_us, names, {n: due[n][0] for n in names}, tries)

    def _reads_as(self, name: str, names: tuple[str, ...]) -> bool:
        """Whether a component that a run brings along is made as its own policy says."""
        part = self._parts.get(name)
        maker = next((self._parts[n] for n in names if name in BRINGS.get(n, ()) and n in self._parts), None)
        if part is None or maker is None:
            return False
        return (part.reading, part.half_life) == (maker.reading, maker.half_life)

    def _grouped(self, names: list[str]) -> list[tuple[str, ...]]:
        """Components that read the same data are one run; one that weighs nothing goes with any half-life."""
        groups: dict[Any, list[str]] = {}
        for name in sorted(names, key=lambda n: n not in WEIGH_BY_AGE):
            part = self._parts.get(name)
            reading = () if part is None else (*part.reading, part.half_life)
            if part is not None and name not in WEIGH_BY_AGE:
                reading = next((r for r in groups if r[:-1] == part.reading), reading)
            groups.setdefault(reading, []).append(name)
        found = [tuple(sorted(group, key=names.index)) for group in groups.values()]
        return sorted(found, key=lambda group: names.index(group[0]))


def with_brought(names: Collection[str]) -> tuple[str, ...]:
    """The components, and those that their run makes anew besides."""
    return (*names, *(b for n in names for b in BRINGS.get(n, ()) if b not in names))
