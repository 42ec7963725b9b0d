"""The ranker: LightGBM trees over candidate features, compiled for serving.

LambdaRank, begun with trees that tell clicks row by row, corrected for the place of each row
(`models.boosting`). Held-out sessions decide when to stop, and whether the trees are worth anything:
a log without signal ends in a ranker that leaves the order as it is.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.fractions import in_fraction
from infra.arrays import mapped, mapped_bytes
from infra.errors import DataError
from infra.files import sha256_file
from models.boosting import GAINS, RankerConfig, Task, Trees, grow, train_and_valid
from models.candidate_features import FEATURE_SCHEMA, FEATURES
from models.checkpoints import Checkpoint
from models.compiled import CompiledTrees, compile_trees
from models.examination import PRIOR_RATE, Examination, places
from models.metrics import grouped_dcg
from models.training_rows import TrainingRows
from models.tree_tables import map_tables, write_tables

__all__ = ["GAINS", "Ranker", "RankerConfig"]

_PROBES = 256
_AT_A_TIME = 32  # of the probes
_PARITY = 1e-9  # largest difference from the interpreted Booster that is let through
_TEXT, _PROBE, _EXPECTED, _TABLES, _ABOUT = (
    "ranker.txt",
    "probe.npy",
    "expected.npy",
    "tables.bin",
    "ranker.json",
)
CHUNK = 20  # trees of one


class Ranker:
    """Scores candidates; higher is better. `predict` uses the compiled trees once it was loaded.

    A loaded one's text, tables and probe are mapped files: next to nothing of it is the process' own memory,
    until `contributions` asks for LightGBM's own form of the trees.
    """

    def __init__(
        self,
        model: str | NDArray[np.uint8],
        probe: NDArray[np.float32],
        *,
        trees: int,
        examination: Examination | None = None,
        compiled: CompiledTrees | None = None,
    ) -> None:
        """`model`: LightGBM's text form, or its UTF-8; `probe`: float32 rows that parity is checked on.

        `trees` 0: one leaf, the same score for all.
        """
        self._text = model
        self._probe = probe
        self._compiled = compiled
        self.trees = trees
        self.examination = examination or Examination()

    @property
    def _model(self) -> str:
        return self._text if isinstance(self._text, str) else self._text.tobytes().decode()

    @property
    def is_compiled(self) -> bool:
        """Whether the trees are walked by compiled code."""
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
        checkpoint: Checkpoint | None = None,
    ) -> tuple[Ranker, dict[str, float]]:
        """Train on rows in time order. Returns the ranker and its metrics.

        `init`: a warm start; its trees are kept and at most `warm_trees` are added, unless that
        passes `max_trees`: then the training is cold. `checkpoint`: where a killed training goes on from,
        chunk by chunk. Raises DataError without a click.
        """
        config = config or RankerConfig(chunk=CHUNK)
        strange = int(np.count_nonzero(~np.isin(rows.labels, range(len(GAINS)))))
        if strange:
            raise DataError(
                f"{strange} of {len(rows.labels)} labels are no grade from 0 to {len(GAINS) - 1} (NaN?); "
                "correct the reactions that they come from"
            )
        clicked = rows.clicked()
        if not clicked.any():
            raise DataError(
                f"no clicks among {len(rows.groups)} requests in the window; "
                "a ranker needs some: widen the window or wait for traffic"
            )
        rows = rows.take(clicked)
        examination = Examination.fit(places(rows.positions, rows.groups), rows.labels > 0, rows.propensity)
        held = in_fraction(rows.session_ids, config.valid_share, salt="ranker-valid")
        train, valid = train_and_valid(held)
        warm = init is not None and init.trees > 0 and init.trees + config.warm_trees <= config.max_trees
        before = Trees(init._model, init.trees) if warm and init is not None else None
        task = Task(rows, examination, config)
        trees, gain = grow(task, train, valid, before=before, seed=seed, checkpoint=checkpoint)
        probe = _probe(rows.features, seed)
        ranker = cls(trees.text, probe, trees=trees.count, examination=examination)
        metrics = {
            "trees": float(trees.count),
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
        if self._compiled is not None:
            return self._compiled.predict(features)
        scores: NDArray[np.float64] = self._booster.predict(
            features.astype(np.float64), raw_score=True, num_threads=1
        )
        return scores

    def contributions(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Each feature's exact share of each score (TreeSHAP): float64 [n, F + 1], the last the bias."""
        shares: NDArray[np.float64] = self._booster.predict(features.astype(np.float64), pred_contrib=True)
        return shares

    def logged_ndcg10(
        self, rows: TrainingRows, *, examination: Examination | None = None, ties: int | None = None
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
        scores = self.predict(rows.features)
        if ties is not None:
            chance = np.random.default_rng(ties).random(len(scores))
            order = np.lexsort((chance, scores))
            scores = np.empty(len(order))
            scores[order] = np.arange(len(order))
        found = grouped_dcg(scores, gains, rows.groups) / ideal[some].mean()
        return float(found[some].mean()), np.where(some, found, np.nan)

    def save(self, folder: Path) -> None:
        """Write the model's text, what compiled code goes through instead, and scores to hold both to."""
        folder.mkdir(parents=True, exist_ok=True)
        model = self._model
        (folder / _TEXT).write_bytes(model.encode())
        expected = self._booster.predict(self._probe.astype(np.float64), raw_score=True, num_threads=1)
        np.save(folder / _PROBE, self._probe)
        np.save(folder / _EXPECTED, expected)
        about = {"feature_schema": FEATURE_SCHEMA, "features": FEATURES, "trees": self.trees}
        about["examination_rate"] = self.examination.rate
        compiled = compile_trees(model)
        if compiled is not None:
            about["tables"] = {
                "of": sha256_file(folder / _TEXT),
                "width": compiled.width,
                **write_tables(folder / _TABLES, compiled.tables),
            }
        (folder / _ABOUT).write_text(json.dumps(about))

    @classmethod
    def load(cls, folder: Path) -> Ranker:
        """Map a ranker, if its trees give the very scores that they gave.

        Tables that are not of its text, or were written by other code, are made anew from the text. Raises
        DataError where it was trained on other features, or gives other scores than it did.
        """
        about = json.loads((folder / _ABOUT).read_text())
        if about["feature_schema"] != FEATURE_SCHEMA:
            raise DataError(
                f"the ranker in {folder} was trained on feature schema {about['feature_schema']}, "
                f"expected {FEATURE_SCHEMA}; retrain it with `shelflife refresh --component ranker`"
            )
        probe = mapped(folder / _PROBE)
        expected = mapped(folder / _EXPECTED)
        compiled = _mapped_trees(folder, about.get("tables"))
        text = mapped_bytes(folder / _TEXT)
        if compiled is None or not _agree(_walked(compiled, probe), expected):
            compiled = compile_trees(text.tobytes().decode())
        walked = expected if compiled is None else _walked(compiled, probe)
        if not (np.isfinite(expected).all() and np.isfinite(walked).all()):  # LightGBM may abort on such
            raise DataError(f"the ranker in {folder} gives scores that are not numbers; train it again")
        if not _agree(walked, expected):
            compiled = None
        examination = Examination(float(about.get("examination_rate", PRIOR_RATE)))
        ranker = cls(text, probe, trees=about["trees"], examination=examination, compiled=compiled)
        if compiled is None and not _agree(ranker.predict(probe), expected):
            raise DataError(
                f"the ranker in {folder} does not give the scores that it gave when it was trained"
            )
        return ranker


def _mapped_trees(folder: Path, about: dict[str, Any] | None) -> CompiledTrees | None:
    """The trees of the folder's tables; None where there are none, or they were made of another text."""
    if about is None or about["of"] != sha256_file(folder / _TEXT):
        return None
    tables = map_tables(folder / _TABLES, about, width=about["width"])
    return None if tables is None else CompiledTrees(tables, about["width"])


def _walked(trees: CompiledTrees, probe: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scores of mapped rows, which are copied a few at a time: compiled code is made for a process' own."""
    parts = range(0, len(probe), _AT_A_TIME)
    return np.concatenate([trees.predict(np.array(probe[i : i + _AT_A_TIME])) for i in parts])


def _agree(scores: NDArray[np.float64], expected: NDArray[np.float64]) -> bool:
    return bool(np.isfinite(scores).all() and np.allclose(scores, expected, rtol=0, atol=_PARITY))


def _probe(features: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    pick = np.random.default_rng(seed).choice(len(features), min(_PROBES, len(features)), replace=False)
    return features[np.sort(pick)]
