"""Panels of logs and by name: nothing of the future, kept and made anew, refused with the reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.sources.tables import import_csv
from flows.offline.ingest import ingest
from flows.offline.inputs import LABEL_DELAY_US
from flows.studies.panels import sources
from flows.studies.panels.log import log_panel
from flows.studies.panels.panel import Panel
from flows.studies.panels.sources import INSTALL_S, REFRESH_S, open_panel, publish_delay
from flows.studies.panels.stretches import STRETCH_US, stretches
from infra.clock import DAY_US, HOUR_US, SECOND_US
from infra.errors import ConfigError, DataError
from infra.settings import Home, Settings
from models.candidate_features import FEATURES
from tests.unit.flows import own_log
from tests.unit.flows.studies.panels import synthetic_panel
from tests.unit.flows.studies.worlds import check_texts, same_rows, same_slices


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


def test_a_logs_words_fit_its_rows(own: tuple[Settings, Panel]) -> None:
    check_texts(own[1])


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
