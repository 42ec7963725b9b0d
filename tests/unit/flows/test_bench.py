"""Benches: the shop that is measured, alignment to the flip, mixtures found, refusals recorded."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.load.result import LoadResult
from components.search.pipeline import PipelineConfig
from components.search.queries import QueryMemory
from components.serving.engine import Engine, EngineConfig
from components.serving.shadow import ShadowLimits
from data.shop import Request
from flows.bench.alignment import aligned, excess, group_of, longest_gap_ms, summary_ms, tail_ratio, within
from flows.bench.catalogue import bench_world
from flows.bench.memory import MemoryWatch
from flows.bench.mixture import check_journal
from flows.bench.swap import SwapBench, reidentified
from flows.bench.swap_load import Stretch, plan
from flows.bench.swap_report import write_page
from flows.offline.refusals import record_refusals, refusals
from infra.clock import ManualClock
from infra.errors import DataError
from infra.settings import Home
from models.release import load_release, read_manifest, release_folder
from tests.registry_fake import FakeRegistry
from tests.unit.components.search_world import NOW_US
from tests.unit.components.serving_world import make_home, publish_release

SECOND = 1_000_000


def steady(seconds: int, every_us: int = 2_000) -> np.ndarray:
    return np.arange(0, seconds * SECOND, every_us, dtype=np.int64)


def test_a_world_has_as_many_items_as_asked_and_about_as_many_sessions() -> None:
    small, large = bench_world(20_000, seed=1), bench_world(1_000_000, seed=1)
    assert (small.n_items, large.n_items) == (20_000, 1_000_000)
    assert small.n_users * small.activity == pytest.approx(large.n_users * large.activity, rel=0.01)
    with pytest.raises(DataError, match="expected 200 to"):
        bench_world(10, seed=1)


def test_swaps_come_in_blocks_with_quiet_and_placebos_between() -> None:
    found = plan(SwapBench(swaps=25, every_s=4.0, block=10))
    assert len(found.swaps) == 25
    assert np.diff(found.swaps).min() == 4.0
    assert len(found.placebos) == 5 + 5 + 2
    apart = np.abs(np.subtract.outer(np.array(found.placebos), np.array(found.swaps))).min(axis=1)
    assert apart.min() >= 2.0
    assert found.end > max(*found.swaps, *found.placebos)


def test_quiet_are_whole_seconds_away_from_swaps() -> None:
    schedule = plan(SwapBench(swaps=2, every_s=4.0, block=2))
    arrays = {n: np.zeros(0, np.int64) for n in ("due_us", "picked_us", "sent_us", "done_us")}
    few = {n: np.zeros(0, np.int16) for n in ("status", "label", "size")}
    nothing = LoadResult(
        **arrays, **few, labels=(), began_wall_us=0, timeout_s=1.0, offered=0, connections=1,
        peak_in_flight=0, reconnects=0, cpu_s=0.0,
    )  # fmt: skip
    start_us = 100 * SECOND
    stretch = Stretch(schedule, start_us, nothing, {"qps": 200.0})
    late = (start_us + 27 * SECOND, start_us + 28 * SECOND)  # an installation that took so long
    found = [(begin - start_us) / SECOND for begin, _ in stretch.quiet([late])]
    assert schedule.swaps == (10.0, 14.0)
    assert schedule.end == 30.0
    assert found == [1, 2, 3, 4, 5, 6, 7, 8, 19, 20, 21, 22, 23, 24, 25]


def test_the_flip_shows_where_it_is_and_a_placebo_does_not() -> None:
    rng = np.random.default_rng(0)
    due = steady(60)
    latency = 2.0 + rng.exponential(0.2, len(due))
    flips = [k * 4 * SECOND + 2 * SECOND for k in range(14)]
    for flip in flips:
        latency[(due >= flip) & (due < flip + 30_000)] += 5.0
    quiet = ~within(due, [(f - SECOND, f + SECOND) for f in flips])
    around = aligned(due, latency, flips)
    at = {round(float(t)): m for t, m in zip(around.at_ms, around.median, strict=True)}
    assert at[-10] < 3 < 6 < at[0]
    assert at[20] > 6
    assert at[30] < 3
    found = excess(due, latency, flips, quiet)
    assert found["low"] <= found["mean"] <= found["high"]
    assert found["mean"] == pytest.approx(5.0, abs=0.3)
    placebo = excess(due, latency, [f + SECOND for f in flips], quiet)
    assert abs(placebo["mean"]) < 0.1


def test_the_ratio_of_tails_has_one_within_its_interval_where_nothing_differs() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(40), 100)
    a, b = rng.exponential(1, 4_000), rng.exponential(1, 4_000)
    same = tail_ratio(a, groups, b, groups)
    assert same["low"] < 1 < same["high"]
    worse = tail_ratio(a * 2, groups, b, groups)
    assert worse["low"] > 1.3


def test_a_gap_counts_in_the_window_in_which_it_ends() -> None:
    done = np.concatenate([steady(2), steady(2) + 2 * SECOND + 400_000])
    assert longest_gap_ms(done, [(0, SECOND)]) == pytest.approx(2.0)
    assert longest_gap_ms(done, [(2 * SECOND, 3 * SECOND)]) == pytest.approx(402.0)
    assert longest_gap_ms(done[:1], [(0, SECOND)]) == 0.0
    assert group_of(np.array([0, 5, 10]), [(0, 5), (10, 11)]).tolist() == [0, -1, 1]
    assert summary_ms(np.empty(0))["p99"] is None


@pytest.fixture
def journalled(tmp_path: Path) -> Home:
    """A home in which two releases of different encoders answered in turn, by direct calls."""
    layout = make_home(tmp_path)
    names = [publish_release(layout), publish_release(layout, number=1, seed=2, promote=False)]
    config = (
        EngineConfig(  # neither a late request nor a release that seems slow, however busy the machine is
            follow=False,
            pipeline=PipelineConfig(deadline_ms=None),
            limits=ShadowLimits(queries=4, free_ms=math.inf, pause_s=0.0, rest=0.0),
        )
    )
    engine = Engine(layout, ManualClock(NOW_US), config=config)
    engine.start()
    try:
        for k in range(24):
            engine.respond(Request("search", NOW_US, query=("red boots", "blue jacket", "boots")[k % 3]))
            if k % 8 == 7:
                assert engine.install(names[(k // 8 + 1) % 2]).flipped
    finally:
        engine.close()
    return layout


def test_replies_of_one_release_each_are_no_mixture(journalled: Home) -> None:
    found = check_journal(journalled, "serve-0")
    assert (found.replies, found.mixed) == (24, 0)
    assert found.told_apart == 1.0


def test_a_vector_of_another_release_is_a_mixture(journalled: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = sorted(p.name for p in journalled.releases.glob("r-*"))
    other = QueryMemory(load_release(journalled, ids[0]))
    of = QueryMemory.of
    monkeypatch.setattr(QueryMemory, "of", lambda _, query: of(other, query))
    found = check_journal(journalled, "serve-0")
    assert 0 < found.mixed < found.replies == 24


def test_reidentified_releases_are_new_ones_of_the_same_files(journalled: Home) -> None:
    trained = sorted(p.name for p in journalled.releases.glob("r-*"))[:2]
    made = reidentified(journalled, trained, 5)
    assert len({*made, *trained}) == 7
    for k, name in enumerate(made, start=1):
        assert (
            read_manifest(journalled, name).artifacts == read_manifest(journalled, trained[k % 2]).artifacts
        )
        assert load_release(journalled, name).release_id == name
        assert (release_folder(journalled, name) / "encoder").is_dir()


def test_swaps_of_one_artifact_alone_leave_all_others(journalled: Home) -> None:
    trained = sorted(p.name for p in journalled.releases.glob("r-*"))[:2]
    first, second = (read_manifest(journalled, name).artifacts for name in trained)
    made = reidentified(journalled, trained, 4, only="speller")
    found = [read_manifest(journalled, name).artifacts for name in made]
    for k, artifacts in enumerate(found, start=1):
        assert artifacts["speller"] == (first, second)[k % 2]["speller"]
        assert {n: a for n, a in artifacts.items() if n != "speller"} == {
            n: a for n, a in first.items() if n != "speller"
        }
    with pytest.raises(DataError, match="no two different artifacts 'ranker'"):
        reidentified(journalled, trained, 4, only="ranker")
    with pytest.raises(DataError, match="no two different"):
        reidentified(journalled, trained[:1], 4, only="speller")


def test_memory_is_told_in_all_and_what_is_the_process_own() -> None:
    watch = MemoryWatch(os.getpid())
    seconds = range(100)
    watch._samples = [(k * SECOND, 500_000_000 + k * 100_000, 300_000_000) for k in seconds]
    found = watch.figures([k * SECOND for k in range(0, 100, 2)])
    levels = [found[f"{which}_memory_mb"] for which in ("first", "last", "peak")]
    assert levels == [500.0, 509.9, 509.9]
    assert found["memory_mb_per_swap"] == pytest.approx(0.2)
    assert found["private_mb_per_swap"] == pytest.approx(0.0, abs=1e-6)
    assert found["peak_private_mb"] == 300.0
    assert set(MemoryWatch(os.getpid()).figures([]).values()) == {None}


def test_a_rise_while_installing_counts_only_beyond_that_of_quiet_windows() -> None:
    watch = MemoryWatch(os.getpid())
    installing = [(k * SECOND, k * SECOND + 1_500_000) for k in (20, 30, 40)]
    times = range(0, 60 * SECOND, 20_000)
    grown = [100_000 * t // SECOND for t in times]  # 0.1 MB a second, as requests go on
    bump = [2_000_000 * any(b <= t < e for b, e in installing) for t in times]
    watch._samples = [(t, 0, 300_000_000 + g + b) for t, g, b in zip(times, grown, bump, strict=True)]
    quiet = [(k * SECOND, (k + 1) * SECOND) for k in (*range(15), *range(45, 60))]
    found = watch.rise(installing, quiet, 1_000_000)
    assert found["rise_mb"] == pytest.approx(2.2, abs=0.02)
    assert found["rise_quiet_mb"] == pytest.approx(0.2, abs=0.02)
    assert found["windows_quiet"] == 12
    assert found["low"] <= found["per_changed"] <= found["high"]
    assert found["per_changed"] == pytest.approx(2.0, abs=0.03)
    assert watch.rise([], quiet, 1.0)["per_changed"] is None
    assert MemoryWatch(os.getpid()).rise(installing, quiet, 1.0)["rise_mb"] is None


def test_the_page_opens_offline_and_shows_the_figures(home: Home) -> None:
    due = steady(20)
    latency = np.full(len(due), 2.0)
    flips = [5 * SECOND, 10 * SECOND]
    quiet = np.ones(len(due), bool)
    document = {
        "items": 1_000, "qps": 500.0, "every_s": 4.0, "swaps": 2, "failed": 0, "mixed": 0,
        "aligned": aligned(due, latency, flips).to_json(),
        "aligned_placebo": aligned(due, latency, []).to_json(),
        "flip_excess": excess(due, latency, flips, quiet),
        "alternatives": {"redeploy": {"swaps": 5, "failed": 17}},
    }  # fmt: skip
    page = write_page(json.loads(json.dumps(document)), home.root).read_text()
    assert "<svg" in page
    assert ">17<" in page
    assert "http" not in page.replace("http-equiv", "")
    assert (home.root / "flip.png").read_bytes().startswith(b"\x89PNG")


def test_what_the_service_refused_is_in_the_registry_once(home: Home) -> None:
    registry = FakeRegistry()
    for name in ("r-good", "r-bad"):
        registry.register_release({"release_id": name, "created_us": 1, "watermark_us": 1, "artifacts": {}})
    registry.record_verdict("r-bad", {"passed": True})
    assert record_refusals(home, registry) == []
    tries = [
        {"release_id": "r-good", "flipped": False, "reason": "a file was missing", "begin_wall_us": 1},
        {"release_id": "r-good", "flipped": True, "reason": "", "begin_wall_us": 2},
        {"release_id": "r-bad", "flipped": False, "reason": "match 3% of the words", "begin_wall_us": 3},
    ]
    home.run.mkdir(parents=True, exist_ok=True)
    home.serving_status.write_text(json.dumps({"swaps": tries}))
    assert refusals(home) == {"r-bad": {"reason": "match 3% of the words", "wall_us": 3}}
    assert record_refusals(home, registry) == ["r-bad"]
    verdict = {r["release_id"]: r["verdict"] for r in registry.releases()}["r-bad"]
    assert verdict == {"passed": True, "serving": {"reason": "match 3% of the words", "wall_us": 3}}
    assert record_refusals(home, registry) == []
    home.serving_status.write_text("{ torn")
    assert refusals(replace(home)) == {}
