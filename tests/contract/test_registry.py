"""What any registry promises: the same suite on MLflow and on the fake."""

from __future__ import annotations

import time
from typing import Any

import pytest

from infra.errors import DataError
from infra.registry import MlflowRegistry, Registry
from tests.registry_fake import FakeRegistry


@pytest.fixture(params=["mlflow", "fake"])
def registry(request: pytest.FixtureRequest) -> Registry:
    if request.param == "fake":
        return FakeRegistry()
    return MlflowRegistry(request.getfixturevalue("registry_folder"))


TRAINING: dict[str, dict[str, Any]] = {
    "params": {"trees": 100, "start": "warm", "window_d": 2.5},
    "metrics": {"ndcg10": 0.61},
    "snapshot": {"watermark_us": 1_700_000_000_000_000, "rows": 12, "content_hash": "ab"},
    "lineage": {"parent": "r1", "commit": "0123"},
    "artifact": {"files": {"model.txt": "cd"}, "size": 7},
    "resources": {"cpu_s": 1.25, "wall_s": 0.7},
}


def manifest(release_id: str, **more: Any) -> dict[str, Any]:
    return {
        "release_id": release_id,
        "created_us": 1_700_000_000_000_001,
        "watermark_us": 1_700_000_000_000_000,
        "parent": None,
        "artifacts": {"ranker": {"version": "3"}, "speller": {"version": "1"}},
        "metrics": {"ndcg10": 0.5},
        **more,
    }


def test_a_new_registry_is_empty(registry: Registry) -> None:
    assert registry.releases() == []
    assert registry.champion_release() is None


def test_a_training_is_read_back_as_it_was_logged(registry: Registry) -> None:
    version = registry.log_training("ranker", **TRAINING)
    assert registry.training("ranker", version) == {"component": "ranker", **TRAINING}


def test_recorded_runs_come_newest_first_with_figures_and_texts(registry: Registry) -> None:
    assert registry.recorded("ranker") == []
    for seconds in (1.0, 2.0):
        more = {"resources": {"cpu_s": seconds}}
        registry.log_training("ranker", **TRAINING | more)
        time.sleep(0.002)  # the registry orders by milliseconds
    registry.log_training("encoder", **TRAINING)
    registry.log_run("refresh", metrics={"whole/cpu_s": 5.0}, params={"component": "ranker"})
    newest, oldest = registry.recorded("ranker")
    assert (newest["metrics"]["resources/cpu_s"], oldest["metrics"]["resources/cpu_s"]) == (2.0, 1.0)
    assert newest["metrics"]["ndcg10"] == 0.61
    assert newest["params"]["window_d"] == "2.5"
    assert newest["run_id"] != oldest["run_id"]
    assert newest["page"].endswith(f"/runs/{newest['run_id']}")
    assert registry.recorded("ranker", most=1) == [newest]
    (refresh,) = registry.recorded("refresh")
    assert (refresh["metrics"], refresh["params"]) == ({"whole/cpu_s": 5.0}, {"component": "ranker"})


def test_versions_count_per_component(registry: Registry) -> None:
    assert [registry.log_training(c, **TRAINING) for c in ("ranker", "ranker", "encoder")] == ["1", "2", "1"]


def test_equal_keys_are_one_version(registry: Registry) -> None:
    keys = ["a", "b", "a", None, "a"]
    found = [registry.log_training("ranker", key=key, **TRAINING) for key in keys]
    assert found == ["1", "2", "1", "3", "1"]
    assert registry.log_training("encoder", key="a", **TRAINING) == "1"


def test_a_run_of_figures_is_no_version(registry: Registry) -> None:
    registry.log_run("gate", metrics={"passed": 1.0, "low": float("nan")}, params={"release_id": "r1"})
    assert registry.releases() == []
    assert registry.log_training("gate", **TRAINING) == "1"


def test_a_run_with_a_key_is_recorded_once(registry: Registry) -> None:
    for key in ("a", "b", "a", None, None):
        registry.log_run("refresh", metrics={"cpu_s": 1.0}, key=key)
    assert len(registry.recorded("refresh")) == 4


def test_each_time_that_a_release_became_champion_is_told(registry: Registry) -> None:
    for name in ("r1", "r2"):
        registry.register_release(manifest(name))
    for name, by in (("r1", "gate"), ("r2", "gate"), ("r2", "gate"), ("r1", "rollback")):
        registry.set_champion(name, by=by)
    told = {row["release_id"]: row["promotions"] for row in registry.releases()}
    assert [p["by"] for p in told["r1"]] == ["gate", "rollback"]
    assert [p["by"] for p in told["r2"]] == ["gate"]
    assert told["r1"][0]["wall_us"] < told["r2"][0]["wall_us"] < told["r1"][1]["wall_us"]


@pytest.mark.parametrize("version", ["2", "0", "x"])
def test_an_unknown_training_is_refused(registry: Registry, version: str) -> None:
    registry.log_training("ranker", **TRAINING)
    with pytest.raises(DataError, match="no version"):
        registry.training("ranker", version)
    with pytest.raises(DataError, match="no version"):
        registry.training("nobody", "1")


def test_a_release_is_listed_with_what_it_is_made_of(registry: Registry) -> None:
    registry.register_release(manifest("r1"))
    (row,) = registry.releases()
    assert row == {
        "version": "1",
        "release_id": "r1",
        "parent": None,
        "components": {"ranker": "3", "speller": "1"},
        "metrics": {"ndcg10": 0.5},
        "verdict": None,
        "alias": None,
        "created_us": 1_700_000_000_000_001,
        "promoted_us": None,
        "promotions": [],
    }


def test_releases_are_newest_first_and_name_their_parent(registry: Registry) -> None:
    registry.register_release(manifest("r1"))
    registry.register_release(manifest("r2", parent="r1"))
    assert [(r["release_id"], r["parent"]) for r in registry.releases()] == [("r2", "r1"), ("r1", None)]


def test_registering_twice_is_once(registry: Registry) -> None:
    first = registry.register_release(manifest("r1"))
    second = registry.register_release(manifest("r1"), verdict={"passed": True})
    assert (first, second) == ("1", "1")
    (row,) = registry.releases()
    assert row["verdict"] == {"passed": True}


def test_a_manifest_is_read_back_as_it_was_registered(registry: Registry) -> None:
    registry.register_release(manifest("r1"))
    registry.register_release(manifest("r2", parent="r1"))
    assert registry.manifest("r1") == manifest("r1")
    assert registry.manifest("r2")["parent"] == "r1"
    with pytest.raises(DataError, match="no release 'r3' in the registry"):
        registry.manifest("r3")


def test_a_later_verdict_replaces_an_earlier_one(registry: Registry) -> None:
    registry.register_release(manifest("r1"), verdict={"passed": True, "reasons": []})
    registry.record_verdict("r1", {"passed": False, "reasons": ["worse by 0.03"]})
    assert registry.releases()[0]["verdict"] == {"passed": False, "reasons": ["worse by 0.03"]}
    registry.register_release(manifest("r1"))
    assert registry.releases()[0]["verdict"]["passed"] is False


def test_the_champion_moves_and_only_one_release_is_it(registry: Registry) -> None:
    registry.register_release(manifest("r1"))
    registry.register_release(manifest("r2"))
    registry.set_champion("r1")
    assert registry.champion_release() == "r1"
    registry.set_champion("r2", expected="r1")
    assert registry.champion_release() == "r2"
    assert [(r["release_id"], r["alias"]) for r in registry.releases()] == [("r2", "champion"), ("r1", None)]
    assert all(r["promoted_us"] > 1_700_000_000_000_000 for r in registry.releases())


def test_a_champion_that_was_changed_meanwhile_is_not_overwritten(registry: Registry) -> None:
    registry.register_release(manifest("r1"))
    registry.register_release(manifest("r2"))
    registry.set_champion("r1")
    with pytest.raises(DataError, match="champion is r1, expected r2"):
        registry.set_champion("r2", expected="r2")
    assert registry.champion_release() == "r1"


def test_unknown_releases_are_refused(registry: Registry) -> None:
    registry.register_release(manifest("r1"))
    with pytest.raises(DataError, match="no release 'r9'"):
        registry.set_champion("r9")
    with pytest.raises(DataError, match="no release"):
        registry.record_verdict("x' or name='y", {"passed": True})
    assert registry.champion_release() is None
