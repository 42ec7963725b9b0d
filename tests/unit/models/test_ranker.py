"""The ranker learns what there is to learn, nothing else; compiled equals interpreted."""

from __future__ import annotations

import shutil
import tracemalloc
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from infra.errors import DataError
from models.candidate_features import FEATURES
from models.examination import Examination
from models.metrics import bootstrap_mean
from models.ranker import Ranker, RankerConfig
from models.training_rows import TrainingRows

CONFIG = RankerConfig(max_trees=40, warm_trees=10)
SIGNAL = FEATURES.index("relative_price")
BRAND = FEATURES.index("brand")


def rows(seed: int, groups: int = 800, *, signal: bool = True, ranked_by: int | None = None) -> TrainingRows:
    """Ten candidates a request; clicks follow a price and a brand (or nothing).

    `ranked_by`: a feature that ordered the page; shoppers then look at place p with 1 / (1 + 0.3 p), and
    the third and the eighth place are randomised.
    """
    rng = np.random.default_rng(seed)
    n = groups * 10
    x = rng.normal(size=(n, len(FEATURES))).astype(np.float32)
    x[:, BRAND] = rng.integers(1, 40, n)
    x[rng.random(x.shape) < 0.05] = np.nan
    utility = np.nan_to_num(x[:, SIGNAL]) * 1.5 + (x[:, BRAND] % 3 == 0) * 1.5 if signal else np.zeros(n)
    chance = 1 / (1 + np.exp(2.5 - utility))
    propensity = np.full(n, np.nan, np.float32)
    if ranked_by is not None:
        place = np.tile(np.arange(10), groups)
        fixed = np.flatnonzero(~np.isin(place, (2, 7)))
        x[fixed] = x[fixed[np.lexsort((-np.nan_to_num(x[fixed, ranked_by]), fixed // 10))]]
        chance = (chance if signal else np.full(n, 0.3)) / (1 + 0.3 * place)
        propensity[np.isin(place, (2, 7))] = 0.01
    clicked = rng.random(n) < chance
    ids = np.arange(groups)
    return TrainingRows(
        x, clicked.astype(np.int8), np.tile(np.arange(10, dtype=np.int16), groups),
        np.full(groups, 10, np.int32), ids, ids % 50, ids, ids * 1_000_000, propensity,
    )  # fmt: skip


def test_it_beats_chance_on_new_requests() -> None:
    ranker, metrics = Ranker.fit(rows(1), seed=3, config=CONFIG)
    new = rows(2)
    learned, _ = ranker.logged_ndcg10(new)
    blind, _ = Ranker.fit(rows(1, signal=False), seed=3, config=CONFIG)[0].logged_ndcg10(new)
    assert learned > blind + 0.1
    assert metrics["trees"] >= 5


@pytest.mark.parametrize("seed", range(6))
def test_clicks_that_follow_the_place_alone_teach_nothing(seed: int) -> None:
    page = rows(seed, 1_500, signal=False, ranked_by=SIGNAL)
    ranker, metrics = Ranker.fit(page, seed=seed, config=CONFIG)
    assert metrics["trees"] == 0
    scores = ranker.predict(page.features)
    assert (scores == scores[0]).all()


def test_without_the_offset_the_place_would_pass_for_worth() -> None:
    page = rows(1, 8_000, signal=False, ranked_by=SIGNAL)
    flat = replace(page, positions=np.zeros_like(page.positions))
    assert Ranker.fit(flat, seed=1, config=CONFIG)[1]["trees"] > 0


def test_the_fall_of_attention_is_read_off_randomised_slots() -> None:
    page = rows(3, 20_000, signal=False, ranked_by=SIGNAL)
    place = page.positions.astype(np.int64)
    found = Examination.fit(place, page.labels > 0, page.propensity)
    assert 0.25 < found.rate < 0.36
    blind = Examination.fit(place, page.labels > 0, np.full_like(page.propensity, np.nan))
    assert blind.rate == pytest.approx(Examination().rate, rel=0.02)


def test_who_made_the_page_has_no_advantage_on_its_clicks() -> None:
    page = rows(4, 8_000, signal=False, ranked_by=SIGNAL)
    flat = replace(page, positions=np.zeros_like(page.positions))
    upside_down = np.where(np.arange(len(FEATURES)) == SIGNAL, -1, 1).astype(np.float32)
    maker, _ = Ranker.fit(rows(5), seed=1, config=CONFIG)
    other, _ = Ranker.fit(replace(rows(5), features=rows(5).features * upside_down), seed=1, config=CONFIG)
    true = Examination(0.3)
    ours, theirs = (r.logged_ndcg10(page, examination=true)[1] for r in (maker, other))
    difference = bootstrap_mean(ours - theirs)
    assert difference.low < 0 < difference.high
    naive = bootstrap_mean(maker.logged_ndcg10(flat)[1] - other.logged_ndcg10(flat)[1])
    assert naive.low > 0


def test_recent_requests_count_for_more() -> None:
    old, new = rows(1, 600), rows(2, 600)
    turned = replace(new, features=new.features * np.where(np.arange(len(FEATURES)) == SIGNAL, -1, 1))
    both = TrainingRows(
        *(np.concatenate([getattr(old, f.name), getattr(turned, f.name)]) for f in fields(old))
    )
    days = np.repeat([0, 10], 600) * 86_400_000_000
    both = replace(both, time_us=days, session_ids=np.arange(1_200))
    even, _ = Ranker.fit(both, seed=1, config=CONFIG)
    recent, _ = Ranker.fit(both, seed=1, config=replace(CONFIG, half_life_d=2.0))
    assert recent.logged_ndcg10(turned)[0] > even.logged_ndcg10(turned)[0] + 0.02


def test_the_same_seed_gives_the_same_trees() -> None:
    a, b = (Ranker.fit(rows(1), seed=3, config=CONFIG)[0] for _ in range(2))
    x = rows(5).features
    np.testing.assert_array_equal(a.predict(x), b.predict(x))


def test_saved_and_loaded_scores_are_identical(tmp_path: Path) -> None:
    ranker, _ = Ranker.fit(rows(1), seed=3, config=CONFIG)
    ranker.save(tmp_path)
    np.testing.assert_array_equal(
        Ranker.load(tmp_path).predict(rows(5).features), ranker.predict(rows(5).features)
    )


def test_a_loaded_ranker_is_compiled_and_one_that_scores_otherwise_is_refused(tmp_path: Path) -> None:
    ranker, _ = Ranker.fit(rows(1), seed=3, config=CONFIG)
    other, _ = Ranker.fit(rows(9), seed=4, config=CONFIG)
    ranker.save(tmp_path / "a")
    other.save(tmp_path / "b")
    compiled = Ranker.load(tmp_path / "a")
    assert compiled.is_compiled
    assert not ranker.is_compiled
    x = rows(5).features
    np.testing.assert_array_equal(compiled.predict(x), ranker.predict(x))
    (tmp_path / "b" / "ranker.txt").write_bytes((tmp_path / "a" / "ranker.txt").read_bytes())
    with pytest.raises(DataError, match="does not give the scores"):
        Ranker.load(tmp_path / "b")


def test_a_warm_start_adds_trees_up_to_the_cap() -> None:
    cold, _ = Ranker.fit(rows(1), seed=3, config=RankerConfig(max_trees=12))
    warm, metrics = Ranker.fit(rows(2), seed=3, init=cold, config=RankerConfig(max_trees=40, warm_trees=10))
    assert metrics["warm"] == 1
    assert cold.trees < warm.trees <= cold.trees + 10
    full = RankerConfig(max_trees=warm.trees + 5, warm_trees=10)
    _, again = Ranker.fit(rows(3), seed=3, init=warm, config=full)
    assert again["warm"] == 0


def test_a_window_without_clicks_is_refused() -> None:
    quiet = rows(1)
    quiet.labels[:] = 0
    with pytest.raises(DataError, match="no clicks"):
        Ranker.fit(quiet, seed=1)


def test_tampered_trees_are_refused(tmp_path: Path) -> None:
    Ranker.fit(rows(1), seed=3, config=CONFIG)[0].save(tmp_path)
    model = tmp_path / "ranker.txt"
    lines = model.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("leaf_value="))
    values = lines[at].removeprefix("leaf_value=").split()
    lines[at] = "leaf_value=" + " ".join(reversed(values))
    model.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match="does not give the scores"):
        Ranker.load(tmp_path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved ranker; tests work on copies."""
    folder = tmp_path_factory.mktemp("ranker")
    Ranker.fit(rows(1), seed=3, config=CONFIG)[0].save(folder)
    return folder


def test_mapped_trees_score_as_those_of_the_text(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    mapped = Ranker.load(tmp_path)
    (tmp_path / "tables.bin").unlink()  # as in releases made before there were any
    parsed = Ranker.load(tmp_path)
    assert mapped.is_compiled
    assert parsed.is_compiled
    x = rows(5).features
    np.testing.assert_array_equal(mapped.predict(x), parsed.predict(x))
    mapped.save(tmp_path / "again")
    assert {p.name: p.read_bytes() for p in (tmp_path / "again").iterdir()} == {
        p.name: p.read_bytes() for p in saved.iterdir()
    }


def test_trees_too_large_for_tables_are_interpreted(tmp_path: Path) -> None:
    config = replace(CONFIG, max_trees=8, num_leaves=40, min_data_in_leaf=5)
    ranker, _ = Ranker.fit(rows(1), seed=3, config=config)
    ranker.save(tmp_path)
    assert not (tmp_path / "tables.bin").exists()
    loaded, x = Ranker.load(tmp_path), rows(5).features
    assert not loaded.is_compiled
    np.testing.assert_array_equal(loaded.predict(x), ranker.predict(x))


def test_a_loaded_ranker_outlives_its_folder(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "a")
    ranker, x = Ranker.load(tmp_path / "a"), rows(5).features[:50]
    shutil.rmtree(tmp_path / "a")
    np.testing.assert_allclose(ranker.contributions(x).sum(axis=1), ranker.predict(x), rtol=0, atol=1e-9)


def test_tables_of_another_text_or_with_other_scores_are_made_anew(saved: Path, tmp_path: Path) -> None:
    x = rows(5).features
    expected = Ranker.load(saved).predict(x)
    for name, change in (("ranker.txt", b"\n"), ("tables.bin", None)):
        folder = tmp_path / name
        shutil.copytree(saved, folder)
        data = (folder / name).read_bytes()
        # A line more in the text; another word in place of each in the tables, within all bounds.
        (folder / name).write_bytes(data + change if change else data.replace(data[-64:], bytes(64)))
        ranker = Ranker.load(folder)
        assert ranker.is_compiled
        np.testing.assert_array_equal(ranker.predict(x), expected)


def test_a_loaded_ranker_is_next_to_none_of_the_process_own_memory(saved: Path) -> None:
    Ranker.load(saved)  # compiled code, modules
    size = sum(path.stat().st_size for path in saved.iterdir())
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        ranker = Ranker.load(saved)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ranker.is_compiled
    assert kept - before < 0.2 * size
    assert peak - before < 1.1 * size
