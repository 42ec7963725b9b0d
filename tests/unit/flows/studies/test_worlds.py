"""Panels of simulated worlds: nothing of the future, the features of training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from data.event_batch import Batch
from data.schema import CLICK, IMPRESSION, ORDER, SURFACES, canonical, event_table
from data.shop import Request
from data.world.config import START_US, world_config
from data.world.history import history_days
from data.world.shop import build_world
from flows.offline.inputs import LABEL_DELAY_US, all_vectors
from flows.studies.cells.encoder import EncoderScorer
from flows.studies.cells.text_classifier import TextClassifierScorer
from flows.studies.cells.token_models import packed
from flows.studies.cells.words import Asked, Scorer, Words
from flows.studies.panels.labelled import Labelled, grades_known, labelled_rows
from flows.studies.panels.panel import Panel
from flows.studies.panels.pools import Moments, Still
from flows.studies.panels.scorers import burn_in_release, of_scorers, state_at
from flows.studies.panels.world import Deployed, world_panel
from infra.clock import DAY_US, HOUR_US
from infra.errors import ConfigError, DataError
from infra.settings import Settings
from models.candidate_features import FEATURES
from models.ranker import Ranker
from models.training_rows import requests_between, training_rows
from tests.unit.flows.studies.worlds import (
    HORIZON_US,
    TAUGHT_US,
    TINY,
    Replayed,
    check_texts,
    made,
    quiet,
    same_rows,
    same_slices,
)


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


def test_a_shop_under_way_is_studied_with_its_own_scorers_and_log(replayed: Replayed, tiny: Panel) -> None:
    def under_way(window_d: float = 2.5, **more: Any) -> Panel:
        settings = Settings(home=Path("unused"), cache=Path("unused"), seed=TINY.seed)
        deployed = Deployed(replayed.release, 30, **more)
        return world_panel(
            settings, TINY, burn_in_d=4, window_d=window_d, slices=3, queries=25, deployed=deployed
        )

    panel = under_way()
    assert panel.first_us == HORIZON_US - 3.5 * DAY_US
    assert under_way(window_d=3.5).first_us == START_US
    taught = panel.rows.time_us <= TAUGHT_US  # by half of the sessions of these days
    assert taught.sum() > 20
    assert not of_scorers(panel.rows.session_ids[taught]).any()
    assert of_scorers(panel.rows.session_ids[~taught]).any()
    for own, other in zip(panel.slices, tiny.slices, strict=True):
        assert own.groups.max() <= 30 < other.groups.max()
        assert np.array_equal(own.query_ids, other.query_ids)  # the same queries, whatever the log

    told = under_way(events=replayed.events, log="its own")
    assert told.key != panel.key
    assert same_rows(told.rows, panel.rows)
    assert same_slices(told, panel)
    fewer = replayed.events.filter(pa.compute.less(replayed.events["known_time"], HORIZON_US))
    assert len(under_way(events=fewer).rows.groups) < len(panel.rows.groups)


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


def test_words_give_back_the_scorers_features(replayed: Replayed, tiny: Panel) -> None:
    """Columns made anew are the logged ones, if the model is that which wrote them."""
    check_texts(tiny)
    classifier, encoder = replayed.release.text_classifier, replayed.release.encoder
    assert classifier is not None
    towers = {"query_tower": encoder.query_tower, "item_tower": encoder.item_tower}
    about = {"classes": list(classifier.classes), "report": dict(classifier.report)}
    head = {"head": classifier.head, "bias": classifier.bias}
    wrote: list[tuple[Scorer, bytes]] = [
        (TextClassifierScorer(), packed(classifier.table.rows, TINY.seed, head, about)),
        (EncoderScorer(), packed(encoder.table.rows, TINY.seed, towers, {})),
    ]
    words, part = Words(tiny), tiny.slices[-1]
    typed = tiny.extra["row_text"] != 0  # not what a photo or a similar item asked
    said = np.repeat(typed, tiny.rows.groups)
    for scorer, model in wrote:
        columns = [FEATURES.index(n) for n in scorer.columns]
        for asked, logged in (
            (Asked.of_slice(part, at_us=part.start_us, frozen=False), part.fresh),
            (Asked.of_slice(part, at_us=tiny.horizon_us, frozen=True), part.frozen),
            (Asked.of_rows(tiny, typed, at_us=tiny.horizon_us), tiny.rows.features[said]),
        ):
            found = np.full((len(logged), len(columns)), 9, np.float32)
            found[:, 0] = 0  # where nobody typed
            scorer.rewrite(words, model, asked, found)
            there = ~np.isnan(logged).all(axis=1)  # what a frozen state does not know is a row of NaN
            assert there.mean() > 0.5
            # Rows are by the index of the horizon: what came later may have said something else at first.
            near = np.isclose(found[there], logged[there][:, columns], atol=3e-5, equal_nan=True)
            assert near.mean() > 0.98, (scorer.name, len(logged))


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
