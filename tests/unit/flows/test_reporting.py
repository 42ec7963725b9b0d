"""What is done stays done, whatever the reporting of it meets; what could not be told is told later, once."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from flows.commands.refresh import describe
from flows.offline import refresh as plain
from flows.offline.crown import promoting, reconcile
from flows.offline.deployed import _ended
from flows.offline.refresh import read_refreshes, refresh
from flows.offline.tidy import tidy
from flows.offline.train import Parts
from flows.offline.unrecorded import keep, tell_kept
from flows.policies import loop
from infra.errors import ConfigError, EnvironmentError_, PromiseBroken
from infra.files import append_line
from infra.registry import open_registry
from infra.settings import Home, Settings
from models.release import Artifact, champion, release_folder

pytestmark = pytest.mark.slow  # stands on a trained release


def lost_after_the_promotion(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The registry's database is none any more once a refresh has promoted; what it held."""
    database = settings.layout.mlflow / "mlflow.db"
    held: list[bytes] = []

    def then_lost(settings: Settings) -> dict[str, Any]:
        removed = tidy(settings)
        held.append(database.read_bytes())
        database.write_bytes(b"no database" * 100)  # the very file: connections to it are kept open
        return removed

    monkeypatch.setattr(plain, "tidy", then_lost)
    return held


def test_a_refresh_whose_costs_cannot_be_recorded_ends_well_and_they_are_later(
    shop: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    layout = shop.layout
    with monkeypatch.context() as patch:
        held = lost_after_the_promotion(shop, patch)
        report = refresh(shop, component="ranker", fraction=0.7, margin=1.0)
    assert report["promoted"]
    assert champion(layout) == report["release_id"]
    assert report["unrecorded"] == ["the figures of the refresh in the registry"]
    assert "not recorded now: the figures of the refresh in the registry (the registry" in caplog.text
    assert "not recorded now: the figures of the refresh" in describe(report)
    assert read_refreshes(layout)[-1]["unrecorded"] == report["unrecorded"]
    (layout.mlflow / "mlflow.db").write_bytes(held[0])
    registry = open_registry(layout.mlflow)
    before = len(registry.recorded("refresh"))
    for _ in range(2):
        with promoting(shop, "up"):
            reconcile(shop)
        newest, *others = registry.recorded("refresh")
        assert len(others) == before
        assert newest["params"]["release_id"] == report["release_id"]
        assert newest["metrics"]["whole/cpu_s"] == pytest.approx(report["cpu_s"], abs=0.001)
    assert list((layout.run / "unrecorded").iterdir()) == []


def test_a_refresh_that_cannot_be_noted_in_the_home_ends_well(
    shop: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    record = shop.layout.run / "refreshes.jsonl"
    record.unlink()
    record.mkdir()
    report = refresh(shop, component="ranker", fraction=0.7, margin=1.0)
    assert report["promoted"]
    assert report["unrecorded"] == [f"the refresh in {record}"]
    assert "is not among the records of" in caplog.text


def test_what_was_kept_is_told_in_order_and_once(home: Home) -> None:
    for number in (1, 2):
        keep(home, "artifacts", {"number": number}, what="a number", why="nobody listens")
    (home.run / "unrecorded" / "3-artifacts.json").write_text("{")
    keep(home, "run", {"number": 3}, what="a number", why="nobody listens")
    told: list[int] = []
    assert tell_kept(home, "artifacts", lambda kept: told.append(kept["number"])) == 2
    assert told == [1, 2]
    assert tell_kept(home, "artifacts", lambda kept: told.append(kept["number"])) == 0
    assert len(list((home.run / "unrecorded").iterdir())) == 1


def test_what_cannot_be_told_yet_stays(home: Home) -> None:
    keep(home, "artifacts", {"number": 1}, what="a number", why="nobody listens")

    def deaf(_: Any) -> None:
        raise httpx.ConnectError("no")

    with pytest.raises(httpx.ConnectError):
        tell_kept(home, "artifacts", deaf)
    assert tell_kept(home, "artifacts", lambda _: None) == 1


def quiet(monkeypatch: pytest.MonkeyPatch, tell: Callable[[list[dict[str, Any]]], object]) -> None:
    """Outside of a flow run: a logger of our own, and `tell` in Prefect's place."""
    monkeypatch.setattr(loop, "get_run_logger", lambda: logging.getLogger("shelflife.test"))
    monkeypatch.setattr(loop, "tell", tell)


def test_a_flow_that_cannot_show_its_artifacts_shows_them_the_next_time(
    shop: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    report = refresh(shop, component="ranker", fraction=0.7, margin=1.0)

    def down(_: Any) -> None:
        raise httpx.ConnectError("All connection attempts failed")

    quiet(monkeypatch, down)
    loop._show(shop, report, "by hand")
    assert (
        f"the artifacts of {report['release_id']} in Prefect (All connection attempts failed)" in caplog.text
    )
    shown: list[list[dict[str, Any]]] = []
    quiet(monkeypatch, shown.append)
    loop._show(shop, report | {"release_id": "r-next"}, "by hand")
    assert [told[0]["value"].partition(" ")[0] for told in shown] == [
        f"**{report['release_id']}**",
        "**r-next**",
    ]
    assert [a["key"] for a in shown[0]] == [a["key"] for a in shown[1]]
    assert list((shop.layout.run / "unrecorded").iterdir()) == []


def test_a_flow_without_the_registry_shows_its_artifacts_without_links(
    shop: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = refresh(shop, component="ranker", fraction=0.7, margin=1.0)
    (shop.layout.mlflow / "mlflow.db").write_bytes(b"no database" * 100)
    shown: list[dict[str, Any]] = []
    quiet(monkeypatch, shown.extend)
    loop._show(shop, report, "by hand")
    costs = next(a for a in shown if a["key"] == "costs")
    assert [(row["artifact"], row["run"]) for row in costs["value"]] == [("ranker", "")]


def test_the_verdict_on_who_replaces_an_unloadable_champion_is_shown(
    shop: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = next((release_folder(shop.layout, str(champion(shop.layout))) / "ranker").glob("*.txt"))
    path.unlink()
    report = refresh(shop, component="ranker", fraction=0.7)
    assert report["promoted"]
    shown: list[dict[str, Any]] = []
    quiet(monkeypatch, shown.extend)
    loop._show(shop, report, "by hand")
    verdict = next(a for a in shown if a["key"] == "verdict")
    assert {row["what"] for row in verdict["value"]} == {"ranker's time", "size"}


@dataclass(frozen=True)
class Ended:
    """A run as Prefect's client gives it, and its state."""

    id: str
    name: str = "calm-otter"
    message: str = "lost"
    completed: bool = False
    cancelled: bool = False

    @property
    def state(self) -> Ended:
        return self

    def is_completed(self) -> bool:
        return self.completed

    def is_cancelled(self) -> bool:
        return self.cancelled


def test_a_refresh_that_is_done_is_done_whatever_prefect_says_of_its_end(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(home=home.root)
    for number in (1, 2):
        line = json.dumps({"flow_run_id": str(number), "promoted": True, "unrecorded": []})
        append_line(home.run / "refreshes.jsonl", line.encode())
    assert _ended(settings, Ended("2", completed=True))["unrecorded"] == []
    done = _ended(settings, Ended("1"))
    assert (done["promoted"], done["unrecorded"]) == (True, ["the end of calm-otter in Prefect"])
    assert "is not recorded in Prefect: calm-otter: lost" in caplog.text
    with pytest.raises(PromiseBroken, match="ended as calm-otter: lost; see"):
        _ended(settings, Ended("3"))
    with pytest.raises(PromiseBroken, match="its record is not in"):
        _ended(settings, Ended("3", completed=True))
    with pytest.raises(EnvironmentError_, match="another refresh is under way"):
        _ended(settings, Ended("3", cancelled=True))


@pytest.mark.parametrize("wrong", [{"start": "hot"}, {"fraction": 0.0}, {"component": "rankr"}])
def test_a_flow_refuses_what_cannot_be_before_anything_is_done(home: Home, wrong: dict[str, Any]) -> None:
    for flow in (loop.train_flow, loop.refresh_flow):
        with pytest.raises(ConfigError, match="expected"):
            flow.fn(str(home.root), **wrong)
    assert list(home.root.iterdir()) == []


def test_indexes_alone_before_the_first_release_make_everything() -> None:
    assert plain.plan_of("index", Parts()) == plain.PLAN["all"]
    held = Parts(artifacts={"encoder": Artifact("encoder", "1", {}, 0)})
    assert plain.plan_of("index", held) == ("vector_index", "lexical_index", "image_index", "speller")


def test_the_registry_tells_with_what_choices_a_model_was_trained(shop: Settings) -> None:
    report = refresh(shop, component="ranker,index", fraction=0.8, start="warm", margin=0.9)
    registry = open_registry(shop.layout.mlflow)
    trained = registry.recorded("ranker")[0]["params"]
    read = {k: str(report["snapshot"][k]) for k in ("commit", "window_d", "label_delay_us", "watermark_us")}
    assert trained.items() >= (read | {"start": "warm", "fraction": "0.8", "seed": "7"}).items()
    assert len(trained["goes_on_from"]) == 16
    assert "start" not in registry.recorded("speller")[0]["params"]  # it is built, not trained
    (whole, *_) = registry.recorded("refresh")
    chosen = {
        "component": "ranker,index",
        "start": "warm",
        "fraction": "0.8",
        "gate.margin": "0.9",
        "seed": "7",
    }
    assert whole["params"].items() >= (read | chosen).items()
    assert read_refreshes(shop.layout)[-1]["start"] == "warm"
    cold = refresh(shop, component="ranker", fraction=0.7, margin=0.9)
    assert cold["start"] == "cold"
    assert registry.recorded("ranker")[0]["params"]["start"] == "cold"
