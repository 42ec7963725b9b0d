"""kill -9 at any moment: what was acknowledged stays, once; no release is half a one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from data.schema import CLICK, stable_hash
from data.snapshots import published, read_events
from flows.offline.ingest import ingest
from infra.clock import SECOND_US
from infra.settings import REPOSITORY, Home, Settings
from tests.e2e.shop_process import environment, set_clock
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


def test_a_refresh_killed_anywhere_leaves_nothing_half_done_and_the_next_one_ends_well(shop: Home) -> None:
    set_clock(shop, end_us=published(shop).watermark_us + 3_600 * SECOND_US)
    done = subprocess.run(
        [sys.executable, "benchmarks/kill_refresh.py", "--home", str(shop.root), "--kills", "3"],
        cwd=REPOSITORY, env=environment(shop.root), capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.stdout, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["broken"] == [], done.stderr
    assert done.returncode == 0
    assert report["rounds"] == 3
    assert report["kills"] >= 1  # a refresh may end before its moment where the machine became faster
    assert report["reads_of_the_pointer"] > 50
    assert report["champions_seen"] >= 3
