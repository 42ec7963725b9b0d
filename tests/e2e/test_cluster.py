"""The real Prefect server and the real Ray Serve start, stop, and leave nothing, also after a kill -9."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from infra import cluster, processes
from infra.settings import Home, Settings

pytestmark = [pytest.mark.e2e, pytest.mark.services, pytest.mark.slow]


@pytest.fixture
def settings(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A home on free ports whose service is a trivial one; whatever happens, it is stopped."""
    host = partial(cluster.start_serve, module="tests.e2e.trivial_host")
    monkeypatch.setattr(cluster, "start_serve", host)
    settings = Settings(
        home=home.root, http_port=0, prefect_port=0, haproxy_stats_port=0, haproxy_metrics_port=0
    )
    yield settings
    cluster.down(settings)


def family() -> set[int]:
    """Every process that lives in a session or a folder of a cluster of ours; zombies are dead."""
    found = set()
    for process in psutil.process_iter(["pid", "name", "cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        ours = any(word in line for word in ("gcs_server", "raylet", "haproxy", "ray::", "prefect server"))
        if (ours or "trivial_host" in line) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.add(process.info["pid"])
    return found


def listening(pids: set[int]) -> dict[int, str]:
    """Port → address of what these processes listen on."""
    return {
        c.laddr.port: c.laddr.ip
        for c in psutil.net_connections("tcp")
        if c.pid in pids and c.status == psutil.CONN_LISTEN
    }


def test_everything_starts_answers_on_loopback_and_stops(settings: Settings) -> None:
    before = family()
    document = cluster.up(settings, runner=False)
    assert document["started"] == ["prefect", "serve"]
    assert document["health"] == {"ready": True}
    ports = document["processes"]["serve"]["ports"] | {
        "prefect": document["processes"]["prefect"]["ports"]["http"]
    }
    addresses = listening(family() - before)
    assert {name: addresses[port] for name, port in ports.items()} == dict.fromkeys(ports, "127.0.0.1")
    assert psutil.Process(document["processes"]["serve"]["pid"]).nice() <= os.getpriority(os.PRIO_PROCESS, 0)

    assert cluster.up(settings, runner=False)["started"] == []

    begin = time.monotonic()
    assert set(cluster.down(settings)["stopped"]) == {"prefect", "serve"}
    assert time.monotonic() - begin < 120  # all that it may wait for one that does not end by itself
    assert family() - before == set()
    assert cluster.status(settings)["service"] is None


def test_after_a_kill_9_the_next_command_finds_and_ends_what_is_left(settings: Settings) -> None:
    before = family()
    started = cluster.start_serve(settings)
    cluster.wait_serve(started)
    record = processes.find(settings.layout.run, cluster.SERVE)
    assert record is not None
    os.kill(record.pid, signal.SIGKILL)
    time.sleep(2.0)  # some of Ray ends by itself, its agents and sometimes HAProxy do not
    assert not processes.alive(settings.layout.run, cluster.SERVE)
    processes.end_orphans(settings.layout.run)
    assert family() - before == set()
    assert processes.records(settings.layout.run) == []
    token = Path(settings.layout.run / "ray-token")
    assert token.stat().st_mode & 0o077 == 0
