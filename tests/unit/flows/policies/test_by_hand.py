"""`refresh` and `promote` keep to the limits of the home's policy, by hand and through Prefect alike."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from flows.cli import main
from flows.offline import promote as promotion
from flows.policies import loop
from flows.policies.home import policy_path, set_policy
from flows.policies.policy import parse_policy
from infra.settings import Home, Settings
from models.release import champion, list_releases

pytestmark = pytest.mark.slow  # stands on a trained release

# So small a release there is not: it is refused each time, and may be judged again.
STRICT = """\
name: strict
components:
  ranker:
    trigger: {kind: interval, every: 1d}
    gate: {margin: 0.123, size_mb: 0.001, size_ratio: 0.001, fewest: 40}
"""


@pytest.fixture
def outside_of_prefect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flows as plain functions: their tasks run without a server, and nobody is shown anything."""
    for name in ("ingest", "champion", "make", "publish", "promote"):
        task = f"{name}_task"
        monkeypatch.setattr(loop, task, getattr(loop, task).fn)
    monkeypatch.setattr(loop, "get_run_logger", lambda: logging.getLogger("shelflife.test"))
    monkeypatch.setattr(loop, "nice_down", lambda: None)
    monkeypatch.setattr(loop, "tell", lambda _: None)


def test_each_way_takes_the_limits_of_the_policy_and_those_that_are_given(
    shop: Settings, outside_of_prefect: None, capsys: pytest.CaptureFixture[str]
) -> None:
    set_policy(shop.layout, parse_policy(STRICT))
    live, home = champion(shop.layout), str(shop.home)

    def by_command(*words: str) -> dict[str, Any]:
        main([*words, "--home", home, "--json"])
        said: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return said

    trained: dict[str, Any] = {"component": "ranker", "fraction": 0.7}
    refresh = ("refresh", "--component", "ranker", "--fraction", "0.7")
    ways: dict[str, tuple[Callable[[], dict[str, Any]], Callable[[], dict[str, Any]]]] = {
        "refresh by hand": (
            lambda: by_command(*refresh),
            lambda: by_command(*refresh, "--margin", "0.5", "--limit", "fewest=7"),
        ),
        "promote by hand": (
            lambda: by_command("promote"),
            lambda: by_command("promote", "--margin", "0.5", "--limit", "fewest=7"),
        ),
        "refresh through Prefect": (
            lambda: loop.refresh_flow.fn(home, **trained),
            lambda: loop.refresh_flow.fn(home, **trained, gate={"margin": 0.5, "fewest": 7}),
        ),
        "promote through Prefect": (
            lambda: loop.promote_flow.fn(home),
            lambda: loop.promote_flow.fn(home, gate={"margin": 0.5, "fewest": 7}),
        ),
    }
    for name, (by_policy, given) in ways.items():
        report = by_policy()
        limits = report["verdict"]["limits"]
        assert (limits["margin"], limits["size_mb"], limits["fewest"]) == (0.123, 0.001, 40), name
        assert not report["promoted"], name
        assert "allowed" in report["verdict"]["reasons"][0], name
        limits = given()["verdict"]["limits"]
        assert (limits["margin"], limits["size_mb"], limits["fewest"]) == (0.5, 0.001, 7), name
    assert champion(shop.layout) == live


def test_limits_are_asked_for_again_where_the_champion_changed_meanwhile(
    shop: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is new in a release depends on whom it is held against."""
    asked: list[str] = []
    champions = iter(["r-a", "r-b", "r-b", "r-b"])
    monkeypatch.setattr(promotion, "champion", lambda _: next(champions))
    monkeypatch.setattr(promotion, "reconcile", lambda *_, **__: None)

    def limits(release_id: str) -> promotion.GateLimits:
        asked.append(release_id)
        return promotion.GateLimits()

    name = list_releases(shop.layout)[-1].release_id
    promotion.promote(shop, limits=limits)
    assert asked == [name, name]


@pytest.mark.parametrize(
    ("words", "policy", "said"),
    [
        (("--limit", "colour=1"), STRICT, "unknown limit 'colour' of the gate; expected one of margin"),
        (("--limit", "margin"), STRICT, "--limit is 'margin'; expected NAME=VALUE"),
        (
            (),
            "name: strict\ncolour: red\n",
            "policy.yaml: found the unknown key 'colour'; expected some of name",
        ),
        ((), STRICT.replace("margin", "marign"), "found the unknown key 'marign'"),
    ],
)
@pytest.mark.parametrize("verb", ["refresh", "promote"])
def test_a_wrong_limit_or_policy_is_one_line_before_anything_is_done(
    home: Home,
    capsys: pytest.CaptureFixture[str],
    verb: str,
    words: tuple[str, ...],
    policy: str,
    said: str,
) -> None:
    path = policy_path(home)
    path.parent.mkdir()
    path.write_text(policy)
    assert main([verb, "--home", str(home.root), *words]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in line
    assert [p for p in home.root.rglob("*") if p.is_file()] == [path]
