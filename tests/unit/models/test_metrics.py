"""Metrics against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.metrics import bootstrap_mean, grouped_ndcg, mrr, ndcg, precision, recall

gains = st.lists(st.floats(0, 15), min_size=1, max_size=40)


@given(gains)
def test_ndcg_is_one_for_the_ideal_order_and_never_more(found: list[float]) -> None:
    best = sorted(found, reverse=True)
    assert 0 <= ndcg(found, found) <= 1 + 1e-12
    assert ndcg(best, found) == pytest.approx(1.0 if max(found) > 0 else 0.0)


def test_ndcg_by_hand() -> None:
    assert ndcg([0, 3], [3, 0]) == pytest.approx(1 / np.log2(3))


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=15), min_size=1, max_size=8), st.integers(0, 9)
)
def test_grouped_ndcg_equals_one_by_one(groups: list[list[int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    flat = np.array([g for group in groups for g in group], float)
    scores = rng.normal(size=len(flat))
    found = grouped_ndcg(scores, flat, np.array([len(g) for g in groups], np.int32))
    at = 0
    for value, group in zip(found, groups, strict=True):
        order = np.argsort(-scores[at : at + len(group)], kind="stable")
        if max(group) == 0:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(ndcg(np.array(group)[order], group))
        at += len(group)


def test_bootstrap_covers_the_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for s in range(100):
        x = rng.normal(1.0, 1.0, 60)
        interval = bootstrap_mean(x, seed=s, rounds=300)
        hits += interval.low <= 1.0 <= interval.high
    assert 86 <= hits <= 100


def test_clusters_widen_the_interval() -> None:
    x = np.repeat(np.random.default_rng(1).normal(size=20), 30)
    alone = bootstrap_mean(x)
    clustered = bootstrap_mean(x, clusters=np.repeat(np.arange(20), 30))
    assert clustered.high - clustered.low > 3 * (alone.high - alone.low)


def test_precision_recall_mrr() -> None:
    relevant = np.array([False, True, True, False])
    assert precision(relevant, 4) == 0.5
    assert recall(relevant, 4, 100) == 0.5
    assert mrr(relevant) == 0.5
    assert mrr(np.zeros(3, bool)) == 0
