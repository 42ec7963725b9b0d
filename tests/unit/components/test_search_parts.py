"""The parts of the path alone: requests, fusion, exploration, live view, lists, pages."""

from __future__ import annotations

import base64
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.search.catalogue import Catalogue
from components.search.live import ReleaseView
from components.search.pages import PageCache
from components.search.rank import ExploreConfig, explore
from components.search.request import Cursor, decode_cursor, encode_cursor, request_id_of, to_photo
from components.search.retrieve import Source, fuse
from components.search.summarise import Summaries
from data.codes import code_of
from infra.clock import DAY_US, SECOND_US
from infra.errors import ConfigError, InputError
from models.encoder import item_text
from models.speller import Speller, rewrite
from tests.unit.components.search_world import (
    NOW_US,
    Log,
    World,
    ask,
    make_release,
    make_state,
    make_world,
    new_item,
)


@given(
    st.from_regex(r"r-[0-9a-f]{12}", fullmatch=True),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 10_000),
)
def test_cursor_comes_back_whole(release_id: str, request_id: int, offset: int) -> None:
    text = encode_cursor(Cursor(release_id, request_id, offset))
    assert text.isascii()
    assert not set(text) & set("+/=&?#")
    assert decode_cursor(text) == Cursor(release_id, request_id, offset)


@pytest.mark.parametrize(
    "told",
    ["r-1.2." + str(2**63), "r-1.2.3|" + "[" * 100_000, f'r-1.2.3|["", 1{"0" * 400}, null, false]'],
    ids=["offset", "depth", "price"],
)
def test_a_crafted_cursor_is_an_input_error(told: str) -> None:
    text = base64.urlsafe_b64encode(told.encode()).rstrip(b"=").decode()
    with pytest.raises(InputError, match="cursor"):
        decode_cursor(text)


@given(st.text())
def test_any_text_is_a_cursor_or_an_input_error(text: str) -> None:
    try:
        cursor = decode_cursor(text)
    except InputError:
        return
    assert cursor.offset >= 0


def test_request_without_an_id_gets_one_of_its_content() -> None:
    a, b = ask(query="red", session_id=1), ask(query="red", session_id=2)
    assert request_id_of(a) == request_id_of(replace(a)) != request_id_of(b)
    assert request_id_of(a) >= 0
    assert request_id_of(replace(a, request_id=5)) == 5


def test_photo_keeps_what_fits_and_averages_what_does_not() -> None:
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (28, 28)).astype(np.uint8)
    assert (to_photo(photo) == photo).all()
    assert (to_photo(np.kron(photo, np.ones((4, 4), np.uint8))) == photo).all()
    assert (to_photo(np.repeat(photo[..., None], 3, 2)) - photo.astype(int)).max() <= 1
    assert to_photo(rng.integers(0, 256, (1, 500), dtype=np.uint8)).shape == (28, 28)


def _source(rows: list[int], bit: int, weight: float = 1.0) -> Source:
    return Source(np.array(rows, np.int32), np.full(len(rows), bit, np.uint8), weight)


@given(st.lists(st.lists(st.integers(0, 50), unique=True, max_size=30), max_size=4), st.integers(1, 20))
def test_fusion_is_the_sum_of_reciprocal_ranks(lists: list[list[int]], keep: int) -> None:
    expected: dict[int, float] = {}
    bits: dict[int, int] = {}
    for i, rows in enumerate(lists):
        for rank, row in enumerate(rows, 1):
            expected[row] = expected.get(row, 0.0) + 1 / (60 + rank)
            bits[row] = bits.get(row, 0) | 1 << i
    found = fuse([_source(rows, 1 << i) for i, rows in enumerate(lists)], keep)
    assert len(set(found.rows.tolist())) == len(found.rows) == min(keep, len(expected))
    assert (np.diff(found.fused) <= 0).all()
    for row, score, bit in zip(found.rows.tolist(), found.fused.tolist(), found.found.tolist(), strict=True):
        assert score == pytest.approx(expected[row], rel=1e-6)
        assert bit == bits[row]
    if expected:
        assert found.fused[0] == pytest.approx(max(expected.values()), rel=1e-6)


@given(st.integers(0, 80), st.integers(-(2**63), 2**63 - 1), st.integers(0, 5))
def test_exploration_only_permutes(n: int, request_id: int, slots: int) -> None:
    order, propensity = explore(n, request_id, ExploreConfig(slots=slots, top=10, pool=50))
    assert sorted(order.tolist()) == list(range(n))
    drawn = np.flatnonzero(~np.isnan(propensity))
    choices = min(n, 50) - 10
    assert len(drawn) == max(0, min(slots, choices))
    assert (order[drawn] >= 10).all()
    untouched = np.setdiff1d(np.arange(min(n, 10)), drawn)
    assert (order[untouched] == untouched).all()


def test_exploration_draws_evenly() -> None:
    config = ExploreConfig(slots=1, top=10, pool=50)
    drawn = np.zeros((10, 50))
    n = 20_000
    for request_id in range(n):
        order, propensity = explore(200, request_id, config)
        slot = int(np.flatnonzero(~np.isnan(propensity))[0])
        drawn[slot, order[slot]] += 1
    counts = drawn.sum(0)[10:]
    assert abs(counts - n / 40).max() < 5 * np.sqrt(n / 40)
    assert abs(drawn.sum(1) - n / 10).max() < 5 * np.sqrt(n / 10)
    assert np.nanmax(propensity) == pytest.approx(1 / 40)


def test_rewriting_changes_unknown_words_only() -> None:
    speller = Speller.fit({"sneaker": 5, "red": 5})
    assert rewrite("Réd  SNEAKERS!", speller).text == "red sneakers"
    wrong = rewrite("red snaekers", speller)
    assert (wrong.words, wrong.corrected) == (["red", "sneaker"], True)
    assert rewrite("", speller).words == []
    assert not rewrite("red snaekers", None).corrected


# ---- the live view ----


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def test_view_aligns_vectors_and_has_no_delta_at_first(world: World) -> None:
    view, state = world.view, world.state
    assert len(view.delta_rows) == 0
    for place in (0, 7, 299):
        item = int(world.release.item_ids[place])
        assert view.base_rows[place] == state.item_row(item)
        np.testing.assert_array_equal(
            view.live.vectors[state.item_row(item)], world.release.item_vectors[place]
        )


def _assert_equal_views(a: ReleaseView, b: ReleaseView) -> None:
    assert a.live.n == b.live.n
    np.testing.assert_allclose(a.live.vectors, b.live.vectors, atol=1e-6)
    np.testing.assert_array_equal(a.live.text_delta, b.live.text_delta)
    np.testing.assert_array_equal(a.live.vector_delta, b.live.vector_delta)


def test_refreshing_step_by_step_equals_a_new_view(world: World) -> None:
    log, state = world.log, world.state
    later = {"updated_at": NOW_US + DAY_US}
    steps = [
        lambda: log.upsert(state, [new_item(50 + i, f"item number {i}") for i in range(40)]),
        lambda: log.upsert(state, [{"item_id": 1_004, "title": "another name altogether", **later}]),
        lambda: log.delete(state, 55),
        lambda: log.delete(state, 1_010),
        lambda: log.upsert(state, [new_item(55, "back again"), {"item_id": 1_010, **later}]),
        lambda: log.upsert(state, [{"item_id": 1_020, "price": 5.0, **later}]),
    ]
    for step in steps:
        step()
        world.view.refresh()
        _assert_equal_views(world.view, ReleaseView(world.release, state))
    texts = [item_text(orjson.loads(state.payload(row))) for row in range(state.n_items)]
    np.testing.assert_allclose(world.view.live.vectors, world.release.encoder.encode_items(texts), atol=1e-5)
    assert set(world.view.delta_rows.tolist()) == {state.item_row(i) for i in [*range(50, 90), 1_004]}


def test_text_that_returns_to_the_bases_leaves_the_delta(world: World) -> None:
    title = orjson.loads(world.state.payload(world.state.item_row(1_004)))["title"]
    for name, in_delta in (("something else", True), (title, False)):
        world.log.upsert(world.state, [{"item_id": 1_004, "title": name}])
        world.view.refresh()
        assert (world.state.item_row(1_004) in world.view.delta_rows) == in_delta


def test_readers_keep_the_snapshot_that_they_took(world: World) -> None:
    before = world.view.live
    rows, delta = before.n, before.text_delta.copy()
    world.log.upsert(world.state, [new_item(3_000 + i, f"thing {i}") for i in range(1_500)])
    world.view.refresh()
    assert (before.n, len(before.vectors), len(before.stale_text)) == (rows, rows, rows)
    np.testing.assert_array_equal(before.text_delta, delta)
    assert world.view.live.n == rows + 1_500


def test_indexes_of_different_ages_have_deltas_of_their_own(tmp_path: Path) -> None:
    log = Log()
    state = make_state(log)
    old = make_release(tmp_path, state, release_id="r-000000000001")
    log.upsert(state, [new_item(77, "zebrawood boots")])
    new = make_release(tmp_path, state, release_id="r-000000000002")
    mixed = replace(new, lexical_index=old.lexical_index)
    view = ReleaseView(mixed, state)
    assert view.live.text_delta.tolist() == [state.item_row(77)]
    assert view.live.vector_delta.tolist() == []


def test_release_older_than_the_state_and_state_older_than_the_release(tmp_path: Path) -> None:
    log = Log()
    state = make_state(log)
    early = make_release(tmp_path, state, release_id="r-000000000001")
    log.upsert(state, [new_item(77, "zebrawood boots")])
    late = make_release(tmp_path, state, release_id="r-000000000002")
    assert ReleaseView(early, state).delta_rows.tolist() == [state.item_row(77)]
    old_state = make_state(Log())
    view = ReleaseView(late, old_state)
    assert (view.base_rows == -1).sum() == 1
    assert len(view.delta_rows) == 0


# ---- catalogue, summaries, pages ----


def test_lists_are_by_popularity_and_age(world: World) -> None:
    catalogue, state = world.view.catalogue, world.state
    popularity = state.popularity(state.as_of_us)
    lists = catalogue.lists
    assert (np.diff(popularity[lists.popular]) <= 0).all()
    shoes = code_of("shoes")
    in_shoes = np.flatnonzero(catalogue.department == shoes)
    assert set(lists.popular_in[shoes].tolist()) <= set(in_shoes.tolist())
    assert (np.diff(state.created_us[lists.newest_in[shoes]]) <= 0).all()
    assert set(lists.popular_in) == set(catalogue.department.tolist()) | set(state.category.tolist())


def test_lists_follow_the_shop_clock_not_the_wall(world: World) -> None:
    catalogue = Catalogue(world.state, lists_every_us=DAY_US)
    before = catalogue.lists
    world.log.react(world.state, 2, 3, [1_050] * 30)
    catalogue.refresh()
    assert catalogue.lists is before
    world.log.time_us += DAY_US + SECOND_US
    world.log.react(world.state, 2, 3, [1_050])
    catalogue.refresh()
    assert world.state.item_ids[catalogue.lists.popular[0]] == 1_050


def test_summary_is_made_once_and_renewed_on_upsert(world: World) -> None:
    summaries = Summaries(world.state)
    row = world.state.item_row(1_001)
    first = summaries.of(row)
    assert summaries.of(row) is first
    world.log.upsert(world.state, [{"item_id": 1_001, "price": 7.5}])
    summaries.refresh()
    assert orjson.loads(summaries.of(row))["price"] == 7.5
    assert orjson.loads(summaries.page(np.array([row, row], np.int32)))[1]["item_id"] == 1_001


def test_page_cache_forgets_the_list_used_longest_ago(world: World) -> None:
    ranked = world.pipeline.ranked(ask(query="red"))
    cache = PageCache(2)
    for i in range(3):
        cache.put(replace(ranked, request_id=i, key=(i,)))
        cache.by_request(0)
    assert len(cache) == 2
    assert cache.by_request(1) is None
    assert cache.by_key((1,)) is None
    kept = cache.by_key((0,))
    assert kept is not None
    assert kept.features is None
    with pytest.raises(ConfigError, match="at least 1"):
        PageCache(0)


def test_path_imports_nothing_heavy() -> None:
    heavy = {"pandas", "torch", "ray", "prefect", "mlflow", "fastapi", "httpx", "lightgbm", "onnxruntime"}
    code = "import sys, components.search.pipeline; print(*{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())
