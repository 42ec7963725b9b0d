"""Text classifier and encoder under study: what they read, what they change, and that their age matters."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flows.studies.cells.cell import Cell, CellStore, recheck
from flows.studies.cells.encoder import EncoderScorer
from flows.studies.cells.learner import Fit
from flows.studies.cells.learners import learner_of, refusal, stages_of
from flows.studies.cells.reference import SeenScorer
from flows.studies.cells.text_classifier import TextClassifierScorer
from flows.studies.cells.token_models import packed, unpacked
from flows.studies.cells.words import Scorer, Words, wordless
from flows.studies.cells.workers import run_cells
from flows.studies.panels.panel import Panel
from infra.clock import DAY_US, HOUR_US
from infra.errors import DataError
from models.encoder import Encoder
from tests.unit.flows.studies.panels import synthetic_panel
from tests.unit.flows.studies.worded import NAMES, worded_panel

pytestmark = pytest.mark.slow  # trains some dozens of small models

WINDOW_US = 2 * DAY_US
SCORERS = (TextClassifierScorer(), EncoderScorer())


class Ready:
    """A panel on disk whose fresh models are trained."""

    def __init__(self, panel: Panel, root: Path, *, rankers: bool = True) -> None:
        self.panel, self.folder, self.store = panel, root / panel.key, CellStore(root / "cells")
        panel.save(self.folder)
        stages = stages_of(self.of("encoder"), panel)
        for learner, cells in stages if rankers else stages[:-1]:
            run_cells(self.folder, learner, cells, self.store, panel=panel)

    def of(self, component: str) -> SeenScorer:
        found = learner_of(component, self.store.folder, window_us=WINDOW_US)
        assert isinstance(found, SeenScorer)
        return found

    def mean(self, component: str, age_us: int) -> float:
        """NDCG@10 over the slices by models of that age."""
        learner, found = self.of(component), []
        for k, part in enumerate(self.panel.slices):
            model = learner.fit(self.panel, Fit(part.start_us - age_us, window_us=WINDOW_US)).model
            found.append(learner.score(self.panel, model, k).mean())
        return float(np.mean(found))


@pytest.fixture(scope="module")
def drifting(tmp_path_factory: pytest.TempPathFactory) -> Ready:
    return Ready(worded_panel(), tmp_path_factory.mktemp("drifting"))


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Ready:
    return Ready(worded_panel(half_life_d=None), tmp_path_factory.mktemp("still"))


@pytest.mark.parametrize("component", ["text_classifier", "encoder"])
def test_where_words_change_their_meaning_a_model_ages(component: str, drifting: Ready) -> None:
    young, old = (drifting.mean(component, age) for age in (HOUR_US, 3 * DAY_US))
    assert young > old + 0.03


@pytest.mark.parametrize("component", ["text_classifier", "encoder"])
def test_where_nothing_changes_age_does_not_matter(component: str, still: Ready) -> None:
    young, old = (still.mean(component, age) for age in (HOUR_US, 2 * DAY_US))
    assert abs(young - old) < 0.03
    assert young > 0.75  # what words mean is known, and the ranker goes by it


@pytest.mark.parametrize("component", ["text_classifier", "encoder"])
@pytest.mark.parametrize("frozen", [False, True])
def test_one_component_is_stale_and_nothing_else(component: str, frozen: bool, drifting: Ready) -> None:
    panel, learner = drifting.panel, drifting.of(component)
    model = learner.fit(panel, Fit(panel.horizon_us, window_us=WINDOW_US)).model
    fresh = learner.reference.slice(panel, 1, frozen=frozen)
    stale = learner.features(panel, model, 1, frozen=frozen)
    own = [n in learner.scorer.columns for n in NAMES]
    changed = [not np.array_equal(fresh[:, c], stale[:, c], equal_nan=True) for c in range(len(NAMES))]
    assert changed == own
    given = panel.slices[1].frozen if frozen else panel.slices[1].fresh
    np.testing.assert_array_equal(stale[:, NAMES.index("luck")], given[:, NAMES.index("luck")])
    assert (fresh[:, NAMES.index("category_prob")] != 0).any()


def test_every_age_is_seen_through_the_same_ranker(drifting: Ready) -> None:
    """Of each slice there is one, and no model of the ladder is what it got used to."""
    panel, learner = drifting.panel, drifting.of("encoder")
    *_, (last, cells) = stages_of(learner, panel)
    assert last.name == "reference_ranker"
    assert sorted(c.trained_us for c in cells) == [s.start_us for s in panel.slices]
    at = int(learner.reference.times(panel)[-1])
    studied = learner.fit(panel, Fit(at, window_us=WINDOW_US)).model
    beside = learner.reference._newest(panel, learner.scorer, panel.end_us)
    assert studied != beside


def test_the_ranker_learns_from_what_fresh_scorers_said_before(drifting: Ready, tmp_path: Path) -> None:
    """What is clicked later changes no row."""
    panel, until = drifting.panel, drifting.panel.horizon_us
    click_text = np.array(panel.extra["click_text"])
    later = panel.extra["click_us"] >= until
    click_text[later] = click_text[later][::-1]
    other = Ready(
        replace(panel, key="another", extra={**panel.extra, "click_text": click_text}),
        tmp_path,
        rankers=False,
    )
    a, b = (r.of("encoder").reference.rows(r.panel).rows.features for r in (drifting, other))
    before = np.repeat(panel.rows.time_us < until, panel.rows.groups)
    np.testing.assert_array_equal(a[before], b[before])
    assert not np.array_equal(a[~before], b[~before], equal_nan=True)
    assert not np.array_equal(a, panel.rows.features, equal_nan=True)


@pytest.mark.parametrize("scorer", SCORERS, ids=lambda s: s.name)
def test_a_training_reads_its_window_and_fraction_alone(scorer: Scorer) -> None:
    panel = worded_panel(days=5, slices=1)
    fit = Fit(panel.horizon_us, 0.5, WINDOW_US)
    whole = scorer.fit(Words(panel), fit)
    words = Words(panel)
    kept = words.clicks(fit, newest=10**9)
    assert 0 < len(kept.text) < 0.6 * len(words.clicks(replace(fit, fraction=1.0), newest=10**9).text)
    us, text = panel.extra["click_us"], np.array(panel.extra["click_text"])
    outside = (us >= fit.trained_us) | (us < fit.trained_us - WINDOW_US)
    text[outside] = text[outside][::-1]
    moved = replace(panel, extra={**panel.extra, "click_text": text})
    assert scorer.fit(Words(moved), fit).model == whole.model
    assert scorer.fit(Words(panel), replace(fit, fraction=1.0)).model != whole.model
    assert scorer.fit(Words(panel), replace(fit, seed=8)).model != whole.model


@pytest.mark.parametrize("scorer", SCORERS, ids=lambda s: s.name)
def test_a_warm_start_goes_on_from_its_parent(scorer: Scorer) -> None:
    panel = worded_panel(days=5, slices=1)
    words = Words(panel)
    parent = scorer.fit(words, Fit(panel.horizon_us - DAY_US, window_us=WINDOW_US)).model
    fit = Fit(panel.horizon_us, window_us=WINDOW_US)
    cold, warm = scorer.fit(words, fit).model, scorer.fit(words, fit, parent=parent).model
    assert warm not in (cold, parent)


def test_an_item_says_what_it_said_then() -> None:
    panel = worded_panel(days=5, slices=1)
    more = {k: np.array(v) for k, v in panel.extra.items()}
    for name, value in (("word_item", 0), ("word_us", panel.horizon_us), ("word_title", 1)):
        more[name] = np.insert(more[name], 1, value)
    for name in ("word_text", "word_category"):
        more[name] = np.insert(more[name], 1, more[name][0])
    words = Words(replace(panel, extra=more))
    before, after = (words.said("title", panel.horizon_us + d) for d in (-1, 0))
    assert before[0] == panel.extra["word_title"][0]
    assert after[0] == 1
    np.testing.assert_array_equal(before[1:], after[1:])


def test_models_survive_as_bytes_and_are_small() -> None:
    texts = [f"alpha{i % 7} beta{i % 3}" for i in range(200)]
    model = Encoder.fit(texts, texts[::-1], np.ones(len(texts)), seed=5)
    held = packed(model.table.rows, 5, {"query_tower": model.query_tower}, {"n": 1})
    rows, arrays, about = unpacked(held)
    np.testing.assert_array_equal(rows, model.table.rows)
    np.testing.assert_array_equal(arrays["query_tower"], model.query_tower)
    assert about["n"] == 1
    assert len(held) < model.table.rows.nbytes / 10
    np.testing.assert_array_equal(unpacked(packed(model.table.rows, 6, {}, {}))[0], model.table.rows)


def test_a_cell_trained_again_scores_the_same_in_another_process_too(drifting: Ready) -> None:
    learner = drifting.of("text_classifier")
    cell = Cell(learner.name, drifting.panel.horizon_us, 0.5, WINDOW_US)
    wanted = {cell: [(0, False), (1, True)]}
    found = run_cells(drifting.folder, learner, wanted, drifting.store, panel=drifting.panel)
    again = pickle.loads(pickle.dumps(learner))
    assert again.key == learner.key
    (checked,) = recheck(Panel.load(drifting.folder), again, drifting.store, {cell: found[cell]})
    assert checked.same


def test_without_words_there_is_nothing_to_study() -> None:
    plain, worded = synthetic_panel(days=7, slices=2), worded_panel(days=5, slices=1)
    assert "no searches" in wordless(plain)
    assert refusal("ranker", plain) == "" == refusal("text_classifier", worded)
    category = np.full_like(worded.extra["word_category"], worded.extra["word_category"][0])
    alike = replace(worded, extra={**worded.extra, "word_category": category})
    assert "1 categories" in refusal("text_classifier", alike)
    assert refusal("encoder", alike) == ""
    silent = replace(worded, extra={**worded.extra, "click_us": np.empty(0, np.int64)})
    assert "nobody clicked" in refusal("encoder", silent)
    early = Fit(worded.first_us - 2 * DAY_US, window_us=WINDOW_US)
    for scorer in SCORERS:
        with pytest.raises(DataError, match="needs some"):
            scorer.fit(Words(worded), early)
