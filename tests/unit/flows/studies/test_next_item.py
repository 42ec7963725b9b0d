"""Panels of logs without impressions: features are of the past alone, gains of the basket alone."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from data.sources.interactions import InteractionLog, log_of_home
from data.sources.tables import import_csv
from flows.offline.ingest import ingest
from flows.studies.panels.next_item.baselines import BASELINES, baseline_scores
from flows.studies.panels.next_item.features import CATEGORICAL, NAMES, POOL
from flows.studies.panels.next_item.panel import NEGATIVES, next_item_panel
from flows.studies.panels.panel import Panel, Slice
from infra.clock import DAY_US, HOUR_US
from infra.errors import DataError
from infra.settings import Settings
from tests.unit.flows.own_log import write_minimal

DAYS, BURN_IN, HORIZON = 40, 15, 20
USERS, ITEMS, CATEGORIES = 30, 400, 5


@lru_cache(maxsize=2)
def shop(repeats: bool = True) -> InteractionLog:
    """A shop where everyone has favourites (or never takes a thing twice), and one item is the rage."""
    rng = np.random.default_rng(5)
    favourites = rng.integers(0, ITEMS, (USERS, 6))
    had: list[set[int]] = [set() for _ in range(USERS)]
    rows: list[tuple[int, int, int, int]] = []
    for basket in range(DAYS * 12):
        at = basket * DAY_US // 12 + int(rng.integers(0, HOUR_US))
        user = int(rng.integers(0, USERS))
        liked = favourites[user] if repeats else rng.integers(0, ITEMS, 6) // 3
        wanted = {*rng.choice(liked, 3).tolist(), int(rng.zipf(1.5)) % ITEMS}
        if rng.random() < 0.5:
            wanted.add(basket // 120)  # each ten days another item is the rage
        if not repeats:
            wanted -= had[user]
            had[user] |= wanted
        rows += [(at, user, item, basket) for item in wanted]
    time_us, user, item, basket = np.array(rows, np.int64).T
    return InteractionLog(
        name="shop",
        user_ids=user + 100,
        item_ids=item + 1_000,
        basket_ids=basket + 7,
        time_us=time_us + 20_000 * DAY_US,
        positive=np.ones(len(user), bool) if repeats else item % 4 > 0,
        price=(1.0 + item % 7).astype(np.float32),
        items=np.arange(ITEMS) + 1_000,
        category=(np.arange(ITEMS) % CATEGORIES).astype(np.int32),
        brand=(np.arange(ITEMS) % 11).astype(np.int32),
        department=np.ones(ITEMS, np.int32),
        repeats=repeats,
    )


def build(log: InteractionLog, **changes: int) -> Panel:
    asked = {"burn_in_d": BURN_IN, "horizon_d": HORIZON, "slices": 4, "queries": 12, "seed": 3}
    return next_item_panel(log, **{**asked, **changes})


@lru_cache(maxsize=2)
def panel(repeats: bool = True) -> Panel:
    return build(shop(repeats))


def column(values: np.ndarray, name: str) -> np.ndarray:
    return values[:, NAMES.index(name)]


def queries(part: Slice) -> list[tuple[int, slice]]:
    """The number of each query, and where its candidates are."""
    ends = np.cumsum(part.groups)
    return [(g, slice(int(e - n), int(e))) for g, (e, n) in enumerate(zip(ends, part.groups, strict=True))]


@pytest.mark.parametrize("arm", ["fresh", "frozen"])
def test_features_are_what_a_plain_count_of_the_past_gives(arm: str) -> None:
    """Of what was strictly before the basket; of the frozen arm, before the horizon."""
    log, made = shop(), panel()
    begin = {b: int(log.time_us[log.basket_ids == b].min()) for b in np.unique(log.basket_ids).tolist()}
    for part in made.slices:
        for g, at in queries(part):
            asked = begin[int(part.query_ids[g])]
            now = asked if arm == "fresh" else made.horizon_us
            past = log.time_us < now
            mine = past & (log.user_ids == part.clusters[g])
            x = getattr(part, arm)[at]
            own = log.item_ids[mine]
            for j, item in enumerate(part.item_ids[at].tolist()):
                days = (now - log.time_us[past & (log.item_ids == item)]) / DAY_US
                for half_life in (1, 7, 28):
                    rate = (0.5 ** (days / half_life)).sum() / half_life
                    got = x[j, NAMES.index(f"popularity_{half_life}d")]
                    assert got == pytest.approx(np.log(rate + 1e-3), abs=1e-3)
                assert x[j, NAMES.index("own_count")] == pytest.approx(np.log1p((own == item).sum()))
                since = (now - log.time_us[mine & (log.item_ids == item)]) / DAY_US
                assert x[j, NAMES.index("own_decayed")] == pytest.approx(
                    (0.5 ** (since / 28)).sum(), abs=1e-4
                )
                recency = x[j, NAMES.index("own_recency_d")]
                assert recency == pytest.approx(since.min()) if len(since) else np.isnan(recency)
                share = (log.category[own - 1_000] == (item - 1_000) % CATEGORIES).mean() if len(own) else 0
                assert x[j, NAMES.index("category_always")] == pytest.approx(share, abs=1e-5)
                assert x[j, NAMES.index("category")] == (item - 1_000) % CATEGORIES
            assert np.all(column(x, "hour") == asked // HOUR_US % 24)
            assert np.all(
                column(x, "user_baskets") == pytest.approx(np.log1p(len(set(log.basket_ids[mine]))))
            )


@pytest.mark.parametrize("repeats", [True, False])
def test_what_happens_later_changes_nothing_before(repeats: bool) -> None:
    log, made = shop(repeats), panel(repeats)
    turn = made.slices[2].start_us
    later = np.flatnonzero(log.time_us >= turn)
    item = log.item_ids.copy()
    item[later] = item[later][::-1]
    other = build(replace(log, item_ids=item, price=log.price[np.argsort(log.time_us < turn, kind="stable")]))
    assert other.key != made.key
    other = build(replace(log, item_ids=item))
    before = made.rows.time_us < turn
    count = int(made.rows.groups[before].sum())
    np.testing.assert_array_equal(other.rows.features[:count], made.rows.features[:count])
    np.testing.assert_array_equal(other.rows.labels[:count], made.rows.labels[:count])
    for s in (0, 1):
        np.testing.assert_array_equal(other.slices[s].fresh, made.slices[s].fresh)
        np.testing.assert_array_equal(other.slices[s].item_ids, made.slices[s].item_ids)
    if len(other.slices[3].gains) == len(made.slices[3].gains):  # and something did change after it
        assert not np.array_equal(other.slices[3].gains, made.slices[3].gains)


@pytest.mark.parametrize("repeats", [True, False])
def test_gains_are_what_the_basket_held_and_the_ideal_is_of_all_of_it(repeats: bool) -> None:
    log, made = shop(repeats), panel(repeats)
    unreachable = 0
    for part in made.slices:
        for g, at in queries(part):
            inside = log.basket_ids == part.query_ids[g]
            held = set(log.item_ids[inside & log.positive].tolist())
            pool = part.item_ids[at].tolist()
            assert len(set(pool)) == len(pool) <= POOL
            assert part.gains[at].tolist() == [float(i in held) for i in pool]
            unreachable += len(held - set(pool))
            whole = (1 / np.log2(np.arange(2, 12)))[: len(held)].sum()
            assert part.ideal[g] == pytest.approx(whole)
            begin = log.time_us[inside].min()
            assert part.start_us <= begin < part.end_us
            had = set(log.item_ids[(log.time_us < begin) & (log.user_ids == part.clusters[g])].tolist())
            if repeats:
                assert had <= set(pool)
            else:
                assert not had & set(pool)
        best = part.ndcg(part.gains)
        assert np.all((best >= 0) & (best <= 1 + 1e-12))
    assert unreachable > 0  # else the test of the ideal says nothing


def test_training_rows_are_baskets_with_something_to_learn() -> None:
    made = panel()
    starts = np.concatenate([[0], np.cumsum(made.rows.groups)[:-1]])
    positives = np.add.reduceat(made.rows.labels.astype(int), starts)
    assert np.all(positives > 0)
    assert np.all(made.rows.groups - positives <= NEGATIVES)
    assert np.all(np.diff(made.rows.time_us) >= 0)
    assert made.rows.time_us[0] < made.horizon_us < made.rows.time_us[-1]
    assert np.all(made.label_us >= made.rows.time_us)
    np.testing.assert_array_equal(made.rows.session_ids, made.rows.user_ids)
    assert np.isnan(made.rows.propensity).all()
    some, all_ = (made.training(made.horizon_us, window_us=None, fraction=f) for f in (0.5, 1.0))
    assert 0 < some.sum() < all_.sum()
    assert not set(made.rows.user_ids[some]) & set(made.rows.user_ids[all_ & ~some])
    few = build(shop(), max_rows=3_000)
    assert set(few.rows.request_ids) < set(made.rows.request_ids)


def test_known_items_are_those_met_before_the_horizon() -> None:
    log = shop()
    for part in panel().slices:
        met = np.unique(log.item_ids[log.time_us < panel().horizon_us])
        np.testing.assert_array_equal(part.known, np.isin(part.item_ids, met))


def test_it_is_the_same_again_and_survives_the_disk(tmp_path: Path) -> None:
    made = panel()
    again = build(shop())
    assert again.key == made.key
    np.testing.assert_array_equal(again.rows.features, made.rows.features)
    again.save(tmp_path / "panel")
    read = Panel.load(tmp_path / "panel")
    assert read.names == NAMES
    assert read.categorical == CATEGORICAL
    np.testing.assert_array_equal(read.slices[1].frozen, made.slices[1].frozen)
    np.testing.assert_array_equal(read.slices[1].extra["popularity"], made.slices[1].extra["popularity"])
    assert build(shop(), seed=4).key != made.key


def test_what_does_not_fit_is_one_line() -> None:
    with pytest.raises(DataError, match=r"spans 39\.\d days.*do not fit"):
        build(shop(), burn_in_d=30)
    log = shop()
    gap = (log.time_us < log.time_us[0] + 20 * DAY_US) | (log.time_us > log.time_us[0] + 30 * DAY_US)
    columns = ("user_ids", "item_ids", "basket_ids", "time_us", "positive", "price")
    holed = replace(log, **{name: getattr(log, name)[gap] for name in columns})
    with pytest.raises(DataError, match=r"no basket in .* fewer slices"):
        build(holed, slices=20)


# ---- baselines


def test_baselines_tell_what_they_should_on_the_same_pools() -> None:
    made = panel()
    found = baseline_scores(made, shop())
    assert set(found) == set(BASELINES)
    for name, per_slice in found.items():
        assert [len(v) for v in per_slice] == [len(s.groups) for s in made.slices], name
        assert all(np.all((v >= 0) & (v <= 1 + 1e-12)) for v in per_slice)
    mean = {name: float(np.concatenate(v).mean()) for name, v in found.items()}
    assert mean["own_frequency"] > mean["popularity"] + 0.1  # everyone has favourites here
    assert mean["reference"] > 0
    (only,) = baseline_scores(made, shop(), slices=range(2, 3))["popularity"]
    np.testing.assert_array_equal(only, found["popularity"][2])


@pytest.mark.parametrize("last", [0, 2])
def test_the_reference_knows_nothing_of_later(last: int) -> None:
    made, log = panel(), shop()
    item = log.item_ids.copy()
    later = np.flatnonzero(log.time_us >= made.slices[last].end_us)
    item[later] = item[later][::-1]
    now = baseline_scores(made, log, slices=range(last + 1))["reference"]
    other = baseline_scores(made, replace(log, item_ids=item), slices=range(last + 1))["reference"]
    for a, b in zip(now, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_reference_is_fitted_anew_where_there_is_a_twentieth_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, log = panel(), shop()
    before = [int((log.time_us < s.start_us).sum()) for s in made.slices]
    each = baseline_scores(made, log)["reference"]  # a slice is a tenth of what was before
    assert all(b > 1.05 * a for a, b in itertools.pairwise(before))
    monkeypatch.setattr("flows.studies.panels.next_item.baselines._MORE", 1.0)
    always = baseline_scores(made, log)["reference"]
    monkeypatch.setattr("flows.studies.panels.next_item.baselines._MORE", 1e9)
    once = baseline_scores(made, log)["reference"]
    for a, b in zip(each, always, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(once[0], always[0])
    assert any((a != b).any() for a, b in zip(once[1:], always[1:], strict=True))


def test_the_reference_beats_popularity_where_tastes_differ() -> None:
    """Two peoples who take different things: neighbours know of which one somebody is."""
    rng = np.random.default_rng(1)
    log = shop(repeats=False)
    people = log.user_ids % 2
    item = np.sort(rng.choice(60, (len(log.user_ids), 1)), axis=1)[:, 0] * 2 + people + 1_000
    _, first = np.unique(np.stack([log.user_ids, item]), axis=1, return_index=True)
    keep = np.sort(first)
    columns = ("user_ids", "item_ids", "basket_ids", "time_us", "price")
    told = {name: getattr(replace(log, item_ids=item), name)[keep] for name in columns}
    parted = replace(log, **told, positive=np.ones(len(keep), bool))
    made = build(parted)
    mean = {n: float(np.concatenate(v).mean()) for n, v in baseline_scores(made, parted).items()}
    assert mean["reference"] > mean["popularity"]


# ---- a home's own log


@pytest.mark.slow
def test_a_home_without_impressions_is_a_log_too(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", cache=tmp_path / "cache")
    import_csv(write_minimal(tmp_path / "log", days=8), settings.layout)
    ingest(settings)
    log = log_of_home(settings.layout)
    assert len(np.unique(log.user_ids)) > 1
    assert np.all(np.diff(log.time_us) >= 0)
    made = next_item_panel(
        settings.layout, name="mine", burn_in_d=3, horizon_d=4, slices=2, queries=10, seed=1
    )
    assert made.source == "mine"
    assert len(made.slices) == 2
    assert made.rows.labels.any()
