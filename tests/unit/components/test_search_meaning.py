"""What the path makes of words and of what a session did."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.search.live import ReleaseView
from components.search.pipeline import PipelineConfig, SearchPipeline
from data.schema import CLICK, ORDER
from models.speller import Speller
from models.synonyms import Synonyms
from tests.unit.components.search_world import (
    CATEGORIES,
    World,
    ask,
    categories_of,
    make_release,
    make_world,
    new_item,
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def test_learnt_synonyms_find_what_the_catalogue_calls_otherwise(tmp_path: Path) -> None:
    known = dict.fromkeys(("sneaker", "red", "kick"), 50)
    plain = make_world(tmp_path, speller=Speller.fit(known), ranker=None)
    taught = Speller.fit(known, synonyms=Synonyms({"kick": "sneaker"}))
    world = make_world(tmp_path, speller=taught, ranker=None)
    asked = {"query": "kicks", "size": 60}

    def hits(of: World) -> int:
        return sum(c == "sneakers" for c in categories_of(of, of.ids(**asked)))

    assert hits(world) > 1.5 * hits(plain)
    assert world.ids(query="red sneakers") == plain.ids(query="red sneakers")
    world.log.upsert(world.state, [new_item(9_100, "sneakers of tomorrow", category="sneakers")])
    world.refresh()
    assert 9_100 in world.ids(**asked)


def test_explanation_says_how_the_query_was_understood(tmp_path: Path) -> None:
    speller = Speller.fit({"sneaker": 9, "red": 9, "kick": 9}, synonyms=Synonyms({"kick": "sneaker"}))
    world = make_world(tmp_path, speller=speller)
    asked = world.pipeline.answer(ask(query="redd kicks"), explain=True).asked
    assert asked is not None
    assert (asked["words"], asked["corrected"], asked["also"]) == (["red", "kick"], True, ["red", "sneaker"])
    probabilities = [c["probability"] for c in asked["categories"]]
    assert len(probabilities) == 5
    assert probabilities == sorted(probabilities, reverse=True)
    assert {c["category"] for c in asked["categories"]} <= set(CATEGORIES)
    seen = world.pipeline.answer(ask("image", photo=0), explain=True).asked
    assert seen is not None
    assert seen["categories"][0]["category"] == "shoes"
    assert world.pipeline.answer(ask(query="red")).asked is None


def test_a_click_changes_the_next_reply_of_its_session_alone(world: World) -> None:
    asked: dict[str, object] = {"surface": "recommend", "user_id": 404}
    before = {s: world.ids(**asked, session_id=s) for s in (70, 71)}
    hoodies = [i for i in world.state.item_ids.tolist() if (i - 1_000) % 6 == 5][3:6]
    world.log.react(world.state, CLICK, -1, hoodies, session_id=70)
    after = {s: world.ids(**asked, session_id=s) for s in (70, 71)}
    assert after[70] != before[70]
    of_70, of_71, of_none = (
        categories_of(world, ids).count("hoodies") for ids in (after[70], after[71], before[70])
    )
    assert of_70 > max(of_71, of_none)
    searched = world.ids(query="red", session_id=70)
    assert searched != world.ids(query="red", session_id=71)
    assert categories_of(world, searched).count("hoodies") > 0


def test_what_was_just_bought_is_not_recommended_nor_similar(world: World) -> None:
    top = world.ids(surface="recommend", user_id=1)[0]
    near = world.ids(surface="similar", item_id=1_002, user_id=1)[0]
    world.log.react(world.state, ORDER, 1, [top, near])
    assert top not in world.ids(surface="recommend", user_id=1, size=100)
    assert near not in world.ids(surface="similar", item_id=1_002, user_id=1, size=100)
    assert near in world.ids(surface="similar", item_id=1_002, user_id=2, size=100)


def test_a_release_built_now_has_no_delta(world: World, tmp_path: Path) -> None:
    world.log.upsert(world.state, [new_item(9_200, "velvet clogs"), new_item(9_201, "linen clogs")])
    world.refresh()
    assert world.state.item_ids[world.view.delta_rows].tolist() == [9_200, 9_201]
    rebuilt = make_release(tmp_path, world.state, release_id="r-00000000000a")
    view = ReleaseView(rebuilt, world.state, catalogue=world.view.catalogue)
    assert not len(view.delta_rows)
    pipeline = SearchPipeline(rebuilt, view, world.state, config=PipelineConfig.for_evaluation())
    assert pipeline.respond(ask(query="velvet clogs")).item_ids[0] == 9_200
