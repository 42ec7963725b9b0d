"""The base network of the photo library: made once a machine, and gone on from where it was killed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data.sources import fashion_mnist
from flows.offline import photos
from flows.offline.photos import base_classifier
from infra.cache import ensure
from infra.settings import Settings
from models.checkpoints import Checkpoint

pytestmark = pytest.mark.slow  # trains networks

SMALL = 240


class Killed(BaseException):
    """As SIGKILL would: nothing of the training runs after it."""


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    """A smaller recipe, of a library whose departments are bright rows."""
    monkeypatch.setattr(fashion_mnist, "TRAIN", SMALL)
    monkeypatch.setattr(photos, "BASE_EPOCHS", 2)


def cached(folder: Path) -> Settings:
    """Settings of a cache that holds the small library."""

    def make(into: Path) -> None:
        rng = np.random.default_rng(1)
        labels = rng.integers(0, len(fashion_mnist.CLASSES), SMALL).astype(np.uint8)
        images = rng.integers(0, 60, (SMALL, 28, 28)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 3] = 220
        np.save(into / "images.npy", images)
        np.save(into / "labels.npy", labels)

    ensure(folder / "cache" / "fashion-mnist", make)
    return Settings(home=folder / "home", cache=folder / "cache")


def test_a_base_that_was_killed_ends_as_if_left_alone(
    library: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = base_classifier(cached(tmp_path / "alone"))
    settings = cached(tmp_path / "killed")
    save, saves = Checkpoint.save, []

    def dying(self: Checkpoint, *what: object) -> None:
        save(self, *what)  # type: ignore[arg-type]
        saves.append(what)
        if len(saves) == 5:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "due", lambda _: True)
        patch.setattr(Checkpoint, "save", dying)
        with pytest.raises(Killed):
            base_classifier(settings)
    entry = settings.cache / "photo-base-2"
    assert not entry.exists()
    assert len(list(settings.cache.glob("photo-base-2.*"))) == 1
    found, load = [], Checkpoint.load
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "load", lambda self: found.append(load(self)) or found[-1])
        again = base_classifier(settings)
    assert found[0] is not None
    assert again.onnx == alone.onnx
    assert list(settings.cache.glob("photo-base-2.*")) == []
    assert base_classifier(settings).photo_space == alone.photo_space


def test_a_checkpoint_of_another_recipe_counts_for_nothing(
    library: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cached(tmp_path / "keys").cache / "any"
    keys = {photos._base_key()}
    for name, value in (("BASE_EPOCHS", 3), ("_SEED", 8), ("_THREADS", 2), ("_KEPT_BACK", 10)):
        with monkeypatch.context() as patch:
            patch.setattr(photos, name, value)
            keys.add(photos._base_key())
    assert len(keys) == 5
    Checkpoint(path, next(iter(keys))).save({}, {})
    assert sum(Checkpoint(path, key).load() is not None for key in keys) == 1
