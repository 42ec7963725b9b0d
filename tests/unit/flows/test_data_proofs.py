"""What a home can prove of its data: no leak, trainings that repeat, retention that loses nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from components.search.live import ReleaseView
from components.search.pipeline import PipelineConfig, SearchPipeline
from components.serving.feedback import Shown, shown_columns
from data.journal import JournalWriter
from data.replica import current_state
from data.schema import CLICK, IMPRESSION, event_table
from data.segments import write_segments
from data.shop import Request
from data.snapshots import published, read_events
from data.world.config import world_config
from data.world.history import generate
from flows.cli import main
from flows.offline import leakage, train
from flows.offline.ingest import ALLOWED_LATENESS_US, fold_published, ingest
from flows.offline.inputs import Selection, clicked_queries, inputs_of, load_inputs, ranker_rows
from flows.offline.leakage import Leakage, check_leakage
from flows.offline.refresh import make, opened, refresh
from flows.offline.reproduce import reproduce
from flows.offline.retention import needed_since_us
from flows.offline.train import Parts
from infra.clock import DAY_US, HOUR_US, ManualClock
from infra.errors import ConfigError, DataError
from infra.settings import Home, Settings
from models.candidate_features import FEATURES
from models.ranker import Ranker, RankerConfig
from models.release import champion, list_releases
from models.training_rows import training_rows

pytestmark = pytest.mark.slow  # trains a whole release


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, migrated_registry: Path) -> Iterator[Settings]:
    """A home with a world of 1,000 items and 4 days, a first release, and pages that it showed."""
    root = tmp_path_factory.mktemp("world")
    settings = Settings(home=root / "home", cache=root / "cache")
    shutil.copytree(migrated_registry, settings.layout.mlflow)
    generate(world_config("none", scale=0.1, days=4, activity=0.3), settings.layout)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.offline.refresh.nice_down", lambda: None)
        patch.setattr(train, "RankerConfig", partial(RankerConfig, doubt=-1e9))  # so little tells nothing
        refresh(settings)
        yield serve(settings)


def serve(settings: Settings) -> Settings:
    """Let the release answer the log's newest queries, and journal what it showed."""
    release, state = opened(settings), current_state(settings.layout)
    assert release is not None
    asked = read_events(
        published(settings.layout), kinds=[IMPRESSION], columns=["query", "user_id"]
    ).to_pylist()[-400::20]
    unhurried = PipelineConfig(deadline_ms=None)  # however busy the machine is
    pipeline = SearchPipeline(release, ReleaseView(release, state), state, config=unhurried)
    now = published(settings.layout).watermark_us + HOUR_US // 10
    shown = []
    for row in asked:
        request = Request("search", now, query=row["query"], user_id=row["user_id"], session_id=7)
        shown.append(Shown.of(request, pipeline.answer(request)))
    columns, rows = shown_columns(shown)
    writer = JournalWriter(settings.layout.journal / "r1", clock=ManualClock(now + 5_000))
    writer.append(columns, rows).result(60)
    writer.close()
    assert ingest(settings)["rows"] == rows
    return settings


@pytest.fixture
def shop(first: Settings, tmp_path: Path) -> Settings:
    """A copy of it, to change."""
    shutil.copytree(first.home, tmp_path / "copy")
    return replace(first, home=tmp_path / "copy")


def wrong(found: Leakage) -> dict[str, int]:
    return {c.name: c.wrong for c in found.checks if c.wrong}


# ---- leaks


def test_a_sound_home_has_no_leak(first: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check-leakage", "--home", str(first.home), "--sample", "60", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    compared = {c["name"]: c["compared"] for c in found["checks"]}
    assert found["clean"]
    assert found["sample"] == 60
    assert len(found["releases"]) == 1
    assert compared["training's features are the service's"] > 60 * 5 * len(FEATURES)
    assert compared["logged scores are the release's"] > 100
    assert all(compared.values())


def plant(settings: Settings, change: Any) -> Leakage:
    """Bring in a session whose events are changed: one page of 5 items, then a click on its first."""
    at = published(settings.layout).watermark_us + HOUR_US
    items = current_state(settings.layout).item_ids[:5]
    columns = {
        "event_id": np.arange(6) + (1 << 61),
        "kind": np.array([IMPRESSION] * 5 + [CLICK], np.int8),
        "event_time": np.array([at] * 5 + [at + 30_000_000]),
        "known_time": np.array([at + 1000] * 5 + [at + 30_001_000]),
        "item_id": np.append(items, items[0]),
        "request_id": np.full(6, 1 << 50),
        "session_id": np.full(6, 1 << 50),
        "surface": np.ones(6, np.int8),
        "query": ["shoe"] * 5 + [""],
        "position": np.array([0, 1, 2, 3, 4, 0], np.int16),
        "state_time": np.array([at - 1] * 5 + [0]),
    }
    change(columns)
    write_segments(event_table(columns), settings.layout.segments, name="planted")
    assert ingest(settings)["rows"] == 6
    return check_leakage(settings, sample=40)


def test_a_page_ranked_by_a_later_state_is_a_leak(shop: Settings) -> None:
    def later(columns: dict[str, Any]) -> None:
        columns["state_time"] = np.array([columns["known_time"][0] + HOUR_US] * 5 + [0])

    found = plant(shop, later)
    assert wrong(found)["ranked by an older state"] == 5
    assert not found.clean
    assert "LEAK" in found.text


def test_a_click_in_the_state_that_ranked_its_page_is_a_leak(shop: Settings) -> None:
    def counted(columns: dict[str, Any]) -> None:
        columns["known_time"][5] = columns["event_time"][5] = columns["state_time"][0] - 5

    found = plant(shop, counted)
    assert wrong(found) == {"no state holds its own page's reactions": 1}
    (leak,) = next(c for c in found.checks if c.wrong).leaks
    assert (leak.request_id, leak.what) == (1 << 50, "known_time")


def test_an_event_known_long_before_it_happened_is_a_leak(
    first: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = leakage.load_inputs

    def altered(*arguments: Any, **more: Any) -> Any:
        inputs = real(*arguments, **more)
        at = inputs.events.column_names.index("event_time")
        happened = inputs.events["event_time"].to_numpy().copy()
        happened[:6] = inputs.events["known_time"].to_numpy()[:6] + ALLOWED_LATENESS_US + 1
        return replace(inputs, events=inputs.events.set_column(at, "event_time", pa.array(happened)))

    monkeypatch.setattr(leakage, "load_inputs", altered)
    assert wrong(check_leakage(first, sample=5)) == {"known after it happened": 6}
    assert main(["data", "check-leakage", "--home", str(first.home), "--sample", "5"]) == leakage.EXIT_LEAK
    assert "event_time is" in capsys.readouterr().out


def test_what_ingest_takes_of_fast_clocks_is_a_note_and_what_it_does_not_is_set_aside(shop: Settings) -> None:
    def shifted(columns: dict[str, Any]) -> None:
        columns["event_time"] = columns["known_time"] + ALLOWED_LATENESS_US

    found = plant(shop, shifted)
    assert found.clean, found.text
    assert any(n.startswith("6 events happened after they were known") for n in found.notes)
    columns = {"event_id": np.arange(4) + (1 << 59), "kind": CLICK, "item_id": 0, "known_time": 1,
               "event_time": ALLOWED_LATENESS_US + 2}  # fmt: skip
    write_segments(event_table(columns, rows=4), shop.layout.segments, name="too-fast")
    assert ingest(shop)["reasons"] == {"time in the future": 4}


def test_training_that_looks_ahead_or_counts_its_own_clicks_is_caught(
    first: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ahead(events: pa.Table, requests: Any, **more: Any) -> Any:
        return training_rows(events, replace(requests, state_us=requests.state_us + HOUR_US), **more)

    monkeypatch.setattr(leakage, "training_rows", ahead)
    assert set(wrong(check_leakage(first, sample=40))) == {"training's features are the service's"}

    def doubled(events: pa.Table, requests: Any, **more: Any) -> Any:
        rows = training_rows(events, requests, **more)
        rows.features[rows.labels > 0, FEATURES.index("text_match")] += 1.0
        return rows

    monkeypatch.setattr(leakage, "training_rows", doubled)
    assert wrong(check_leakage(first, sample=40))["training's features are the service's"] > 0


def test_scores_that_another_release_gave_are_caught(
    first: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = leakage.load_inputs

    def altered(*arguments: Any, **more: Any) -> Any:
        inputs = real(*arguments, **more)
        at = inputs.events.column_names.index("vector_score")
        scores = pa.array(inputs.events["vector_score"].to_numpy() + np.float32(0.1))
        return replace(inputs, events=inputs.events.set_column(at, "vector_score", scores))

    monkeypatch.setattr(leakage, "load_inputs", altered)
    assert wrong(check_leakage(first, sample=40))["logged scores are the release's"] > 0


def test_a_home_without_a_release_is_one_line(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    generate(world_config("none", scale=0.02, days=1, activity=0.1), settings.layout)
    ingest(settings)
    with pytest.raises(DataError, match="shelflife refresh"):
        check_leakage(settings)


# ---- repeating a training


def test_a_training_is_repeated_bit_for_bit_whatever_came_in_since(shop: Settings) -> None:
    release = opened(shop)
    assert release is not None
    assert release.ranker is not None
    assert release.ranker.trees > 5
    plant_late_events(shop)
    for component in ("ranker", "encoder", "text_classifier"):
        found = reproduce(shop, component=component)
        assert found.equal, found.text
        assert found.commit < published(shop.layout).commit
    other = replace(shop, seed=8)
    assert reproduce(other).equal  # the seed is the recorded one


def plant_late_events(settings: Settings) -> None:
    """Events within the window of the release's training, heard of after it."""
    held = published(settings.layout)
    events = read_events(held, kinds=[CLICK]).slice(0, 50)
    late = events.set_column(0, "event_id", pa.array(np.arange(50) + (1 << 60)))
    write_segments(late, settings.layout.segments, name="late")
    assert ingest(settings)["rows"] == 50


def test_a_training_whose_record_or_data_is_gone_is_one_line(shop: Settings) -> None:
    with pytest.raises(ConfigError, match="lexical_index"):
        reproduce(shop, component="lexical_index")
    snapshot = load_inputs(shop.layout, window_d=None).snapshot
    with pytest.raises(DataError, match="cannot be repeated"):
        inputs_of(shop.layout, snapshot | {"content_hash": "1-0"})


# ---- selection


def test_recency_weights_halve_with_age(first: Settings) -> None:
    chosen = Selection(half_life_d=2.0)
    now = 10 * DAY_US
    ages = np.array([0, 2 * DAY_US, 4 * DAY_US, -DAY_US])
    assert chosen.weights(now - ages, now_us=now).tolist() == [1.0, 0.5, 0.25, 1.0]
    assert Selection().weights(np.array([1, 2]), now_us=now).tolist() == [1.0, 1.0]
    for bad in ({"window_d": 0.0}, {"fraction": 1.5}, {"half_life_d": -1.0}, {"window_d": float("nan")}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            Selection(**bad)
    queries, _, alike = clicked_queries(load_inputs(first.layout, window_d=None))
    same, _, fading = clicked_queries(load_inputs(first.layout, window_d=None, half_life_d=1.0))
    assert same == queries
    assert set(alike.tolist()) <= {1.0, 2.0, 3.0}
    assert (np.diff(fading / alike) >= 0).all()  # in order of time
    assert fading[0] / alike[0] < 0.2
    assert 0.4 < fading[-1] / alike[-1] < 1


def test_what_is_learnt_follows_the_newest_clicks_where_old_ones_fade(
    shop: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts.of(opened(shop))
    rows = ranker_rows(load_inputs(shop.layout, window_d=None), parts.scorers())
    taste = FEATURES.index("text_match")
    rows.features[:, taste] = np.random.default_rng(5).random(len(rows.features))
    newest = rows.time_us > np.quantile(rows.time_us, 0.75)
    for g, (a, b) in enumerate(pairwise(np.append(0, np.cumsum(rows.groups)).tolist())):
        liked = rows.features[a:b, taste] * (-1 if newest[g] else 1)  # shoppers changed their mind
        rows.labels[a:b] = liked == liked.max()
    monkeypatch.setattr(train, "ranker_rows", lambda *_: rows)

    def learnt(half_life_d: float | None) -> float:
        """How far the order follows the old taste, -1 to 1."""
        inputs = load_inputs(shop.layout, window_d=None, half_life_d=half_life_d)
        ranker = make("ranker", shop, inputs, parts, warm=False).get("ranker")
        return float(np.corrcoef(ranker.predict(rows.features), rows.features[:, taste])[0, 1])

    assert learnt(None) > 0.3
    assert learnt(0.25) < -0.3


def test_windows_slide_or_grow_and_labels_wait(first: Settings) -> None:
    scorers = Parts.of(opened(first)).scorers()
    whole = load_inputs(first.layout, window_d=None)
    rows = ranker_rows(whole, scorers)
    last = rows.time_us.max()
    assert last <= whole.watermark_us - whole.snapshot["label_delay_us"]
    day = ranker_rows(load_inputs(first.layout, window_d=2.0), scorers)
    assert day.time_us.min() > whole.watermark_us - 2 * DAY_US - HOUR_US
    assert set(day.request_ids.tolist()) < set(rows.request_ids.tolist())
    patient = ranker_rows(load_inputs(first.layout, window_d=None, label_delay_us=DAY_US), scorers)
    assert patient.time_us.max() <= whole.watermark_us - DAY_US
    part = ranker_rows(load_inputs(first.layout, window_d=None, fraction=0.5), scorers)
    assert set(part.session_ids.tolist()) < set(rows.session_ids.tolist())


@pytest.mark.parametrize(
    ("window", "words"),
    [("0.0001", "no clicks among 0 requests in the window"), ("0", "above 0"), ("-3", "above 0"),
     ("nan", "above 0")],
)  # fmt: skip
def test_a_window_without_anything_is_one_line_and_changes_nothing(
    shop: Settings, window: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = champion(shop.layout), [m.release_id for m in list_releases(shop.layout)]
    asked = ["refresh", "--component", "ranker", "--window-d", window, "--home", str(shop.home)]
    assert main(asked) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("shelflife: ")]
    assert words in line
    assert before == (champion(shop.layout), [m.release_id for m in list_releases(shop.layout)])


def test_labels_of_one_class_make_a_ranker_and_nan_labels_one_line(first: Settings) -> None:
    rows = ranker_rows(load_inputs(first.layout, window_d=None), Parts.of(opened(first)).scorers())
    with pytest.raises(DataError, match="no clicks among"):
        Ranker.fit(replace(rows, labels=np.zeros_like(rows.labels)), seed=1)
    ranker, _ = Ranker.fit(replace(rows, labels=np.ones_like(rows.labels)), seed=1)
    assert len(set(ranker.predict(rows.features[:50]).tolist())) == 1  # nothing to tell apart
    labels = rows.labels.astype(float)
    labels[:3] = np.nan
    with pytest.raises(DataError, match=r"3 of \d+ labels are no grade"):
        Ranker.fit(replace(rows, labels=labels), seed=1)


# ---- retention


def test_retention_bounds_the_disk_and_changes_no_feature(shop: Settings) -> None:
    scorers = Parts.of(opened(shop)).scorers()
    before = ranker_rows(load_inputs(shop.layout, window_d=1.0), scorers)
    held = published(shop.layout)
    state = current_state(shop.layout).content_hash()
    report = ingest(replace(shop, retention_d=1))
    assert report["retention"] is None  # the release's training read it all
    for manifest in shop.layout.releases.glob("r-*"):
        shutil.rmtree(manifest)
    (shop.layout.releases / "champion.json").unlink()
    gone = ingest(replace(shop, retention_d=1))["retention"]
    kept = published(shop.layout)
    assert gone["rows"] > held.rows // 4
    assert gone["segments"] > 0
    assert kept.rows == held.rows - gone["rows"] == read_events(kept).num_rows
    assert held.watermark_us - 3 * DAY_US <= kept.floor_us <= held.watermark_us - 2 * DAY_US
    after = ranker_rows(load_inputs(shop.layout, window_d=1.0), scorers)
    assert np.array_equal(before.features, after.features, equal_nan=True)
    assert np.array_equal(before.labels, after.labels)
    (shop.layout.snapshots / "base.json").unlink()
    (shop.layout.states / "current.json").unlink()
    assert fold_published(shop.layout).content_hash() == state
    assert check_late_events_from_before_the_floor_are_left_out(shop) == 5
    assert ingest(replace(shop, retention_d=1))["retention"] is None


def check_late_events_from_before_the_floor_are_left_out(settings: Settings) -> int:
    item = int(current_state(settings.layout).item_ids[0])
    at = published(settings.layout).floor_us - HOUR_US
    columns = {"event_id": np.arange(5) + (1 << 60), "kind": CLICK, "event_time": at, "known_time": at,
               "item_id": item}  # fmt: skip
    write_segments(event_table(columns, rows=5), settings.layout.segments, name="too-late")
    report = ingest(settings)
    assert (report["rows"], report["duplicates"]) == (0, 0)
    return int(report["expired"])


def test_what_recent_releases_read_is_kept_and_without_any_nothing_is(
    first: Settings, tmp_path: Path
) -> None:
    held = published(first.layout)
    assert needed_since_us(first.layout, held) <= held.watermark_us - 4 * DAY_US
    assert needed_since_us(Home(tmp_path), held) == held.watermark_us
