"""What a swap takes of memory: counted, in an engine whose releases differ in the ranker alone."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest

from components.serving.engine import Engine, EngineConfig
from components.serving.shadow import ShadowLimits
from flows.bench import swap_memory
from flows.bench.catalogue import bench_requests
from flows.bench.swap import reidentified
from flows.bench.swap_memory import measure, pages, summed_up
from infra.clock import HOUR_US, ManualClock
from infra.settings import Home, Settings
from models.growth import Trees
from models.ranker import Ranker
from models.release import (
    champion,
    diff,
    load_release,
    make_release,
    publish,
    put_artifact,
    read_manifest,
    set_champion,
)

ROLLUP = """55d0-7ffd ---p 00000000 00:00 0                  [rollup]
Rss:              251000 kB
Pss:              200000 kB
Anonymous:        190000 kB
AnonHugePages:     20000 kB
"""


def with_rankers(layout: Home) -> list[str]:
    """Releases of rankers of a usual size, which differ in nothing else; the first is champion."""
    first = read_manifest(layout, champion(layout) or "")
    ranker = load_release(layout, first.release_id).ranker
    assert ranker is not None
    assert ranker.trees
    trees = Trees(ranker._model, ranker.trees)
    made = []
    for least in (60, 90):
        while trees.count < least:  # the scores only grow
            trees = trees.plus(ranker._model)
        folder = layout.root / f"ranker-{least}"
        Ranker(trees.text, ranker._probe, trees=trees.count, examination=ranker.examination).save(folder)
        old = first.artifacts["ranker"]
        artifact = put_artifact(layout, "ranker", folder, version="1", requires=old.requires, created_us=1)
        manifest = make_release(
            first.artifacts | {"ranker": artifact},
            watermark_us=first.watermark_us,
            created_us=first.created_us,
        )
        publish(layout, manifest)
        made.append(manifest.release_id)
    set_champion(layout, made[0], at_us=first.created_us, by="test")
    return made


@pytest.mark.slow
def test_a_swap_of_the_ranker_alone_takes_less_memory_than_the_bytes_it_changes(shop: Settings) -> None:
    layout = shop.layout
    trained = with_rankers(layout)
    names = reidentified(layout, trained, 6, only="ranker")
    manifests = [read_manifest(layout, name) for name in (trained[0], *names)]
    told = [diff(a, b) for a, b in pairwise(manifests)]
    assert all(d["changed"] == ["ranker"] for d in told)
    config = EngineConfig(follow=False, limits=ShadowLimits(free_ms=math.inf, pause_s=0.0, rest=0.0))
    engine = Engine(layout, ManualClock(manifests[0].watermark_us + HOUR_US), config=config)
    engine.start()
    try:
        found = measure(engine, names, bench_requests(layout, most=40))
    finally:
        engine.close()
    assert len(found["counted"]) == len(found["counted_after"]) == 6
    summed = summed_up(found, [d["changed_size"] for d in told])
    assert 0 < summed["counted_per_changed"] < 1.1
    assert summed["counted_after_per_changed"] < 0.3


def test_pages_are_read_from_the_page_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swap_memory, "_PAGES", tmp_path / "smaps_rollup")
    assert pages() is None
    (tmp_path / "smaps_rollup").write_text("")
    assert pages() is None
    (tmp_path / "smaps_rollup").write_text(ROLLUP)
    assert pages() == (190_000 << 10, 251_000 << 10)


def test_what_the_system_does_not_tell_is_none() -> None:
    found = summed_up({"own": [], "counted": [100, 300, 200]}, [1_000, 3_000])
    assert found["own_bytes"] is found["own_per_changed"] is None
    assert (found["counted_bytes"], found["counted_per_changed"]) == (200, 0.1)
    assert (found["swaps"], found["changed_bytes"]) == (2, 2_000)
