"""The live study on a tiny world: a real service under load, refreshes by a policy; stopped, then resumed."""

from __future__ import annotations

import json

import pytest

from infra.settings import Home
from tests.e2e.running_shop import of_home
from tests.e2e.shop_process import finish, interrupted, start, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.services, pytest.mark.slow]

ASKED = (
    "study", "live", "--scale", "0.06", "--days", "3", "--qps", "20", "--day-seconds", "1",
    "--quiet-seconds", "1", "--run-seconds", "5", "--queries", "30", "--no-control",
    "--through", "process", "--json",
)  # fmt: skip


@pytest.mark.timeout(1_800)
def test_a_live_study_that_was_stopped_goes_on_and_tells_all(home: Home) -> None:
    stopped = interrupted(home.root, ASKED, after="daily: day 1 of 3", timeout_s=600)
    assert stopped.code == 130, stopped.err
    wait_until(lambda: not of_home(home.root), timeout_s=300)
    (predicted,) = home.root.glob("studies/live/*/predicted.json")
    declared = predicted.read_bytes()
    assert not list(home.root.glob("studies/live/*/daily/raw.json"))

    done = finish(start(home.root, *ASKED), timeout_s=1_200)
    assert done.code == 0, done.err
    wait_until(lambda: not of_home(home.root), timeout_s=300)
    assert predicted.read_bytes() == declared  # what was said before is not said again
    found = done.document
    (daily,) = found["policies"]
    assert (found["failed"], daily["failed"], daily["failed_runs"]) == (0, 0, 0)
    assert daily["refreshes"] == daily["runs"] == 2
    assert daily["requests"] > 100
    assert daily["cpu_s_per_day"] > 0
    assert daily["days"] == [0, 1, 2]
    assert daily["verdict"]["word"] in ("agrees", "disagrees", "not settled")
    assert daily["verdict"]["declared_wall_us"] == json.loads(declared)["declared_wall_us"]
    assert daily["afterwards"]["days"] == daily["verdict"]["days"]  # told of the log that it wrote itself
    assert len(daily["hindcast"]) == 3
    (sentence,) = found["sentences"]
    assert sentence in " ".join(done.out.split())
    quiet, training = (daily["tail"]["by_condition"][name] for name in ("quiet", "training"))
    assert quiet["p50"] > 0
    assert training["count"] > 0
    assert daily["tail"]["share"]["quiet"] > 0.99  # of a real day
    report = home.root / "reports"
    assert [p.name for p in report.glob("study-live-*/report.html")] == ["report.html"]
    assert not list(home.root.glob("studies/live/*/home-*"))
