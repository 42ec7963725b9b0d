"""The ranker: LightGBM trees over candidate features, compiled per host for serving.

It learns P(click | looked at) from single rows, with the log-odds of having been looked at as an
offset (`models.examination`); docs/studies/placebo.md says why not LambdaRank. Held-out sessions
decide when to stop, and whether the trees are worth anything: a log without signal ends in a
ranker that leaves the order as it is.
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
from infra.clock import DAY_US
from infra.errors import DataError
from models.candidate_features import CATEGORICAL, FEATURE_SCHEMA, FEATURES
from models.compiled import PARITY, load_compiled
from models.examination import PRIOR_RATE, Examination, places
from models.metrics import grouped_dcg
from models.training_rows import TrainingRows

__all__ = ["GAINS", "Ranker", "RankerConfig"]

GAINS = (0, 1, 3, 7)  # of nothing, click, cart, order
_PROBES = 256


@dataclass(frozen=True)
class RankerConfig:
    """How the trees are grown. `max_trees` also caps a chain of warm starts.

    `weights`: of nothing, click, cart, order; `half_life_d`: age at which a request counts half, None
    never; `doubt`: standard errors by which held-out sessions have to be told better with the trees
    than without.
    """

    max_trees: int = 100
    warm_trees: int = 25
    num_leaves: int = 15
    learning_rate: float = 0.12
    min_data_in_leaf: int = 60
    feature_fraction: float = 0.7
    lambda_l2: float = 5.0
    weights: tuple[float, float, float, float] = (1.0, 1.0, 2.0, 3.0)
    half_life_d: float | None = None
    valid_share: float = 0.12  # of the sessions
    patience: int = 12
    doubt: float = 3.0
    threads: int = 1


class Ranker:
    """Scores candidates; higher is better. `predict` uses the compiled trees where there are any."""

    def __init__(
        self,
        model: str,
        probe: NDArray[np.float32],
        *,
        trees: int,
        examination: Examination | None = None,
        compiled: Any | None = None,
    ) -> None:
        """`model`: LightGBM's text form; `probe`: float32 rows that parity is checked on.

        `trees` 0: one leaf, the same score for all.
        """
        self._model = model
        self._probe = probe
        self._compiled = compiled
        self.trees = trees
        self.examination = examination or Examination()

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
        rows = rows.take(clicked)
        examination = Examination.fit(places(rows.positions, rows.groups), rows.labels > 0, rows.propensity)
        task = _Task(rows, examination, config)
        held = in_fraction(rows.session_ids, config.valid_share, salt="ranker-valid")
        if held.all() or not held.any():
            held = np.zeros(len(held), bool)
        train, valid = ~held, held if held.any() else ~held
        warm = init is not None and init.trees > 0 and init.trees + config.warm_trees <= config.max_trees
        before = init if warm else None
        model, trees = _grow(task, train, valid, before, seed)
        probe = _probe(rows.features, seed)
        ranker = cls(model, probe, trees=trees, examination=examination)
        gain = task.gain(ranker, valid)
        if trees and gain.mean < config.doubt * gain.error:
            model, trees = _constant(task, seed), 0
            ranker = cls(model, probe, trees=0, examination=examination)
        metrics = {
            "trees": float(trees),
            "train_rows": float(rows.groups[train].sum()),
            "train_groups": float(train.sum()),
            "valid_ndcg10": ranker.logged_ndcg10(rows.take(valid))[0],
            "valid_gain": gain.mean,  # nats a row over the same score for all
            "valid_gain_error": gain.error,
            "examination_rate": examination.rate,
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

    def logged_ndcg10(
        self, rows: TrainingRows, *, examination: Examination | None = None
    ) -> tuple[float, NDArray[np.float64]]:
        """NDCG@10 on logged requests: (mean, float64 [g] with NaN where nothing was clicked).

        Gains are divided by the chance that the place was looked at (inverse propensity scoring), by
        `examination`, None the ranker's own. A request's figure is its DCG over the mean of all
        requests' ideal DCG: divided by its own ideal, the correction of a single click would cancel,
        and whichever ranker had made the page would seem the better one.
        """
        look = np.exp((examination or self.examination).log_odds(places(rows.positions, rows.groups)))
        gains = np.take(np.array(GAINS, float), rows.labels) / look
        ideal = grouped_dcg(gains, gains, rows.groups)
        some = ideal > 0
        if not some.any():
            return 0.0, np.full(len(rows.groups), np.nan)
        found = grouped_dcg(self.predict(rows.features), gains, rows.groups) / ideal[some].mean()
        return float(found[some].mean()), np.where(some, found, np.nan)

    def save(self, folder: Path) -> None:
        """Write `ranker.txt`, `probe.npy`, `expected.npy` and `ranker.json` into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ranker.txt").write_text(self._model)
        expected = self._booster.predict(self._probe.astype(np.float64), raw_score=True, num_threads=1)
        np.save(folder / "probe.npy", self._probe)
        np.save(folder / "expected.npy", expected)
        about = {"feature_schema": FEATURE_SCHEMA, "features": FEATURES, "trees": self.trees}
        about["examination_rate"] = self.examination.rate
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
        examination = Examination(float(about.get("examination_rate", PRIOR_RATE)))
        ranker = cls(model, probe, trees=about["trees"], examination=examination, compiled=compiled)
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


@dataclass(frozen=True)
class _Gain:
    """How much better held-out rows are told with the trees: nats a row, and the standard error."""

    mean: float
    error: float


class _Task:
    """What the trees are fitted to: label, weight and offset of each row."""

    def __init__(self, rows: TrainingRows, examination: Examination, config: RankerConfig) -> None:
        self.rows = rows
        self.config = config
        self.label = (rows.labels > 0).astype(np.float64)
        age_d = (int(rows.time_us.max()) - rows.time_us) / DAY_US
        recency = np.ones(len(age_d)) if config.half_life_d is None else 0.5 ** (age_d / config.half_life_d)
        self.weight = np.take(np.array(config.weights), rows.labels) * np.repeat(recency, rows.groups)
        self.offset = examination.log_odds(places(rows.positions, rows.groups))
        for _ in range(30):  # Newton: the offset alone predicts as many clicks as there were
            p = _sigmoid(self.offset)
            step = float(self.weight @ (self.label - p)) / float(self.weight @ (p * (1 - p)) + 1e-9)
            self.offset += step
            if abs(step) < 1e-9:
                break

    def dataset(self, groups: NDArray[np.bool_], before: Ranker | None, reference: Any | None) -> Any:
        """LightGBM's form of the rows of the groups; `before`: whose scores are known already."""
        import lightgbm as lgb

        take = np.repeat(groups, self.rows.groups)
        features = self.rows.features[take]
        return lgb.Dataset(
            features,
            label=self.label[take],
            weight=self.weight[take],
            init_score=self.offset[take] + (0.0 if before is None else before.predict(features)),
            categorical_feature=list(CATEGORICAL),
            feature_name=list(FEATURES),
            reference=reference,
            free_raw_data=False,
        )

    def gain(self, ranker: Ranker, groups: NDArray[np.bool_]) -> _Gain:
        """Log-likelihood of the groups' rows with the ranker, less without; errors are by session."""
        take = np.repeat(groups, self.rows.groups)
        score = self.offset[take] + ranker.predict(self.rows.features[take])
        label, weight, bare = self.label[take], self.weight[take], self.offset[take]
        better = weight * (_log_loss(label, bare) - _log_loss(label, score))
        _, session = np.unique(np.repeat(self.rows.session_ids, self.rows.groups)[take], return_inverse=True)
        total = np.bincount(session, better)
        error = float(np.sqrt(((total - total.mean()) ** 2).sum())) / len(better)
        return _Gain(float(better.mean()), error)


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1.0 / (1.0 + np.exp(-x))


def _log_loss(label: NDArray[np.float64], score: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.logaddexp(0.0, score) - label * score


def _parameters(config: RankerConfig, seed: int) -> dict[str, Any]:
    return {
        "objective": "binary",
        "boost_from_average": False,  # the offset has the average
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


def _grow(
    task: _Task, train: NDArray[np.bool_], valid: NDArray[np.bool_], before: Ranker | None, seed: int
) -> tuple[str, int]:
    """Trees that stop where held-out rows do: LightGBM's text and how many there are."""
    import lightgbm as lgb

    config = task.config
    data = task.dataset(train, before, None)
    booster = lgb.train(
        _parameters(config, seed),
        data,
        num_boost_round=config.max_trees if before is None else config.warm_trees,
        valid_sets=[task.dataset(valid, before, data)],
        callbacks=[lgb.early_stopping(config.patience, verbose=False)],
    )
    best = booster.best_iteration if booster.best_iteration > 0 else booster.num_trees()
    text = booster.model_to_string(num_iteration=best)
    if before is not None:
        text = _chained(before._model, text)
    return text, int(lgb.Booster(model_str=text).num_trees())


def _constant(task: _Task, seed: int) -> str:
    """A model of one leaf."""
    import lightgbm as lgb

    data = task.dataset(np.ones(len(task.rows.groups), bool), None, None)
    parameters = _parameters(task.config, seed) | {"num_leaves": 2, "min_gain_to_split": 1e30}
    text: str = lgb.train(parameters, data, num_boost_round=1).model_to_string()
    return text


def _chained(first: str, then: str) -> str:
    """One model of two whose scores add up: the trees of both, in LightGBM's text form.

    LightGBM's own `init_model` would overwrite the offset of the rows (its `init_score`).
    """
    import lightgbm as lgb

    head, *trees = first.split("\nTree=")
    more = then.split("\nTree=")[1:]
    trees[-1] = trees[-1].split("\nend of trees")[0]
    more[-1], tail = more[-1].split("\nend of trees")
    bodies = [tree.split("\n", 1)[1] for tree in (*trees, *more)]
    head = "\n".join(line for line in head.split("\n") if not line.startswith("tree_sizes="))
    text = "".join(f"\nTree={i}\n{body.rstrip()}\n\n" for i, body in enumerate(bodies))
    whole: str = lgb.Booster(model_str=f"{head}\n{text}\nend of trees{tail}").model_to_string()
    return whole


def _probe(features: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    pick = np.random.default_rng(seed).choice(len(features), min(_PROBES, len(features)), replace=False)
    return features[np.sort(pick)]
