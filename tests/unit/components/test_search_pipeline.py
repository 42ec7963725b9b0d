"""The path as a whole: replies depend on what was asked, and never show what is gone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest

from components.search.pipeline import Answer, PipelineConfig, SearchPipeline
from components.search.rank import ExploreConfig
from components.search.request import MAX_QUERY, DeadlinePassed
from components.search.retrieve import found_by
from components.serving.feedback import Shown, shown_columns
from data.schema import EVENT_SCHEMA, event_table
from data.shop import Request
from infra.errors import InputError
from models.candidate_features import FEATURES
from tests.unit.components.search_world import (
    CATEGORIES,
    N_ITEMS,
    FakeRanker,
    World,
    ask,
    categories_of,
    make_world,
    new_item,
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def test_a_query_finds_what_it_names(world: World) -> None:
    found = world.ids(query="red northwind sneakers")
    titles = [orjson.loads(world.state.payload(world.state.item_row(i)))["title"] for i in found]
    assert len(found) == 10
    assert all("sneakers" in t for t in titles)
    assert sum("red" in t and "northwind" in t for t in titles[:3]) == 3


def test_replies_vary_with_query_image_and_user(world: World) -> None:
    assert not set(world.ids(query="sandals")) & set(world.ids(query="hoodies"))
    assert set(categories_of(world, world.ids(surface="image", photo=0))) <= {"sneakers", "sandals", "boots"}
    assert set(categories_of(world, world.ids(surface="image", photo=1))) <= {"shirts", "jackets", "hoodies"}
    assert world.ids(query="red", user_id=1) != world.ids(query="red", user_id=2)


def test_spelling_is_put_right(world: World) -> None:
    assert world.ids(query="sneakrs") == world.ids(query="sneakers")


def test_deleted_item_is_never_served(world: World) -> None:
    target = world.ids(query="blue kestrel boots")[0]
    world.log.delete(world.state, target)
    asked = [
        ask(query="blue kestrel boots", size=100),
        ask(query="", size=100),
        ask("image", photo=0, size=100),
        ask("recommend", user_id=1, size=100),
        ask("similar", item_id=target, size=100),
    ]
    for refreshed in (False, True):
        if refreshed:
            world.refresh()
        for request in asked:
            assert target not in world.pipeline.respond(request).item_ids


def test_new_item_is_found_by_text_and_by_vector_after_refresh(world: World) -> None:
    world.log.upsert(world.state, [new_item(77, "zebrawood halcyon red boots")])
    assert 77 not in world.ids(query="zebrawood", size=100)
    world.refresh()
    assert world.ids(query="zebrawood")[0] == 77
    ranked = world.pipeline.ranked(ask(query="zebrawood"))
    found = found_by(int(ranked.found[ranked.item_ids.tolist().index(77)]))
    assert found == ["text_delta", "vector_delta"]
    assert 77 in world.ids(surface="similar", item_id=1_002, size=100)


def test_changed_text_is_found_by_the_new_words_only(world: World) -> None:
    changed = {
        "item_id": 1_000,
        "title": "quokka slippers",
        "brand": "",
        "colour": "",
        "category": "slippers",
    }
    world.log.upsert(world.state, [changed])
    world.refresh()
    assert world.ids(query="quokka")[0] == 1_000
    ranked = world.pipeline.ranked(ask(query="northwind red sneakers model 0"))
    by_text = ranked.item_ids[(ranked.found & 0b11) > 0]
    assert 1_000 not in by_text


def test_a_price_change_does_not_enter_the_delta(world: World) -> None:
    world.log.upsert(world.state, [{"item_id": 1_001, "price": 1.25}])
    assert world.view.refresh() == 0
    assert len(world.view.delta_rows) == 0
    world.pipeline.summaries.refresh()
    hits = orjson.loads(world.pipeline.answer(ask("similar", item_id=1_007, size=100)).hits)
    assert {h["item_id"]: h for h in hits}[1_001]["price"] == 1.25


def test_pages_neither_repeat_nor_miss(world: World) -> None:
    request = ask(query="red", session_id=5)
    whole = world.pipeline.respond(replace(request, size=100))
    seen: list[int] = []
    reply = world.pipeline.respond(request)
    seen += reply.item_ids.tolist()
    while reply.cursor:
        reply = world.pipeline.respond(replace(request, cursor=reply.cursor))
        seen += reply.item_ids.tolist()
    assert len(seen) == len(set(seen)) == reply.total
    assert seen[:100] == whole.item_ids.tolist()


def test_page_turn_is_stable_across_a_swap(world: World, tmp_path: Path) -> None:
    first = world.pipeline.respond(ask(query="red", session_id=5))
    expected = world.pipeline.respond(ask(query="red", session_id=5, offset=10)).item_ids.tolist()

    class Reversed(FakeRanker):
        def predict(self, features: np.ndarray) -> np.ndarray:
            return -super().predict(features)

    manifest = replace(world.release.manifest, release_id="r-ffffffffffff")
    release = replace(world.release, manifest=manifest, ranker=Reversed())
    new = SearchPipeline(
        release, world.view, world.state, config=world.pipeline.config, pages=world.pipeline.pages
    )
    turned = new.respond(ask(query="red", session_id=5, cursor=first.cursor))
    assert turned.item_ids.tolist() == expected
    assert turned.release_id == "r-0123456789ab"
    assert new.respond(ask(query="red", session_id=5, offset=10)).item_ids.tolist() == expected
    assert new.respond(ask(query="red", session_id=5)).item_ids.tolist() != first.item_ids.tolist()


def test_evicted_list_is_made_again_or_said_to_be_gone(world: World) -> None:
    config = PipelineConfig(deadline_ms=None, page_lists=1)
    pipeline = SearchPipeline(world.release, world.view, world.state, config=config)
    request = ask(query="red", request_id=9)
    first = pipeline.respond(request)
    expected = pipeline.respond(replace(request, cursor=first.cursor, request_id=10)).item_ids.tolist()
    pipeline.respond(ask(query="blue", request_id=11))
    again = pipeline.respond(replace(request, cursor=first.cursor, request_id=12))
    assert again.item_ids.tolist() == expected
    assert again.degraded == ()
    assert again.request_id == 12
    manifest = replace(world.release.manifest, release_id="r-ffffffffffff")
    other = SearchPipeline(replace(world.release, manifest=manifest), world.view, world.state, config=config)
    late = other.respond(replace(request, cursor=first.cursor))
    assert late.degraded == ("cursor_expired",)
    assert late.release_id == "r-ffffffffffff"
    assert len(late.item_ids) == 10


def test_page_turn_leaves_out_what_was_deleted_meanwhile(world: World) -> None:
    first = world.pipeline.respond(ask(query="red", session_id=5))
    second = world.pipeline.respond(ask(query="red", session_id=5, offset=10)).item_ids.tolist()
    world.log.delete(world.state, second[3])
    turned = world.pipeline.respond(ask(query="red", session_id=5, cursor=first.cursor))
    assert turned.item_ids.tolist() == second[:3] + second[4:]


@pytest.mark.parametrize(
    "query", ["", "   ", "🥾👟", "\x00\x01", "\ud800", "'; DROP", "AND OR NOT", "a" * MAX_QUERY]
)
def test_any_text_gets_a_page(world: World, query: str) -> None:
    reply = world.pipeline.respond(ask(query=query))
    assert len(reply.item_ids) == 10
    answer = world.pipeline.answer(ask(query=query))
    shown_columns([shown(ask(query=query), answer)])[0]["query"][0].encode()


def test_empty_query_gives_the_popular(world: World) -> None:
    popular = world.view.catalogue.lists.popular
    assert set(world.ids(query="")) <= set(world.state.item_ids[popular[:100]].tolist())
    ranked = world.pipeline.ranked(ask(query=""))
    assert (ranked.found & (1 << 5) > 0).all()


@pytest.mark.parametrize(
    "fields",
    [
        {"query": "x" * 10_000},
        {"surface": "nonsense"},
        {"size": 0},
        {"size": 101},
        {"offset": -1},
        {"surface": "image", "photo": 2},
        {"surface": "image"},
        {"surface": "similar"},
        {"surface": "similar", "item_id": 5},
        {"cursor": "not a cursor"},
        {"cursor": "abcd"},
        {"cursor": "é"},
    ],
)
def test_nonsense_is_refused_with_a_sentence(world: World, fields: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"expected|give|use"):
        world.pipeline.respond(ask(**({"surface": "search"} | fields)))  # type: ignore[arg-type]


def test_recommendations_follow_the_user_and_leave_out_bought_and_sold_out(world: World) -> None:
    boots = world.pipeline.respond(ask("recommend", user_id=1, size=20))
    shirts = world.pipeline.respond(ask("recommend", user_id=2, size=20))
    assert categories_of(world, boots.item_ids.tolist()).count("boots") > 15
    assert categories_of(world, shirts.item_ids.tolist()).count("shirts") > 15
    bought = {1_003, 1_009}
    sold_out = set(world.state.item_ids[world.state.stock == 0].tolist())
    assert sold_out
    for user_id in (1, 2, 404, -1):
        served = set(world.ids(surface="recommend", user_id=user_id, size=100))
        assert served
        assert not served & sold_out
        if user_id == 2:
            assert not served & bought
    assert world.ids(surface="recommend", user_id=404) == world.ids(surface="recommend")
    assert world.ids(surface="recommend", user_id=1) != world.ids(surface="recommend")


def test_similar_items_are_the_nearest_in_stock(tmp_path: Path) -> None:
    world = make_world(tmp_path, ranker=None)
    row = world.state.item_row(1_001)
    vectors = world.view.live.vectors
    nearest = np.argsort(-(vectors @ vectors[row]), kind="stable")
    wanted = [r for r in nearest.tolist() if r != row and world.state.stock[r] > 0][:10]
    assert set(world.ids(surface="similar", item_id=1_001)) == set(world.state.item_ids[wanted].tolist())


def test_exploration_has_propensities_and_repeats_itself(world: World) -> None:
    config = PipelineConfig(explore=ExploreConfig(slots=2), deadline_ms=None)
    pipeline = SearchPipeline(world.release, world.view, world.state, config=config)
    plain = world.pipeline.respond(ask(query="red", size=50)).item_ids.tolist()
    slots: set[int] = set()
    for request_id in range(40):
        reply = pipeline.respond(ask(query="red", size=50, request_id=request_id))
        same = pipeline.respond(ask(query="red", size=50, request_id=request_id))
        assert reply.item_ids.tolist() == same.item_ids.tolist()
        assert sorted(reply.item_ids.tolist()) == sorted(plain)
        drawn = np.flatnonzero(~np.isnan(reply.propensity))
        assert len(drawn) == 2
        assert drawn.max() < 10
        np.testing.assert_allclose(reply.propensity[drawn], 1 / 40)
        assert all(plain.index(i) >= 10 for i in reply.item_ids[drawn].tolist())
        slots |= set(drawn.tolist())
    assert len(slots) == 10
    assert np.isnan(world.pipeline.respond(ask(query="red")).propensity).all()


def shown(request: Request, answer: Answer) -> Shown:
    """What the service journals of an answer."""
    ranked, at = answer.ranked, answer.positions
    return Shown(
        request, answer.reply, ranked.state_time_us, at, ranked.vector_scores[at], ranked.category_probs[at]
    )


def test_late_requests_leave_parts_out_in_order(world: World) -> None:
    def served(step_ns: int) -> tuple[str, ...]:
        now = [0]

        def timer() -> int:
            now[0] += step_ns
            return now[0]

        config = PipelineConfig(deadline_ms=100, vectors_by=0.5, candidates_by=0.52, ranker_by=0.55)
        pipeline = SearchPipeline(world.release, world.view, world.state, config=config, timer_ns=timer)
        answer = pipeline.answer(ask(query="red sneakers"))
        assert len(answer.reply.item_ids) == 10
        assert (len(answer.ranked.rows) <= 50) == ("candidates" in answer.reply.degraded)
        return answer.reply.degraded

    assert served(1_000) == ()
    assert served(8_000_000) == ("ranker",)
    assert served(11_000_000) == ("candidates", "ranker")
    assert served(30_000_000) == ("vectors", "candidates", "ranker")


def test_past_its_own_deadline_a_request_is_not_computed(world: World) -> None:
    now = [0]
    pipeline = SearchPipeline(world.release, world.view, world.state, timer_ns=lambda: now[0])
    late = {"arrived_ns": -30_000_000}
    with pytest.raises(DeadlinePassed, match="30 ms spent"):
        pipeline.answer(ask(query="red"), deadline_ms=29.0, **late)
    assert pipeline.answer(ask(query="red"), deadline_ms=31.0, **late).reply.degraded == (
        "vectors", "candidates", "ranker",
    )  # fmt: skip
    hours = pipeline.answer(ask(query="red"), arrived_ns=-(10**13)).reply
    assert len(hours.item_ids) == 10  # the service's own deadline only hurries
    assert hours.degraded == ("vectors", "candidates", "ranker")


def test_missing_artifacts_are_done_without(tmp_path: Path) -> None:
    none = make_world(tmp_path, ranker=None, text_classifier=None, speller=None, image_classifier=None)
    ranked = none.pipeline.ranked(ask(query="red sneakers"))
    assert (np.diff(ranked.scores) <= 0).all()
    assert not ranked.category_probs.any()
    reply = none.pipeline.respond(ask("image", photo=0))
    assert reply.degraded == ("image_classifier",)
    assert len(reply.item_ids) == 10


def test_uploaded_image_is_answered_like_a_photo(world: World) -> None:
    for shape in ((28, 28), (100, 60), (9, 9), (64, 64, 3)):
        dark = world.pipeline.respond_image(np.full(shape, 10, np.uint8), ask("image"))
        assert dark.item_ids.tolist() == world.ids(surface="image", photo=0)
    with pytest.raises(InputError, match="expected uint8"):
        world.pipeline.respond_image(np.zeros((28, 28)), ask("image"))


def test_explanation_says_where_a_hit_comes_from(world: World) -> None:
    answer = world.pipeline.answer(ask(query="blue jackets", user_id=2), explain=True)
    assert answer.explanation is not None
    assert [e["item_id"] for e in answer.explanation] == answer.reply.item_ids.tolist()
    for entry in answer.explanation:
        assert "text" in entry["found_by"]
        assert entry["tier"] in (0, 1, 2)
        assert set(entry["features"]) == set(FEATURES)
        assert entry["score"] == pytest.approx(sum(entry["contributions"].values()))
    assert world.pipeline.answer(ask(query="blue jackets")).explanation is None


def test_hits_are_the_items_of_the_page(world: World) -> None:
    answer = world.pipeline.answer(ask(query="green shirts"))
    hits = orjson.loads(answer.hits)
    assert [h["item_id"] for h in hits] == answer.reply.item_ids.tolist()
    assert hits[0]["rating"] == 4.0
    title = hits[0]["title"]
    world.log.upsert(world.state, [{"item_id": hits[0]["item_id"], "title": "renamed " + title}])
    world.refresh()
    again = {h["item_id"]: h for h in orjson.loads(world.pipeline.answer(ask(query="green shirts")).hits)}
    assert again[hits[0]["item_id"]]["title"] == "renamed " + title


def test_impressions_fit_the_schema_and_hold_what_was_ranked_by(world: World) -> None:
    request = ask(query="red boots", user_id=1, session_id=4, request_id=8, offset=10)
    answer = world.pipeline.answer(request)
    columns = {name: values[1:] for name, values in shown_columns([shown(request, answer)])[0].items()}
    assert set(columns) <= set(EVENT_SCHEMA.names)
    n = len(answer.reply.item_ids)
    table = event_table(columns | {"event_id": np.arange(n), "known_time": request.time_us})
    assert table.num_rows == n == 10
    assert table["position"].to_pylist() == list(range(10, 20))
    assert set(table["page"].to_pylist()) == {1}
    assert set(table["state_time"].to_pylist()) == {world.state.as_of_us}
    probs = world.release.text_classifier.predict(["red boots"])[0]  # type: ignore[union-attr]
    by_category = dict(zip(CATEGORIES, probs.tolist(), strict=True))
    expected = [by_category[c] for c in categories_of(world, answer.reply.item_ids.tolist())]
    np.testing.assert_allclose(table["category_prob"].to_numpy(), expected, rtol=1e-6)
    query_vector = world.release.encoder.encode_queries(["red boots"])[0]
    rows = world.state.item_rows(answer.reply.item_ids)
    np.testing.assert_allclose(
        table["vector_score"].to_numpy(), world.view.live.vectors[rows] @ query_vector, rtol=1e-5
    )


def test_stage_times_are_reported_and_recorded(world: World) -> None:
    reply = world.pipeline.respond(ask(query="red", session_id=5))
    names = ["plan", "understand", "retrieve", "rank", "summarise"]
    assert list(reply.timings_us) == [*names, "total"]
    assert reply.timings_us["total"] >= sum(reply.timings_us[n] for n in names)
    turned = world.pipeline.respond(ask(query="red", session_id=5, offset=10))
    assert list(turned.timings_us) == ["plan", "summarise", "total"]
    counts = {s.name: s.count for s in world.pipeline.times.summary()}
    assert counts["plan"] == 2
    assert counts["rank"] == 1


def test_list_is_bounded_and_offsets_beyond_it_are_empty(world: World) -> None:
    reply = world.pipeline.respond(ask(query="red", offset=190, size=100))
    assert reply.total <= 200 < N_ITEMS
    assert reply.cursor == ""
    assert len(world.pipeline.respond(ask(query="red", offset=100_000)).item_ids) == 0
