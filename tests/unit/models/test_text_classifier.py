"""The classifier learns categories from words, is calibrated, deterministic, and survives disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from infra.errors import DataError
from infra.settings import REPOSITORY
from models.text_classifier import TextClassifier

WORDS = {
    "shoes": ["boot", "sneaker", "sandal", "heel", "loafer"],
    "lamps": ["lantern", "chandelier", "spotlight", "bulb", "sconce"],
    "bags": ["backpack", "satchel", "clutch", "tote", "duffel"],
}
COMMON = ["red", "blue", "large", "new", "cheap", "vintage", "classic", "modern"]


def labelled(n: int, *, seed: int, words: dict[str, list[str]] = WORDS) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(seed)
    labels = [str(c) for c in rng.choice(sorted(words), n)]
    texts = [
        " ".join([*rng.choice(COMMON, 2), rng.choice(words[c]), str(rng.integers(10_000))]) for c in labels
    ]
    return texts, labels


def accuracy(model: TextClassifier, texts: list[str], labels: list[str]) -> float:
    chosen = model.predict(texts).argmax(axis=1)
    return float(np.mean([model.classes[i] == c for i, c in zip(chosen, labels, strict=True)]))


@pytest.fixture(scope="module")
def model() -> TextClassifier:
    return TextClassifier.fit(*labelled(2_000, seed=1), seed=1)


def test_it_learns_what_words_mean(model: TextClassifier) -> None:
    texts, labels = labelled(500, seed=2)
    assert accuracy(model, texts, labels) > 0.98
    assert model.report["accuracy"] > 0.98
    assert model.report["rows"] > 100


def test_shuffled_labels_teach_nothing() -> None:
    texts, labels = labelled(2_000, seed=1)
    shuffled = [str(c) for c in np.random.default_rng(0).permutation(labels)]
    fooled = TextClassifier.fit(texts, shuffled, seed=1)
    assert fooled.report["accuracy"] < 0.5
    assert accuracy(fooled, *labelled(500, seed=2)) < 0.6
    assert fooled.predict(texts).max(axis=1).mean() < 0.6  # calibrated: it knows that it does not know


def test_typing_errors_are_read_by_their_ngrams(model: TextClassifier) -> None:
    typed = ["sneeker", "chandeleir", "bakpack"]
    assert [model.classes[i] for i in model.predict(typed).argmax(axis=1)] == ["shoes", "lamps", "bags"]


def test_probabilities_depend_on_the_text_and_sum_to_one(model: TextClassifier) -> None:
    p = model.predict(["red boot", "red bulb", "", "完全に別の言葉"])
    assert p.dtype == np.float32
    assert p.shape == (4, 3)
    assert np.allclose(p.sum(axis=1), 1, atol=1e-6)
    assert p[0].argmax() != p[1].argmax()
    assert np.array_equal(p[2], model.predict(["..."])[0])
    assert model.predict([]).shape == (0, 3)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.text(max_size=60), min_size=2, max_size=8))
def test_one_by_one_equals_all_at_once(model: TextClassifier, texts: list[str]) -> None:
    alone = np.concatenate([model.predict([t]) for t in texts])
    assert np.allclose(model.predict(texts), alone, atol=1e-6)
    assert np.isfinite(alone).all()


def test_save_load_predict_is_identical(model: TextClassifier, tmp_path: Path) -> None:
    texts, _ = labelled(50, seed=3)
    model.save(tmp_path)
    loaded = TextClassifier.load(tmp_path)
    assert loaded.classes == model.classes
    assert loaded.report == model.report
    assert np.array_equal(loaded.predict(texts), model.predict(texts))


def test_equal_seeds_give_equal_weights_and_leave_torch_alone() -> None:
    import torch

    texts, labels = labelled(400, seed=4)
    threads, drawn = torch.get_num_threads(), torch.random.get_rng_state()

    def weights(seed: int) -> NDArray[np.float32]:
        m = TextClassifier.fit(texts, labels, seed=seed, epochs=1)
        return np.concatenate([m.table.rows.ravel(), m.head.ravel(), m.bias])

    assert np.array_equal(weights(5), weights(5))
    assert not np.array_equal(weights(5), weights(6))
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), drawn)


def test_a_warm_start_keeps_what_it_knew_and_grows_for_a_new_class(model: TextClassifier) -> None:
    words = {**WORDS, "toys": ["puzzle", "teddy", "kite", "marble", "yoyo"]}
    texts, labels = labelled(600, seed=5, words=words)
    warm = TextClassifier.fit(texts, labels, seed=5, init=model, epochs=2)
    assert warm.classes == (*model.classes, "toys")
    assert accuracy(warm, *labelled(400, seed=6, words=words)) > 0.97
    barely = TextClassifier.fit(["puzzle"], ["toys"], seed=5, init=model, epochs=1)
    old = labelled(400, seed=6)
    assert accuracy(barely, *old) > 0.9  # one row does not wipe out the past
    cold = TextClassifier.fit(["puzzle"], ["toys"], seed=5, epochs=1)
    assert cold.classes == ("toys",)
    assert cold.predict(["anything"]).tolist() == [[1.0]]


def test_inference_needs_no_torch(model: TextClassifier, tmp_path: Path) -> None:
    model.save(tmp_path)
    code = (
        "import sys; from pathlib import Path\n"
        "from models.text_classifier import TextClassifier\n"
        "from models.encoder import Encoder\n"
        "from models.release import load_release\n"
        f"assert TextClassifier.load(Path({str(tmp_path)!r})).predict(['red boot']).argmax() == 2\n"
        "assert not {'torch', 'onnx', 'lightgbm', 'pandas', 'mlflow', 'prefect', 'ray'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_is_wrong_is_said(model: TextClassifier, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 texts and 1 labels"):
        TextClassifier.fit(["a", "b"], ["c"], seed=1)
    with pytest.raises(DataError, match="no texts"):
        TextClassifier.fit([], [], seed=1)
    with pytest.raises(DataError, match="no text classifier"):
        TextClassifier.load(tmp_path)
    model.save(tmp_path)
    (tmp_path / "classes.json").write_text('{"classes": ["a"], "report": {}}')
    with pytest.raises(DataError, match="for 1 classes"):
        TextClassifier.load(tmp_path)
    model.save(tmp_path)
    whole = (tmp_path / "weights.safetensors").read_bytes()
    (tmp_path / "weights.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="no text classifier"):
        TextClassifier.load(tmp_path)
