"""kill -9 at any moment: what was acknowledged stays, once; no release is half a one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from data.schema import CLICK, event_table, stable_hash
from data.segments import write_segments
from data.snapshots import published, read_events
from flows.offline.ingest import ingest
from infra.clock import SECOND_US
from infra.settings import REPOSITORY, Home, Settings
from models.release import champion, list_releases, load_release
from tests.e2e.shop_process import set_clock, shelflife
from tests.unit.components.search_world import NOW_US
from tests.unit.components.serving_world import make_home, publish_release

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ACKNOWLEDGE = """
    import sys, threading
    from pathlib import Path
    from components.serving.engine import Engine
    from data.shop import Request
    from infra.clock import ScaledClock, wall_us
    from infra.settings import Home

    clock = ScaledClock({now_us}, wall_us(), 1.0)
    engine = Engine(Home(Path(sys.argv[1])), clock)
    engine.start()
    lock = threading.Lock()

    def shopper(number):
        for i in range(1_000_000):
            reply = engine.respond(Request("search", clock.now_us(), query="red boots", user_id=number))
            key = f"{{number}}-{{i}}"
            item = int(reply.item_ids[i % len(reply.item_ids)])
            events = [{{"kind": "click", "item_id": item, "event_key": key}}]
            engine.events(events).wait()
            with lock:
                print(key, flush=True)

    for number in range(4):
        threading.Thread(target=shopper, args=(number,), daemon=True).start()
    threading.Event().wait()
"""


@pytest.mark.parametrize("seconds", [0.05, 0.4, 2.3])
def test_what_an_engine_acknowledged_is_in_the_store_once(tmp_path: Path, seconds: float) -> None:
    layout = make_home(tmp_path)
    publish_release(layout)
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(ACKNOWLEDGE.format(now_us=NOW_US)), str(layout.root)],
        cwd=REPOSITORY, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    first = process.stdout.readline()
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    keys = (first + process.stdout.read()).split()
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    set_clock(layout, end_us=NOW_US + 60 * SECOND_US)
    settings = Settings(home=layout.root)
    ingest(settings)
    ingest(settings)  # once more: once is once
    clicks = read_events(published(layout), kinds=[CLICK])
    stored = clicks["event_id"].to_pylist()
    wanted = {stable_hash(f"event_key {key}") & ((1 << 63) - 1) for key in keys}
    assert keys
    assert wanted <= set(stored)
    assert len(stored) == len(set(stored))
    assert len(stored) - 6 - len(wanted) <= 4  # the home's own six; at most one a shopper was not told of


FORKED = """
    import os, signal, sys, time
    from pathlib import Path
    import duckdb, lightgbm, mlflow  # before the fork: importing takes the time
    import flows.offline.refresh
    from infra.settings import load_settings

    settings = load_settings(home=Path(sys.argv[1]))
    child = os.fork()
    if not child:
        flows.offline.refresh.refresh(settings, component="ranker,index", margin=1.0)
        os._exit(0)
    time.sleep(float(sys.argv[2]))
    done, status = os.waitpid(child, os.WNOHANG)
    if not done:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    print("ended" if done else "killed", status, flush=True)
"""


def clicks_after(layout: Home, number: int) -> None:
    """Drop a segment of clicks that nobody ingested yet."""
    held = published(layout)
    old = read_events(held, kinds=[CLICK]).slice(0, 20)
    times = held.watermark_us + (number + 1) * 1_000 + np.arange(len(old))
    new = event_table(
        {"event_id": 10**12 + number * 1_000 + np.arange(len(old)), "kind": CLICK, "event_time": times,
         "known_time": times, "item_id": old["item_id"], "user_id": old["user_id"]},
        rows=len(old),
    )  # fmt: skip
    write_segments(new, layout.segments, name=f"kill-{number}")


def test_a_refresh_killed_anywhere_leaves_a_whole_champion_and_the_next_one_ends_well(shop: Home) -> None:
    set_clock(shop, end_us=published(shop).watermark_us + 3_600 * SECOND_US)
    rng = np.random.default_rng(int.from_bytes(os.urandom(4), "little"))
    moments = [0.1, *np.sort(rng.uniform(0.2, 5.0, 3)).round(2).tolist()]
    outcomes = []
    for number, moment in enumerate(moments):
        clicks_after(shop, number)
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(FORKED), str(shop.root), str(moment)],
            cwd=REPOSITORY, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        outcomes.append(done.stdout.split()[0])
        name = champion(shop)
        assert name is not None
        assert load_release(shop, name).ranker is not None, moments
        for manifest in list_releases(shop):  # whatever is listed can be had
            load_release(shop, manifest.release_id)
    assert outcomes[0] == "killed", (moments, outcomes)
    last = shelflife(
        shop.root, "refresh", "--component", "ranker", "--fraction", "0.6", "--margin", "1", "--json"
    )
    assert last.code == 0, (moments, last.err)
    assert last.document["promoted"]
    assert last.document["snapshot"]["fraction"] == 0.6
    assert champion(shop) == last.document["release_id"]
    rows = {r["release_id"]: r for r in shelflife(shop.root, "releases", "--json").document["releases"]}
    assert rows[last.document["release_id"]]["alias"] == "champion"
    ids = np.array(read_events(published(shop), kinds=[CLICK], columns=["event_id"])["event_id"])
    mine = ids[ids >= 10**12]
    assert len(mine) == len(np.unique(mine)) == 20 * len(moments)
    assert not [p for folder in (shop.releases, shop.states, shop.blobs) for p in folder.rglob("*.tmp")]
