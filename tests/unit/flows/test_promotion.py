"""Promotion, rollback and publishing: a crash or a lost registry at any step leaves nothing half done."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest

from flows.cli import main
from flows.offline.crown import barred, promoting, reconcile, rollback
from flows.offline.inputs import Inputs, load_inputs
from flows.offline.promote import promote, publish_parts
from flows.offline.refresh import read_refreshes, refresh
from flows.offline.train import Parts
from infra.clock import open_clock
from infra.errors import DataError, EnvironmentError_
from infra.registry import MlflowRegistry, open_registry
from infra.resources import Cost
from infra.settings import Settings
from models.release import (
    Manifest,
    champion,
    champion_record,
    list_releases,
    load_release,
)
from tests.registry_fake import FakeRegistry
from tests.unit.flows.light_shop import Crash, Faulty, is_whole, next_release, steps_of

pytestmark = pytest.mark.slow  # stands on a trained release

MUTATING = ("log_training", "log_run", "register_release", "record_verdict", "set_champion")


@pytest.fixture(scope="module")
def inputs(first: Settings) -> Inputs:
    return load_inputs(first.layout, window_d=None)


@pytest.mark.parametrize("error", [Crash, EnvironmentError_])
def test_a_promotion_that_fails_at_any_step_is_repaired_by_the_next(
    light: tuple[Settings, FakeRegistry], inputs: Inputs, error: type[BaseException]
) -> None:
    settings, registry = light
    number = 1
    next_release(settings)
    steps = steps_of(settings, registry, lambda: promote(settings, inputs=inputs))
    assert steps >= 8
    for at in range(1, steps + 1):
        before = is_whole(settings, registry)
        number += 1
        made = next_release(settings, number)
        with pytest.MonkeyPatch.context() as patch:
            Faulty(patch, registry, at=at, error=error)
            with pytest.raises(error, match=f"at step {at}"):
                promote(settings, inputs=inputs)
        pointed = champion(settings.layout)
        assert pointed in (before, made)
        load_release(settings.layout, str(pointed))
        if at % 2:  # as `up` does
            with promoting(settings, "up"):
                reconcile(settings)
            assert is_whole(settings, registry) in (before, made)
        done = promote(settings, inputs=inputs)
        assert done["champion"] == made == is_whole(settings, registry)
        assert len(registry.releases()) == number + 1


def test_a_rollback_that_crashes_at_any_step_is_repaired_by_the_next_promotion(
    light: tuple[Settings, FakeRegistry], inputs: Inputs
) -> None:
    settings, registry = light
    first = is_whole(settings, registry)
    next_release(settings)
    promote(settings, inputs=inputs)
    steps = steps_of(settings, registry, lambda: rollback(settings))
    assert steps >= 4
    for at in range(1, steps + 1):
        made = next_release(settings, at + 1)
        promote(settings, inputs=inputs)
        assert is_whole(settings, registry) == made
        with pytest.MonkeyPatch.context() as patch:
            Faulty(patch, registry, at=at, error=Crash)
            with pytest.raises(Crash):
                rollback(settings)
        done = promote(settings, inputs=inputs)
        if at == 1:  # before it was written down what is meant: nothing was done
            assert done["champion"] == made == is_whole(settings, registry)
            rollback(settings)
        assert is_whole(settings, registry) == first
        assert made in barred(settings.layout)


def test_what_was_rolled_back_comes_back_by_name_only(
    light: tuple[Settings, FakeRegistry], inputs: Inputs
) -> None:
    settings, registry = light
    first = is_whole(settings, registry)
    made = next_release(settings)
    promote(settings, inputs=inputs)
    assert rollback(settings) == {"release_id": first, "was": made}
    for name in (None, made):  # a schedule, and a refresh that made the same again
        done = promote(settings, release_id=name, inputs=inputs)
        assert not done["promoted"]
        assert "it was rolled back on" in done["verdict"]["reasons"][0]
        assert f"`shelflife promote {made}` takes it again" in done["verdict"]["reasons"][0]
        assert is_whole(settings, registry) == first
    assert promote(settings, release_id=made, inputs=inputs, by_hand=True)["promoted"]
    assert is_whole(settings, registry) == made
    assert barred(settings.layout) == {}


def test_rolling_back_twice_goes_further_back(light: tuple[Settings, FakeRegistry], inputs: Inputs) -> None:
    settings, registry = light
    names = [is_whole(settings, registry)]
    for number in (1, 2):
        names.append(next_release(settings, number))
        promote(settings, inputs=inputs)
    assert rollback(settings) == {"release_id": names[1], "was": names[2]}
    assert rollback(settings) == {"release_id": names[0], "was": names[1]}
    with pytest.raises(DataError, match="is the first champion"):
        rollback(settings)
    assert is_whole(settings, registry) == names[0]


def test_each_promotion_and_rollback_is_told(light: tuple[Settings, FakeRegistry], inputs: Inputs) -> None:
    settings, registry = light
    first = is_whole(settings, registry)
    made = next_release(settings)
    promote(settings, inputs=inputs)
    rollback(settings)
    told = {r["release_id"]: [p["by"] for p in r["promotions"]] for r in registry.releases()}
    assert told == {first: ["reconcile", "rollback"], made: ["gate"]}
    record = champion_record(settings.layout)
    assert record is not None
    assert record["by"] == "rollback"


def test_promotions_wait_for_one_another(light: tuple[Settings, FakeRegistry]) -> None:
    settings, _ = light
    order = []
    begun = threading.Event()

    def first() -> None:
        with promoting(settings, "promote"):
            begun.set()
            order.append("first begins")
            threading.Event().wait(0.3)
            order.append("first ends")

    thread = threading.Thread(target=first)
    thread.start()
    begun.wait()
    with promoting(settings, "promote"):
        order.append("second")
    thread.join()
    assert order == ["first begins", "first ends", "second"]
    waited = r"`shelflife one` .* is at work"
    with (
        promoting(settings, "one"),
        pytest.raises(EnvironmentError_, match=waited),
        promoting(settings, "two", wait_s=0.1),
    ):
        pass


@pytest.fixture
def parts(first: Settings) -> Parts:
    name = champion(first.layout)
    assert name is not None
    found = Parts.of(load_release(first.layout, name))
    return replace(found, made=("encoder", "ranker"), costs={"encoder": Cost(), "ranker": Cost()})


def published(settings: Settings, parts: Parts, inputs: Inputs) -> Manifest:
    later = replace(inputs, watermark_us=inputs.watermark_us + 1)
    return publish_parts(settings, parts, later, clock=open_clock(settings.layout.clock))


@pytest.mark.parametrize("error", [Crash, EnvironmentError_])
def test_publishing_that_fails_at_any_step_ends_well_without_a_second_version(
    light: tuple[Settings, FakeRegistry], inputs: Inputs, parts: Parts, error: type[BaseException]
) -> None:
    settings, registry = light
    steps = 5  # the release, two trainings, the release in the registry, the checkpoints
    for at in range(1, steps + 1):
        with pytest.MonkeyPatch.context() as patch:
            Faulty(patch, registry, at=at, error=error)
            with pytest.raises(error, match=f"at step {at}"):
                published(settings, parts, inputs)
        for manifest in list_releases(settings.layout):
            load_release(settings.layout, manifest.release_id)
        assert champion(settings.layout) == registry.champion_release()
    made = published(settings, parts, inputs)
    assert published(settings, parts, inputs) == made
    assert [m.release_id for m in list_releases(settings.layout)].count(made.release_id) == 1
    assert len(list_releases(settings.layout)) == len(registry.releases()) == 2
    assert registry.log_training("ranker", artifact={}) == "2"  # only one was recorded before


def test_a_champion_deleted_from_the_registry_is_taken_in_again(shop: Settings) -> None:
    name = champion(shop.layout)
    registry = open_registry(shop.layout.mlflow)
    assert isinstance(registry, MlflowRegistry)
    with registry._write() as (client, _):
        client.delete_registered_model("shelflife-release")
    assert registry.champion_release() is None
    with promoting(shop, "up"):
        assert reconcile(shop) == name
    assert registry.champion_release() == name == champion(shop.layout)


def test_a_refresh_without_the_registry_is_one_line_and_changes_nothing(shop: Settings) -> None:
    before = champion(shop.layout), [m.release_id for m in list_releases(shop.layout)]
    (shop.layout.mlflow / "mlflow.db").write_bytes(b"no database" * 100)
    with pytest.raises(EnvironmentError_, match=r"the registry .* cannot be used: .*not a database"):
        refresh(shop, component="ranker", fraction=0.5)
    assert (champion(shop.layout), [m.release_id for m in list_releases(shop.layout)]) == before


def test_a_refresh_of_the_same_data_makes_no_second_release_and_none_that_was_rolled_back(
    shop: Settings,
) -> None:
    first = refresh(shop, component="ranker", fraction=0.7, margin=1.0)
    again = refresh(shop, component="ranker", fraction=0.7, margin=1.0)
    assert first["promoted"]
    assert again["release_id"] == first["release_id"]
    assert (again["promoted"], again["verdict"]) == (False, None)
    rollback(shop)
    barred_now = refresh(shop, component="ranker", fraction=0.7, margin=1.0)
    assert barred_now["release_id"] == first["release_id"]
    assert not barred_now["promoted"]
    assert "rolled back" in barred_now["verdict"]["reasons"][0]
    assert len(open_registry(shop.layout.mlflow).releases()) == 2


def test_the_command_line_tells_releases_apart(
    shop: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    a = str(champion(shop.layout))
    b = refresh(shop, component="ranker", fraction=0.7, margin=1.0)["release_id"]
    home = ["--home", str(shop.home)]
    assert main(["releases", "diff", a, *home, "--json"]) == 0
    out = capsys.readouterr().out
    told = json.loads(out.splitlines()[-1])
    assert (told["from"], told["to"], told["changed"]) == (a, b, ["ranker"])
    assert told["parts"]["ranker"]["snapshot"]["fraction"] == [1.0, 0.7]
    assert "the same" in out
    assert main(["rollback", *home]) == 0
    assert f"`shelflife promote {b}` does" in capsys.readouterr().out
    assert main(["releases", *home]) == 0
    assert "rolled back" in capsys.readouterr().out
    assert main(["promote", *home]) == 3
    assert main(["promote", b, "--margin", "1", *home]) == 0
    assert champion(shop.layout) == b
    assert main(["releases", "diff", "r-000000000000", *home]) == 2
    assert "no release 'r-000000000000'" in capsys.readouterr().err


def test_every_step_of_a_refresh_has_its_cost(shop: Settings) -> None:
    report = refresh(shop, component="ranker,index", margin=1.0)
    assert {"ingest", "open", "ranker", "vector_index", "lexical_index", "speller", "publish", "gate"} <= set(
        report["steps"]
    )
    for name, cost in report["steps"].items():
        assert set(cost) == {"cpu_s", "wall_s", "peak_mb", "read_mb", "disk_mb"}, name
        assert cost["peak_mb"] > 50
    whole = sum(cost["cpu_s"] for cost in report["steps"].values())
    assert whole == pytest.approx(report["cpu_s"], abs=0.3, rel=0.2)
    assert read_refreshes(shop.layout)[-1]["steps"] == report["steps"]
    registry = open_registry(shop.layout.mlflow)
    assert isinstance(registry, MlflowRegistry)
    with registry._read() as (client, experiment):
        runs = client.search_runs([experiment], "attributes.run_name = 'refresh'", max_results=1)
        gates = client.search_runs([experiment], "attributes.run_name = 'gate'", max_results=1)
    assert runs[0].data.metrics["ranker/cpu_s"] == pytest.approx(report["steps"]["ranker"]["cpu_s"], abs=1e-3)
    assert gates[0].data.metrics["passed"] == 1.0
    assert gates[0].data.params["challenger"] == report["release_id"]
