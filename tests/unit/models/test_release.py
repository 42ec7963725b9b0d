"""A release is whole, of one piece, verified, and reuses what did not change."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from infra.errors import DataError
from infra.settings import Home
from models import blobs
from models.candidate_features import FEATURE_SCHEMA, FEATURES
from models.encoder import Encoder
from models.lexical_index import LexicalIndex, assign_tiers
from models.ranker import Ranker
from models.release import (
    Artifact,
    Manifest,
    champion,
    champion_record,
    diff,
    list_releases,
    load_release,
    make_release,
    prune,
    publish,
    put_artifact,
    read_manifest,
    set_champion,
)
from models.speller import Speller
from models.text_classifier import TextClassifier
from models.vector_index import VectorIndex

TEXTS = ["red lamp", "blue lamp", "oak desk", "red boots", "wool scarf"]
IDS = np.arange(5, dtype=np.int64) + 100


@pytest.fixture
def layout(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def small_encoder(seed: int) -> Encoder:
    """An untrained encoder with a small table."""
    full = Encoder.fit([], [], [], seed=seed, dim=8)
    return Encoder(type(full.table)(full.table.rows[:256]), full.query_tower, full.item_tower)


def parts(layout: Home, work: Path, *, seed: int = 1, items: list[str] = TEXTS) -> dict[str, Artifact]:
    """The artifacts of a small shop, stored as blobs."""
    encoder = small_encoder(seed)
    encoder.save(work / "encoder")
    ids = IDS[: len(items)]
    VectorIndex.build(ids, encoder.encode_items(items)).save(work / "vector")
    LexicalIndex.build(work / "lexical", ids, items, assign_tiers(np.arange(len(items), 0, -1.0)))
    Speller.fit({"lamp": 3, "desk": 2, "boot": 4}).save(work / "speller")
    space = {"embedding_space": encoder.space_id}
    kwargs = {"version": "1", "created_us": 5}
    return {
        "encoder": put_artifact(layout, "encoder", work / "encoder", provides=space, **kwargs),
        "vector_index": put_artifact(layout, "vector_index", work / "vector", requires=space, **kwargs),
        "lexical_index": put_artifact(layout, "lexical_index", work / "lexical", **kwargs),
        "speller": put_artifact(layout, "speller", work / "speller", metrics={"words": 3.0}, **kwargs),
    }


def published(
    layout: Home, artifacts: dict[str, Artifact], *, created_us: int = 10, parent: str = ""
) -> Manifest:
    manifest = make_release(
        artifacts, watermark_us=7, created_us=created_us, parent=parent, metrics={"ndcg": 0.5}
    )
    publish(layout, manifest)
    return manifest


def files_below(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_publish_load_predict_is_identical(layout: Home, tmp_path: Path) -> None:
    manifest = published(layout, parts(layout, tmp_path))
    release = load_release(layout, manifest.release_id)
    encoder = small_encoder(1)
    assert release.encoder.space_id == encoder.space_id == manifest.embedding_space
    assert np.array_equal(release.item_ids, IDS)
    assert np.array_equal(release.item_vectors, encoder.encode_items(TEXTS))
    assert release.vector_index.search(release.encoder.encode_queries(["oak desk"]), 1)[0].tolist() == [[102]]
    assert sorted(release.lexical_index.search(["lamp"], 5)[0].tolist()) == [100, 101]
    assert release.speller is not None
    assert release.speller.correct(["lmap"]) == ["lamp"]
    assert release.text_classifier is release.image_classifier is release.ranker is None


def test_a_manifest_survives_disk(layout: Home, tmp_path: Path) -> None:
    manifest = published(layout, parts(layout, tmp_path), parent="r-000000000000")
    assert read_manifest(layout, manifest.release_id) == manifest
    assert list_releases(layout) == [manifest]
    assert manifest.size == sum(blobs.blob_path(layout.blobs, d).stat().st_size
                                for a in manifest.artifacts.values() for d in a.files.values())  # fmt: skip


def test_files_are_linked_not_copied_and_locks_are_left_out(layout: Home, tmp_path: Path) -> None:
    manifest = published(layout, parts(layout, tmp_path))
    folder = layout.releases / manifest.release_id
    for name, artifact in manifest.artifacts.items():
        for file, digest in artifact.files.items():
            assert (folder / name / file).samefile(blobs.blob_path(layout.blobs, digest))
            assert not file.endswith(".lock")


def test_the_id_is_of_content_and_time_only(layout: Home, tmp_path: Path) -> None:
    artifacts = parts(layout, tmp_path)

    def release_id(created_us: int = 10, **other: object) -> str:
        changed = {**artifacts, **{k: v for k, v in other.items() if isinstance(v, Artifact)}}
        return make_release(
            changed, watermark_us=7, created_us=created_us, parent=str(other.get("parent", ""))
        ).release_id

    assert release_id() == release_id(parent="r-1") != release_id(created_us=11)
    assert (
        release_id(speller=dataclasses.replace(artifacts["speller"], metrics={"words": 9.0})) == release_id()
    )
    assert release_id(speller=dataclasses.replace(artifacts["speller"], version="2")) != release_id()


def test_publishing_and_putting_twice_is_once(layout: Home, tmp_path: Path) -> None:
    artifacts = parts(layout, tmp_path)
    before = files_below(layout.root)
    again = put_artifact(
        layout, "speller", tmp_path / "speller", metrics={"words": 3.0}, version="1", created_us=5
    )
    assert again == artifacts["speller"]
    assert files_below(layout.root) == before
    manifest = published(layout, artifacts)
    whole = files_below(layout.root)
    published(layout, artifacts)
    assert files_below(layout.root) == whole
    assert not [f for f in whole if ".tmp" in f]
    assert list_releases(layout) == [manifest]


def test_a_failed_publish_leaves_nothing(layout: Home, tmp_path: Path) -> None:
    artifacts = parts(layout, tmp_path)
    digest = artifacts["speller"].files["words.json"]
    blobs.blob_path(layout.blobs, digest).unlink()
    with pytest.raises(DataError, match=rf"blob {digest[:12]} of words.json is missing"):
        published(layout, artifacts)
    assert list(layout.releases.iterdir()) == []


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_a_damaged_file_is_refused_by_name(layout: Home, tmp_path: Path, damage: str) -> None:
    manifest = published(layout, parts(layout, tmp_path))
    path = layout.releases / manifest.release_id / "encoder" / "weights.safetensors"
    whole = path.read_bytes()
    path.unlink()
    if damage == "truncate":
        path.write_bytes(whole[:-1])
    elif damage == "flip":
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DataError, match=r"encoder/weights\.safetensors is (damaged|missing)"):
        load_release(layout, manifest.release_id)


def test_a_damaged_blob_is_healed_by_putting_it_again(layout: Home, tmp_path: Path) -> None:
    speller = parts(layout, tmp_path)["speller"]
    path = blobs.blob_path(layout.blobs, speller.files["words.json"])
    path.unlink()
    path.write_text("{")
    put_artifact(layout, "speller", tmp_path / "speller", version="1", created_us=5)
    assert path.read_bytes() == (tmp_path / "speller" / "words.json").read_bytes()


def test_an_altered_manifest_is_refused(layout: Home, tmp_path: Path) -> None:
    manifest = published(layout, parts(layout, tmp_path))
    path = layout.releases / manifest.release_id / "manifest.json"
    document = json.loads(path.read_text())
    for altered in (
        document | {"watermark_us": 8},
        document | {"surprise": 1},
        {k: v for k, v in document.items() if k != "created_us"},
        [],
    ):
        path.write_text(json.dumps(altered))
        with pytest.raises(DataError, match="publish the release again"):
            read_manifest(layout, manifest.release_id)
    path.write_text("{")
    with pytest.raises(DataError, match="publish the release again"):
        load_release(layout, manifest.release_id)


def test_unknown_releases_are_named(layout: Home, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="published are: none"):
        read_manifest(layout, "r-abcdefabcdef")
    manifest = published(layout, parts(layout, tmp_path))
    with pytest.raises(DataError, match=manifest.release_id):
        load_release(layout, "r-abcdefabcdef")
    with pytest.raises(DataError, match="not a release id"):
        load_release(layout, "../../etc")


def test_what_does_not_belong_together_is_refused(layout: Home, tmp_path: Path) -> None:
    one, two = parts(layout, tmp_path / "1", seed=1), parts(layout, tmp_path / "2", seed=2)
    mixed = {**one, "vector_index": two["vector_index"]}
    spaces = [p["encoder"].provides["embedding_space"] for p in (one, two)]
    with pytest.raises(
        DataError, match=rf"encoder provides .*{spaces[0]}, vector_index requires {spaces[1]}"
    ):
        make_release(mixed, watermark_us=1, created_us=1)
    silent = {**one, "encoder": dataclasses.replace(one["encoder"], provides={})}
    with pytest.raises(DataError, match="no artifact provides"):
        make_release(silent, watermark_us=1, created_us=1)
    with pytest.raises(DataError, match="without lexical_index"):
        make_release({k: v for k, v in one.items() if k != "lexical_index"}, watermark_us=1, created_us=1)
    with pytest.raises(DataError, match="given as 'ranker'"):
        make_release({**one, "ranker": one["speller"]}, watermark_us=1, created_us=1)
    with pytest.raises(DataError, match="unknown artifact"):
        put_artifact(layout, "oracle", tmp_path / "1", version="1", created_us=1)


def test_false_claims_are_found_out_at_loading(layout: Home, tmp_path: Path) -> None:
    artifacts = parts(layout, tmp_path)
    space = {"embedding_space": "e-pretended"}
    lying = {
        **artifacts,
        "encoder": dataclasses.replace(artifacts["encoder"], provides=space),
        "vector_index": dataclasses.replace(artifacts["vector_index"], requires=space),
    }
    with pytest.raises(DataError, match="e-pretended, its encoder has e-"):
        load_release(layout, published(layout, lying).release_id)
    for schema, ok in ((FEATURE_SCHEMA, True), ("other", False)):
        speller = dataclasses.replace(artifacts["speller"], requires={"feature_schema": schema})
        manifest = published(layout, {**artifacts, "speller": speller})
        assert manifest.feature_schema == schema
        if ok:
            load_release(layout, manifest.release_id)
        else:
            with pytest.raises(DataError, match=f"feature schema other, this code has {FEATURE_SCHEMA}"):
                load_release(layout, manifest.release_id)


def test_unchanged_artifacts_are_the_very_same_objects(layout: Home, tmp_path: Path) -> None:
    first = parts(layout, tmp_path / "1")
    old = load_release(layout, published(layout, first).release_id)
    TextClassifier.fit(["red lamp", "oak desk"] * 4, ["lamps", "desks"] * 4, seed=1, epochs=1).save(
        tmp_path / "text"
    )
    Speller.fit({"boot": 1}).save(tmp_path / "speller")
    second = {
        **first,
        "speller": put_artifact(layout, "speller", tmp_path / "speller", version="2", created_us=6),
        "text_classifier": put_artifact(
            layout, "text_classifier", tmp_path / "text", version="1", created_us=6
        ),
    }
    manifest = published(layout, second, created_us=11, parent=old.release_id)
    # What is reused is not read again either: its files may even be gone.
    (layout.releases / manifest.release_id / "encoder" / "weights.safetensors").unlink()
    new = load_release(layout, manifest.release_id, previous=old)
    assert new.encoder is old.encoder
    assert new.vector_index is old.vector_index
    assert new.lexical_index is old.lexical_index
    assert new.speller is not old.speller
    assert new.text_classifier is not None
    changes = diff(old.manifest, manifest)
    assert changes["changed"] == ["speller"]
    assert changes["added"] == ["text_classifier"]
    assert changes["removed"] == []
    assert set(changes["unchanged"]) == {"encoder", "vector_index", "lexical_index"}
    assert changes["total_size"] == manifest.size
    assert changes["changed_size"] == second["speller"].size + second["text_classifier"].size
    assert diff(None, manifest)["changed_size"] == manifest.size


def test_a_ranker_is_loaded_compiled_and_taken_over_from_the_release_before(
    layout: Home, tmp_path: Path
) -> None:
    import lightgbm as lgb

    rng = np.random.default_rng(1)
    features = rng.random((200, len(FEATURES))).astype(np.float32)
    data = lgb.Dataset(features.astype(np.float64), features[:, 0] + features[:, 1])
    booster = lgb.train({"verbosity": -1, "num_leaves": 4, "num_threads": 1}, data, num_boost_round=2)
    Ranker(booster.model_to_string(), features[:20], trees=2).save(tmp_path / "ranker")
    requires = {"feature_schema": FEATURE_SCHEMA}
    artifacts = parts(layout, tmp_path)
    artifacts["ranker"] = put_artifact(
        layout, "ranker", tmp_path / "ranker", version="1", requires=requires, created_us=5
    )
    manifest = published(layout, artifacts)
    assert manifest.feature_schema == FEATURE_SCHEMA
    release = load_release(layout, manifest.release_id)
    assert release.ranker is not None
    assert release.ranker.is_compiled
    assert np.array_equal(release.ranker.predict(features), booster.predict(features.astype(np.float64)))
    assert load_release(layout, manifest.release_id, previous=release).ranker is release.ranker


def test_the_champion_is_a_published_release_and_remembers_the_one_before(
    layout: Home, tmp_path: Path
) -> None:
    assert champion(layout) is None
    artifacts = parts(layout, tmp_path)
    one, two = published(layout, artifacts, created_us=1), published(layout, artifacts, created_us=2)
    with pytest.raises(DataError, match="no release"):
        set_champion(layout, "r-abcdefabcdef", at_us=1, by="test")
    assert champion(layout) is None
    set_champion(layout, one.release_id, at_us=3, by="gate")
    set_champion(layout, two.release_id, at_us=4, by="rollback")
    assert champion(layout) == two.release_id
    assert champion_record(layout) == {
        "release_id": two.release_id, "at_us": 4, "by": "rollback", "previous": one.release_id
    }  # fmt: skip
    (layout.releases / "champion.json").write_text("{}")
    with pytest.raises(DataError, match="promote a release again"):
        champion(layout)


def test_prune_keeps_what_is_kept_and_what_was_just_put(layout: Home, tmp_path: Path) -> None:
    shared = parts(layout, tmp_path / "1")
    spellers = []
    for i in range(3):
        Speller.fit({f"word{i}": 1}).save(tmp_path / f"speller{i}")
        spellers.append(put_artifact(layout, "speller", tmp_path / f"speller{i}", version="1", created_us=i))
    releases = [published(layout, {**shared, "speller": s}, created_us=i) for i, s in enumerate(spellers)]
    set_champion(layout, releases[2].release_id, at_us=1, by="test")
    with pytest.raises(DataError, match="no release"):
        prune(layout, {"r-abcdefabcdef"}, grace_s=0)
    assert len(list_releases(layout)) == 3
    assert prune(layout, {releases[1].release_id}) == {"releases": 1, "blobs": 0, "bytes": 0}
    gone = spellers[0].files["words.json"]  # its synonyms are the same blob as the others', and stay
    os.utime(blobs.blob_path(layout.blobs, gone), (1, 1))
    size = blobs.blob_path(layout.blobs, gone).stat().st_size
    removed = prune(layout, {releases[1].release_id})
    assert removed == {"releases": 0, "blobs": 1, "bytes": size}
    assert not blobs.blob_path(layout.blobs, gone).exists()
    for release in releases[1:]:
        load_release(layout, release.release_id)


def test_names_that_leave_their_folder_are_refused(layout: Home, tmp_path: Path) -> None:
    artifacts = parts(layout, tmp_path)
    digest = artifacts["speller"].files["words.json"]
    for name in ("../../outside", "/outside", ""):
        evil = dataclasses.replace(artifacts["speller"], files={name: digest})
        with pytest.raises(DataError, match="leaves its folder"):
            published(layout, {**artifacts, "speller": evil})
