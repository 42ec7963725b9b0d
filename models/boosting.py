"""How the ranker's trees are grown: some that tell clicks row by row, then LambdaRank's on top of them.

Both take the log-odds that a row was looked at as a fixed offset (`models.examination`), so that the
place of an item is not taken for its worth. Single rows use what pages differ in, which pairs of one
page leave unused; pairs then set the order right. Neither knows how rows came to be.
docs/decisions/0006 has the comparison.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.clock import DAY_US
from models.candidate_features import CATEGORICAL, FEATURES
from models.examination import Examination, places
from models.training_rows import TrainingRows

__all__ = [
    "GAINS",
    "Columns",
    "Gain",
    "RankerConfig",
    "Task",
    "Trees",
    "binned_once",
    "grow",
    "train_and_valid",
]

GAINS = (0, 1, 3, 7)  # of nothing, click, cart, order
_TRUNCATION = 30  # places for whose pairs LambdaRank cares: all of a page


@dataclass(frozen=True)
class RankerConfig:
    """How the trees are grown. `max_trees` also caps a chain of warm starts.

    `rowwise`: share of the trees that tell clicks row by row, before LambdaRank's; `weights`: in those,
    of nothing, click, cart, order; `half_life_d`: age at which a request counts half, None never;
    `doubt`: standard errors by which held-out sessions have to be told better with the first kind of
    trees than without any.
    """

    max_trees: int = 100
    rowwise: float = 0.4
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


@dataclass(frozen=True)
class Gain:
    """How much better held-out rows are told with the trees: nats a row, and the standard error."""

    mean: float
    error: float


@dataclass(frozen=True)
class Trees:
    """LightGBM's text form of a model, and how many trees it has: 0 is one leaf, the same score for all."""

    text: str
    count: int

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Raw scores float64 [n] of features float32 [n, F]."""
        import lightgbm as lgb

        booster = lgb.Booster(model_str=self.text)
        return np.asarray(booster.predict(features, raw_score=True, num_threads=1), np.float64)

    def plus(self, booster: Any) -> Trees:
        """These and the best of the booster's trees, whose scores add up."""
        best = booster.best_iteration if booster.best_iteration > 0 else booster.num_trees()
        text = booster.model_to_string(num_iteration=best)
        return Trees.of(_chained(self.text, text) if self.count else text)

    @classmethod
    def of(cls, text: str) -> Trees:
        """The trees of a model's text form."""
        import lightgbm as lgb

        return cls(text, int(lgb.Booster(model_str=text).num_trees()))


@dataclass(frozen=True)
class Columns:
    """Names of the features [F], and the numbers of those that are codes without order."""

    names: tuple[str, ...] = FEATURES
    categorical: tuple[int, ...] = CATEGORICAL


def binned_once(features: NDArray[np.float32], columns: Columns, *, seed: int = 7) -> Any:
    """LightGBM's form of rows float32 [n, F] that many trainings take subsets of (`Task(binned=…)`)."""
    data = _dataset(features, columns, None, None)
    data.params = _parameters(RankerConfig(), seed, rowwise=True)
    data.label = np.zeros(len(features))  # a subset cannot be made without
    return data.construct()


def _dataset(
    features: NDArray[np.float32], columns: Columns, groups: NDArray[np.int32] | None, reference: Any | None
) -> Any:
    import lightgbm as lgb

    return lgb.Dataset(
        features,
        group=groups,
        categorical_feature=list(columns.categorical),
        feature_name=list(columns.names),
        reference=reference,
        free_raw_data=False,
    )


class Task:
    """What the trees are fitted to: features, grades, weights and offset of each row."""

    def __init__(
        self,
        rows: TrainingRows,
        examination: Examination,
        config: RankerConfig,
        *,
        columns: Columns | None = None,
        binned: Any | None = None,
        at: NDArray[np.int64] | None = None,
    ) -> None:
        """`columns`: of the features, None those of a candidate.

        `binned`: `binned_once(...)` of a larger set of rows, of which these are numbers `at` int64 [n].
        """
        self.rows = rows
        self.columns = columns or Columns()
        self._binned, self._at = binned, at
        self.config = config
        self.label = (rows.labels > 0).astype(np.float64)
        age_d = (int(rows.time_us.max()) - rows.time_us) / DAY_US
        recency = np.ones(len(age_d)) if config.half_life_d is None else 0.5 ** (age_d / config.half_life_d)
        self.recency = np.repeat(recency, rows.groups)
        self.weight = np.take(np.array(config.weights), rows.labels) * self.recency
        self.offset = examination.log_odds(places(rows.positions, rows.groups))
        for _ in range(30):  # Newton: the offset alone predicts as many clicks as there were
            p = _sigmoid(self.offset)
            step = float(self.weight @ (self.label - p)) / float(self.weight @ (p * (1 - p)) + 1e-9)
            self.offset += step
            if abs(step) < 1e-9:
                break

    def dataset(self, groups: NDArray[np.bool_], reference: Any | None = None) -> Any:
        """LightGBM's form of the features of the groups, binned as `reference` is."""
        take = np.repeat(groups, self.rows.groups)
        if self._binned is not None and self._at is not None:
            part = self._binned.subset(self._at[take]).construct()  # what is set earlier, it forgets
            part.set_group(self.rows.groups[groups])
            return part
        return _dataset(self.rows.features[take], self.columns, self.rows.groups[groups], reference)

    def aim(
        self, data: Any, groups: NDArray[np.bool_], scores: NDArray[np.float64], *, rowwise: bool
    ) -> None:
        """Set labels, weights and where the scores begin; `scores` [n]: of trees grown before."""
        take = np.repeat(groups, self.rows.groups)
        data.set_label(self.label[take] if rowwise else self.rows.labels[take])
        data.set_weight(self.weight[take] if rowwise else self.recency[take])
        data.set_init_score(self.offset[take] + scores[take])

    def gain(self, scores: NDArray[np.float64], groups: NDArray[np.bool_]) -> Gain:
        """Log-likelihood of the groups' rows with the scores [n], less without; errors are by session."""
        take = np.repeat(groups, self.rows.groups)
        label, weight, bare = self.label[take], self.weight[take], self.offset[take]
        better = weight * (_log_loss(label, bare) - _log_loss(label, bare + scores[take]))
        _, session = np.unique(np.repeat(self.rows.session_ids, self.rows.groups)[take], return_inverse=True)
        total = np.bincount(session, better)
        error = float(np.sqrt(((total - total.mean()) ** 2).sum())) / len(better)
        return Gain(float(better.mean()), error)


def train_and_valid(held: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The groups to train on and those to judge by, bool [g] each; all are both where one would be empty."""
    if held.all() or not held.any():
        return np.ones(len(held), bool), np.ones(len(held), bool)
    return ~held, held


def grow(
    task: Task, train: NDArray[np.bool_], valid: NDArray[np.bool_], *, before: Trees | None, seed: int
) -> tuple[Trees, Gain]:
    """Trees that stop where held-out groups do, and what those of the first kind gain on them.

    `train`, `valid` bool [g]; `before`: a warm start, whose trees are kept. Where the gain is within
    doubt there are no trees.
    """
    import lightgbm as lgb

    config = task.config
    trees = before or Trees("", 0)
    most = config.max_trees if before is None else config.warm_trees
    first = max(1, round(most * config.rowwise))
    scores = np.zeros(len(task.label)) if before is None else before.predict(task.rows.features)
    data = task.dataset(train)
    held = task.dataset(valid, data)
    gain = Gain(0.0, 0.0)
    for rowwise, count in ((True, first), (False, most - first)):
        if not count:
            continue
        task.aim(data, train, scores, rowwise=rowwise)
        task.aim(held, valid, scores, rowwise=rowwise)
        booster = lgb.train(
            _parameters(config, seed, rowwise=rowwise),
            data,
            num_boost_round=count,
            valid_sets=[held],
            callbacks=[lgb.early_stopping(config.patience, verbose=False)],
        )
        trees = trees.plus(booster)
        if rowwise:  # all rows: the second kind of trees begins where these end
            scores = scores + booster.predict(task.rows.features, raw_score=True, num_threads=config.threads)
            gain = task.gain(scores, valid)
            if gain.mean < config.doubt * gain.error:
                return Trees(_constant(task, data, seed), 0), gain
    return trees, gain


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1.0 / (1.0 + np.exp(-x))


def _log_loss(label: NDArray[np.float64], score: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.logaddexp(0.0, score) - label * score


def _parameters(config: RankerConfig, seed: int, *, rowwise: bool) -> dict[str, Any]:
    rows = {"objective": "binary", "boost_from_average": False}  # the offset has the average
    pairs = {
        "objective": "lambdarank",
        "label_gain": list(GAINS),
        "lambdarank_truncation_level": _TRUNCATION,
        "lambdarank_norm": False,  # pages with much to learn count for more
        "metric": "ndcg",
        "eval_at": [10],
    }
    return (rows if rowwise else pairs) | {
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


def _constant(task: Task, data: Any, seed: int) -> str:
    """A model of one leaf."""
    import lightgbm as lgb

    parameters = _parameters(task.config, seed, rowwise=True) | {"num_leaves": 2, "min_gain_to_split": 1e30}
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
