"""What stays fresh while one scorer ages: the other scorers, and the ranker that orders each slice.

Scorers are retrained at every step of a grid on all data. The ranker's rows carry what the scorers said that
were the newest as each row was shown, so that it trusts a fresh scorer as far as it deserves; trained on
rows of days that its scorers know, it would trust them too far, and a shop without drift would seem to age.
There is one ranker a slice, trained as the slice begins, for every age. The scorers have a seed of their
own: no model under study is the one that the ranker got used to. Models are cells, kept like all others.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.studies.cells.cell import Cell, CellStore, cell_key
from flows.studies.cells.learner import Fit, Fitted, Learner
from flows.studies.cells.ranker import RankerLearner
from flows.studies.cells.words import Asked, Scorer, Words
from flows.studies.panels.panel import Panel
from infra.clock import DAY_US, HOUR_US
from infra.errors import DataError

__all__ = ["Reference", "ReferenceRanker", "SeenScorer"]

_VERSION = 1  # raise when equal cells would no longer mean equal references
_SEED = 1_000_003
_STEPS_US = (*(HOUR_US * h for h in (3, 6, 12)), *(DAY_US * d for d in (1, 2, 4, 7, 14, 28, 56, 112)))
_MOST_STEPS = 24
_KEPT = 8  # slices whose features are held in memory


class Reference:
    """Fresh scorers and rankers of a panel, read from the store that `stages` filled."""

    def __init__(self, scorers: Sequence[Scorer], store: Path, *, window_us: int | None) -> None:
        """`store`: the folder of cells; `window_us`: what every training reads."""
        self.scorers = tuple(scorers)
        self.store = store
        self.window_us = window_us
        self._forget()

    @property
    def key(self) -> str:
        """Hash of all that makes it: equal keys, equal references."""
        made_of = (_VERSION, _SEED, _STEPS_US, _MOST_STEPS, self.window_us, RankerLearner().key)
        told = repr((made_of, [s.key for s in self.scorers]))
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def __getstate__(self) -> dict[str, Any]:
        return {"scorers": self.scorers, "store": self.store, "window_us": self.window_us}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._words: Words | None = None
        self._panel: tuple[str, Panel] | None = None
        self._features: dict[tuple[str, int, bool], NDArray[np.float32]] = {}

    def stages(self, panel: Panel) -> list[tuple[Learner, dict[Cell, list[tuple[int, bool]]]]]:
        """What has to be trained before a slice is scored, in order, as `run_cells` takes it."""
        found: list[tuple[Learner, dict[Cell, list[tuple[int, bool]]]]] = []
        for scorer in self.scorers:
            cells = [self._scorer_cell(scorer, at) for at in self.times(panel).tolist()]
            found.append((SeenScorer(scorer, self), {c: [] for c in cells}))
        rankers: dict[Cell, list[tuple[int, bool]]] = {
            self._ranker_cell(panel, k): [] for k in range(len(panel.slices))
        }
        found.append((ReferenceRanker(self), rankers))
        return found

    def times(self, panel: Panel) -> NDArray[np.int64]:
        """When the fresh scorers are trained: int64 [t], rising, a step apart; one is the horizon's start."""
        last = max((s.start_us for s in panel.slices), default=panel.horizon_us)
        first = min((s.start_us for s in panel.slices), default=panel.horizon_us)
        since = panel.first_us if self.window_us is None else max(panel.first_us, first - self.window_us)
        step = next((s for s in _STEPS_US if (last - since) / s <= _MOST_STEPS), _STEPS_US[-1])
        begin = -max(0, (panel.horizon_us - since) // step)
        return panel.horizon_us + step * np.arange(begin, (last - panel.horizon_us) // step + 1)

    def words(self, panel: Panel) -> Words:
        """The panel's words, decoded once."""
        if self._words is None or self._words.key != panel.key:
            self._words = Words(panel)
        return self._words

    def slice(self, panel: Panel, at: int, *, frozen: bool) -> NDArray[np.float32]:
        """Features of slice `at` by scorers as fresh as they are at its start: float32 [n, F]; not to change.

        `frozen`: by the state of the horizon's start, the scorers fresh all the same.
        """
        key = (panel.key, at, frozen)
        if key not in self._features:
            part = panel.slices[at]
            out = np.array(part.frozen if frozen else part.fresh)
            asked = Asked.of_slice(part, at_us=panel.horizon_us if frozen else part.start_us, frozen=frozen)
            self._rewrite(panel, part.start_us, asked, out)
            while len(self._features) >= _KEPT:
                del self._features[next(iter(self._features))]
            self._features[key] = out
        return self._features[key]

    def ranker(self, panel: Panel, at: int) -> bytes:
        """The ranker of slice `at`; empty where there was nothing to learn from."""
        return self._model(panel, ReferenceRanker(self), self._ranker_cell(panel, at))

    def rows(self, panel: Panel) -> Panel:
        """The panel with rows as the newest scorers saw them; before the first of these as they were."""
        if self._panel is None or self._panel[0] != panel.key:
            out = np.array(panel.rows.features)
            times = self.times(panel)
            newest = np.searchsorted(times, panel.rows.time_us, side="right") - 1
            for j in np.unique(newest[newest >= 0]).tolist():
                groups = newest == j
                at = np.repeat(groups, panel.rows.groups)
                part = out[at]
                self._rewrite(panel, int(times[j]), Asked.of_rows(panel, groups, at_us=int(times[j])), part)
                out[at] = part
            rows = replace(panel.rows, features=out)
            self._panel = panel.key, replace(panel, rows=rows, key=f"{panel.key}-{self.key}", slices=())
        return self._panel[1]

    def _rewrite(self, panel: Panel, by_us: int, asked: Asked, out: NDArray[np.float32]) -> None:
        """Put what each scorer said that was the newest by a time into `out` float32 [n, F]."""
        for scorer in self.scorers:
            model = self._newest(panel, scorer, by_us)
            if model:
                self.put(panel, scorer, model, asked, out)

    def put(self, panel: Panel, scorer: Scorer, model: bytes, asked: Asked, out: NDArray[np.float32]) -> None:
        """Put what a scorer's model says into its columns of `out` float32 [n, F]."""
        columns = [panel.names.index(name) for name in scorer.columns]
        own = out[:, columns]
        scorer.rewrite(self.words(panel), model, asked, own)
        out[:, columns] = own

    def _newest(self, panel: Panel, scorer: Scorer, by_us: int) -> bytes:
        times = self.times(panel)
        learner = SeenScorer(scorer, self)
        for at in times[times <= by_us][::-1].tolist():
            model = self._model(panel, learner, self._scorer_cell(scorer, at))
            if model:
                return model
        return b""

    def _scorer_cell(self, scorer: Scorer, trained_us: int) -> Cell:
        return Cell(scorer.name, trained_us, 1.0, self.window_us, seed=_SEED)

    def _ranker_cell(self, panel: Panel, at: int) -> Cell:
        return Cell(ReferenceRanker.name, panel.slices[at].start_us, 1.0, self.window_us, seed=_SEED)

    def _model(self, panel: Panel, learner: Learner, cell: Cell) -> bytes:
        store = CellStore(self.store)
        model = store.model(cell_key(panel, learner, cell))
        if model is None:
            raise DataError(f"the model of {cell} is gone from {self.store}; run the study again")
        return model


class ReferenceRanker:
    """Implements `flows.studies.cells.learner.Learner`: the ranker of rows that fresh scorers saw."""

    name = "reference_ranker"

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self._own = RankerLearner()

    @property
    def key(self) -> str:
        """The reference's."""
        return f"{self.name}-{self.reference.key}"

    def fit(self, panel: Panel, fit: Fit, *, parent: bytes | None = None) -> Fitted:
        """Train. What all trainings share is among the metrics of the one that did it, as `shared_cpu_s`."""
        began = time.process_time()
        seen = self.reference.rows(panel)
        shared = time.process_time() - began
        made = self._own.fit(seen, fit, parent=parent)
        spent = made.metrics.get("shared_cpu_s", 0.0) + shared
        return replace(made, metrics={**made.metrics, "shared_cpu_s": spent})

    def score(self, panel: Panel, model: bytes, at: int, *, frozen: bool = False) -> NDArray[np.float64]:
        """NDCG@10 of each query of slice `at`, with fresh scorers: float64 [g]."""
        return panel.slices[at].ndcg(self.candidates(panel, model, at, frozen=frozen))

    def candidates(self, panel: Panel, model: bytes, at: int, *, frozen: bool = False) -> NDArray[np.float64]:
        """The score of each candidate of slice `at`, with fresh scorers: float64 [n]."""
        return self.order(panel, model, at, self.reference.slice(panel, at, frozen=frozen), frozen=frozen)

    def order(
        self, panel: Panel, model: bytes, at: int, features: NDArray[np.float32], *, frozen: bool
    ) -> NDArray[np.float64]:
        """The score of each candidate by features float32 [n, F]; `frozen`: what was not known comes last."""
        scores = self._own.predict(model, features)
        return np.where(panel.slices[at].known, scores, -np.inf) if frozen else scores


class SeenScorer:
    """Implements `flows.studies.cells.learner.Learner`: one scorer, seen through the reference's ranker."""

    def __init__(self, scorer: Scorer, reference: Reference) -> None:
        self.scorer = scorer
        self.reference = reference
        self._ranker = ReferenceRanker(reference)

    @property
    def name(self) -> str:
        """The component."""
        return self.scorer.name

    @property
    def key(self) -> str:
        """Hash of the scorer and of what it is seen through."""
        return hashlib.sha256(repr((self.scorer.key, self.reference.key)).encode()).hexdigest()[:16]

    def fit(self, panel: Panel, fit: Fit, *, parent: bytes | None = None) -> Fitted:
        """Train the scorer. Raises DataError where there is nothing to learn."""
        words = self.reference.words(panel)
        return self.scorer.fit(words, fit, parent=parent)

    def score(self, panel: Panel, model: bytes, at: int, *, frozen: bool = False) -> NDArray[np.float64]:
        """NDCG@10 of each query of slice `at`: float64 [g]; NaN where there is no ranker to order it.

        `frozen`: by the state of the horizon's start; the ranker is the same.
        """
        part = panel.slices[at]
        ranker = self.reference.ranker(panel, at)
        if not ranker:
            return np.full(len(part.groups), np.nan)
        features = self.features(panel, model, at, frozen=frozen)
        return part.ndcg(self._ranker.order(panel, ranker, at, features, frozen=frozen))

    def candidates(self, panel: Panel, model: bytes, at: int, *, frozen: bool = False) -> NDArray[np.float64]:
        """The score of each candidate of slice `at`: float64 [n]. DataError where there is no ranker."""
        ranker = self.reference.ranker(panel, at)
        if not ranker:
            raise DataError(f"no click in the window before slice {at} of {panel.source}; expected some")
        features = self.features(panel, model, at, frozen=frozen)
        return self._ranker.order(panel, ranker, at, features, frozen=frozen)

    def features(self, panel: Panel, model: bytes, at: int, *, frozen: bool = False) -> NDArray[np.float32]:
        """Features of slice `at`, float32 [n, F]: all fresh, but the scorer's own columns are `model`'s."""
        part = panel.slices[at]
        out = self.reference.slice(panel, at, frozen=frozen).copy()
        asked = Asked.of_slice(part, at_us=panel.horizon_us if frozen else part.start_us, frozen=frozen)
        self.reference.put(panel, self.scorer, model, asked, out)
        return out
