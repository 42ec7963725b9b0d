"""The split path gives what the one replica gives: stages on engines of their own, parts packed between."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from components.search.pipeline import PipelineConfig
from components.search.work import Work
from components.serving.engine import Engine, EngineConfig
from components.serving.parts import PARTS, StagePart, pack, unpack
from data.shop import Request
from infra.clock import ManualClock
from infra.settings import Home
from tests.unit.components.search_world import NOW_US
from tests.unit.components.serving_world import make_home, publish_release

UNHURRIED = PipelineConfig(deadline_ms=None)  # however busy the machine is, nothing is left out


@pytest.fixture
def layout(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with a release."""
    made = make_home(tmp_path_factory.mktemp("split"))
    publish_release(made)
    return made


def test_stages_elsewhere_give_the_same_list(layout: Home) -> None:
    engine = Engine(layout, ManualClock(NOW_US), config=EngineConfig(writer="whole", pipeline=UNHURRIED))
    engine.start()
    parts = {stage: StagePart(str(layout.root), None, stage) for stage in PARTS}
    try:
        live = engine.live
        assert live is not None
        for request_id, query in enumerate(("red boots", "jackets", "no such thing", ""), start=1):
            request = Request("search", NOW_US, query=query, user_id=1, request_id=request_id)
            whole = engine.answer(request, journal=False)
            work = live.pipeline.begin(request)
            for stage in live.pipeline.stages:
                if stage.name not in parts:
                    stage.call(work)
                    continue
                parcel = pack(work)
                assert len(parcel) < 100_000  # what every deployment has of its own does not travel
                reply = asyncio.run(parts[stage.name].run(parcel))
                part, took_us, work.degraded = unpack(reply, engine)
                assert took_us >= 0
                setattr(work, PARTS[stage.name], part)
            split = live.pipeline.finish(work, (), total_us=0)
            assert np.array_equal(split.ranked.item_ids, whole.ranked.item_ids)
            assert np.allclose(split.ranked.scores, whole.ranked.scores)
            assert split.hits == whole.hits
    finally:
        for part in parts.values():
            part.engine.close()
        engine.close()


def test_what_travels_finds_its_release_at_the_other_end(layout: Home) -> None:
    engine = Engine(layout, ManualClock(NOW_US), config=EngineConfig(writer="a"))
    other = Engine(layout, ManualClock(NOW_US), config=EngineConfig(writer="b"))
    engine.start()
    other.start()
    try:
        assert engine.live is not None
        assert other.live is not None
        work = engine.live.pipeline.begin(Request("search", NOW_US, query="boots"))
        for stage in engine.live.pipeline.stages[:2]:
            stage.call(work)
        there: Work = unpack(pack(work), other)
        assert there.live is other.live.view.live
        assert there.meaning is not None
        assert there.meaning.known.vector is not None
    finally:
        engine.close()
        other.close()
