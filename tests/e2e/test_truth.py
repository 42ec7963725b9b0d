"""Training and serving work where the world's truth cannot be read: `make_shop` moved it away."""

from __future__ import annotations

import pytest

from components.serving.engine import Engine
from data.shop import Request
from data.snapshots import published
from infra.clock import open_clock
from infra.settings import Home
from models.release import champion, load_release
from tests.e2e.shop_process import set_clock, shelflife

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_a_shop_is_ingested_trained_and_served_without_its_truth(shop: Home) -> None:
    assert not shop.truth.exists()
    assert published(shop).rows > 10_000
    name = champion(shop)
    assert name is not None
    release = load_release(shop, name)
    assert {"ranker", "encoder", "text_classifier"} <= set(release.manifest.artifacts)
    set_clock(shop, end_us=published(shop).watermark_us)
    engine = Engine(shop, open_clock(shop.clock))
    engine.start()
    try:
        for surface in ("search", "recommend"):
            request = Request(surface, engine.clock.now_us(), query="shoes" if surface == "search" else "")
            reply = engine.respond(request)
            assert len(reply.item_ids) == 10
            assert reply.release_id == name
    finally:
        engine.close()


def test_only_eval_misses_the_truth_and_says_so(shop: Home) -> None:
    done = shelflife(shop.root, "eval", "search", "--queries", "20")
    assert done.code == 2, done.err
    assert "truth" in done.line
