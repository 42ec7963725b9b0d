"""Compiled trees score as LightGBM does, bit for bit, whatever the features hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.compiled import compile_trees

CATEGORICAL = [2, 3]


def _data(seed: int, n: int = 3_000) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6)).astype(np.float32)
    x[:, 1] = rng.integers(0, 4, n) / 2
    x[:, 2] = rng.integers(0, 900, n)
    x[:, 3] = rng.integers(0, 5, n)
    x[rng.random(x.shape) < 0.1] = np.nan
    codes = np.nan_to_num(x[:, 2]).astype(int)
    y = np.nan_to_num(x[:, 0], nan=1.0) + np.sin(7.0 * codes) + (x[:, 3] == 2) * np.nan_to_num(x[:, 4])
    return x, np.asarray(y, np.float64)


def _booster(seed: int = 0, *, rounds: int = 12, **parameters: Any) -> Any:
    import lightgbm as lgb

    x, y = _data(seed)
    settings = {"verbosity": -1, "num_threads": 1, "num_leaves": 15, "seed": seed, "min_data_per_group": 5}
    data = lgb.Dataset(x.astype(np.float64), y, categorical_feature=CATEGORICAL)
    return lgb.train(settings | parameters, data, num_boost_round=rounds)


def _odd(seed: int) -> NDArray[np.float32]:
    """Features as none was trained on: codes unknown, negative or broken, infinities."""
    x, _ = _data(seed, 700)
    rng = np.random.default_rng(seed)
    for value in (-1.0, -0.5, 1.5, 901.0, 1e9, np.inf, -np.inf, 0.0, -0.0):
        x[rng.random(len(x)) < 0.03, 2] = value if abs(value) < 1e9 else 1e6
        x[rng.random(len(x)) < 0.03, 0] = value
    return x


@pytest.mark.parametrize("leaves", [2, 5, 15, 32])
@pytest.mark.parametrize("use_missing", [True, False])
def test_scores_are_lightgbms_own(leaves: int, use_missing: bool) -> None:
    booster = _booster(leaves, num_leaves=leaves, use_missing=use_missing)
    trees = compile_trees(booster.model_to_string())
    assert trees is not None
    for x in (_data(99)[0], _odd(leaves), _odd(leaves)[:1], _odd(leaves)[:0]):
        expected = booster.predict(x.astype(np.float64), raw_score=True, num_threads=1) if len(x) else []
        np.testing.assert_array_equal(trees.predict(x), expected)


def test_each_threshold_parts_its_neighbours() -> None:
    booster = _booster(3)
    trees = compile_trees(booster.model_to_string())
    assert trees is not None
    near = np.unique(trees.tables.thresholds)
    values = np.concatenate(
        [near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-9e9))]
    )
    x = np.resize(_data(3)[0], (len(values), 6))
    for column in (0, 1, 4, 5):
        x[:, column] = values
    np.testing.assert_array_equal(trees.predict(x), booster.predict(x.astype(np.float64), raw_score=True))


def test_a_model_of_one_leaf_scores_all_alike() -> None:
    booster = _booster(rounds=1, min_gain_to_split=1e30)
    trees = compile_trees(booster.model_to_string())
    assert trees is not None
    x, _ = _data(1)
    np.testing.assert_array_equal(trees.predict(x), booster.predict(x.astype(np.float64), raw_score=True))


@pytest.mark.parametrize(
    "parameters",
    [
        {"num_leaves": 40},
        {"zero_as_missing": True},
        {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
    ],
)
def test_what_the_tables_do_not_hold_is_left_to_the_interpreter(parameters: dict[str, Any]) -> None:
    assert compile_trees(_booster(**parameters).model_to_string()) is None
