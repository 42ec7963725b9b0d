"""Who asks the policy's triggers and starts its runs while a study sets the shop clock's pace.

`prefect`: the flow runner of `shelflife up --policy`, which the study only watches. `process`: the same
policy engine in this process, each run a process of its own, without Prefect. It decides nothing itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from flows.policies.engine import INGEST, Firing
from flows.policies.home import read_state, set_policy
from flows.policies.live import Live, Outcome
from flows.policies.policy import Policy
from infra import cluster
from infra.clock import open_clock
from infra.errors import ShelflifeError
from infra.settings import REPOSITORY, Settings

__all__ = ["Keeper", "PrefectKeeper", "ProcessKeeper", "ProcessRuns", "Standing", "keeper_of"]

_START_S = 120.0


@dataclass(frozen=True)
class Standing:
    """Whether runs are under way, the next time that triggers know of (shop us), how runs ended."""

    busy: bool
    next_us: int | None
    ended: tuple[dict[str, Any], ...] = ()

    @classmethod
    def of(cls, state: Mapping[str, Any], next_us: Mapping[str, int | None]) -> Standing:
        """Of what the policy's state says."""
        times = [t for t in next_us.values() if t is not None]
        return cls(bool(state["open"]), min(times, default=None), tuple(state["recent"]))


class Keeper(Protocol):
    """Keeps a home fresh by its policy."""

    looks_s: float
    """Wall seconds within which it has asked its triggers after anything changed."""

    def start(self) -> None:
        """Begin; the service runs and the shop clock is set."""
        ...

    def look(self) -> Standing:
        """How it stands now; asks the triggers, where it is not asked elsewhere."""
        ...

    def close(self) -> None:
        """End what it started."""
        ...


def keeper_of(settings: Settings, policy: Policy, *, through: str) -> Keeper:
    """The keeper of a home, which gets this policy."""
    set_policy(settings.layout, policy)
    return PrefectKeeper(settings) if through == "prefect" else ProcessKeeper(settings)


@dataclass
class PrefectKeeper:
    """The flow runner, in a process of its own; Prefect's server runs already."""

    settings: Settings
    looks_s: float = 2.5

    def start(self) -> None:
        """Start the runner, and wait until it has asked the triggers."""
        cluster.start_runner(self.settings)
        until = time.monotonic() + _START_S
        while (read_state(self.settings.layout) or {}).get("next_us") is None:
            if time.monotonic() > until or cluster.RUNNER not in cluster.running(self.settings):
                log = self.settings.layout.run / "runner.log"
                raise ShelflifeError(f"the flow runner did not ask its policy; see {log}")
            time.sleep(0.2)

    def look(self) -> Standing:
        """What the runner wrote last."""
        state = read_state(self.settings.layout)
        assert state is not None
        return Standing.of(state, state["next_us"])

    def close(self) -> None:
        """Nothing: who started the cluster stops the runner too."""


@dataclass
class ProcessKeeper:
    """The policy engine in this process."""

    settings: Settings
    looks_s: float = 0.0
    _runs: ProcessRuns = field(init=False)
    _live: Live = field(init=False)

    def __post_init__(self) -> None:
        self._runs = ProcessRuns(self.settings)

    def start(self) -> None:
        """Ask the triggers for the first time."""
        self._live = Live(self.settings.layout, self._runs, clock=open_clock(self.settings.layout.clock))
        self._live.tick()

    def look(self) -> Standing:
        """Ask the triggers."""
        self._live.tick()
        return Standing.of(self._live.state, self._live.engine.next_us())

    def close(self) -> None:
        """End a run that is under way."""
        self._runs.close()


class ProcessRuns:
    """Runs of a policy as processes: `Runs` of `flows/policies/live.py`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._started: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}

    def start(self, firing: Firing, parameters: Mapping[str, Any], *, policy: str, key: str) -> str:
        """Start a run; the same key again is the same run."""
        if key in self._started:
            return key
        what = {} if firing.components == (INGEST,) else dict(parameters)
        what.pop("why", None)
        said = self.settings.layout.run / "turns" / f"{key}.log"
        said.parent.mkdir(parents=True, exist_ok=True)
        home, seed = str(self.settings.home), str(self.settings.seed)
        command = [sys.executable, "-m", "flows.studies.live.turn", "--home", home, "--seed", seed]
        with said.open("wb") as out:
            process = subprocess.Popen(
                [*command, "--asked", json.dumps(what)],
                cwd=REPOSITORY,
                env=os.environ | {"SHELFLIFE_CACHE": str(self.settings.cache)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self._started[key] = (process, said)
        return key

    def outcome(self, run_id: str) -> Outcome | None:
        """How it ended; None while it has not. One of an earlier study is tried again."""
        if run_id not in self._started:
            return Outcome("again", "its study was stopped")
        process, said = self._started[run_id]
        code = process.poll()
        if code is None:
            return None
        if code == 0:
            return Outcome("done")
        line = (said.read_text(errors="replace").strip().splitlines() or ["no message"])[-1]
        return Outcome("failed", f"exit code {code}: {line}"[:300])

    def close(self) -> None:
        """End all that run."""
        for process, _ in self._started.values():
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
                if process.poll() is None:
                    process.kill()
                    process.wait()
