"""A warmed engine compiles nothing while requests wait, whatever they ask."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from infra.settings import REPOSITORY
from tests.unit.components.serving_world import make_home, publish_release

# In a process of its own: what other tests had compiled would hide what this engine lacks.
_PROGRAM = """
import sys, time
from pathlib import Path

from numba.core.dispatcher import Dispatcher

from components.serving.engine import Engine, EngineConfig
from data.shop import Filters, Request
from infra.clock import ManualClock
from infra.settings import Home
from tests.unit.components.search_world import NOW_US, make_photos


def compiled():
    modules = [m for name, m in sys.modules.items() if name.split(".")[0] in ("components", "models", "data")]
    kernels = {id(k): k for m in modules for k in vars(m).values() if isinstance(k, Dispatcher)}
    return {(k.py_func.__qualname__, str(s)) for k in kernels.values() for s in k.signatures}


engine = Engine(Home(Path(sys.argv[1])), ManualClock(NOW_US), config=EngineConfig(), photos=make_photos())
engine.start()
before = compiled()
filters = (None, Filters(in_stock=True), Filters(price_max=40.0), Filters(category="shirts"),
           Filters(price_min=9e9))
people = ({}, {"user_id": 1}, {"user_id": 1, "session_id": 7})


def ask_all():
    for narrowed in filters:
        for who in people:
            for about in ({"surface": "search", "query": "red sneakers"}, {"surface": "search"},
                          {"surface": "search", "photo": 1}, {"surface": "recommend"},
                          {"surface": "similar", "item_id": 1_000}, {"surface": "search", "query": "zzzz"}):
                for extra in ({}, {"explain": True}):
                    engine.answer(Request(time_us=NOW_US, filters=narrowed, **about, **who), **extra)


ask_all()
engine.upsert_item("77", {"title": "new red sneakers", "price": 3.5, "stock": 2}).result(300)
click = {"kind": "click", "item_id": "1000", "user_id": "1", "session_id": "7"}
engine.events([click]).wait()
engine.events([click] * 3).wait()
engine.delete_item("1001").result(300)
ask_all()
assert engine.install(sys.argv[2]).flipped
ask_all()
while not engine.settled:
    time.sleep(0.01)
ask_all()
new = compiled() - before
engine.close()
print(len(before), "kernels were compiled, then", sorted(name for name, _ in new))
sys.exit(bool(new) or len(before) < 9)
"""


def test_no_kernel_is_compiled_by_requests_events_or_a_swap_once_warm(tmp_path: Path) -> None:
    layout = make_home(tmp_path)
    publish_release(layout)
    other = publish_release(layout, number=1, seed=2, promote=False)
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(layout.root), other],
        cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-2_000:]
