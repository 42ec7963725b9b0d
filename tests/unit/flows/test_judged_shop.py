"""A catalogue with labels and nothing else, from files to figures: no users, clicks or photos."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from components.search.live import ReleaseView
from components.search.pipeline import PipelineConfig, SearchPipeline
from data.labels import labels_path
from data.replica import current_state
from data.shop import Request
from data.sources.wands import import_wands
from flows.evaluation.ablation import ABLATIONS
from flows.evaluation.plain_bm25 import plain_bm25
from flows.evaluation.search import evaluate_search, opened_release
from flows.offline.refresh import refresh
from infra.settings import Settings
from tests.unit.flows.judged_shop import Product, products, write_shop

pytestmark = pytest.mark.slow  # trains a whole release

SHOP = {"n": 300, "seed": 5}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, migrated_registry: Path) -> Settings:
    root = tmp_path_factory.mktemp("judged")
    settings = Settings(home=root / "home", cache=root / "cache")
    shutil.copytree(migrated_registry, settings.layout.mlflow)
    import_wands(write_shop(root / "in", asked=60, **SHOP), settings.layout)
    hidden = labels_path(settings.layout).rename(root / "hidden")  # training and indexing do without it
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.offline.refresh.nice_down", lambda: None)  # it would last for ever
        refresh(settings)
    hidden.rename(labels_path(settings.layout))
    return settings


@pytest.fixture(scope="module")
def pipeline(shop: Settings) -> SearchPipeline:
    release, state = opened_release(shop, None), current_state(shop.layout)
    unhurried = PipelineConfig(deadline_ms=None)  # however busy the machine is
    return SearchPipeline(release, ReleaseView(release, state), state, config=unhurried)


def found(pipeline: SearchPipeline, query: str) -> list[Product]:
    by_key = {p.key: p for p in products(**SHOP)}
    reply = pipeline.respond(Request("search", pipeline.state.as_of_us, query=query, request_id=1))
    return [by_key[i] for i in reply.item_ids.tolist()]


def test_it_is_judged_by_its_labels_and_beats_plain_bm25(shop: Settings) -> None:
    report = evaluate_search(shop, ablate=True)
    assert (report["source"], report["items"]) == ("labels", 300)
    assert set(report["retrievers"]) == {"served", "hybrid", "vector", "lexical"}  # no ranker without clicks
    for metrics in report["retrievers"].values():
        assert {"ndcg10_judged", "ndcg10_all", "p10", "recall100", "mrr"} <= set(metrics)
        assert all(0 <= i["low"] <= i["mean"] <= i["high"] <= 1 for i in metrics.values())
    difference = report["baseline"]["served_minus_baseline"]["ndcg10_judged"]
    assert difference["low"] > 0.03
    served = report["retrievers"]["served"]["ndcg10_judged"]["mean"]
    plain = report["baseline"]["metrics"]["ndcg10_judged"]["mean"]
    assert served - plain == pytest.approx(difference["mean"])
    assert set(report["ablation"]) == set(ABLATIONS)
    assert report["ablation"]["without_user"]["difference"]["mean"] == 0.0  # there are no users


def test_model_numbers_are_found_however_they_are_written(pipeline: SearchPipeline) -> None:
    for product in products(**SHOP)[:12]:
        for text in (product.model, product.model.lower().replace("-", ""), product.model.replace("-", " ")):
            assert found(pipeline, text)[0].model == product.model


def test_sizes_are_found_in_any_spelling_and_in_features_alone(pipeline: SearchPipeline) -> None:
    for text in ("5x7 area rug", "area rug 5 x 7 ft", "5' x 7' area rug"):
        first = found(pipeline, text)[:3]
        assert {(p.kind, p.size) for p in first} == {("area rug", "5x7")}
    for text in ("24 inch bar stool", '24" bar stool', "bar stool 24in"):
        assert {(p.kind, p.size) for p in found(pipeline, text)[:2]} == {("bar stool", "24")}


def test_compounds_and_slips_of_the_pen_are_understood(pipeline: SearchPipeline) -> None:
    for text in ("nightstand", "night stand", "nightstnad", "barstool"):
        kinds = {p.kind for p in found(pipeline, text)[:8]}
        assert kinds == {"bar stool" if text == "barstool" else "nightstand"}


def test_what_the_shop_sells_is_never_corrected(pipeline: SearchPipeline) -> None:
    for product in products(**SHOP)[:60]:
        for word in (product.collection, product.brand, product.material, product.colour):
            assert not pipeline.queries.of(word).rewritten.corrected


def test_nothing_is_explored_before_there_is_a_ranker(pipeline: SearchPipeline) -> None:
    replies = [
        pipeline.respond(Request("search", pipeline.state.as_of_us, query="lamp", request_id=i))
        for i in range(1, 9)
    ]
    assert all(np.isnan(r.propensity).all() for r in replies)
    assert len({tuple(r.item_ids.tolist()) for r in replies}) == 1


def test_the_classes_of_the_best_hits_stand_before_others(pipeline: SearchPipeline) -> None:
    # Every description mentions other kinds: they are found, but below.
    kinds = [p.kind for p in found(pipeline, "area rug")]
    assert set(kinds) == {"area rug"}


def test_plain_bm25_knows_title_and_description_alone() -> None:
    items: list[tuple[int, dict[str, object]]] = [
        (1, {"title": "Red lamp", "category": "sofa"}),
        (2, {"title": "lamp", "description": "red and red"}),
        (3, {"title": "sofas", "tags": ["red"]}),
    ]
    with plain_bm25(items) as plain:
        assert set(plain.search("red", 10).tolist()) == {1, 2}
        assert plain.search("sofa", 10).tolist() == []
        assert set(plain.search("RED LAMP!", 10).tolist()) == {1, 2}
        assert plain.search("", 10).tolist() == []


def test_no_more_queries_are_asked_than_wanted(shop: Settings) -> None:
    report = evaluate_search(replace(shop, seed=3), queries=5)
    assert report["queries"] == 5
