"""Somebody's own log, from tables to answers: with all there is, and with clicks alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest

from components.search.pipeline import PipelineConfig
from components.serving.api import page_body
from components.serving.engine import Engine, EngineConfig
from data.replica import current_state
from data.schema import key_to_id
from data.shop import Request
from data.sources.tables import import_csv
from flows.evaluation.classifiers import evaluate_image, evaluate_text
from flows.evaluation.search import evaluate_search
from flows.live.load import log_trace
from flows.offline.inputs import clicked_pairs, clicked_queries, load_inputs
from flows.offline.refresh import refresh
from infra.clock import open_clock
from infra.errors import DataError
from infra.settings import Home, Settings
from tests.unit.flows.own_log import KINDS, item_keys, user_keys, write_full, write_minimal

pytestmark = pytest.mark.slow  # trains whole releases


def made(root: Path, write: Callable[[Path], Path], migrated_registry: Path) -> Settings:
    settings = Settings(home=root / "home", cache=root / "cache")
    layout = settings.layout
    shutil.copytree(migrated_registry, layout.mlflow)
    import_csv(write(root / "log"), layout)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.offline.refresh.nice_down", lambda: None)  # it would last for ever
        refresh(settings)
    return settings


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, migrated_registry: Path) -> Settings:
    return made(tmp_path_factory.mktemp("full"), write_full, migrated_registry)


@pytest.fixture(scope="module")
def minimal(tmp_path_factory: pytest.TempPathFactory, migrated_registry: Path) -> Settings:
    return made(tmp_path_factory.mktemp("minimal"), write_minimal, migrated_registry)


def engine_of(settings: Settings, writer: str) -> Iterator[Engine]:
    config = EngineConfig(writer=writer, pipeline=PipelineConfig.for_evaluation())
    engine = Engine(settings.layout, open_clock(settings.layout.clock), config=config)
    engine.start()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def full_engine(full: Settings) -> Iterator[Engine]:
    yield from engine_of(full, "full")


@pytest.fixture(scope="module")
def minimal_engine(minimal: Settings) -> Iterator[Engine]:
    yield from engine_of(minimal, "minimal")


def keys(engine: Engine, surface: str, **asked: object) -> list[object]:
    request = Request(surface, engine.clock.now_us(), **asked)  # type: ignore[arg-type]
    return [item["item_id"] for item in orjson.loads(page_body(engine.answer(request)))["items"]]


def test_a_full_log_is_searched_with_a_ranker_and_its_own_keys(full_engine: Engine) -> None:
    live = full_engine.live
    assert live is not None
    assert live.release.ranker is not None
    assert live.release.text_classifier is not None
    kind_of = item_keys()
    for kind, word in KINDS.items():
        found = keys(full_engine, "search", query=f"{word} {kind}", size=5)
        assert set(found) <= set(kind_of)
        assert sum(kind_of[str(key)] == kind for key in found) == 5


def test_clicks_alone_make_a_shop_without_a_ranker(minimal_engine: Engine) -> None:
    live = minimal_engine.live
    assert live is not None
    assert live.release.ranker is None
    some = next(iter(item_keys()))
    assert keys(minimal_engine, "search", query=some)[0] == some
    assert len(keys(minimal_engine, "recommend")) == 10
    similar = keys(minimal_engine, "similar", item_id=key_to_id(some))
    assert len(similar) == 10
    assert some not in similar


def test_recommendations_from_clicks_alone_are_of_the_users_kind(minimal_engine: Engine) -> None:
    kind_of = item_keys()
    right = []
    for i, user in enumerate(user_keys()):
        found = keys(minimal_engine, "recommend", user_id=key_to_id(user))
        right += [kind_of[str(k)] == list(KINDS)[i % len(KINDS)] for k in found]
    assert np.mean(right) > 0.8  # a quarter by chance


def test_an_encoder_learns_pairs_of_different_items_of_one_user(minimal: Settings) -> None:
    inputs = load_inputs(minimal.layout, window_d=None)
    assert clicked_queries(inputs)[0] == []
    first, second, weights = clicked_pairs(inputs)
    assert len(first) == len(second) == len(weights) > 100
    assert (first != second).all()
    kinds = np.array([item_keys()[orjson.loads(p)["title"]] for p in inputs.state.payloads])
    assert (kinds[first] == kinds[second]).all()


def test_a_full_log_is_judged_by_held_out_searches(full: Settings, tmp_path: Path) -> None:
    report = evaluate_search(full, queries=25, dump=tmp_path / "trec")
    assert (report["source"], report["surface"], report["items"]) == ("log", "search", 40)
    assert 5 <= report["queries"] <= 25
    assert set(report["retrievers"]) == {"served", "ranked", "hybrid", "vector", "lexical"}
    for metrics in report["retrievers"].values():
        for found in metrics.values():
            assert 0.0 <= found["low"] <= found["mean"] <= found["high"] <= 1.0
    assert report["retrievers"]["lexical"]["recall10"]["mean"] > 0.8
    assert report["logged_requests"] >= report["queries"]
    run = [line.split() for line in (tmp_path / "trec.run").read_text().splitlines()]
    qrels = [line.split() for line in (tmp_path / "trec.qrels").read_text().splitlines()]
    assert {r[2] for r in run} <= set(item_keys())
    assert len({r[0] for r in run}) == len({q[0] for q in qrels}) == report["queries"]
    assert {q[3] for q in qrels} <= {"0", "1", "2", "3"}


def test_clicks_alone_are_judged_by_the_next_click(minimal: Settings) -> None:
    report = evaluate_search(minimal)
    assert (report["source"], report["surface"]) == ("log", "recommend")
    assert set(report["retrievers"]) == {"served", "vector", "popular"}
    mrr = {name: metrics["mrr"]["mean"] for name, metrics in report["retrievers"].items()}
    assert mrr["vector"] > mrr["popular"]
    assert "ndcg10_judged" not in report["retrievers"]["served"]


def test_words_are_judged_where_there_is_somebody_who_understands_them(
    full: Settings, minimal: Settings
) -> None:
    assert evaluate_text(full, queries=50)["accuracy"]["mean"] > 0.8
    report = evaluate_text(minimal, queries=50)
    assert "accuracy" not in report
    assert report["titles_changed"]["mean"] == 0.0
    with pytest.raises(DataError, match="no image classifier"):
        evaluate_image(full)


def test_load_asks_what_was_typed_or_titles(full: Settings, minimal: Settings) -> None:
    trace, source = log_trace(full.layout, rate=100, seconds=2, seed=1)
    assert source == "log"
    typed = {f"q={word}+{kind}" for kind, word in KINDS.items()}
    assert {r.split(b"?")[1].split(b" ")[0].decode() for r in trace.requests} == typed
    trace, source = log_trace(minimal.layout, rate=100, seconds=2, seed=1)
    assert source == "titles"
    assert len(trace) > 100


def test_what_is_written_in_the_state_are_the_logs_own_keys(minimal: Settings) -> None:
    layout = Home(minimal.home)
    assert {orjson.loads(p)["item_id"] for p in current_state(layout).payloads} == set(item_keys())
