"""The image index finds equal photos, survives disk, and belongs to one classifier."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infra.errors import DataError
from models.image_index import ImageIndex, unit
from models.manifest import Artifact, make_release


def _index(n: int = 50) -> ImageIndex:
    embeddings = np.random.default_rng(1).normal(size=(n, 8)).astype(np.float32)
    return ImageIndex.build(np.arange(n) + 100, np.arange(n) % 30, embeddings)


def test_nearest_is_the_cosine_whatever_the_length() -> None:
    index = _index()
    places, scores = index.search_rows(unit(7.0 * index.vectors[11]), 5)
    assert places[0] == 11
    assert scores[0] == pytest.approx(1.0, abs=1e-5)
    assert np.all(np.diff(scores) <= 0)
    assert np.allclose(np.linalg.norm(index.vectors, axis=1), 1, atol=1e-5)
    assert unit(np.zeros(3, np.float32)).tolist() == [0, 0, 0]


def test_save_load_search_is_identical(tmp_path: Path) -> None:
    index = _index()
    index.save(tmp_path)
    loaded = ImageIndex.load(tmp_path)
    assert np.array_equal(loaded.photos, index.photos)
    assert np.array_equal(loaded.item_ids, index.item_ids)
    for a, b in zip(
        loaded.search_rows(index.vectors[3], 9), index.search_rows(index.vectors[3], 9), strict=True
    ):
        assert np.array_equal(a, b)
    np.save(tmp_path / "photos.npy", index.photos[:3])
    with pytest.raises(DataError, match="3 photos for 50 items"):
        ImageIndex.load(tmp_path)
    (tmp_path / "photos.npy").unlink()
    with pytest.raises(DataError, match="no image index"):
        ImageIndex.load(tmp_path)
    with pytest.raises(DataError, match="2 photos and 3 embeddings"):
        ImageIndex.build([1, 2, 3], [1, 2], np.ones((3, 8), np.float32))


def test_it_goes_with_its_classifier_alone() -> None:
    def artifact(name: str, **kinds: dict[str, str]) -> Artifact:
        return Artifact(name, "1", {"f": name}, 1, **kinds)

    base = {n: artifact(n) for n in ("encoder", "lexical_index", "vector_index")}
    mine, other = {"photo_space": "a"}, {"photo_space": "b"}
    index = artifact("image_index", requires=mine)
    make_release(
        base | {"image_index": index, "image_classifier": artifact("image_classifier", provides=mine)},
        watermark_us=1,
        created_us=1,
    )
    for wrong in ({"image_classifier": artifact("image_classifier", provides=other)}, {}):
        with pytest.raises(DataError, match="photo_space"):
            make_release(base | {"image_index": index} | wrong, watermark_us=1, created_us=1)
