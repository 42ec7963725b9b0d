"""More data: the fitted law is recovered, intervals hold what they should, the report tells no gain "
"of chance."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.report.words import num, signed
from flows.studies.cells.asks import VolumeAsk, volume_ask
from flows.studies.volume import study as volume
from flows.studies.volume.fit import (
    PowerLaw,
    diminishing,
    drawn_means,
    fit_power_law,
    gain_of_more,
    of_rounds,
)
from flows.studies.volume.record import PUBLISHED, VolumeRecord
from flows.studies.volume.report import answer, summary, verdict, write_report
from flows.studies.volume.study import Measured, curve_of, study_volume
from infra.errors import DataError
from infra.settings import Settings

FRACTIONS = (0.2, 0.4, 0.6, 0.8, 1.0)
SHARES = np.array(FRACTIONS)


def measured(quality: np.ndarray, *, cases: int = 2_000, seeds: int = 3, noise: float = 0.0) -> Measured:
    """Right or wrong answers with that mean quality, cases as hard for all fractions."""
    rng = np.random.default_rng(2)
    hard = rng.random(cases)
    level = quality[:, None] + noise * rng.normal(size=(len(quality), seeds))
    scores = (hard[None, None, :] < level[:, :, None]).astype(float)
    cpu_s = SHARES[:, None] * np.array([1.0, 1.1, 0.9])[:seeds]
    return Measured("accuracy", scores, np.arange(cases), cpu_s, (SHARES * 5_000).astype(np.int64), "A note.")


# The law


@settings(max_examples=40, deadline=None)
@given(st.floats(0.02, 0.5), st.floats(0.1, 2.5), st.floats(0, 0.4))
def test_a_power_law_is_recovered(a: float, b: float, c: float) -> None:
    error = a * SHARES**-b + c
    law = fit_power_law(SHARES, error)
    assert law is not None
    np.testing.assert_allclose(law.error(SHARES), error, atol=0.003 * float(error.max()))
    assert law.rms <= 0.003 * float(error.max())
    assert law.a >= 0
    assert law.c >= 0


def test_exponents_are_told_apart() -> None:
    found = [fit_power_law(SHARES, 0.1 * SHARES**-b + 0.05) for b in (0.3, 1.0, 2.0)]
    assert [round(law.b, 1) for law in found if law is not None] == [0.3, 1.0, 2.0]


def test_an_error_that_does_not_fall_has_no_gain() -> None:
    law = fit_power_law(SHARES, np.array([0.2, 0.2, 0.2, 0.2, 0.2]))
    assert law is not None
    assert gain_of_more(law, 1.0) == pytest.approx(0, abs=1e-9)
    assert diminishing(law, least=0.2, margin=0.001) == 0.2
    rising = fit_power_law(SHARES, SHARES)
    assert rising is not None
    assert rising.a == 0


def test_two_fractions_have_no_law() -> None:
    assert fit_power_law([0.5, 1], [0.2, 0.1]) is None
    assert fit_power_law(SHARES, [0.2, 0.1, np.nan, 0.1, 0.1]) is None


def test_diminishing_return_is_where_the_law_says() -> None:
    law = PowerLaw(0.1, 1.0, 0.0, 0.0)  # ten per cent more at n: 0.1/n·(1 − 1/1.1)
    at = diminishing(law, least=0.1, margin=0.02)
    assert at == pytest.approx(0.1 * (1 - 1 / 1.1) / 0.02, abs=0.003)
    assert diminishing(law, least=0.1, margin=0.005) is None


# Intervals


def test_means_and_draws_are_paired_over_fractions() -> None:
    found = measured(np.array([0.5, 0.55, 0.6, 0.65, 0.7]), noise=0.01)
    mean, draws = drawn_means(found.scores, found.clusters, rounds=400)
    np.testing.assert_allclose(mean, found.scores.mean((1, 2)))
    np.testing.assert_allclose(draws.mean(0), mean, atol=0.005)
    gap = of_rounds(mean[4] - mean[0], draws[:, 4] - draws[:, 0])
    alone = draws[:, 4].std() + draws[:, 0].std()
    assert 0 < gap.low < 0.2 < gap.high
    assert (gap.high - gap.low) / 3.9 < alone


def test_clusters_are_resampled_whole() -> None:
    scores = np.repeat((np.arange(20) % 2).astype(float), 50)[None, None, :]
    whole = drawn_means(scores, np.repeat(np.arange(20), 50), rounds=400)[1].std()
    single = drawn_means(scores, np.arange(1_000), rounds=400)[1].std()
    assert whole > 4 * single


def test_the_interval_of_the_mean_covers() -> None:
    rng = np.random.default_rng(8)
    hits = 0
    for _ in range(60):
        scores = (rng.random((1, 1, 200)) < 0.3).astype(float)
        mean, draws = drawn_means(scores, np.arange(200), rounds=200, seed=int(rng.integers(1 << 30)))
        i = of_rounds(mean[0], draws[:, 0])
        hits += i.low <= 0.3 <= i.high
    assert hits >= 50


# The curve and the record


def record_of(*qualities: np.ndarray) -> VolumeRecord:
    names = ("ranker", "image_classifier", "text_classifier")
    return VolumeRecord(
        question=volume.QUESTION,
        source="world",
        curves=tuple(
            curve_of(n, measured(q), FRACTIONS, margin=0.002, seed=1)
            for n, q in zip(names, qualities, strict=False)
        ),
        seed=1,
        seeds=3,
        margin=0.002,
        left_out={"text_classifier": "no <titles>"},
        train_cpu_s=9.5,
        wall_s=12.0,
        command=VolumeAsk(seed=1).command(),
    )


RISING = 1 - (0.1 * SHARES**-0.5 + 0.02)
FLAT = np.full(5, 0.7)


def test_steps_are_in_the_published_form() -> None:
    curve = record_of(RISING).curves[0]
    steps = {s.fraction: s for s in curve.steps}
    assert list(steps) == [0.2, 0.4, 0.6, 0.8]
    for f, step in steps.items():
        assert step.time_pct == pytest.approx(100 * (1 / f - 1))
        gained = 100 * (curve.points[-1].quality.mean - curve.points[FRACTIONS.index(f)].quality.mean)
        assert step.quality_points.mean == pytest.approx(gained)
        told = PUBLISHED.get(("ranker", f), (None, None))
        assert (step.published_time_pct, step.published_quality_pct) == told
    assert curve.law is not None
    assert curve.law.b_interval is not None
    np.testing.assert_allclose(1 - curve.law.error(SHARES), RISING, atol=0.02)


def test_published_figures_stand_beside_all_of_the_data_only() -> None:
    part = replace_last(measured(RISING))
    steps = curve_of("ranker", part, (0.2, 0.4, 0.6, 0.8), margin=0.002, seed=1).steps
    assert all(s.published_time_pct is None for s in steps)


def replace_last(found: Measured) -> Measured:
    return Measured(found.metric, found.scores[:4], found.clusters, found.cpu_s[:4], found.rows[:4])


def test_no_law_is_fitted_to_no_gain() -> None:
    record = record_of(FLAT)
    assert record.curves[0].law is None
    assert "not told from nothing" in answer(record)[0]
    assert verdict(record) == "More data brings nothing that can be shown."
    assert verdict(record_of(RISING, FLAT)) == "More data pays for the ranker only."


def test_the_report_is_whole_and_every_figure_is_in_its_json(tmp_path: Path) -> None:
    record = record_of(RISING, FLAT)
    report = write_report(record, tmp_path / "r")
    page = report.read_text()
    assert VolumeRecord.load(report.parent).document() == record.document()
    assert {p.name for p in report.parent.iterdir()} == {
        "report.html", "study.json", "volume.svg", "volume.png", "time.svg", "time.png"
    }  # fmt: skip
    assert not re.search(r"https?://", page)
    for curve in record.curves:
        for point in curve.points:
            assert num(point.quality.mean, 4) in page
        for step in curve.steps:
            assert signed(step.quality_points.mean, 2) in page
    assert "+70&nbsp;%" in page, "the published row stands beside ours"
    assert "no &lt;titles&gt;" in page
    assert "left out" in summary(record, str(report))


# The study


def test_what_has_no_data_is_left_out_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volume, "_ranker", lambda *_: measured(RISING))
    ask = volume_ask("world", component="all", fractions=FRACTIONS, seeds=3)
    ask = VolumeAsk(**{**vars(ask), "components": ("ranker", "image_classifier")})
    found = study_volume(Settings(home=tmp_path / "h", cache=tmp_path / "c"), ask)
    assert [c.component for c in found.curves] == ["ranker"]
    assert "data fetch fashion-mnist" in found.left_out["image_classifier"]
    assert json.loads(json.dumps(found.document()))["arguments"]["seeds"] == 3


def test_nothing_to_study_is_an_error(tmp_path: Path) -> None:
    ask = volume_ask("world", component="image_classifier")
    with pytest.raises(DataError, match="data fetch fashion-mnist"):
        study_volume(Settings(home=tmp_path / "h", cache=tmp_path / "c"), ask)


@pytest.mark.slow
def test_a_small_world_is_studied(tmp_path: Path) -> None:
    both = ("ranker", "text_classifier")
    ask = VolumeAsk(fractions=(0.3, 1.0), components=both, seeds=1, scale=0.05, days=6)
    study = study_volume(Settings(home=tmp_path / "h", cache=tmp_path / "c"), ask)
    assert [c.component for c in study.curves] == list(both), study.left_out
    for found in study.curves:
        assert found.points[0].rows < found.points[1].rows
        assert 0.1 < found.points[1].quality.mean <= 1
        assert found.points[1].cpu_s.mean > 0
