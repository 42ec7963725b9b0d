"""The policy of a home at work: asks the triggers at each tick, starts runs, and takes up what came of them.

What is remembered is written before a run is started, and each run has a key of its own, so that a crash
between the two starts it once. It knows neither Prefect nor what a run does.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from data.snapshots import published
from flows.policies.engine import INGEST, Engine, Firing
from flows.policies.home import firing_of, policy_of, policy_stamp, read_state, record_of, write_state
from flows.policies.log import log_since
from flows.policies.policy import WEIGH_BY_AGE, Policy
from flows.policies.replay import EMPTY
from flows.policies.show import scheduled
from flows.policies.triggers.trigger import NewData
from infra.clock import Clock, wall_us
from infra.errors import ConfigError, DataError
from infra.settings import Home
from models.release import champion, read_manifest

__all__ = ["Live", "Outcome", "Runs", "parameters_of"]

log = logging.getLogger("shelflife.policy")

RECENT = 20  # firings that the state keeps
_WRITE_US = 10_000_000  # wall time after which the state is written though nothing happened
_ARTIFACT = {"indexes": "lexical_index"}


@dataclass(frozen=True)
class Outcome:
    """How a run ended: done; again (its machine failed: starting it once more can help); failed."""

    kind: Literal["done", "again", "failed"]
    said: str = ""


class Runs(Protocol):
    """Where runs are started; Prefect's in `prefect_runs.py`."""

    def start(self, firing: Firing, parameters: Mapping[str, Any], *, policy: str, key: str) -> str:
        """Start a run of the policy of that name, and return its id; the same key again is the same run."""
        ...

    def outcome(self, run_id: str) -> Outcome | None:
        """How it ended; None while it has not."""
        ...


def parameters_of(firing: Firing, policy: Policy) -> dict[str, Any]:
    """What a refresh is asked for, so that it makes the components of a firing; nothing of an ingest."""
    if firing.components == (INGEST,):
        return {}
    parts = {str(n): c for n, c in policy.components.items()}
    part = parts[firing.components[0]]
    half_lives = [c.half_life_d for n, c in parts.items() if n in firing.components and n in WEIGH_BY_AGE]
    return {
        "component": ",".join("index" if n == "indexes" else n for n in firing.components),
        "fraction": part.fraction,
        "window_d": part.window_d,
        "half_life_d": half_lives[0] if half_lives else None,
        "start": part.start,
        "gate": part.gate.model_dump(),
        "why": firing.why,
    }


class Live:
    """One home's policy; `tick` is called every second or so, by one process alone."""

    def __init__(self, layout: Home, runs: Runs, *, clock: Clock) -> None:
        self.layout, self.runs, self.clock = layout, runs, clock
        self.policy, self._stamp = policy_of(layout), policy_stamp(layout)
        self._manifest: tuple[str, dict[str, str]] = ("", {})
        held = read_state(layout)
        self.state: dict[str, Any] = self._new_state() if held is None else held
        self._say("policy", "")  # it is right, or this would have failed
        self.engine = Engine(self.policy, self.state["engine"])
        self._written = ("", 0)

    def tick(self) -> list[Firing]:
        """Take up ended runs, ask the triggers if it is time, start what fires; the firings."""
        now = self.clock.now_us()
        self._reload()
        if now < self.state["ticked_us"] - self.policy.tick:
            log.warning("the shop clock was set back: triggers begin anew")
            self.state = self._new_state() | {k: self.state[k] for k in ("open", "recent", "errors")}
            self.engine = Engine(self.policy, self.state["engine"])
        self._start_open()  # what a crash left between its record and its start
        self._settle(now)
        fired: list[Firing] = []
        if now >= self.state["ticked_us"] + self.policy.tick or not self.state["asked"]:
            fired = self._ask(now)
            self.state |= {"ticked_us": now, "asked": True}
        if fired:
            self.state["open"] += [self._opened(firing) for firing in fired]
            self._write()
            self._start_open()
        self._say("tick", "")
        self._write(only_changes=True)
        return fired

    def upcoming(self) -> list[dict[str, str]]:
        """What the policy makes anew next, as rows of a table."""
        return scheduled(self.policy, self.engine.next_us(), self.state["engine"].get("why", {}))

    def failed(self, error: BaseException) -> None:
        """Remember why a tick failed; the next one tries again."""
        self._say("tick", f"{type(error).__name__}: {error}"[:500])
        self._write()

    def _ask(self, now: int) -> list[Firing]:
        seen, known = self.state["seen_us"], self.state["known_us"]
        told = EMPTY
        if self.policy.needs_data and known > seen:
            try:
                told = log_since(published(self.layout), seen)
                self._say("data", "")
            except DataError as error:  # told once it can be read
                self._say("data", str(error))
                known = seen
        versions = self._versions()

        def new(name: str, since_us: int) -> NewData:
            version = versions.get(_ARTIFACT.get(name, name), "")
            return told.new(max(seen, since_us), known, now_us=now, version=version)

        fired = self.engine.tick(now, new, busy=bool(self.state["open"]))
        self.state["seen_us"] = known
        return fired

    def _settle(self, now: int) -> None:
        still: list[dict[str, Any]] = []
        for entry in self.state["open"]:
            found = self.runs.outcome(entry["run_id"])
            if found is None:
                still.append(entry)
                continue
            firing = firing_of(entry["firing"])
            again = found.kind == "again" and self.engine.again(
                firing, found.said, not_before_us=now + firing.tries * self.policy.tick
            )
            if found.kind == "done":
                self.state["known_us"] = max(self.state["known_us"], firing.at_us)
            if firing.components != (INGEST,) or found.kind != "done":
                log.info("run %d (%s): %s %s", firing.number, firing.why, found.kind, found.said)
                ended = {"ended": "again" if again else found.kind, "said": found.said}
                self.state["recent"] = [*self.state["recent"], {**entry, **ended}][-RECENT:]
        self.state["open"] = still

    def _opened(self, firing: Firing) -> dict[str, Any]:
        """What is kept of a firing: with what it asks for, as the policy may be another one at its start."""
        return {
            "firing": record_of(firing),
            "policy": self.policy.name,
            "parameters": parameters_of(firing, self.policy),
            "run_id": None,
        }

    def _start_open(self) -> None:
        for entry in self.state["open"]:
            if entry["run_id"] is None:
                firing = firing_of(entry["firing"])
                key = f"{self.state['began']}-{firing.number}"
                asked = entry["parameters"]
                entry["run_id"] = self.runs.start(firing, asked, policy=entry["policy"], key=key)

    def _reload(self) -> None:
        stamp = policy_stamp(self.layout)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self.policy = policy_of(self.layout)
        except ConfigError as error:
            log.warning("%s; the policy before it stays", error)
            self._say("policy", f"{error}; the policy {self.policy.name} stays")
            return
        log.info("policy %s", self.policy.name)
        self._say("policy", "")
        self.state["asked"] = False
        self.engine = Engine(self.policy, self.state["engine"])

    def _versions(self) -> dict[str, str]:
        try:
            live = champion(self.layout) or ""
            if live and self._manifest[0] != live:
                artifacts = read_manifest(self.layout, live).artifacts
                self._manifest = (live, {name: a.version for name, a in artifacts.items()})
            self._say("champion", "")
        except DataError as error:  # its pointer is damaged: the next promotion mends it
            self._say("champion", str(error))
        return self._manifest[1]

    def _say(self, about: str, error: str) -> None:
        """What is wrong with the policy, the data, the champion or the last tick stands until it is right."""
        if error:
            self.state["errors"][about] = error
        else:
            self.state["errors"].pop(about, None)

    def _new_state(self) -> dict[str, Any]:
        now = self.clock.now_us()
        return {
            "began": wall_us(),
            "engine": {},
            "seen_us": now,
            "known_us": now,
            "ticked_us": now,
            "asked": False,
            "open": [],
            "recent": [],
            "errors": {},
        }

    def _write(self, *, only_changes: bool = False) -> None:
        at = wall_us()
        document = {**self.state, "policy": self.policy.name, "next_us": self.engine.next_us()}
        text = json.dumps({k: v for k, v in document.items() if k != "ticked_us"})
        if only_changes and text == self._written[0] and at < self._written[1] + _WRITE_US:
            return
        write_state(self.layout, document | {"ticked_wall_us": at})
        self._written = (text, at)
