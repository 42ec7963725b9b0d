"""The ranker: LambdaRank over candidate features (LightGBM), compiled per host for serving.

Position bias is estimated beside the trees (LightGBM's unbiased LambdaRank). Held-out sessions
decide when to stop, so that a log without signal ends in next to no trees.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.fractions import in_fraction
from infra.errors import DataError
from models.candidate_features import CATEGORICAL, FEATURE_SCHEMA, FEATURES
from models.compiled import PARITY, load_compiled
from models.metrics import grouped_ndcg
from models.training_rows import TrainingRows

__all__ = ["GAINS", "Ranker", "RankerConfig"]

GAINS = (0, 1, 3, 7)  # of nothing, click, cart, order
_PROBES = 256


@dataclass(frozen=True)
class RankerConfig:
    """How the trees are grown. `max_trees` also caps a chain of warm starts."""

    max_trees: int = 120
    warm_trees: int = 30
    num_leaves: int = 31
    learning_rate: float = 0.08
    min_data_in_leaf: int = 40
    feature_fraction: float = 0.7
    lambda_l2: float = 5.0
    max_position: int = 30
    valid_share: float = 0.12  # of the sessions
    patience: int = 12
    threads: int = 1


class Ranker:
    """Scores candidates; higher is better. `predict` uses the compiled trees where there are any."""

    def __init__(
        self,
        model: str,
        probe: NDArray[np.float32],
        *,
        trees: int,
        compiled: Any | None = None,
    ) -> None:
        """`model`: LightGBM's text form; `probe`: float32 rows that parity is checked on."""
        self._model = model
        self._probe = probe
        self._compiled = compiled
        self.trees = trees

    @property
    def is_compiled(self) -> bool:
        """Whether the trees run as machine code of this host."""
        return self._compiled is not None

    @cached_property
    def _booster(self) -> Any:
        # Imported only where the interpreted trees are needed: lightgbm brings pandas along.
        import lightgbm as lgb

        return lgb.Booster(model_str=self._model)

    @classmethod
    def fit(
        cls,
        rows: TrainingRows,
        *,
        seed: int,
        config: RankerConfig | None = None,
        init: Ranker | None = None,
    ) -> tuple[Ranker, dict[str, float]]:
        """Train on rows in time order. Returns the ranker and its metrics.

        `init`: a warm start; its trees are kept and at most `warm_trees` are added, unless that
        passes `max_trees`: then the training is cold. Raises DataError without a click.
        """
        import lightgbm as lgb

        config = config or RankerConfig()
        clicked = (
            np.add.reduceat(rows.labels > 0, _starts(rows.groups)) > 0
            if len(rows.groups)
            else np.empty(0, bool)
        )
        if not clicked.any():
            raise DataError(
                f"no clicks among {len(rows.groups)} requests in the window; "
                "a ranker needs some: widen the window or wait for traffic"
            )
        held = in_fraction(rows.session_ids, config.valid_share, salt="ranker-valid")
        train, valid = rows.take(clicked & ~held), rows.take(clicked & held)
        if not len(train.groups) or not len(valid.groups):
            train = valid = rows.take(clicked)
        warm = init is not None and init.trees + config.warm_trees <= config.max_trees
        data = _dataset(lgb, train, config, None)
        parameters = {
            "objective": "lambdarank",
            "metric": "ndcg",
            "eval_at": [10],
            "label_gain": list(GAINS),
            "lambdarank_truncation_level": 12,
            "lambdarank_position_bias_regularization": 0.5,
            "num_leaves": config.num_leaves,
            "learning_rate": config.learning_rate,
            "min_data_in_leaf": config.min_data_in_leaf,
            "feature_fraction": config.feature_fraction,
            "lambda_l2": config.lambda_l2,
            "cat_smooth": 20,
            "cat_l2": 20,
            "max_cat_threshold": 64,
            "max_bin": 127,
            "num_threads": config.threads,
            "deterministic": True,
            "force_row_wise": True,
            "seed": seed,
            "verbosity": -1,
        }
        booster = lgb.train(
            parameters,
            data,
            num_boost_round=config.warm_trees if warm else config.max_trees,
            valid_sets=[_dataset(lgb, valid, config, data)],
            init_model=init._booster if warm and init is not None else None,
            callbacks=[lgb.early_stopping(config.patience, verbose=False)],
        )
        if booster.best_iteration > 0 and booster.best_iteration < booster.num_trees():
            booster = lgb.Booster(model_str=booster.model_to_string(num_iteration=booster.best_iteration))
        probe = _probe(rows.features, seed)
        ranker = cls(booster.model_to_string(), probe, trees=int(booster.num_trees()))
        metrics = {
            "trees": float(ranker.trees),
            "train_rows": float(len(train.labels)),
            "train_groups": float(len(train.groups)),
            "valid_ndcg10": ranker.logged_ndcg10(valid)[0],
            "warm": float(warm),
        }
        return ranker, metrics

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Scores float64 [n] of candidate features float32 [n, F]."""
        wide = features.astype(np.float64)
        if self._compiled is not None:
            found: NDArray[np.float64] = self._compiled.predict(wide, n_jobs=1)
            return found
        scores: NDArray[np.float64] = self._booster.predict(wide, raw_score=True, num_threads=1)
        return scores

    def contributions(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Each feature's exact share of each score (TreeSHAP): float64 [n, F + 1], the last the bias."""
        shares: NDArray[np.float64] = self._booster.predict(features.astype(np.float64), pred_contrib=True)
        return shares

    def logged_ndcg10(self, rows: TrainingRows) -> tuple[float, NDArray[np.float64]]:
        """NDCG@10 on logged requests: (mean, float64 [g] with NaN where nothing was clicked).

        Gains are divided by the examination discount of the logged position, so that a click
        far down counts for more (inverse propensity scoring with the DCG curve).
        """
        weight = np.log2(np.minimum(np.maximum(rows.positions, 0), 30) + 2.0)
        gains = np.take(np.array(GAINS, float), rows.labels) * weight
        found = grouped_ndcg(self.predict(rows.features), gains, rows.groups)
        return (float(np.nanmean(found)) if np.isfinite(found).any() else 0.0), found

    def save(self, folder: Path) -> None:
        """Write `ranker.txt`, `probe.npy`, `expected.npy` and `ranker.json` into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ranker.txt").write_text(self._model)
        expected = self._booster.predict(self._probe.astype(np.float64), raw_score=True, num_threads=1)
        np.save(folder / "probe.npy", self._probe)
        np.save(folder / "expected.npy", expected)
        about = {"feature_schema": FEATURE_SCHEMA, "features": FEATURES, "trees": self.trees}
        (folder / "ranker.json").write_text(json.dumps(about))

    @classmethod
    def load(cls, folder: Path, *, cache: Path | None = None) -> Ranker:
        """Read a ranker; with `cache`, its compiled form where there is one that agrees with it.

        Raises DataError where it was trained on other features, or gives other scores than it did.
        """
        about = json.loads((folder / "ranker.json").read_text())
        if about["feature_schema"] != FEATURE_SCHEMA:
            raise DataError(
                f"the ranker in {folder} was trained on feature schema {about['feature_schema']}, "
                f"expected {FEATURE_SCHEMA}; retrain it with `shelflife refresh --component ranker`"
            )
        probe, expected = np.load(folder / "probe.npy"), np.load(folder / "expected.npy")
        compiled = load_compiled(folder / "ranker.txt", cache, probe, expected) if cache is not None else None
        model = (folder / "ranker.txt").read_text()
        ranker = cls(model, probe, trees=about["trees"], compiled=compiled)
        scores = ranker.predict(probe)
        if not np.isfinite(scores).all() or not np.allclose(scores, expected, rtol=0, atol=PARITY):
            raise DataError(
                f"the ranker in {folder} does not give the scores that it gave when it was trained"
            )
        return ranker

    def about(self) -> dict[str, Any]:
        """What a registry wants to know."""
        return {"trees": self.trees, "config": asdict(RankerConfig()), "feature_schema": FEATURE_SCHEMA}


def _starts(groups: NDArray[np.int32]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(groups)[:-1]]).astype(np.int64)


def _dataset(lgb: Any, rows: TrainingRows, config: RankerConfig, reference: Any | None) -> Any:
    position = np.minimum(np.maximum(rows.positions, 0), config.max_position)
    return lgb.Dataset(
        rows.features,
        label=rows.labels,
        group=rows.groups,
        position=position if reference is None else None,
        categorical_feature=list(CATEGORICAL),
        feature_name=list(FEATURES),
        reference=reference,
        free_raw_data=False,
    )


def _probe(features: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    pick = np.random.default_rng(seed).choice(len(features), min(_PROBES, len(features)), replace=False)
    return features[np.sort(pick)]
