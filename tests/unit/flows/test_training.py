"""Components that are made anew bring along what depends on them; what was learnt is gone on from or not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flows.offline.crown import rollback
from flows.offline.inputs import load_inputs
from flows.offline.refresh import make, refresh
from flows.offline.train import Parts
from infra.files import sha256_file
from infra.registry import open_registry
from infra.settings import Settings
from models.blobs import blob_path
from models.checkpoints import Checkpoint
from models.release import champion, load_release, read_manifest, release_folder

pytestmark = pytest.mark.slow  # stands on a trained release


class Killed(BaseException):
    """As SIGKILL would."""


def test_a_warm_start_goes_on_from_the_champion(shop: Settings) -> None:
    before = read_manifest(shop.layout, str(champion(shop.layout))).artifacts["ranker"].metrics
    report = refresh(shop, component="ranker,text_classifier", start="warm", margin=1.0)
    after = report["metrics"]["ranker"]
    assert after["warm"] == 1.0
    assert before["trees"] <= after["trees"] <= before["trees"] + 25
    assert report["made"]["text_classifier"]


def test_an_encoder_brings_index_and_ranker_along(shop: Settings) -> None:
    report = refresh(shop, component="encoder", start="warm", margin=1.0)
    assert list(report["made"]) == ["encoder", "vector_index", "ranker"]
    assert report["metrics"]["ranker"]["warm"] == 0.0  # trees of another space would mislead
    manifest = read_manifest(shop.layout, report["release_id"])
    recipes = {n: manifest.artifacts[n].snapshot["recipe"] for n in ("encoder", "ranker")}
    assert {n: (r["start"], bool(r["warm"])) for n, r in recipes.items()} == {
        "encoder": ("warm", True),
        "ranker": ("warm", False),
    }
    space = manifest.artifacts["encoder"].provides["embedding_space"]
    for name in ("vector_index", "ranker"):
        assert manifest.artifacts[name].requires["embedding_space"] == space
    assert champion(shop.layout) == report["release_id"]


@pytest.mark.parametrize("name", ["ranker", "encoder", "text_classifier"])
def test_a_component_that_was_killed_ends_as_if_left_alone(
    shop: Settings, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = load_release(shop.layout, str(champion(shop.layout)))
    parts = Parts.of(release)
    inputs = load_inputs(shop.layout, window_d=7.0, fraction=0.8)
    alone = make(name, shop, inputs, parts, warm=False).artifacts[name].content
    path = shop.layout.checkpoints / f"{name}.safetensors"
    path.unlink()
    save, due = Checkpoint.save, Checkpoint.due
    saves = []

    def dying(self: Checkpoint, *what: object) -> None:
        save(self, *what)  # type: ignore[arg-type]
        saves.append(what)
        if len(saves) == 2:
            raise Killed

    monkeypatch.setattr(Checkpoint, "due", lambda _: True)
    monkeypatch.setattr(Checkpoint, "save", dying)
    with pytest.raises(Killed):
        make(name, shop, inputs, parts, warm=False)
    monkeypatch.setattr(Checkpoint, "save", save)
    monkeypatch.setattr(Checkpoint, "due", due)
    kept = Checkpoint.load
    loaded = []
    monkeypatch.setattr(Checkpoint, "load", lambda self: loaded.append(kept(self)) or loaded[-1])
    assert make(name, shop, inputs, parts, warm=False).artifacts[name].content == alone
    assert loaded[0] is not None
    other = load_inputs(shop.layout, window_d=7.0, fraction=0.7)
    make(name, shop, other, parts, warm=False)
    assert loaded[1] is None  # of other data


@pytest.mark.parametrize("beneath", ["encoder", "text_classifier", "speller", "vector_index", "learnt later"])
def test_a_training_goes_on_upon_the_same_models_alone(
    shop: Settings, beneath: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = load_release(shop.layout, str(champion(shop.layout)))
    parts, inputs = Parts.of(release), load_inputs(shop.layout, window_d=7.0)
    make("ranker", shop, inputs, parts, warm=False)
    kept, loaded = Checkpoint.load, []
    monkeypatch.setattr(Checkpoint, "load", lambda self: loaded.append(kept(self)) or loaded[-1])
    make("ranker", shop, inputs, parts, warm=False)
    assert loaded[-1] is not None
    name = "encoder" if beneath == "learnt later" else beneath
    old = parts.artifacts[name]
    other = (
        replace(old, snapshot=old.snapshot | {"watermark_us": old.snapshot["watermark_us"] - 1})
        if beneath == "learnt later"
        else replace(old, files={"other": "0" * 64})
    )
    changed = replace(parts, artifacts=parts.artifacts | {name: other})
    if beneath == "learnt later":  # the newest of the two counts
        text = parts.artifacts["text_classifier"]
        earlier = replace(text, snapshot=other.snapshot)
        changed = replace(changed, artifacts=changed.artifacts | {"text_classifier": earlier})
    make("ranker", shop, inputs, changed, warm=False)
    assert loaded[-1] is None


@pytest.mark.parametrize(
    ("file", "fraction", "mended"),
    [
        ("ranker/ranker.txt", 1.0, True),  # the same data make the same content
        ("ranker/ranker.txt", 0.8, False),
        ("lexical_index/items.npy", 1.0, True),
    ],
)
def test_a_champion_that_is_damaged_is_mended_or_replaced(
    shop: Settings, caplog: pytest.LogCaptureFixture, file: str, fraction: float, mended: bool
) -> None:
    broken = str(champion(shop.layout))
    path = next(release_folder(shop.layout, broken).glob(file))
    blob = blob_path(shop.layout.blobs, sha256_file(path))
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes()[:100])
    path.unlink()
    path.hardlink_to(blob)  # they are one file, but in this copy of a home
    report = refresh(shop, component="ranker", fraction=fraction)
    assert "cannot be loaded" in caplog.text
    assert "encoder" in report["made"]
    assert (report["release_id"] == broken) == mended
    assert report["promoted"] != mended
    assert champion(shop.layout) == report["release_id"]
    load_release(shop.layout, report["release_id"])


def test_checkpoints_go_once_the_model_is_registered(shop: Settings) -> None:
    refresh(shop, component="ranker", fraction=0.9, margin=1.0)
    assert list(shop.layout.checkpoints.glob("*")) == []
    rollback(shop)


def test_resources_of_a_training_are_in_the_registry(shop: Settings) -> None:
    report = refresh(shop, component="ranker", fraction=0.9, margin=1.0)
    registry = open_registry(shop.layout.mlflow)
    newest = max(
        (registry.training("ranker", str(v)) for v in (1, 2)), key=lambda r: r["snapshot"]["fraction"] == 0.9
    )
    assert set(newest["resources"]) == {"cpu_s", "wall_s", "peak_mb", "read_mb", "disk_mb"}
    assert newest["resources"]["cpu_s"] == pytest.approx(report["train_cpu_s"]["ranker"], abs=0.01)
    assert newest["resources"]["peak_mb"] > 50
