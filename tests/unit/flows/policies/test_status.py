"""`status` in one screen: what is served, what comes next, last verdicts, and what cannot be told and why."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from data.segments import write_segments
from data.store import ingest_segments
from flows.commands import status as status_verb
from flows.policies.home import set_policy
from flows.policies.live import Live, Outcome
from flows.policies.overview import overview
from infra.clock import DAY_US, HOUR_US, ManualClock
from infra.settings import REPOSITORY, Home, Settings
from tests.unit.flows.policies.made_log import START_US, made_log
from tests.unit.flows.policies.test_live import Shop
from tests.unit.flows.policies.test_replay import DAILY, policy


def test_status_is_one_screen(home: Home) -> None:
    settings = Settings(home=home.root)
    write_segments(made_log(days=1, sessions_per_day=50), home.segments, name="a", durable=False)
    ingest_segments(home, allowed_lateness_us=HOUR_US, clock=ManualClock(START_US + DAY_US))
    set_policy(home, policy(None, ranker=DAILY, indexes={"kind": "never"}))
    shop = Shop(home)
    shop.clock.time_us = START_US
    live = Live(home, shop, clock=shop.clock)
    live.tick()
    home.run.mkdir(exist_ok=True)
    end = {"begin_wall_us": 0, "end_wall_us": 1_700_000_000_000_000, "cpu_s": 3.0, "process_cpu_s": 5.0}
    verdict = {"passed": False, "reasons": ["too slow"]}
    line = {"component": "ranker", "release_id": "r1", "promoted": False, "verdict": verdict, **end}
    (home.run / "refreshes.jsonl").write_text(json.dumps(line) + "\n")
    document = overview(settings)
    assert json.loads(json.dumps(document)) == document
    assert document["policy"]["components"]["ranker"]["next_us"] is not None
    assert document["policy"]["components"]["indexes"]["next_us"] is None
    assert document["verdicts"][0]["reasons"] == ["too slow"]
    assert (document["ingest"]["quarantined"], document["release"], document["cpu_s_today"]) == (0, None, 0)
    text = status_verb.describe(document)
    for word in ("release: none", "policy p: last asked", "every 1d", "too slow", "serve", "ingest: "):
        assert word in text
    assert len(text.splitlines()) < 40


@pytest.mark.parametrize(
    ("text", "said"), [("{", "is no JSON document"), ('{"schema": 99}', "of a newer Shelflife")]
)
def test_status_says_why_it_cannot_tell_of_the_ingest(home: Home, text: str, said: str) -> None:
    settings = Settings(home=home.root)
    assert overview(settings)["problems"] == []
    assert "ingest: nothing yet" in status_verb.describe(overview(settings))
    home.snapshots.mkdir(parents=True)
    (home.snapshots / "status.json").write_text(text)
    document = overview(settings)
    assert document["ingest"] is None
    assert said in document["problems"][0]
    assert "nothing yet" not in status_verb.describe(document)


def test_a_failed_run_stands_in_status(home: Home) -> None:
    set_policy(home, policy(None, ranker=DAILY))
    shop = Shop(home)
    shop.next_end = Outcome("failed", "Failed: a window without clicks")
    live = Live(home, shop, clock=shop.clock)
    live.tick()
    shop.clock.time_us += DAY_US
    live.tick()
    live.tick()
    assert "run 1 failed: Failed: a window without clicks" in status_verb.describe(
        overview(Settings(home=home.root))
    )


def test_status_loads_nothing_heavy() -> None:

    code = (
        "import sys, flows.policies.overview\n"
        "found = {'prefect', 'mlflow', 'ray'} & set(sys.modules); assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_the_service_refused_stands_in_status(home: Home) -> None:
    home.run.mkdir(parents=True)
    reason = "items of the release do not match the words of recent queries"
    tries = [
        {"release_id": "r-bad", "flipped": False, "reason": reason, "begin_wall_us": 5},
        {"release_id": "r-good", "flipped": True, "reason": "", "begin_wall_us": 6},
    ]
    home.serving_status.write_text(json.dumps({"swaps": tries}))
    document = overview(Settings(home=home.root))
    assert document["refused"] == {"r-bad": {"reason": reason, "wall_us": 5}}
    assert f"the service refused r-bad: {reason}" in status_verb.describe(document)
