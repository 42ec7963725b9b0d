"""Searching by what a photo looks like: the index, what it lacks, filters, new photos of old items."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from components.search.live import ReleaseView
from components.search.pipeline import PipelineConfig, SearchPipeline
from data.shop import Filters
from models.image_index import ImageIndex
from tests.unit.components.search_world import World, ask, make_world, new_item

N_PHOTOS = 60


class Seer:
    """Sees the brightness of 49 patches; dark photos are shoes, bright ones tops."""

    classes = ("shoes", "tops")

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """float32 [n, 49]."""
        return images.reshape(len(images), 7, 4, 7, 4).mean(axis=(2, 4)).reshape(-1, 49).astype(np.float32)

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """float32 [n, 2]."""
        bright = images.reshape(len(images), -1).mean(1) / 255
        return np.stack([1 - bright, bright], 1).astype(np.float32)

    def see(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Both."""
        return self.predict(images), self.embed(images)


def _photos() -> NDArray[np.uint8]:
    return np.random.default_rng(5).choice(np.array([0, 40, 90], np.uint8), (N_PHOTOS, 28, 28))


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Item 1000 + i has photo i for the first 50; photos 50 to 59 are nobody's."""
    plain = make_world(tmp_path)
    state, photos, seer = plain.state, _photos(), Seer()
    plain.log.upsert(state, [{"item_id": 1_000 + i, "photo": i, "stock": 3} for i in range(50)])
    rows = np.arange(50)
    index = ImageIndex.build(state.item_ids[rows], rows, seer.embed(photos[:50]))
    release = replace(plain.release, image_classifier=seer, image_index=index, ranker=None)  # type: ignore[arg-type]
    view = ReleaseView(release, state, photos=photos)
    pipeline = SearchPipeline(release, view, state, config=PipelineConfig.for_evaluation(), photos=photos)
    return World(plain.log, state, release, view, pipeline, tmp_path)


def _look(world: World, photo: int, filters: Filters | None = None) -> list[int]:
    """Items found by their looks, in the reply's order."""
    answer = world.pipeline.answer(ask(surface="image", photo=photo, size=100, filters=filters), explain=True)
    return [e["item_id"] for e in answer.explanation or [] if "look" in e["found_by"]]


def test_each_photo_finds_its_own_item_and_photos_of_one_department_differ(world: World) -> None:
    first = []
    for photo in range(0, 50, 7):
        reply = world.pipeline.respond(ask(surface="image", photo=photo))
        found = world.view.live.photos
        assert found is not None
        seen = world.release.image_index.vectors[photo]  # type: ignore[union-attr]
        assert world.state.item_ids[found.nearest(seen, 5)[0]] == 1_000 + photo
        assert 1_000 + photo in _look(world, photo)
        first.append(tuple(reply.item_ids.tolist()))
    assert len(set(first)) == len(first)


def test_an_upload_in_colour_and_of_another_size_is_seen_like_the_photo(world: World) -> None:
    grey = _photos()[3]
    large = np.repeat(np.repeat(grey, 3, 0), 3, 1)
    request = ask(surface="image", photo=3)
    expected = world.pipeline.respond(request).item_ids.tolist()
    for upload in (grey, large, np.stack([large] * 3, 2)):
        assert world.pipeline.respond_image(upload, ask(surface="image")).item_ids.tolist() == expected


def test_a_new_item_is_found_by_its_photo_and_a_deleted_one_is_not(world: World) -> None:
    assert 9_001 not in _look(world, 55)
    world.log.upsert(world.state, [new_item(9_001, "thing", photo=55)])
    world.refresh()
    live = world.view.live.photos
    assert live is not None
    assert world.state.item_ids[live.delta_rows].tolist() == [9_001]
    assert 9_001 in _look(world, 55)
    world.log.delete(world.state, 9_001)
    world.refresh()
    assert 9_001 not in _look(world, 55)


def test_a_changed_photo_counts_and_the_old_one_does_not(world: World) -> None:
    world.log.upsert(world.state, [{"item_id": 1_004, "photo": 57}])
    world.refresh()
    live, seer, photos = world.view.live.photos, Seer(), _photos()
    assert live is not None

    def nearest(photo: int) -> int:
        seen = seer.embed(photos[photo : photo + 1])[0]
        return int(world.state.item_ids[live.nearest(seen / np.linalg.norm(seen), 50)[0]])

    assert nearest(57) == 1_004
    assert nearest(4) != 1_004
    world.log.upsert(world.state, [{"item_id": 1_004, "photo": 4}])
    world.refresh()
    live = world.view.live.photos
    assert live is not None
    assert nearest(4) == 1_004
    assert not len(live.delta_rows)


def test_filters_narrow_photo_searches(world: World) -> None:
    found = _look(world, 8, Filters("boots"))
    assert found
    assert {(i - 1_000) % 6 for i in found} == {2}  # boots are every sixth item
    assert 1_008 in found


def test_refreshing_step_by_step_equals_a_new_view(world: World) -> None:
    rng = np.random.default_rng(2)
    for k in range(30):
        item = int(rng.integers(1_000, 1_300))
        if k % 5 == 4:
            world.log.delete(world.state, item)
        else:
            world.log.upsert(world.state, [{"item_id": item, "photo": int(rng.integers(-1, N_PHOTOS))}])
        world.refresh()
    anew = ReleaseView(world.release, world.state, photos=_photos()).live.photos
    live = world.view.live.photos
    assert live is not None
    assert anew is not None
    for seen in Seer().embed(_photos()):
        seen /= np.linalg.norm(seen)
        a, b = ([r for r in v.nearest(seen, 400) if world.state.alive[r]] for v in (live, anew))
        assert a == b


def test_without_an_index_the_departments_answer_alone(world: World) -> None:
    release = replace(world.release, image_index=None)
    pipeline = SearchPipeline(
        release, ReleaseView(release, world.state), world.state, config=PipelineConfig.for_evaluation(),
        photos=_photos(),
    )  # fmt: skip
    answer = pipeline.answer(ask(surface="image", photo=3), explain=True)
    assert len(answer.reply.item_ids) == 10
    assert not any("look" in e["found_by"] for e in answer.explanation or [])
