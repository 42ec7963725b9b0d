"""Each promotion is deployed, once; neither a torn pointer nor a failed deployment ends that."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from components.serving.champions import follow_champion
from infra.files import write_atomic
from infra.settings import Home

Follow = Callable[[Callable[[str], None], str], threading.Thread]


@pytest.fixture
def follow(home: Home) -> Iterator[Follow]:
    """Starts to follow; what was started has ended afterwards."""
    stopped, threads = threading.Event(), []
    home.releases.mkdir()

    def begin(deploy: Callable[[str], None], deployed: str) -> threading.Thread:
        threads.append(
            follow_champion(home, deploy, stopped=stopped, deployed=deployed, poll_s=0.002, retry_s=0.01)
        )
        return threads[-1]

    yield begin
    stopped.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def promote(home: Home, release_id: str) -> None:
    """The pointer as `set_champion` writes it, without a release to load."""
    pointer = {"release_id": release_id, "at_us": 1, "by": "test", "previous": None}
    write_atomic(home.releases / "champion.json", json.dumps(pointer).encode())


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_what_was_promoted_while_the_first_was_deployed_is_not_missed(home: Home, follow: Follow) -> None:
    promote(home, "r-2")  # the first deployment was of r-1
    found: list[str] = []
    follow(found.append, "r-1")
    until(lambda: found == ["r-2"])
    promote(home, "r-3")
    until(lambda: found == ["r-2", "r-3"])
    time.sleep(0.02)
    assert found == ["r-2", "r-3"], "each once"


def test_a_torn_pointer_or_a_failed_deployment_is_logged_and_tried_again(
    home: Home, follow: Follow, caplog: pytest.LogCaptureFixture
) -> None:
    found: list[str] = []

    def deploy(release_id: str) -> None:
        found.append(release_id)
        if len(found) == 1:
            raise RuntimeError("no room for a replica")

    thread = follow(deploy, "")
    (home.releases / "champion.json").write_text("{")
    until(lambda: "is damaged" in caplog.text)
    promote(home, "r-1")
    until(lambda: found == ["r-1", "r-1"])
    assert "no room for a replica" in caplog.text
    assert thread.is_alive()
