"""Filters: every item of a reply passes, narrow ones fill the page, page turns keep them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.search import filters as filtering
from components.search.catalogue import Catalogue
from components.search.filters import passing
from components.search.request import Cursor, decode_cursor, encode_cursor
from components.serving.filter_parameters import filters_of
from components.serving.refusals import Refusal
from data.shop import Filters
from data.state import State
from infra.errors import InputError
from tests.unit.components.search_world import Log, World, ask, catalogue_items, make_world, new_item

ASKED: list[dict[str, object]] = [
    {"query": "northwind red sneakers"},
    {"query": ""},
    {"surface": "image", "photo": 0},
    {"surface": "recommend", "user_id": 1},
    {"surface": "recommend"},
    {"surface": "similar", "item_id": 1_000},
]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def _items(world: World, ids: list[int]) -> list[dict[str, object]]:
    return [orjson.loads(world.state.payload(world.state.item_row(i))) for i in ids]


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize(
    ("filters", "passes"),
    [
        (Filters(category="Boots"), lambda i: i["category"] == "boots"),
        (Filters(category="tops"), lambda i: i["department"] == "tops"),
        (Filters(price_min=50.0), lambda i: i["price"] >= 50),
        (Filters(price_max=50.0), lambda i: i["price"] <= 50),
        (Filters(in_stock=True), lambda i: i["stock"] > 0),
        (
            Filters("shirts", 20.0, 150.0, True),
            lambda i: i["category"] == "shirts" and 20 <= i["price"] <= 150 and i["stock"] > 0,
        ),
    ],
)
@pytest.mark.parametrize("searched", ["one by one", "through the index"])
def test_every_item_passes_and_the_page_is_full(
    world: World,
    asked: dict[str, object],
    filters: Filters,
    passes: Callable[[dict[str, object]], bool],
    searched: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if searched == "through the index":
        monkeypatch.setattr(filtering, "EXHAUSTIVE", 0)
    found = world.ids(**asked, filters=filters)
    assert all(passes(i) for i in _items(world, found))
    assert len(found) == 10


def test_a_narrow_filter_finds_what_the_usual_hits_lack(tmp_path: Path) -> None:
    from dataclasses import replace

    from components.search.pipeline import PipelineConfig
    from components.search.retrieve import RetrieveConfig

    small = RetrieveConfig(candidates=8, text=8, text_enough=2, vectors=8, user=8, popular=8)
    world = make_world(tmp_path, config=replace(PipelineConfig.for_evaluation(), retrieve=small))
    red = world.ids(query="northwind red sneakers", size=8)
    assert "boots" not in {i["category"] for i in _items(world, red)}
    narrowed = world.pipeline.answer(
        ask(query="northwind red sneakers", size=8, filters=Filters("boots")), explain=True
    )
    items = _items(world, narrowed.reply.item_ids.tolist())
    assert len(items) == 8
    assert {i["category"] for i in items} == {"boots"}
    assert {i["brand"] for i in items[:2]} == {"northwind"}  # the words still order what passes
    explained = narrowed.explanation or []
    assert {"text", "vector"} <= {name for e in explained for name in e["found_by"]}
    assert not {"text_delta", "vector_delta"} & {name for e in explained for name in e["found_by"]}


def test_new_and_deleted_items_follow_the_filter(world: World) -> None:
    world.log.upsert(world.state, [new_item(9_001, "unheard gaiters", category="gaiters", price=5_000.0)])
    world.refresh()
    assert world.ids(query="unheard gaiters", filters=Filters("gaiters")) == [9_001]
    assert world.ids(query="boots", filters=Filters(price_min=4_999.0)) == [9_001]
    world.log.upsert(world.state, [new_item(9_001, "unheard gaiters", category="gaiters", price=10.0)])
    world.refresh()
    assert world.ids(query="boots", filters=Filters(price_min=4_999.0)) == []
    world.log.delete(world.state, 9_001)
    world.refresh()
    assert world.ids(query="unheard gaiters", filters=Filters("gaiters")) == []


def test_what_nothing_passes_says_so(world: World) -> None:
    reply = world.pipeline.respond(ask(query="boots", filters=Filters("spaceships")))
    assert reply.item_ids.tolist() == []
    assert reply.total == 0
    assert "'spaceships'" in reply.notes[0]
    reply = world.pipeline.respond(ask(query="boots", filters=Filters("boots", price_min=1e6)))
    assert reply.notes == ("no item passes the filters",)
    assert world.pipeline.respond(ask(query="boots", filters=Filters("boots"))).notes == ()
    assert world.pipeline.respond(ask(query="boots")).notes == ()


def test_page_turns_keep_the_filter(world: World) -> None:
    filters = Filters("shoes", price_max=150.0)
    first = world.pipeline.respond(ask(query="red", filters=filters, session_id=4))
    whole = world.pipeline.ranked(ask(query="red", filters=filters, session_id=4)).item_ids.tolist()
    assert first.item_ids.tolist() == whole[:10]
    silent = world.pipeline.respond(ask(query="red", session_id=4, cursor=first.cursor))
    said = world.pipeline.respond(ask(query="red", session_id=4, cursor=first.cursor, filters=filters))
    assert silent.item_ids.tolist() == said.item_ids.tolist() == whole[10:20]
    world.pipeline.pages.__init__()  # type: ignore[misc]  # the lists are gone: it is made again, narrowed
    again = world.pipeline.respond(ask(query="red", session_id=4, cursor=first.cursor))
    assert again.item_ids.tolist() == whole[10:20]
    with pytest.raises(InputError, match="other than those of the cursor"):
        world.pipeline.respond(ask(query="red", session_id=4, cursor=first.cursor, filters=Filters("boots")))


def test_offsets_with_another_filter_are_another_list(world: World) -> None:
    world.pipeline.respond(ask(query="red", session_id=4))
    shoes = world.pipeline.respond(ask(query="red", session_id=4, offset=10, filters=Filters("shoes")))
    assert {i["department"] for i in _items(world, shoes.item_ids.tolist())} == {"shoes"}


@given(
    st.text(max_size=30),
    st.none() | st.floats(0, 1e6),
    st.none() | st.floats(1e6, 1e9),
    st.booleans(),
)
def test_cursors_carry_filters(category: str, low: float | None, high: float | None, stock: bool) -> None:
    cursor = Cursor("r-0123456789ab", 7, 10, Filters(category, low, high, stock))
    assert decode_cursor(encode_cursor(cursor)) == cursor


def test_categories_that_share_a_code_are_told_apart() -> None:
    from data.codes import code_of

    by_code: dict[int, str] = {}
    pair = ("", "")
    for i in range(1_000):
        name = f"kind {i}"
        if code_of(name) in by_code:
            pair = (by_code[code_of(name)], name)
            break
        by_code[code_of(name)] = name
    state = State()
    Log().upsert(state, [{**catalogue_items()[k], "category": name} for k, name in enumerate(pair)])
    catalogue = Catalogue(state)
    for row, name in enumerate(pair):
        assert passing(Filters(name), state, catalogue, 2).rows.tolist() == [row]


def test_items_without_a_price_pass_no_price_range(world: World) -> None:
    unpriced = {k: v for k, v in new_item(9_002, "priceless gaiters").items() if k != "price"}
    world.log.upsert(world.state, [unpriced])
    world.refresh()
    assert world.ids(query="priceless gaiters")[0] == 9_002
    assert 9_002 not in world.ids(query="priceless gaiters", filters=Filters(price_max=1e9), size=100)
    assert 9_002 in world.ids(query="priceless gaiters", filters=Filters(in_stock=True))


@pytest.mark.parametrize(
    ("filters", "says"),
    [
        (Filters(price_min=10.0, price_max=5.0), "price_min 10 is above price_max 5"),
        (Filters(price_min=-1.0), "price_min is -1"),
        (Filters(price_max=np.inf), "price_max is inf"),
        (Filters(price_max=np.nan), "price_max is nan"),
        (Filters("x" * 201), "201 characters"),
    ],
)
def test_filters_that_make_no_sense_are_refused(world: World, filters: Filters, says: str) -> None:
    with pytest.raises(InputError, match=says):
        world.pipeline.respond(ask(query="boots", filters=filters))


def test_parameters_become_filters() -> None:
    assert filters_of({"q": "x"}) is None
    assert filters_of({"category": " ", "in_stock": "0", "price_min": ""}) is None
    found = filters_of({"category": "boots", "price_min": "1.5", "price_max": "20", "in_stock": "true"})
    assert found == Filters("boots", 1.5, 20.0, True)
    for wrong in ({"price_min": "cheap"}, {"price_max": "1_0"}, {"in_stock": "maybe"}):
        with pytest.raises(Refusal) as refused:
            filters_of(wrong)
        assert refused.value.status == 400
