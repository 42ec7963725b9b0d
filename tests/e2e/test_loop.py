"""The whole loop on a tiny world: real Prefect, MLflow, Ray Serve and HTTP, started once for all tests."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import psutil
import pytest

from components.load.arrivals import Trace, http_get, poisson_arrivals
from components.load.driver import run_trace
from components.load.result import CONNECTION_FAILED
from data.snapshots import published
from flows.offline.refresh import read_refreshes
from flows.policies.home import read_state, set_policy
from flows.policies.policy import Policy
from infra import cluster, processes
from infra.ray_scratch import scratch_of
from infra.settings import REPOSITORY, Home, Settings
from models.release import champion, load_release
from tests.e2e.running_shop import Running, leftovers, named, of_home, refreshing, session_of, under_load
from tests.e2e.shop_process import RATE, set_clock, shelflife, wait_until
from tests.e2e.told import check_artifacts, check_status, judged_runs

pytestmark = [pytest.mark.e2e, pytest.mark.services, pytest.mark.slow]


@pytest.fixture(scope="module")
def running(first_shop: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A copy of the shop with a refresh every few seconds, started with `up`, ended with `down`."""
    root = tmp_path_factory.mktemp("loop") / "home"
    shutil.copytree(first_shop.root, root)
    settings = Settings(home=root, http_port=0, prefect_port=0, haproxy_stats_port=0, haproxy_metrics_port=0)
    set_clock(settings.layout, end_us=published(settings.layout).watermark_us)
    # On a day of a tiny world two rankers differ by chance more than the gate's usual margin.
    often = {"kind": "interval", "every": f"{10 * RATE}s", "after": f"{3 * RATE}s"}
    ranker = {"trigger": often, "gate": {"margin": 0.3, "segment_margin": 0.5}}
    set_policy(settings.layout, Policy.model_validate({"name": "often", "components": {"ranker": ranker}}))
    try:
        assert cluster.up(settings)["started"] == ["prefect", "serve", "runner"]
        shop = Running(settings)
        yield shop
        shop.http.close()
        was = of_home(root)
        assert len(was) >= 4
        done = shelflife(root, "down", "--json")
        assert done.code == 0, done.err
        assert set(done.document["stopped"]) == {"prefect", "serve", "runner"}
        assert leftovers(was, root) == set()
        again = shelflife(root, "down", "--json")
        assert (again.code, again.document) == (0, {"stopped": [], "processes_ended": 0})
        assert not scratch_of(settings).exists()
    finally:
        cluster.down(settings)


def test_every_surface_answers_and_the_answer_varies(running: Running) -> None:
    one, two = running.queries[:2]

    def whole() -> Any:  # a busy machine may be late now and then
        page = running.get("/search", q=one, user_id="u1", session_id="s1", size=5)
        return page if page["degraded"] == [] else None

    found = wait_until(whole, timeout_s=120)
    assert len(found["items"]) == 5
    assert set(found["timings_us"]) >= {"retrieve", "rank"}
    assert found["release_id"] in running.get("/release")["held"]
    assert [i["item_id"] for i in found["items"]] != running.shows("/search", q=two, size=5)
    more = running.shows("/search", cursor=found["cursor"], size=5)
    assert not set(more) & {i["item_id"] for i in found["items"]}
    similar = running.shows("/similar", item_id=running.items[0])
    assert similar
    assert running.items[0] not in similar
    assert running.get("/health")["ready"]
    wait_until(lambda: running.get("/health")["problems"] == [], timeout_s=120)
    assert "shelflife_ready 1" in running.http.get("/metrics").text


def test_a_new_item_is_found_at_once_and_a_deleted_one_never_again(running: Running) -> None:
    fields = {
        "title": "quixotic zephyrine sneakers",
        "category": running.queries[0],
        "price": 20.0,
        "stock": 3,
    }
    assert running.http.put("/items/e2e-new", json=fields).status_code == 200
    ask = [("/search", {"q": "quixotic zephyrine", "size": 100}), ("/search", {"q": running.queries[0]})]
    ask += [("/recommend", {"size": 100}), ("/similar", {"item_id": running.items[1], "size": 100})]
    assert "e2e-new" in running.shows(ask[0][0], **ask[0][1])
    assert running.http.delete("/items/e2e-new").json()["deleted"] is True
    with ThreadPoolExecutor(4) as pool:
        pages = list(pool.map(lambda a: running.shows(a[0], **a[1]), ask * 25))
    assert all(pages[2::4])
    assert not any("e2e-new" in page for page in pages)
    assert running.http.delete("/items/never-there").status_code == 404


def test_a_long_address_is_refused_by_the_shop_in_json(running: Running) -> None:
    refused = running.http.get("/search", params={"q": "x" * 50_000})
    assert refused.status_code == 400
    assert "50000 characters" in refused.json()["error"]["found"]


def test_a_scheduled_refresh_is_swapped_in_and_no_request_fails(running: Running) -> None:
    before = running.get("/release")
    stop, errors = threading.Event(), []

    def shoppers() -> None:
        try:
            while not stop.wait(0.2):
                shown = running.get("/search", q=running.queries[0], user_id="u1")
                running.click(
                    [shown["items"][0]["item_id"]],
                    request_id=shown["request_id"], surface="search", query=running.queries[0],
                )  # fmt: skip
        except BaseException as error:
            errors.append(error)

    live: list[float] = []

    def swapped() -> bool:
        # Two seconds more once a release of a snapshot that was newer than the test's beginning is live.
        if not live and champion(running.layout) != before["release_id"]:
            now = running.get("/release")
            if now["watermark_us"] > before["watermark_us"] and now["swaps"][-1]["flipped"]:
                live.append(time.monotonic())
        return bool(live) and time.monotonic() > live[0] + 2.0

    due = poisson_arrivals(30.0, 300.0, seed=1)
    targets = [f"/search?q={quote(q)}&user_id=u2" for q in running.queries] + ["/recommend?user_id=u3"]
    requests = [http_get(targets[i % len(targets)]) for i in range(len(due))]
    thread = threading.Thread(target=shoppers)
    thread.start()
    try:
        url = httpx.URL(cluster.serve_url(running.settings))
        result = run_trace(
            Trace(due, requests), host=url.host, port=url.port or 0, timeout_s=35.0, should_stop=swapped
        )
    finally:
        stop.set()
        thread.join()
    assert errors == []
    assert live, "no scheduled refresh went live within 300 s"
    assert result.failed == 0
    assert len(result) > 60
    assert len(set(result.labels)) >= 2  # requests of both releases
    assert np.median(result.latency_us) < 1_000_000
    release = load_release(running.layout, champion(running.layout) or "")
    assert set(release.manifest.artifacts) >= {"ranker", "encoder", "lexical_index", "vector_index"}
    assert release.manifest.parent
    rows = {
        r["release_id"]: r for r in shelflife(running.layout.root, "releases", "--json").document["releases"]
    }
    assert rows[release.manifest.release_id]["verdict"]["passed"]
    wait_until(running.all_stored, timeout_s=300, every_s=1.0)
    assert set(running.stored().values()) == {1}


def test_what_is_wrong_gets_a_4xx_with_a_reason(running: Running) -> None:
    item, shop_us = running.items[0], running.get("/release")["shop_us"]
    click = {"kind": "click", "item_id": item}
    bad_events: list[Any] = [
        {"kind": "click", "item_id": "nowhere"},
        {**click, "event_time": shop_us + 3_600_000_000},
        {**click, "event_time": "yesterday"},
        {**click, "position": "first"},
        {**click, "colour": "red"},
        {"kind": "kick", "item_id": item},
        {"kind": "click"},
        [],
        "click",
        [click, 7],
    ]
    replies = [running.http.post("/events", json=event) for event in bad_events]
    replies += [running.http.post("/events", content=body) for body in (b"", b"{", b"\xff\xfe", b'"\\ud800"')]
    replies += [
        running.http.get("/search", params={"q": "x" * 10_000}),
        running.http.get("/search", params={"q": "shoe", "size": "many"}),
        running.http.get("/search", params={"q": "shoe", "limit": 3}),
        running.http.get("/search", params={"cursor": "???"}),
        running.http.get("/similar", params={"item_id": "nowhere"}),
        running.http.get("/similar"),
        running.http.get("/nothing"),
        running.http.put(f"/items/{item}", json={"price": "cheap"}),
        running.http.delete("/search"),
    ]
    for reply in replies:
        assert 400 <= reply.status_code < 500, (reply.status_code, reply.request.url, reply.text)
        assert set(reply.json()["error"]) == {"found", "expected", "do"}
    assert running.get("/health")["ready"]


@pytest.mark.parametrize(
    "query",
    [
        "",
        " ",
        "%",
        "\x00",
        "'; drop table items; --",
        "日本語 カメラ",
        "👟" * 40,
        "é\u0301\u202e\ufeff",
        "a" * 1_000,
        '+-"()[]{}~*?:\\/^',
        "NOT AND OR",
    ],
    ids=str.__len__,
)
def test_any_query_of_allowed_length_is_answered(running: Running, query: str) -> None:
    found = running.get("/search", q=query)
    assert isinstance(found["items"], list)


def test_bytes_that_are_no_utf8_are_no_failure(running: Running) -> None:
    reply = running.http.get("/search?q=%ff%fe%00%80")
    assert reply.status_code < 500, reply.text
    json.loads(reply.text)


def test_up_again_starts_nothing_and_a_taken_port_is_one_line(running: Running, home: Home) -> None:
    root = running.layout.root
    again = shelflife(root, "up", "--json")
    assert (again.code, again.document["started"]) == (0, [])
    taken = httpx.URL(cluster.serve_url(running.settings)).port
    shutil.copytree(running.layout.releases, home.releases)
    other = shelflife(home.root, "up", "--http-port", str(taken), "--prefect-port", "0")
    assert other.code == 2
    assert str(taken) in other.line
    assert processes.records(home.run) == []
    assert running.get("/health")["ready"]


def test_after_a_kill_9_of_the_service_up_repairs_it_and_keeps_what_was_acknowledged(
    running: Running,
) -> None:
    root, run = running.layout.root, running.layout.run
    host = processes.find(run, cluster.SERVE)
    assert host is not None
    family = {(pid, begun) for pid, begun in of_home(root) if session_of(pid) == host.pid}
    assert len(family) > 3
    running.click(running.items[:50])
    os.kill(host.pid, signal.SIGKILL)
    done = shelflife(root, "up", "--http-port", str(host.ports["http"]), "--json")
    assert done.code == 0, done.err
    assert done.document["started"] == ["serve"]
    assert done.document["health"]["ready"]
    new = processes.find(run, cluster.SERVE)
    assert new is not None
    assert new.pid != host.pid
    assert new.ports["http"] == host.ports["http"]  # nothing of the old one holds it
    assert not family & of_home(root)
    running.click(running.items[:50])
    wait_until(running.all_stored, timeout_s=300, every_s=1.0)
    assert set(running.stored().values()) == {1}


def test_of_a_backlog_only_the_newest_run_of_each_deployment_is_left(running: Running) -> None:
    settings = running.settings
    prefect = processes.find(settings.layout.run, cluster.PREFECT)
    assert prefect is not None
    wait_until(lambda: not refreshing(running), timeout_s=300, every_s=0.05)
    wait_until(lambda: refreshing(running), timeout_s=300, every_s=0.05)
    processes.stop(settings.layout.run, cluster.RUNNER)  # in the middle of a run: it has just begun
    ended = len(read_refreshes(running.layout))
    try:
        port = Settings(home=settings.home, prefect_port=prefect.ports["http"])
        done = subprocess.run(
            [sys.executable, "-m", "tests.e2e.stampede"],
            cwd=REPOSITORY, env=os.environ | cluster.prefect_environment(port),
            capture_output=True, text=True, timeout=600,
        )  # fmt: skip
    finally:
        cluster.start_runner(settings)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    # Of the deployment with a schedule, runs of the schedule may be late too, and newer.
    assert "ingest/ingest" in found["kept"], found
    assert found["left"] == len(found["kept"]), found
    assert found["cancelled"] > 0, found
    # One that was about to run is ended; the one that was killed is started again, and ends well.
    url = f"http://127.0.0.1:{port.prefect_port}/api/flow_runs/{found['about_to']}"
    wait_until(lambda: httpx.get(url, timeout=60.0).json()["state"]["type"] == "CRASHED", timeout_s=300)
    wait_until(lambda: len(read_refreshes(running.layout)) > ended, timeout_s=300)
    recent = (read_state(running.layout) or {})["recent"]
    assert "again" in [run["ended"] for run in recent], recent


def test_a_killed_replica_costs_what_it_was_answering_and_comes_back(running: Running) -> None:
    root = running.layout.root
    (old,) = named(root, "ray::ServeReplica")
    running.click(running.items[:20])
    gone_us: list[int] = []

    def strike() -> None:
        replica = psutil.Process(old[0])
        replica.kill()
        replica.wait(timeout=120)
        gone_us.append(time.time_ns() // 1_000)

    found = under_load(
        running, strike, lambda: bool(named(root, "ray::ServeReplica") - {old}), timeout_s=240.0
    )
    found.check()
    cut = [sent for status, sent, _ in found.failures if status == CONNECTION_FAILED]
    gone_s = (gone_us[0] - found.struck_us) / 1e6
    assert max(cut, default=0.0) < gone_s + 1.0, f"cut off later than at the kill: {found.failures}"
    wait_until(lambda: running.get("/release")["release_id"] == champion(running.layout), timeout_s=120)
    wait_until(running.all_stored, timeout_s=300, every_s=0.5)
    assert set(running.stored().values()) == {1}


def test_a_killed_haproxy_is_started_again_by_itself(running: Running) -> None:
    root = running.layout.root
    old, replicas = named(root, "haproxy -db"), named(root, "ray::ServeReplica")
    assert old

    def strike() -> None:
        for pid, _ in old:
            with contextlib.suppress(ProcessLookupError):  # one that was draining may have ended
                os.kill(pid, signal.SIGKILL)

    under_load(running, strike, lambda: bool(named(root, "haproxy -db") - old), timeout_s=240.0).check()
    assert named(root, "ray::ServeReplica") == replicas, "the replica is not touched"


def test_without_pointer_and_registry_the_live_release_goes_on_and_says_so(running: Running) -> None:
    layout = running.layout
    processes.stop(layout.run, cluster.RUNNER)  # it would mend the pointer
    wait_until(lambda: running.get("/release")["release_id"] == champion(layout), timeout_s=120)
    live = running.get("/release")["release_id"]
    pointer, aside = layout.releases / "champion.json", layout.root / "mlflow-away"
    layout.mlflow.rename(aside)
    layout.mlflow.write_text("not a folder")
    try:
        pointer.write_text("{")
        for word in ("is damaged", "no champion pointer"):
            told = wait_until(lambda: running.get("/health")["problems"], timeout_s=120)
            wait_until(lambda w=word: w in str(running.get("/health")["problems"]), timeout_s=120)
            assert told
            assert running.get("/health")["ready"]
            assert running.get("/search", q=running.queries[0])["release_id"] == live
            pointer.unlink(missing_ok=True)
        refused = shelflife(layout.root, "refresh", "--component", "ranker")
        assert refused.code == 2, refused.err
        assert str(layout.mlflow) in refused.line
    finally:
        layout.mlflow.unlink()
        aside.rename(layout.mlflow)
        assert shelflife(layout.root, "promote", live).code == 0
        cluster.start_runner(running.settings)
    wait_until(lambda: running.get("/health")["problems"] == [], timeout_s=120)


def test_after_a_kill_9_of_everything_up_leaves_no_orphan(running: Running) -> None:
    root, run = running.layout.root, running.layout.run
    wait_until(lambda: refreshing(running), timeout_s=300)
    running.click(running.items[:20])
    was, records = of_home(root), {p.name: p for p in processes.records(run)}
    assert set(records) == {cluster.PREFECT, cluster.SERVE, cluster.RUNNER}
    for record in records.values():
        os.kill(record.pid, signal.SIGKILL)
    time.sleep(1.0)
    done = shelflife(
        root, "up", "--json",
        "--http-port", str(records[cluster.SERVE].ports["http"]),
        "--prefect-port", str(records[cluster.PREFECT].ports["http"]),
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.document["started"] == [cluster.PREFECT, cluster.SERVE, cluster.RUNNER]
    assert not was & of_home(root)
    assert len(named(root, "ray::ServeReplica")) == len(named(root, "prefect server start")) == 1
    wait_until(running.all_stored, timeout_s=300, every_s=0.5)  # the schedules go on
    assert set(running.stored().values()) == {1}


def test_status_and_prefects_own_pages_tell_what_the_schedule_did(running: Running) -> None:
    running.click(running.items[:5])  # without anything new a refresh ends with the same release
    wait_until(lambda: judged_runs(running.layout), timeout_s=300)
    check_status(running.layout, shelflife(running.layout.root, "status", "--json").document)
    screen = shelflife(running.layout.root, "status").out
    assert "policy often: last asked" in screen
    assert cluster.serve_url(running.settings) in screen
    check_artifacts(running.layout, cluster.prefect_url(running.settings))
