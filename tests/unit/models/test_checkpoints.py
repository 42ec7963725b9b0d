"""A training that is killed at any of its checkpoints ends with the model of one that was left alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.checkpoints import Checkpoint
from models.encoder import Encoder
from models.image_classifier import ImageClassifier
from models.ranker import Ranker, RankerConfig
from models.text_classifier import TextClassifier
from models.training_rows import TrainingRows
from tests.unit.models import test_encoder, test_image_classifier, test_ranker, test_text_classifier

CHUNKED = RankerConfig(max_trees=40, warm_trees=10, chunk=7, min_data_in_leaf=20)


class Killed(BaseException):
    """As SIGKILL would: nothing of the training runs after it."""


class Killing(Checkpoint):
    """Saves at every chance, and ends the training right after the save of this number."""

    def __init__(self, path: Path, key: str, *, after: int | None = None) -> None:
        super().__init__(path, key, every_s=0.0)
        self.saves = 0
        self.after = after

    def save(self, arrays: Mapping[str, NDArray[Any]], notes: Mapping[str, Any]) -> None:
        """As Checkpoint.save."""
        super().save(arrays, notes)
        self.saves += 1
        if self.saves == self.after:
            raise Killed


def files(model: Any, folder: Path) -> dict[str, bytes]:
    model.save(folder)
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def sparse(seed: int) -> TrainingRows:
    """Rows with columns that are mostly zero, which LightGBM bundles in an order that its seed decides."""
    rows = test_ranker.rows(seed, 400)
    x = rows.features.copy()
    empty = np.random.default_rng(seed).random(x.shape) < 0.97
    empty[:, [test_ranker.SIGNAL, test_ranker.BRAND]] = False
    x[empty] = 0.0
    return replace(rows, features=x)


def ranker(checkpoint: Checkpoint | None) -> Ranker:
    return Ranker.fit(sparse(1), seed=3, config=CHUNKED, checkpoint=checkpoint)[0]


def warm_ranker(checkpoint: Checkpoint | None) -> Ranker:
    rows = test_ranker.rows(1, 400)
    config = replace(CHUNKED, max_trees=30, warm_trees=14, chunk=4)
    first, _ = Ranker.fit(rows, seed=3, config=replace(config, max_trees=15))
    return Ranker.fit(
        test_ranker.rows(2, 400), seed=4, config=config, init=first, checkpoint=checkpoint
    )[0]  # fmt: skip


def encoder(checkpoint: Checkpoint | None) -> Encoder:
    queries, clicked = test_encoder.clicks(300, seed=1)
    return Encoder.fit(queries, clicked, np.ones(300), seed=1, epochs=2, checkpoint=checkpoint)


def text_classifier(checkpoint: Checkpoint | None) -> TextClassifier:
    texts, labels = test_text_classifier.labelled(600, seed=1)
    return TextClassifier.fit(texts, labels, seed=1, epochs=2, checkpoint=checkpoint)


def image_classifier(checkpoint: Checkpoint | None) -> ImageClassifier:
    images, labels = test_image_classifier.photos(300, seed=1)
    classes = test_image_classifier.CLASSES
    return ImageClassifier.fit(images, labels, classes=classes, seed=1, epochs=2, checkpoint=checkpoint)


TRAININGS = [ranker, warm_ranker, encoder, text_classifier, image_classifier]


@pytest.mark.parametrize("train", TRAININGS)
def test_killed_anywhere_it_ends_as_if_left_alone(
    train: Callable[[Checkpoint | None], Any], tmp_path: Path
) -> None:
    counting = Killing(tmp_path / "count", "k")
    alone = files(train(counting), tmp_path / "alone")
    assert alone == files(train(None), tmp_path / "bare")
    assert counting.saves >= 3
    rng = np.random.default_rng(counting.saves)
    moments = sorted({1, counting.saves, *rng.integers(1, counting.saves + 1, 3).tolist()})
    path = tmp_path / "kept"
    for moment in moments:
        path.unlink(missing_ok=True)
        with pytest.raises(Killed):
            train(Killing(path, "k", after=moment))
        left = Killing(path, "k")
        assert files(train(left), tmp_path / f"resumed-{moment}") == alone
        assert left.saves == counting.saves - moment  # it did not begin again


@pytest.mark.parametrize("train", [ranker, encoder])
def test_killed_twice(train: Callable[[Checkpoint | None], Any], tmp_path: Path) -> None:
    alone = files(train(None), tmp_path / "alone")
    for _ in range(2):
        with pytest.raises(Killed):
            train(Killing(tmp_path / "kept", "k", after=1))
    assert files(train(Killing(tmp_path / "kept", "k")), tmp_path / "resumed") == alone


def test_what_is_of_another_training_or_damaged_counts_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    Checkpoint(path, "one").save({"a": np.arange(3.0)}, {"step": 4})
    saved = Checkpoint(path, "one").load()
    assert saved is not None
    assert saved.arrays["a"].tolist() == [0.0, 1.0, 2.0]
    assert saved.notes == {"step": 4}
    assert Checkpoint(path, "another").load() is None
    assert Checkpoint(tmp_path / "absent", "one").load() is None
    whole = path.read_bytes()
    for cut in (0, 4, 20, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert Checkpoint(path, "one").load() is None


def test_saves_are_due_after_a_while(tmp_path: Path) -> None:
    assert Checkpoint(tmp_path / "a", "k", every_s=0.0).due()
    checkpoint = Checkpoint(tmp_path / "a", "k", every_s=60.0)
    assert not checkpoint.due()
