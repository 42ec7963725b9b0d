"""Bad models that were planted are refused, each for its own reason, and the registry says so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.retention import expire
from flows.commands.status import describe
from flows.offline.gate import GateLimits, judge
from flows.offline.gate_checks import SEGMENTS, segments
from flows.offline.inputs import GATE_SLICE_US, Inputs, gate_rows, load_inputs, ranker_rows
from flows.offline.promote import promote
from flows.offline.refusals import last_verdicts
from flows.offline.train import Parts
from flows.policies.overview import overview
from infra.clock import ManualClock
from infra.errors import ConfigError
from infra.registry import open_registry
from infra.settings import Settings
from models.growth import Trees
from models.ranker import Ranker
from models.release import (
    Release,
    champion,
    load_release,
    make_release,
    publish,
    put_artifact,
    read_manifest,
    release_folder,
)
from models.training_rows import TrainingRows

pytestmark = pytest.mark.slow  # stands on a trained release


@pytest.fixture(scope="module")
def inputs(first: Settings) -> Inputs:
    return load_inputs(first.layout, window_d=None)


@pytest.fixture(scope="module")
def live(first: Settings) -> Release:
    name = champion(first.layout)
    assert name is not None
    return load_release(first.layout, name)


@pytest.fixture(scope="module")
def rows(live: Release, inputs: Inputs) -> TrainingRows:
    return ranker_rows(inputs, Parts.of(live).scorers())


def plant(shop: Settings, ranker: Ranker | None, mutate: Callable[[Path], None] | None = None) -> str:
    """Publish the champion's release with another ranker, or with its own after `mutate(its folder)`."""
    layout = shop.layout
    name = champion(layout)
    assert name is not None
    manifest = read_manifest(layout, name)
    folder = shop.home / "planted"
    if ranker is None:
        shutil.copytree(release_folder(layout, name) / "ranker", folder)
        for path in folder.iterdir():
            path.chmod(0o644)
    else:
        ranker.save(folder)
    if mutate is not None:
        mutate(folder)
    old = manifest.artifacts["ranker"]
    artifact = put_artifact(layout, "ranker", folder, version="planted", requires=old.requires, created_us=1)
    planted = make_release(
        manifest.artifacts | {"ranker": artifact},
        watermark_us=manifest.watermark_us,
        created_us=manifest.created_us + 1,
        parent=name,
    )
    publish(layout, planted)
    return planted.release_id


def refusal(shop: Settings, release_id: str, inputs: Inputs, **limits: float) -> str:
    """The only reason for which a release is refused; told by the outcome, the registry and `status`."""
    before = champion(shop.layout)
    done = promote(shop, release_id=release_id, inputs=inputs, limits=GateLimits(**limits))  # type: ignore[arg-type]
    assert not done["promoted"]
    assert done["champion"] == champion(shop.layout) == before
    (reason,) = done["verdict"]["reasons"]
    row = next(r for r in open_registry(shop.layout.mlflow).releases() if r["release_id"] == release_id)
    assert row["verdict"]["reasons"] == [reason]
    assert row["alias"] is None
    last = last_verdicts(shop.layout)[0]
    assert (last["challenger"], last["reasons"]) == (release_id, [reason])
    status = overview(shop)["verdicts"][0]
    assert (status["release_id"], status["promoted"], status["reasons"]) == (release_id, False, [reason])
    assert reason in describe(overview(shop))
    return str(reason)


def test_shuffled_labels(shop: Settings, inputs: Inputs, rows: TrainingRows) -> None:
    labels = np.random.default_rng(1).permutation(rows.labels)
    blind, _ = Ranker.fit(replace(rows, labels=labels), seed=1)
    assert "NDCG@10 worse than the champion's by more than 0.01: -0." in refusal(
        shop, plant(shop, blind), inputs
    )


def test_swapped_features(shop: Settings, inputs: Inputs, rows: TrainingRows) -> None:
    swapped = replace(rows, features=np.roll(rows.features, 1, axis=1))
    confused, _ = Ranker.fit(swapped, seed=1)
    assert confused.trees > 0
    assert "NDCG@10 worse than the champion's" in refusal(shop, plant(shop, confused), inputs)


def test_slow(shop: Settings, inputs: Inputs, live: Release) -> None:
    assert live.ranker is not None
    trees = Trees(live.ranker._model, live.ranker.trees)
    while trees.count < 3_000:  # each doubling doubles the scores: the same order, for twice the time
        trees = trees.plus(trees.text)
    slow = Ranker(trees.text, live.ranker._probe, trees=trees.count, examination=live.ranker.examination)
    reason = refusal(shop, plant(shop, slow), inputs, latency_us=200.0)
    assert reason.startswith("the ranker takes ")
    assert "us a request, the champion's" in reason


def test_truncated(shop: Settings, inputs: Inputs) -> None:
    name = plant(shop, None, lambda folder: (folder / "note").write_text("other"))
    path = release_folder(shop.layout, name) / "ranker" / "note"
    whole = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(whole[:2])
    reason = refusal(shop, name, inputs)
    assert "it cannot be loaded" in reason
    assert "note is damaged" in reason


def nan_leaves(folder: Path) -> None:
    lines = (folder / "ranker.txt").read_text().split("\n")
    lines = [
        "leaf_value=" + " ".join("nan" for _ in line.split()) if line.startswith("leaf_value=") else line
        for line in lines
        if not line.startswith("tree_sizes=")
    ]
    (folder / "ranker.txt").write_text("\n".join(lines))


def test_nan_scores(shop: Settings, inputs: Inputs) -> None:
    assert "scores that are not numbers" in refusal(shop, plant(shop, None, nan_leaves), inputs)


def test_another_feature_schema(shop: Settings, inputs: Inputs) -> None:
    def other(folder: Path) -> None:
        about = json.loads((folder / "ranker.json").read_text())
        (folder / "ranker.json").write_text(json.dumps(about | {"feature_schema": "f-of-yesterday"}))

    reason = refusal(shop, plant(shop, None, other), inputs)
    assert "was trained on feature schema f-of-yesterday, expected" in reason


def test_numbers_that_are_none_anywhere(live: Release, inputs: Inputs) -> None:
    encoder = replace(live.encoder, query_tower=np.full_like(live.encoder.query_tower, np.nan))
    verdict = judge(inputs, replace(live, encoder=encoder), live)
    assert not verdict.passed
    assert verdict.reasons[0].startswith("the encoder's vectors of queries are not numbers")
    assert judge(inputs, live, live).passed


def test_too_large(live: Release, inputs: Inputs) -> None:
    lean = GateLimits(size_mb=0.0, size_ratio=0.5)
    verdict = judge(inputs, live, live, limits=lean)
    assert not verdict.passed
    assert verdict.reasons[0].startswith("the release has ")


def test_a_segment_that_suffers_is_told(live: Release, inputs: Inputs, rows: TrainingRows) -> None:
    upside_down = replace(rows, labels=np.where(rows.labels > 0, 0, 1).astype(np.int8))
    worse, _ = Ranker.fit(upside_down, seed=1)
    artifacts = dict(live.manifest.artifacts)
    artifacts["ranker"] = replace(artifacts["ranker"], files={"ranker.txt": "0" * 64})
    manifest = replace(live.manifest, artifacts=artifacts)
    challenger = replace(live, ranker=worse, manifest=manifest)
    verdict = judge(inputs, challenger, live, limits=GateLimits(margin=1.0, fewest=5))
    assert not verdict.passed, verdict
    told = [name for name in SEGMENTS if any(name.replace("_", " ") in r for r in verdict.reasons)]
    enough = [name for name in SEGMENTS if verdict.segments[name]["requests"] >= 5]
    assert told
    assert set(told) <= set(enough)
    assert judge(inputs, challenger, live, limits=GateLimits(margin=1.0, segment_margin=1.0)).passed


def test_segments_are_what_they_say(live: Release, inputs: Inputs) -> None:
    rows = gate_rows(inputs, Parts.of(live).scorers())
    found = segments(inputs, rows)
    assert set(found) == set(SEGMENTS)
    events = inputs.events.select(["user_id", "request_id", "query", "known_time", "kind"]).to_pandas()
    slice_us = inputs.watermark_us - 86_400_000_000
    old_users = set(events.user_id[events.known_time < slice_us])
    assert found["new_users"].tolist() == [u not in old_users for u in rows.user_ids.tolist()]
    shown = events[events.kind == 1].drop_duplicates("request_id").set_index("request_id")["query"]
    times = shown.value_counts()
    tail = [bool(shown[r]) and times[shown[r]] <= 5 for r in rows.request_ids.tolist()]
    assert found["tail_queries"].tolist() == tail


def test_who_was_seen_before_the_retention_floor_is_not_new(
    shop: Settings, live: Release, inputs: Inputs
) -> None:
    scorers = Parts.of(live).scorers()
    whole = gate_rows(inputs, scorers)
    expected = segments(inputs, whole)
    assert not expected["new_users"].all()  # as if nobody had been there before
    floor_us = inputs.watermark_us - GATE_SLICE_US
    assert expire(shop.layout, before_us=floor_us, clock=ManualClock(inputs.watermark_us)).rows > 0
    left = load_inputs(shop.layout, window_d=None)
    rows = gate_rows(left, scorers)
    assert rows.request_ids.tolist() == whole.request_ids.tolist()
    found = segments(left, rows)
    for name in ("new_users", "new_items"):
        assert found[name].tolist() == expected[name].tolist()


def test_an_undecided_slice_passes_by_its_mean_or_is_refused(live: Release, inputs: Inputs) -> None:
    rows = ranker_rows(inputs, Parts.of(live).scorers())
    again, _ = Ranker.fit(rows, seed=2)
    artifacts = dict(live.manifest.artifacts)
    artifacts["ranker"] = replace(artifacts["ranker"], files={"ranker.txt": "1" * 64})
    challenger = replace(live, ranker=again, manifest=replace(live.manifest, artifacts=artifacts))
    whole = judge(inputs, challenger, live, limits=GateLimits(margin=1.0)).difference
    assert whole is not None
    assert whole["low"] < whole["mean"] < whole["high"]
    between = max(1e-6, -(whole["mean"] + whole["low"]) / 2)  # a margin between the mean and the bound
    wide = {"segment_margin": 1.0}
    lax = judge(inputs, challenger, live, limits=GateLimits(margin=between, **wide))
    strict = judge(inputs, challenger, live, limits=GateLimits(margin=between, undecided="refuse", **wide))
    if whole["mean"] >= -between:
        assert lax.passed
        assert "too small" in lax.reasons[0]
    assert not strict.passed
    assert judge(inputs, challenger, live, limits=GateLimits(margin=1.0, undecided="refuse", **wide)).passed


@pytest.mark.parametrize("wrong", [{"margin": -0.1}, {"undecided": "coin"}, {"latency_ratio": float("nan")}])
def test_impossible_limits_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        GateLimits(**wrong)  # type: ignore[arg-type]
