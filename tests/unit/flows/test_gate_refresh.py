"""One turn of the loop on a tiny world, and the gate: what is worse is refused, what is equal passes."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from data.world.shop import World
from flows.evaluation.search import evaluate_search
from flows.live.load import world_trace
from flows.offline.gate import judge
from flows.offline.inputs import Inputs, gate_rows, load_inputs, ranker_rows
from flows.offline.promote import promote, rollback
from flows.offline.refresh import PLAN, read_refreshes, refresh
from flows.offline.train import Parts
from infra.errors import ConfigError, DataError
from infra.registry import open_registry
from infra.settings import Settings
from models.ranker import Ranker
from models.release import Release, champion, load_release

pytestmark = pytest.mark.slow  # trains whole releases


@pytest.fixture(scope="module")
def live(first: Settings) -> Release:
    name = champion(first.layout)
    assert name is not None
    return load_release(first.layout, name)


@pytest.fixture(scope="module")
def inputs(first: Settings) -> Inputs:
    return load_inputs(first.layout, window_d=None)


def challenger(live: Release, ranker: Ranker | None) -> Release:
    """The live release under another name, with another ranker in the manifest and in its place."""
    artifacts = dict(live.manifest.artifacts)
    if ranker is None:
        del artifacts["ranker"]
    else:
        files = {"ranker.txt": "0" * 64}
        artifacts["ranker"] = replace(artifacts["ranker"], files=files, version="ranker-other")
    manifest = replace(live.manifest, release_id="r-challenger", artifacts=artifacts)
    return replace(live, manifest=manifest, ranker=ranker)


def test_a_ranker_of_shuffled_labels_is_refused(live: Release, inputs: Inputs) -> None:
    rows = ranker_rows(inputs, Parts.of(live).scorers())
    upside_down = replace(rows, labels=np.where(rows.labels > 0, 0, 1).astype(np.int8))
    worse, _ = Ranker.fit(upside_down, seed=1)
    verdict = judge(inputs, challenger(live, worse), live)
    assert not verdict.passed
    assert verdict.requests >= 30
    assert verdict.difference is not None
    assert verdict.difference["mean"] < -verdict.margin
    assert "worse than the champion" in verdict.reasons[0]
    assert judge(inputs, challenger(live, worse), live, margin=1.0).passed


def test_an_identical_challenger_passes_with_no_difference(live: Release, inputs: Inputs) -> None:
    verdict = judge(inputs, challenger(live, live.ranker), live)
    assert verdict.passed
    assert verdict.difference == {"mean": 0.0, "low": 0.0, "high": 0.0}


def test_a_challenger_without_a_ranker_is_refused(live: Release, inputs: Inputs) -> None:
    verdict = judge(inputs, challenger(live, None), live)
    assert not verdict.passed
    assert verdict.reasons == ("the challenger has no ranker, the champion has one",)
    assert judge(inputs, live, challenger(live, None)).passed
    assert judge(inputs, live, None).passed


def test_the_gate_judges_by_sessions_that_no_training_saw(live: Release, inputs: Inputs) -> None:
    scorers = Parts.of(live).scorers()
    learnt, judged = ranker_rows(inputs, scorers), gate_rows(inputs, scorers)
    newest = learnt.time_us >= judged.time_us.min()
    assert not set(learnt.session_ids[newest].tolist()) & set(judged.session_ids.tolist())


def test_the_first_refresh_makes_everything_that_the_shop_can_have(first: Settings) -> None:
    (document,) = read_refreshes(first.layout)
    assert document["promoted"]
    assert set(document["made"]) == set(PLAN["all"]) - {
        "image_classifier",
        "image_index",
    }  # photos are not fetched
    assert document["ingested"]["rows"] > 10_000
    assert document["release_id"] == champion(first.layout)


def test_one_component_of_a_fraction_alone_and_back(shop: Settings) -> None:
    before = champion(shop.layout)
    report = refresh(shop, component="ranker", fraction=0.6, margin=1.0)
    assert set(report["made"]) == {"ranker"}
    assert report["promoted"]
    assert report["snapshot"]["fraction"] == 0.6
    whole, part = (d["metrics"]["ranker"]["train_groups"] for d in read_refreshes(shop.layout))
    assert 0.4 * whole < part < 0.8 * whole
    newest, oldest = open_registry(shop.layout.mlflow).releases()
    assert newest["alias"] == "champion"
    assert newest["parent"] == oldest["release_id"] == before
    changed = {n for n, v in newest["components"].items() if oldest["components"][n] != v}
    assert changed == {"ranker"}
    assert promote(shop)["promoted"] is False  # it is champion already
    assert rollback(shop) == {"release_id": before, "was": report["release_id"]}
    assert champion(shop.layout) == before


def test_a_refused_challenger_leaves_the_champion(shop: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    before = champion(shop.layout)
    rows_of = ranker_rows

    def upside_down(inputs: Inputs, scorers: object) -> object:
        rows = rows_of(inputs, scorers)  # type: ignore[arg-type]
        return replace(rows, labels=np.where(rows.labels > 0, 0, 1).astype(np.int8))

    monkeypatch.setattr("flows.offline.train.ranker_rows", upside_down)
    report = refresh(shop, component="ranker")
    assert not report["promoted"]
    assert report["champion"] == champion(shop.layout) == before
    newest = open_registry(shop.layout.mlflow).releases()[0]
    assert newest["verdict"]["passed"] is False
    assert newest["alias"] is None


def test_what_cannot_be_refreshed_is_refused_before_anything_is_done(shop: Settings) -> None:
    for wrong in ({"fraction": 0.0}, {"start": "tepid"}, {"component": "rankr"}):
        with pytest.raises(ConfigError, match="expected"):
            refresh(shop, **wrong)  # type: ignore[arg-type]
    assert len(read_refreshes(shop.layout)) == 1


def test_training_and_serving_work_with_the_truth_unreadable(shop: Settings) -> None:
    shutil.rmtree(shop.layout.truth)
    assert refresh(shop, component="index")["release_id"]
    with pytest.raises(DataError, match="truth"):
        evaluate_search(shop)


def test_the_truth_judges_search(first: Settings) -> None:
    report = evaluate_search(first, queries=60)
    assert (report["source"], report["queries"]) == ("truth", 60)
    found = {name: m["ndcg10_all"]["mean"] for name, m in report["retrievers"].items()}
    assert set(found) == {"served", "ranked", "hybrid", "vector", "lexical"}
    assert all(0.05 < value < 1.0 for value in found.values())
    assert report == evaluate_search(first, queries=60)


def test_a_trace_of_the_world_has_its_requests_in_order(first: Settings) -> None:
    world = World.open(first.layout)
    since = world.start_of(4)
    trace, days, rows = world_trace(world, since_us=since, rate=50.0, seconds=4.0, seed=1)
    assert len(trace) == len(days) == len(rows) > 100
    assert (np.diff(days * 1_000_000 + rows) > 0).all()
    assert days[0] == 4
    assert trace.duration_s <= 4.0
