"""The network tells shapes apart, its ONNX graph is the trained network, and it survives disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from infra.errors import DataError
from models.image_classifier import ImageClassifier

CLASSES = ("disc", "cross", "bars")
Photos = NDArray[np.uint8]


def photos(n: int, *, seed: int, kinds: int = 3) -> tuple[Photos, NDArray[np.int64]]:
    """Noisy discs, crosses, bars and frames at random places."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, kinds, n)
    rows, columns = np.mgrid[:28, :28]
    out = rng.normal(60, 40, (n, 28, 28))
    for i, kind in enumerate(y):
        r, c = rng.integers(9, 19, 2)
        dr, dc = np.abs(rows - r), np.abs(columns - c)
        masks = (
            dr**2 + dc**2 < 40,
            ((dr < 2) | (dc < 2)) & (dr + dc < 10),
            (rows - r) % 6 < 2,
            np.maximum(dr, dc) == 7,
        )
        out[i][masks[kind]] += 110
    return np.clip(out, 0, 255).astype(np.uint8), y


def accuracy(model: ImageClassifier, images: Photos, labels: NDArray[np.int64]) -> float:
    return float(np.mean(model.predict(images).argmax(axis=1) == labels))


@pytest.fixture(scope="module")
def model() -> ImageClassifier:
    return ImageClassifier.fit(*photos(1_200, seed=1), classes=CLASSES, seed=1, epochs=4)


def test_it_learns_shapes(model: ImageClassifier) -> None:
    assert accuracy(model, *photos(300, seed=2)) > 0.95
    assert model.report["accuracy"] > 0.9
    assert model.report["rows"] > 50


def test_a_network_that_was_told_nonsense_is_found_out() -> None:
    images, labels = photos(600, seed=1)
    fooled = ImageClassifier.fit(
        images, np.random.default_rng(0).permutation(labels), classes=CLASSES, seed=1, epochs=2
    )
    assert accuracy(fooled, *photos(300, seed=2)) < 0.7
    assert fooled.report["accuracy"] < 0.6


def test_probabilities_and_embeddings_have_their_shapes_and_vary_with_the_photo(
    model: ImageClassifier,
) -> None:
    images, _ = photos(700, seed=3)  # more than one run
    p, e = model.predict(images), model.embed(images)
    assert p.dtype == e.dtype == np.float32
    assert p.shape == (700, 3)
    assert e.shape == (700, 64)
    assert np.allclose(p.sum(axis=1), 1, atol=1e-5)
    assert e.std(axis=0).max() > 0.01
    assert np.allclose(model.predict(images[5:6]), p[5:6], atol=1e-5)
    assert model.predict(images[:0]).shape == (0, 3)


def test_save_load_predict_is_identical(model: ImageClassifier, tmp_path: Path) -> None:
    images, _ = photos(40, seed=4)
    model.save(tmp_path)
    loaded = ImageClassifier.load(tmp_path)
    assert loaded.classes == CLASSES
    assert np.array_equal(loaded.predict(images), model.predict(images))
    assert np.array_equal(loaded.embed(images), model.embed(images))
    assert set(loaded.weights) == set(model.weights)


def test_equal_seeds_give_equal_graphs() -> None:
    images, labels = photos(200, seed=5)
    images.flags.writeable = False  # as a memory-mapped archive is

    def graph(seed: int) -> bytes:
        return ImageClassifier.fit(images, labels, classes=CLASSES, seed=seed, epochs=1).onnx

    assert graph(1) == graph(1) != graph(2)


def test_a_warm_start_keeps_what_it_knew_and_grows_for_a_new_class(model: ImageClassifier) -> None:
    still = ImageClassifier.fit(*photos(8, seed=6), classes=CLASSES, seed=1, epochs=0, init=model)
    images, labels = photos(300, seed=2)
    assert accuracy(still, images, labels) == accuracy(model, images, labels)
    classes = ("frame", *CLASSES)  # another order: weights follow names
    grown = ImageClassifier.fit(*photos(8, seed=6), classes=classes, seed=1, epochs=0, init=model)
    assert np.mean(grown.predict(images)[:, 1:].argmax(axis=1) == labels) == accuracy(model, images, labels)
    four, kinds = photos(800, seed=7, kinds=4)
    warm = ImageClassifier.fit(four, (kinds + 1) % 4, classes=classes, seed=1, epochs=3, init=model)
    images, kinds = photos(300, seed=8, kinds=4)
    assert accuracy(warm, images, (kinds + 1) % 4) > 0.9


def test_what_is_wrong_is_said(model: ImageClassifier, tmp_path: Path) -> None:
    images, labels = photos(10, seed=1)
    with pytest.raises(DataError, match=r"float64 \[10, 28, 28\]"):
        model.predict(images.astype(np.float64))
    with pytest.raises(DataError, match=r"\[10, 27, 28\]"):
        model.predict(images[:, 1:])
    with pytest.raises(DataError, match="10 photos and 9 labels"):
        ImageClassifier.fit(images, labels[:9], classes=CLASSES, seed=1)
    with pytest.raises(DataError, match="expected 0 to 0"):
        ImageClassifier.fit(images, labels, classes=("one",), seed=1)
    with pytest.raises(DataError, match="no image classifier"):
        ImageClassifier.load(tmp_path)
    model.save(tmp_path)
    (tmp_path / "model.onnx").write_bytes(model.onnx[:1000])
    with pytest.raises(DataError, match="cannot be opened"):
        ImageClassifier.load(tmp_path)
