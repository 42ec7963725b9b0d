"""Exact search equals brute force, the approximate one comes close with exact scores, both survive disk."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from infra.errors import DataError
from models.vector_index import VectorIndex


def clustered(n: int, dim: int, *, seed: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(2, n // 100), dim))
    vectors = centres[rng.integers(0, len(centres), n)] + 0.3 * rng.normal(size=(n, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@settings(deadline=None)  # the machine may be busy
@given(n=st.integers(1, 60), k=st.integers(1, 80), seed=st.integers(0, 1000))
def test_exact_search_equals_brute_force(n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, 8)).astype(np.float32)
    queries = rng.normal(size=(3, 8)).astype(np.float32)
    item_ids = rng.permutation(n).astype(np.int64) + (1 << 62)
    ids, scores = VectorIndex.build(item_ids, vectors).search(queries, k)
    assert ids.shape == scores.shape == (3, k)
    truth = queries @ vectors.T
    for q in range(3):
        order = np.argsort(-truth[q])[:k]
        assert ids[q, : len(order)].tolist() == item_ids[order].tolist()
        assert np.allclose(scores[q, : len(order)], truth[q, order], atol=1e-5)
        assert (ids[q, len(order) :] == -1).all()
        assert np.isneginf(scores[q, len(order) :]).all()


def test_approximate_search_finds_most_and_scores_exactly() -> None:
    vectors = clustered(6_000, 16, seed=3)
    index = VectorIndex.build(np.arange(6_000), vectors, exact_below=1_000)
    assert not index.exact
    queries = vectors[:50]
    ids, scores = index.search(queries, 50)
    truth = queries @ vectors.T
    best = np.argsort(-truth, axis=1)[:, :50]
    assert np.mean([len(set(a) & set(b)) / 50 for a, b in zip(ids, best, strict=True)]) > 0.9
    assert np.allclose(scores, np.take_along_axis(truth, ids, axis=1), atol=1e-6)
    assert (np.diff(scores, axis=1) <= 0).all()


@pytest.mark.parametrize("exact_below", [10_000, 100])
def test_saved_index_answers_the_same(tmp_path: Path, exact_below: int) -> None:
    vectors = clustered(2_000, 8, seed=4)
    built = VectorIndex.build(np.arange(2_000) * 7, vectors, exact_below=exact_below)
    built.save(tmp_path / "index")
    loaded = VectorIndex.load(tmp_path / "index")
    assert loaded.exact is built.exact
    assert isinstance(loaded.vectors.base, mmap.mmap)
    for a, b in zip(built.search(vectors[:20], 30), loaded.search(vectors[:20], 30), strict=True):
        assert np.array_equal(a, b)


def test_a_planted_neighbour_comes_first_and_a_planted_stranger_does_not() -> None:
    vectors = clustered(500, 16, seed=5)
    query = vectors[123]
    planted = np.concatenate([vectors, query[None] * 2, -query[None] * 2])
    ids, _ = VectorIndex.build(np.arange(502), planted).search(query, 501)
    assert ids[0, 0] == 500
    assert 501 not in ids[0]


def test_an_empty_catalogue_has_no_neighbours() -> None:
    ids, scores = VectorIndex.build([], np.empty((0, 4), np.float32)).search(np.ones((2, 4), np.float32), 3)
    assert (ids == -1).all()
    assert np.isneginf(scores).all()


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    ones = np.ones((2, 4), np.float32)
    with pytest.raises(DataError, match="3 item ids"):
        VectorIndex.build([1, 2, 3], ones)
    with pytest.raises(DataError, match="repeat"):
        VectorIndex.build([1, 1], ones)
    with pytest.raises(DataError, match="NaN"):
        VectorIndex.build([1, 2], ones * np.nan)
    with pytest.raises(DataError, match="length 3; expected 4"):
        VectorIndex.build([1, 2], ones).search(np.ones((1, 3), np.float32), 1)
    with pytest.raises(DataError, match="no vector index"):
        VectorIndex.load(tmp_path)
    VectorIndex.build([1, 2], ones).save(tmp_path)
    np.save(tmp_path / "ids.npy", np.arange(5))
    with pytest.raises(DataError, match="5 ids, 2 vectors"):
        VectorIndex.load(tmp_path)
