"""The ranker under study: trees grown as the service's are, on a panel's rows, kept as bytes.

Rows with a click are binned once a panel and process, with bins of all of its rows; every training takes
a subset. A training without trees is kept as such and leaves a pool in its given order.
It compiles nothing and knows no schedule.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.fractions import BUCKETS, bucket_of, in_fraction
from flows.studies.cells.learner import Fit, Fitted
from flows.studies.panels.panel import Panel
from infra.errors import ConfigError, DataError
from models.boosting import Columns, RankerConfig, Task, Trees, binned_once, grow, train_and_valid
from models.examination import Examination, places
from models.training_rows import TrainingRows

__all__ = ["RankerLearner"]

_VERSION = 1  # raise when equal rows would no longer give equal models
_HEAD = b"trees=%d\n"


@dataclass(frozen=True)
class _Clicked:
    """The panel's groups with a click, their fractions' buckets, and LightGBM's form of their rows.

    Buckets are hashed once: done at each training, they would cost small fractions more than all data.
    """

    key: str
    groups: NDArray[np.bool_]
    rows: TrainingRows
    bucket: NDArray[np.int32]
    held: NDArray[np.bool_]
    binned: Any
    cpu_s: float


class RankerLearner:
    """Implements `flows.studies.cells.learner.Learner` for the ranker."""

    name = "ranker"

    def __init__(self, config: RankerConfig | None = None) -> None:
        """`config`: None the service's. One thread, whatever it says: cells run beside each other."""
        self.config = replace(config or RankerConfig(), threads=1)
        least = RankerConfig.min_data_in_leaf  # shared bins leave out what could not fill such a leaf
        if self.config.min_data_in_leaf < least:
            raise ConfigError(f"min_data_in_leaf is {self.config.min_data_in_leaf}; expected {least} or more")
        self._clicked: _Clicked | None = None
        self._booster: tuple[bytes, Any] | None = None

    @property
    def key(self) -> str:
        """Hash of the configuration, of LightGBM's version and of this module's."""
        made_of = repr((self.name, _VERSION, sorted(asdict(self.config).items()), version("lightgbm")))
        return hashlib.sha256(made_of.encode()).hexdigest()[:16]

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self.config, "_clicked": None, "_booster": None}

    def fit(self, panel: Panel, fit: Fit, *, parent: bytes | None = None) -> Fitted:
        """Train on the requests with a click. Raises DataError where there are none.

        `parent`: its trees are kept and `warm_trees` added, unless that passes `max_trees`: then the
        training is cold, as the service's is. `cpu_s` is without the binning that all trainings share;
        the one that did it has its CPU-seconds as `shared_cpu_s` among its metrics.
        """
        whole = self._rows(panel)
        began = time.process_time()
        keep = panel.training(fit.trained_us, window_us=fit.window_us, fraction=1.0)[whole.groups]
        keep &= whole.bucket < round(fit.fraction * BUCKETS)
        if not keep.any():
            raise DataError(
                f"no clicks in the window of a training at {fit.trained_us} µs with fraction {fit.fraction}; "
                "a ranker needs some: take a longer window or a larger fraction"
            )
        rows = whole.rows.take(keep)
        train, valid = train_and_valid(whole.held[keep])
        examination = Examination.fit(places(rows.positions, rows.groups), rows.labels > 0, rows.propensity)
        task = Task(
            rows,
            examination,
            self.config,
            columns=Columns(panel.names, panel.categorical),
            binned=whole.binned,
            at=np.flatnonzero(np.repeat(keep, whole.rows.groups)),
        )
        before = self._before(parent)
        trees, gain = grow(task, train, valid, before=before, seed=fit.seed)
        model = _HEAD % trees.count + (trees.text.encode() if trees.count else b"")
        cpu_s = time.process_time() - began
        metrics = {
            "trees": float(trees.count),
            "groups": float(len(rows.groups)),
            "valid_gain": gain.mean,
            "valid_gain_error": gain.error,
            "examination_rate": examination.rate,
            "warm": float(before is not None),
        }
        if whole.cpu_s:
            metrics["shared_cpu_s"] = whole.cpu_s
            self._clicked = replace(whole, cpu_s=0.0)
        return Fitted(model, cpu_s, int(rows.groups.sum()), metrics)

    def score(self, panel: Panel, model: bytes, at: int, *, frozen: bool = False) -> NDArray[np.float64]:
        """NDCG@10 of each query of slice `at`: float64 [g]; `frozen`: by the state of the horizon's start."""
        return panel.slices[at].ndcg(self.candidates(panel, model, at, frozen=frozen))

    def candidates(self, panel: Panel, model: bytes, at: int, *, frozen: bool = False) -> NDArray[np.float64]:
        """The score of each candidate of slice `at`: float64 [n].

        `frozen`: by the state of the horizon's start; items that it does not know come last.
        """
        part = panel.slices[at]
        scores = self.predict(model, part.frozen if frozen else part.fresh)
        return np.where(part.known, scores, -np.inf) if frozen else scores

    def predict(self, model: bytes, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """The score of each row of features float32 [n, F]: float64 [n]; zeros by a model without trees."""
        head, text = model.split(b"\n", 1)
        if head == _HEAD.strip() % 0:
            return np.zeros(len(features))
        if self._booster is None or self._booster[0] != model:
            import lightgbm as lgb

            self._booster = (model, lgb.Booster(model_str=text.decode()))
        scores = self._booster[1].predict(np.asarray(features), raw_score=True, num_threads=1)
        return np.asarray(scores, np.float64)

    def _before(self, parent: bytes | None) -> Trees | None:
        if parent is None:
            return None
        head, text = parent.split(b"\n", 1)
        count = int(head.removeprefix(b"trees="))
        if not count or count + self.config.warm_trees > self.config.max_trees:
            return None
        return Trees(text.decode(), count)

    def _rows(self, panel: Panel) -> _Clicked:
        if self._clicked is None or self._clicked.key != panel.key:
            began = time.process_time()
            clicked = panel.rows.clicked()
            if not clicked.any():
                raise DataError(
                    f"no clicks among the {len(clicked):,} requests of {panel.source}; a ranker needs some"
                )
            rows = panel.rows.take(clicked)
            self._clicked = _Clicked(
                panel.key,
                clicked,
                rows,
                bucket_of(rows.session_ids, salt="session"),
                in_fraction(rows.session_ids, self.config.valid_share, salt="ranker-valid"),
                binned_once(rows.features, Columns(panel.names, panel.categorical)),
                time.process_time() - began,
            )
        return self._clicked
