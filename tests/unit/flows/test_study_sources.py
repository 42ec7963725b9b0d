"""Panels of worlds and of logs: nothing of the future, the features of training, kept and made anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from data.event_batch import Batch
from data.schema import CLICK, IMPRESSION, ORDER, SURFACES, canonical, event_table
from data.shop import Request
from data.sources.tables import import_csv
from data.state import State
from data.world.config import START_US, WorldConfig, world_config
from data.world.history import history_days
from data.world.shop import build_world
from flows.ingest import ingest
from flows.inputs import LABEL_DELAY_US, all_vectors
from flows.studies import sources
from flows.studies.labelled import Labelled, grades_known, labelled_rows
from flows.studies.log_source import log_panel
from flows.studies.panel import Panel
from flows.studies.pools import Moments, Still
from flows.studies.scorers import burn_in_release, of_scorers, state_at, taught_until
from flows.studies.sources import INSTALL_S, REFRESH_S, open_panel, publish_delay
from flows.studies.stretches import STRETCH_US, stretches
from flows.studies.texts import texts_of
from flows.studies.world_source import world_panel
from infra.clock import DAY_US, HOUR_US, SECOND_US
from infra.errors import ConfigError, DataError
from infra.settings import Home, Settings
from models.candidate_features import FEATURES
from models.ranker import Ranker
from models.release import Release
from models.training_rows import TrainingRows, requests_between, training_rows
from tests.unit.flows import own_log
from tests.unit.flows.study_panels import synthetic_panel

BURN_IN_D = 4
HORIZON_US = START_US + BURN_IN_D * DAY_US
TAUGHT_US = taught_until(START_US, HORIZON_US)
TINY = world_config("strong", scale=0.04, days=7, activity=0.3, seed=5)


def quiet(*_: object) -> None:
    return None


class Replayed:
    """A tiny world's log, its scorers and its labelled rows."""

    def __init__(self, events: pa.Table, release: Release) -> None:
        self.events, self.release = events, release
        self.batch = Batch(events)
        self.last = State()
        self.last.fold(self.batch, 0, len(self.batch.kind))
        end_us = START_US + TINY.days * DAY_US
        self.labelled = labelled_rows(events, release, self.last, since_us=TAUGHT_US, until_us=end_us)


@pytest.fixture(scope="module")
def replayed() -> Iterator[Replayed]:
    events = pa.concat_tables([e for _, _, e in history_days(build_world(TINY))]).combine_chunks()
    batch = Batch(events)
    with burn_in_release(
        events, batch, taught_us=TAUGHT_US, horizon_us=HORIZON_US, seed=5, progress=quiet
    ) as release:
        yield Replayed(events, release)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Panel:
    return made(TINY, tmp_path_factory.mktemp("tiny"))


def made(config: WorldConfig, root: Path, *, slices: int = 3, queries: int = 25) -> Panel:
    settings = Settings(home=root / "home", cache=root / "cache", seed=config.seed)
    return world_panel(settings, config, burn_in_d=BURN_IN_D, window_d=2, slices=slices, queries=queries)


def same_rows(a: TrainingRows, b: TrainingRows) -> bool:
    return all(
        np.array_equal(getattr(a, f.name), getattr(b, f.name), equal_nan=getattr(a, f.name).dtype.kind == "f")
        for f in fields(TrainingRows)
    )


def same_slices(a: Panel, b: Panel) -> bool:
    names = ("groups", "item_ids", "gains", "ideal", "fresh", "frozen", "known", "query_ids", "clusters")
    return len(a.slices) == len(b.slices) and all(
        np.allclose(getattr(x, n), getattr(y, n), rtol=0, atol=0, equal_nan=True)
        for x, y in zip(a.slices, b.slices, strict=True)
        for n in names
    )


# ---- worlds


def test_rows_are_labelled_within_the_panel_and_begin_where_the_scorers_learned_last(tiny: Panel) -> None:
    assert (tiny.label_us <= tiny.end_us).all()
    assert (tiny.label_us - tiny.rows.time_us >= LABEL_DELAY_US).all()
    assert tiny.first_us + LABEL_DELAY_US <= tiny.label_us.min()
    assert (tiny.rows.time_us < tiny.horizon_us).any()
    assert (tiny.rows.time_us > tiny.horizon_us).any()
    assert tiny.first_us == TAUGHT_US
    assert tiny.horizon_us == HORIZON_US
    starts = np.cumsum(tiny.rows.groups) - tiny.rows.groups
    assert (np.maximum.reduceat(tiny.rows.labels, starts) > 0).all()


def test_a_row_is_what_training_sees_that_knows_no_more_than_its_labels(replayed: Replayed) -> None:
    """The log cut off at any time gives the same rows as the whole one: nothing looks ahead."""
    cut_us = START_US + 5 * DAY_US + 7 * HOUR_US
    upto = int(np.searchsorted(replayed.batch.known_us, cut_us, side="right"))
    past = replayed.events.slice(0, upto)
    alone = labelled_rows(past, replayed.release, replayed.last, since_us=TAUGHT_US, until_us=cut_us)
    whole = replayed.labelled.take(replayed.labelled.label_us < cut_us)
    assert len(alone.rows.groups) > 50
    # Texts are encoded in batches of other sizes: their products round otherwise.
    np.testing.assert_allclose(alone.rows.features, whole.rows.features, rtol=0, atol=1e-6)
    assert same_rows(replace(alone.rows, features=whole.rows.features), whole.rows)
    requests = requests_between(past, since_us=TAUGHT_US, until_us=cut_us - LABEL_DELAY_US)
    wanted = np.isin(
        past["request_id"].to_numpy()[requests.rows[requests.starts[:-1]]], alone.rows.request_ids
    )
    direct = training_rows(
        past,
        requests.take(wanted),
        encoder=replayed.release.encoder,
        classifier=replayed.release.text_classifier,
        speller=replayed.release.speller,
        vectors=all_vectors(replayed.release.encoder, replayed.last, replayed.release.vector_index),
    )
    np.testing.assert_array_equal(direct.features, alone.rows.features)


def test_a_still_state_gives_the_features_of_training(replayed: Replayed) -> None:
    held = replayed.labelled
    starts = np.cumsum(held.rows.groups) - held.rows.groups
    for g in np.flatnonzero(held.surface == SURFACES.index("search"))[[3, 40, -1]].tolist():
        part = slice(starts[g], starts[g] + held.rows.groups[g])
        features, known = still_at(replayed, int(held.rows.time_us[g])).features(
            request_of(held, g), held.item_ids[part]
        )
        assert known.all()
        # The state is as of just before; products of vectors are summed in another order.
        np.testing.assert_allclose(features, held.rows.features[part], atol=2e-5)


def still_at(replayed: Replayed, time_us: int) -> Still:
    return Still(replayed.release, state_at(replayed.batch, time_us + 1))


def request_of(held: Labelled, g: int) -> Request:
    return Request(
        surface=SURFACES[held.surface[g]],
        time_us=int(held.rows.time_us[g]),
        query=held.queries[g],
        user_id=int(held.rows.user_ids[g]),
        session_id=int(held.sessions[g]),
    )


def test_pools_hold_features_by_both_states(replayed: Replayed, tiny: Panel) -> None:
    moments = Moments(replayed.release, replayed.batch, horizon_us=HORIZON_US, pool=30)
    held = replayed.labelled
    for g in np.flatnonzero((held.surface == 1) & (held.rows.time_us > HORIZON_US))[::20].tolist():
        request = request_of(held, g)
        found = moments.pool(request)
        assert 0 < len(found.item_ids) <= 30
        again, _ = Still(replayed.release, moments.state).features(request, found.item_ids)
        np.testing.assert_allclose(again, found.fresh, atol=2e-5)
    born = {row["item_id"]: row["known_time"] for row in first_upserts(replayed.events)}
    for part in tiny.slices:
        since = np.array([born[i] for i in part.item_ids.tolist()])
        np.testing.assert_array_equal(part.known, since < tiny.horizon_us)
        assert (since < part.end_us).all()
        assert np.isnan(part.frozen[~part.known]).all()
        counts = FEATURES.index("log_exposure_7d")
        assert not np.array_equal(part.fresh[part.known, counts], part.frozen[part.known, counts])
        price = FEATURES.index("query_tokens")
        np.testing.assert_array_equal(part.fresh[part.known, price], part.frozen[part.known, price])
    assert not all(part.known.all() for part in tiny.slices)


def first_upserts(events: pa.Table) -> list[dict[str, int]]:
    upserts = events.filter(pa.compute.equal(events["kind"], 5)).select(["item_id", "known_time"])
    table = upserts.group_by("item_id").aggregate([("known_time", "min")])
    return [
        {"item_id": i, "known_time": t}
        for i, t in zip(table["item_id"].to_pylist(), table["known_time_min"].to_pylist(), strict=True)
    ]


def test_slices_are_of_the_horizon_and_judged_against_all_items(tiny: Panel) -> None:
    assert [len(s.groups) for s in tiny.slices] == [25, 25, 25]
    for before, part in zip((None, *tiny.slices), tiny.slices, strict=False):
        assert tiny.horizon_us <= part.start_us < part.end_us <= tiny.end_us
        assert before is None or before.end_us <= part.start_us
        best = part.ndcg(part.gains)
        assert ((best >= 0) & (best <= 1 + 1e-6)).all()
        assert best.mean() > part.ndcg(-part.gains).mean() + 0.2
        assert len(np.unique(part.query_ids)) == 25
    json.dumps(tiny.about)


@pytest.mark.slow
def test_the_same_world_gives_the_same_panel(tiny: Panel, tmp_path: Path) -> None:
    again = made(TINY, tmp_path)
    assert again.key == tiny.key
    assert same_rows(again.rows, tiny.rows)
    assert same_slices(again, tiny)
    other = made(replace(TINY, seed=6), tmp_path, slices=2)
    assert other.key != tiny.key


@pytest.mark.slow
def test_under_drift_of_values_a_young_ranker_beats_that_of_the_horizons_start(tmp_path: Path) -> None:
    config = world_config(
        "none", value_drift=2.0, value_half_life_d=1.0, scale=0.2, days=8, activity=0.3, seed=3
    )
    panel = made(config, tmp_path, slices=4, queries=100)

    def ranker(at_us: int) -> Ranker:
        return Ranker.fit(panel.rows.take(panel.training(at_us, window_us=2 * DAY_US, fraction=1.0)), seed=1)[
            0
        ]

    old = ranker(panel.horizon_us)
    better = []
    for part in panel.slices[1:]:
        young = part.ndcg(ranker(part.start_us).predict(part.fresh))
        better.append(young.mean() - part.ndcg(old.predict(part.fresh)).mean())
    assert np.mean(better) > 0.05
    frozen = np.where(panel.slices[-1].known, old.predict(panel.slices[-1].frozen), -np.inf)
    assert np.isfinite(panel.slices[-1].ndcg(frozen)).all()


@pytest.mark.parametrize(
    ("burn_in_d", "window_d", "told"),
    [(2, 3, "window of 3 days, a burn-in of 2 "), (6.5, 2, "no day of horizon")],
)
def test_a_world_too_short_is_refused(tmp_path: Path, burn_in_d: float, window_d: float, told: str) -> None:
    settings = Settings(home=tmp_path, cache=tmp_path)
    with pytest.raises(ConfigError, match=told):
        world_panel(settings, TINY, burn_in_d=burn_in_d, window_d=window_d, slices=2, queries=5)


def test_a_world_without_a_query_in_a_slice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="slice 1 of 4000 is empty"):
        made(replace(TINY, days=5), tmp_path, slices=4_000)


def test_texts_give_back_the_scorers_features(
    replayed: Replayed, tiny: Panel, own: tuple[Settings, Panel]
) -> None:
    """A learner of words recomputes from a panel's texts what the classifier and the encoder said."""
    for panel in (tiny, own[1]):
        texts, more = texts_of(panel), panel.extra
        assert len(more["row_text"]) == len(panel.rows.groups)
        assert (more["item_ids"][more["row_item"]] >= 0).all()
        assert (np.diff(more["click_us"]) >= 0).all()
        assert of_scorers(more["click_session"]).all()
        assert all(texts[t].strip() for t in more["click_text"].tolist())
        for part in panel.slices:
            np.testing.assert_array_equal(more["item_ids"][part.extra["item"]], part.item_ids)
    texts, more = texts_of(tiny), tiny.extra
    classifier, encoder = replayed.release.text_classifier, replayed.release.encoder
    assert classifier is not None
    part = tiny.slices[-1]
    rows, query = part.extra["item"], np.repeat(part.extra["text"], part.groups)
    worded = np.array([bool(texts[q]) for q in query.tolist()])
    classes = {name: k for k, name in enumerate(classifier.classes)}
    of_item = np.array([classes.get(texts[t], -1) for t in more["item_category"][rows].tolist()])
    probs = classifier.predict([texts[q] for q in query.tolist()])
    told = np.where(of_item >= 0, probs[np.arange(len(rows)), of_item], 0.0) * worded
    np.testing.assert_allclose(told, part.fresh[:, FEATURES.index("category_prob")], atol=2e-5)
    items = encoder.encode_items([texts[t] for t in more["item_text"][rows].tolist()])
    score = (encoder.encode_queries([texts[q] for q in query.tolist()]) * items).sum(axis=1)
    np.testing.assert_allclose(score[worded], part.fresh[worded, FEATURES.index("vector_score")], atol=2e-5)


def test_items_are_there_from_their_first_upsert_until_they_are_deleted(tiny: Panel) -> None:
    more = tiny.extra
    assert (more["item_since_us"] < more["item_until_us"]).all()
    assert (more["item_since_us"] > tiny.horizon_us).any()
    assert (more["item_until_us"] < tiny.end_us).any()
    for part in tiny.slices:
        rows = part.extra["item"]
        assert (more["item_since_us"][rows] < part.end_us).all()
        assert (more["item_until_us"][rows] >= part.start_us).all()


# ---- logs


def own_home(root: Path, *, days: int = 6, later_us: int = 0, cut: bool = False) -> Settings:
    """A home with the small invented log; `cut`: its segments are taken in three turns that interleave."""
    settings = Settings(home=root / "home", cache=root / "cache")
    import_csv(own_log.write_full(root / "log", days=days), settings.layout)
    if later_us:
        move(settings.layout, later_us)
    if cut:
        ingest_apart(settings)
    ingest(settings)
    return settings


def move(layout: Home, later_us: int) -> None:
    """The same events, all so much later."""
    for path in layout.segments.glob("*/*/*.parquet"):
        table = pq.read_table(path)
        for name in ("event_time", "known_time", "state_time"):
            values = table[name].to_numpy()
            moved = pa.array(np.where(values > 0, values + later_us, values), table[name].type)
            table = table.set_column(table.column_names.index(name), table.schema.field(name), moved)
        pq.write_table(table, path)


def ingest_apart(settings: Settings) -> None:
    segments = settings.layout.segments
    files = sorted(segments.glob("*/*/*.parquet"))
    assert len(files) > 3
    aside = settings.home / "aside"
    shutil.move(segments, aside)
    for some in (files[:1] + files[1::3], files[3::3], files[2::3]):  # items come with the first
        for path in some:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(aside / path.relative_to(segments), path)
        ingest(settings)


def of_log(settings: Settings) -> Panel:
    return log_panel(settings, burn_in_d=3, slices=2, queries=20)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Panel]:
    settings = own_home(tmp_path_factory.mktemp("own"))
    return settings, of_log(settings)


def test_a_logs_held_out_sessions_are_asked_and_never_learned_from(own: tuple[Settings, Panel]) -> None:
    panel = own[1]
    asked = np.concatenate([s.clusters for s in panel.slices])
    assert len(asked) > 10
    assert not np.isin(asked, panel.rows.session_ids).any()
    assert panel.label_us.min() >= panel.first_us + LABEL_DELAY_US
    assert panel.resolution_us == SECOND_US
    for part in panel.slices:
        assert panel.horizon_us <= part.start_us < part.end_us <= panel.end_us
        assert part.gains.max() > 1  # of an order, or of a click far down
        assert part.ndcg(part.gains).mean() == pytest.approx(1.0)
        assert part.known.all()
        assert part.fresh.shape == part.frozen.shape == (part.groups.sum(), len(FEATURES))
        assert not np.array_equal(part.fresh, part.frozen, equal_nan=True)


@pytest.mark.slow
def test_dates_a_year_later_and_segments_split_otherwise_change_nothing(
    own: tuple[Settings, Panel], tmp_path: Path
) -> None:
    year = 365 * DAY_US
    later = of_log(own_home(tmp_path / "later", later_us=year))
    assert same_slices(own[1], later)
    np.testing.assert_array_equal(own[1].rows.features, later.rows.features)
    np.testing.assert_array_equal(own[1].label_us + year, later.label_us)
    apart = of_log(own_home(tmp_path / "apart", cut=True))
    assert same_slices(own[1], apart)
    assert same_rows(own[1].rows, apart.rows)


def test_what_cannot_be_a_study_is_refused_with_the_reason(
    own: tuple[Settings, Panel], tmp_path: Path
) -> None:
    settings = own[0]
    with pytest.raises(DataError, match=r"spans 5\.9 days; 4 days of burn-in and a horizon of 3 days"):
        log_panel(settings, burn_in_d=4, horizon_d=3, slices=2, queries=5)
    with pytest.raises(DataError, match=r"slice \d+ of 60 is empty"):
        log_panel(settings, burn_in_d=3, slices=60, queries=5)
    short = own_home(tmp_path / "short", days=1)
    with pytest.raises(DataError, match="expected 2 or more"):
        log_panel(short, slices=2, queries=5)
    empty = Settings(home=tmp_path / "empty", cache=tmp_path)
    with pytest.raises(DataError, match="nothing is ingested"):
        log_panel(empty, slices=2, queries=5)


# ---- by name


def test_a_panel_is_made_once_and_made_anew_where_it_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path / "home", cache=tmp_path / "cache")
    times = []

    def make(*_: object, **__: object) -> Panel:
        times.append(1)
        return synthetic_panel()

    monkeypatch.setattr(sources, "world_panel", make)
    panel, folder = open_panel(settings, "world", scale=0.05)
    assert folder.parent == settings.cache / "panels"
    assert panel.key == folder.name
    again, same = open_panel(settings, "world", scale=0.05)
    assert (same, len(times)) == (folder, 1)
    assert same_rows(again.rows, panel.rows)
    assert same_slices(again, panel)
    assert open_panel(settings, "world", scale=0.05, seed=8)[1] != folder
    assert len(times) == 2
    for damage in (truncate, another_version, lambda f: (f / "label_us.npy").unlink()):
        damage(folder)
        mended, _ = open_panel(settings, "world", scale=0.05)
        assert same_rows(mended.rows, synthetic_panel().rows)
    assert len(times) == 5


def truncate(folder: Path) -> None:
    path = folder / "features.npy"
    whole = path.read_bytes()
    path.unlink()  # else it would change under who has it mapped
    path.write_bytes(whole[:-100])


def another_version(folder: Path) -> None:
    path = folder / "panel.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 0}))


@pytest.mark.parametrize(
    ("asked", "error", "told"),
    [
        ({"source": "mars"}, ConfigError, "world, completejourney, movielens, or the folder of a home"),
        ({"source": "world", "horizon_d": 0.0}, ConfigError, "a horizon of 0 days"),
        ({"source": "world", "slices": 0}, ConfigError, "slices is 0"),
        ({"source": "world", "wind": 3}, ConfigError, "unknown world knob 'wind'"),
        ({"source": "movielens", "season": 1.0}, ConfigError, "season is a knob of a world"),
        ({"source": "movielens"}, DataError, "shelflife data fetch movielens"),
    ],
)
def test_unknown_sources_and_impossible_cuts_are_refused(
    tmp_path: Path, asked: dict[str, object], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        open_panel(Settings(home=tmp_path / "home", cache=tmp_path / "cache"), **asked)  # type: ignore[arg-type]


def test_a_home_of_clicks_alone_is_asked_for_the_next_item(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", cache=tmp_path / "cache")
    import_csv(own_log.write_minimal(tmp_path / "log", days=8), settings.layout)
    ingest(settings)
    panel, _ = open_panel(settings, str(settings.home), slices=2, queries=20)
    assert panel.source == str(settings.home)
    assert panel.names != FEATURES
    assert len(panel.slices) == 2


def test_the_publish_delay_is_of_the_homes_own_refreshes_of_the_ranker(home: Home) -> None:
    settings = Settings(home=home.root)
    assert publish_delay(settings) == round((REFRESH_S + INSTALL_S) * SECOND_US)
    home.run.mkdir()
    documents = [
        {"made": {"ranker": "a", "encoder": "b"}, "seconds": 300.0},
        {"made": {"ranker": "a"}, "seconds": 11.0},
        {"made": {"ranker": "a"}, "seconds": 13.0},
        {"made": {"speller": "a"}, "seconds": 99.0},
    ]
    (home.run / "refreshes.jsonl").write_text("".join(json.dumps(d) + "\n" for d in documents))
    assert publish_delay(settings) == round((12.0 + INSTALL_S) * SECOND_US)


# ---- parts


def test_stretches_lie_in_their_slots_at_different_hours() -> None:
    rng = np.random.default_rng(1)
    times = np.sort(rng.integers(0, 14 * DAY_US, 20_000))
    found = stretches(times, since_us=2 * DAY_US, until_us=14 * DAY_US, slices=12, queries=50, seed=4)
    for number, part in enumerate(found):
        assert (2 + number) * DAY_US <= part.start_us < part.end_us <= (3 + number) * DAY_US
        assert part.end_us - part.start_us <= STRETCH_US + 1
        assert len(part.at) == 50
        assert (np.diff(part.at) > 0).all()
        assert part.start_us <= times[part.at].min() <= times[part.at].max() < part.end_us
    hours = np.array([p.start_us % DAY_US / HOUR_US for p in found])
    assert np.ptp(hours) > 15
    few = stretches(times[::100], since_us=0, until_us=14 * DAY_US, slices=7, queries=50, seed=4)
    assert all(20 < len(p.at) <= 50 for p in few)


def log_of(rows: list[tuple[int, int, int, int]]) -> pa.Table:
    """(kind, known_us, request, item) of each event."""
    kind, known, request, item = (np.array(c, np.int64) for c in zip(*rows, strict=True))
    columns: dict[str, NDArray[np.int64]] = {
        "event_id": np.arange(len(kind)),
        "kind": kind,
        "event_time": known,
        "known_time": known,
        "request_id": request,
        "item_id": item,
        "position": item,
        "state_time": np.where(kind == IMPRESSION, known - 1, 0),
    }
    return canonical(event_table(columns))


def test_only_reactions_known_in_time_are_labels(tmp_path: Path) -> None:
    events = log_of(
        [
            (IMPRESSION, 10, 1, 5),
            (IMPRESSION, 10, 1, 6),
            (IMPRESSION, 20, 2, 6),
            (IMPRESSION, 20, 2, 7),
            (CLICK, 30, 1, 5),
            (ORDER, 90, 1, 5),  # too late for request 1
            (ORDER, 60, 2, 7),
            (CLICK, 61, 2, 7),  # weaker than the order
            (CLICK, 40, 3, 6),  # of a request that showed nothing
            (CLICK, 40, 2, 9),  # of an item that was not shown
        ]
    )
    requests = requests_between(events, since_us=0, until_us=1_000)
    assert grades_known(events, requests, np.array([50, 100])).tolist() == [1, 0, 0, 3]
    assert grades_known(events, requests, np.array([90, 59])).tolist() == [3, 0, 0, 0]


@pytest.mark.slow
def test_scorers_know_nothing_of_what_came_after_their_part(replayed: Replayed) -> None:
    """Clicks after the scorers' part may be anything: encoder and classifier stay the same."""
    kind, known = replayed.events["kind"].to_numpy(), replayed.batch.known_us
    later = (known >= TAUGHT_US) & (kind >= CLICK) & (kind <= ORDER)
    assert later.sum() > 100
    without = replayed.events.filter(pa.array(~later))
    with burn_in_release(
        without, Batch(without), taught_us=TAUGHT_US, horizon_us=HORIZON_US, seed=5, progress=quiet
    ) as other:
        held, now = other.manifest.artifacts, replayed.release.manifest.artifacts
        for name in ("encoder", "text_classifier"):
            assert held[name].content == now[name].content
        assert held["lexical_index"].content != now["lexical_index"].content  # its tiers are of later clicks
