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
from models.checkpoints import Checkpoint
from models.examination import Examination, places
from models.growth import Gain, Growth, Trees
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
    trees than without any. `chunk`: trees that are grown at a time, None all of a kind; the trees depend
    on it, and a training that is killed loses those of one chunk.
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
    chunk: int | None = None


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
    task: Task,
    train: NDArray[np.bool_],
    valid: NDArray[np.bool_],
    *,
    before: Trees | None,
    seed: int,
    checkpoint: Checkpoint | None = None,
) -> tuple[Trees, Gain]:
    """Trees that stop where held-out groups do, and what those of the first kind gain on them.

    `train`, `valid` bool [g]; `before`: a warm start, whose trees are kept. Where the gain is within
    doubt there are no trees. With a `checkpoint` each chunk of trees is kept, and a training that was
    killed goes on from the last one: it ends with the same trees.
    """
    config = task.config
    most = config.max_trees if before is None else config.warm_trees
    first = max(1, round(most * config.rowwise))
    data = task.dataset(train)
    held = task.dataset(valid, data)
    growth = Growth.resumed(checkpoint) or Growth.begun(task, before)
    for part, groups in ((data, train), (held, valid)):  # binned the same whichever chunk comes first
        task.aim(part, groups, growth.scores, rowwise=True)
        part.params = _parameters(config, seed, rowwise=True)
        part.construct()
    while (rowwise := growth.phase == 0) or growth.phase == 1:
        count = first if rowwise else most - first
        if count and not growth.stopped(count, config.patience):
            _chunk(task, growth, (data, train), (held, valid), count=count, seed=seed)
        if growth.stopped(count, config.patience):
            growth.end_phase(task.rows.features)
            if rowwise:  # all rows: the second kind of trees begins where these end
                growth.gain = task.gain(growth.scores, valid)
                if growth.gain.mean < config.doubt * growth.gain.error:
                    growth.trees, growth.phase = Trees(_constant(task, data, seed), 0), 2
        else:
            growth.scores = growth.scores + Trees.of(growth.chunks[-1]).predict(task.rows.features)
        if checkpoint is not None:
            growth.keep(checkpoint)
    return growth.trees, growth.gain


def _chunk(
    task: Task,
    growth: Growth,
    train: tuple[Any, NDArray[np.bool_]],
    valid: tuple[Any, NDArray[np.bool_]],
    *,
    count: int,
    seed: int,
) -> None:
    """Grow the next trees of a phase of `count`, from the scores so far, until held-out groups say stop."""
    import lightgbm as lgb

    rowwise, grown = growth.phase == 0, len(growth.found)
    for data, groups in (train, valid):
        task.aim(data, groups, growth.scores, rowwise=rowwise)

    def note(env: Any) -> None:
        _, _, value, higher_is_better = env.evaluation_result_list[0]
        growth.found.append(float(value) if higher_is_better else -float(value))
        if growth.stopped(count, task.config.patience):
            raise lgb.callback.EarlyStopException(env.iteration, env.evaluation_result_list)

    booster = lgb.train(
        # Another seed a chunk: else each would draw the same features.
        _parameters(task.config, seed + 7_919 * grown, rowwise=rowwise),
        train[0],
        num_boost_round=min(task.config.chunk or count, count - grown),
        valid_sets=[valid[0]],
        callbacks=[note],
    )
    growth.chunks.append(booster.model_to_string(num_iteration=-1))


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
