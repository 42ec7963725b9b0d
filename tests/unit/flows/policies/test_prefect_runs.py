"""What a policy makes of how Prefect says that a run ended, also where Prefect was killed before it heard."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from prefect.client import orchestration
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Crashed, Failed, Running

from flows.policies.prefect_runs import PrefectRuns
from infra.files import append_line
from infra.settings import Home

KILLED = Crashed(message="its runner was killed")


class Client:
    """A server that knows one run's state, or none."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def read_flow_run(self, run_id: str) -> Any:
        if self.state is None:
            raise ObjectNotFound(Exception("404"))
        return SimpleNamespace(state=self.state)


def outcome(home: Home, state: Any, run_id: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str] | None:
    @contextlib.contextmanager
    def client(*, sync_client: bool) -> Iterator[Client]:
        yield Client(state)

    monkeypatch.setattr(orchestration, "get_client", client)
    found = PrefectRuns(home.root, seed=7).outcome(run_id)
    return None if found is None else (found.kind, found.said)


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (Running(), None),
        (Completed(), "done"),
        (KILLED, "again"),
        (None, "again"),
        (Failed(message="Flow run encountered an exception: EnvironmentError_: the disk is full"), "again"),
        (Failed(message="Flow run encountered an exception: DataError: no clicks"), "failed"),
    ],
    ids=["running", "completed", "killed", "unknown", "the machine", "the data"],
)
def test_an_end_is_done_failed_or_tried_again(
    home: Home, monkeypatch: pytest.MonkeyPatch, state: Any, kind: str | None
) -> None:
    found = outcome(home, state, str(uuid4()), monkeypatch)
    assert (found and found[0]) == kind


@pytest.mark.parametrize("state", [KILLED, None], ids=["killed", "unknown"])
def test_a_refresh_that_was_done_when_prefect_was_killed_is_not_made_again(
    home: Home, monkeypatch: pytest.MonkeyPatch, state: Any
) -> None:
    mine, other = str(uuid4()), str(uuid4())
    append_line(home.run / "refreshes.jsonl", json.dumps({"flow_run_id": mine, "promoted": True}).encode())
    assert outcome(home, state, mine, monkeypatch) == ("done", "its end is not recorded in Prefect")
    again = outcome(home, state, other, monkeypatch)
    assert again is not None
    assert again[0] == "again"
    assert outcome(home, Running(), mine, monkeypatch) is None  # not before Prefect says that it has ended
