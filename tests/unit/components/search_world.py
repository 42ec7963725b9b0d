"""A shop of 300 items in memory with real indexes, an untrained encoder and hand-made classifiers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from components.search.live import ReleaseView
from components.search.pipeline import PipelineConfig, SearchPipeline
from data.schema import CLICK, IMPRESSION, ITEM_DELETE, ITEM_UPSERT, ORDER, event_table
from data.shop import Request
from data.state import State
from infra.clock import DAY_US, SECOND_US
from models.candidate_features import FEATURES
from models.encoder import Encoder, item_text
from models.lexical_index import LexicalIndex, assign_tiers
from models.manifest import Manifest
from models.release import Release
from models.speller import Speller
from models.text_classifier import TextClassifier
from models.vector_index import VectorIndex

NOW_US = 20_000 * DAY_US
CATEGORIES = {
    "sneakers": "shoes",
    "sandals": "shoes",
    "boots": "shoes",
    "shirts": "tops",
    "jackets": "tops",
    "hoodies": "tops",
}
BRANDS = ("northwind", "halcyon", "brightside", "kestrel")
COLOURS = ("red", "blue", "green", "black", "white")
N_ITEMS = 300


class FakeImageClassifier:
    """Dark photos are shoes, bright ones tops."""

    classes = ("shoes", "tops")

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """float32 [n, 2]."""
        bright = images.reshape(len(images), -1).mean(1) / 255
        return np.stack([1 - bright, bright], 1).astype(np.float32)


class FakeRanker:
    """A weighted sum of features that can explain itself."""

    weights = dict.fromkeys(FEATURES, 0.0) | {
        "text_match": 3.0,
        "vector_score": 1.0,
        "category_prob": 1.0,
        "user_score": 2.0,
        "click_rate_7d": 1.0,
    }

    def contributions(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """float64 [n, F + 1]."""
        parts = np.nan_to_num(features.astype(np.float64)) * np.array(list(self.weights.values()))
        return np.hstack([parts, np.zeros((len(parts), 1))])

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """float64 [n]."""
        return self.contributions(features).sum(1)


class Log:
    """Makes event tables with increasing ids and times."""

    def __init__(self) -> None:
        self.events = 0
        self.time_us = NOW_US - 10 * DAY_US

    def table(self, kind: int, columns: dict[str, object], rows: int) -> object:
        """Events of one kind, one second apart."""
        ids = np.arange(self.events, self.events + rows)
        self.events += rows
        times = self.time_us + SECOND_US * np.arange(rows)
        self.time_us += SECOND_US * rows
        return event_table(
            {"event_id": ids, "kind": kind, "event_time": times, "known_time": times, **columns}, rows=rows
        )

    def upsert(self, state: State, items: list[dict[str, object]]) -> None:
        """Insert or change items."""
        texts = [orjson.dumps(item).decode() for item in items]
        ids = [item["item_id"] for item in items]
        state.apply(self.table(ITEM_UPSERT, {"item_id": ids, "payload": texts}, len(items)))

    def delete(self, state: State, item_id: int) -> None:
        """Delete an item."""
        state.apply(self.table(ITEM_DELETE, {"item_id": [item_id]}, 1))

    def react(self, state: State, kind: int, user_id: int, item_ids: list[int], session_id: int = -1) -> None:
        """Clicks or orders of a user."""
        columns = {"item_id": item_ids, "user_id": user_id, "session_id": session_id}
        state.apply(self.table(kind, columns, len(item_ids)))


def catalogue_items() -> list[dict[str, object]]:
    """300 items, evenly over categories, brands and colours."""
    rng = np.random.default_rng(3)
    items: list[dict[str, object]] = []
    names = list(CATEGORIES)
    for i in range(N_ITEMS):
        category = names[i % len(names)]
        brand, colour = BRANDS[(i // 6) % 4], COLOURS[(i // 24) % 5]
        items.append(
            {
                "item_id": 1_000 + i,
                "title": f"{brand} {colour} {category} model {i}",
                "category": category,
                "department": CATEGORIES[category],
                "brand": brand,
                "colour": colour,
                "material": "leather" if i % 2 else "cotton",
                "price": float(rng.uniform(10, 200)),
                "stock": 0 if i % 29 == 5 else 3,
                "rating_sum": 40,
                "rating_count": 10,
                "created_at": NOW_US - 20 * DAY_US - i,
            }
        )
    return items


def make_state(log: Log) -> State:
    """The items and some history: user 1 clicked boots, user 2 shirts and bought one; some items shown."""
    state = State()
    items = catalogue_items()
    log.upsert(state, items)
    ids = np.array([item["item_id"] for item in items])
    shown = np.repeat(ids, 2)
    state.apply(log.table(IMPRESSION, {"item_id": shown, "position": np.tile(np.arange(10), 60)}, len(shown)))
    log.react(state, CLICK, 9, [i for i in ids.tolist() if i % 7 == 0])
    log.react(state, CLICK, 1, [int(i) for i in ids[2::6][:6]])
    log.react(state, CLICK, 2, [int(i) for i in ids[3::6][:6]])
    log.react(state, ORDER, 2, [int(ids[3]), int(ids[9])])
    return state


def make_classifier() -> TextClassifier:
    """Real inference with a head made of the categories' mean title vectors."""
    encoder = Encoder.fit([], [], [], seed=5)
    rows = encoder.table
    classes = tuple(CATEGORIES)
    means = np.stack([rows.text_vectors([c]).mean(0) for c in classes], 1)
    head = (12 * means / np.linalg.norm(means, axis=0)).astype(np.float32)
    return TextClassifier(classes, head, np.zeros(len(classes), np.float32), rows)


def make_release(
    folder: Path, state: State, *, release_id: str = "r-0123456789ab", **parts: object
) -> Release:
    """Real indexes of what the state holds now."""
    encoder = Encoder.fit([], [], [], seed=1)
    alive = np.flatnonzero(state.alive)
    payloads = [orjson.loads(state.payload(row)) for row in alive.tolist()]
    texts = [item_text(p) for p in payloads]
    ids = state.item_ids[alive]
    counts: dict[str, int] = {}
    for word in (*CATEGORIES, *CATEGORIES.values(), *BRANDS, *COLOURS):
        counts[word.removesuffix("s") if word != "dress" else word] = 50
    tiers = assign_tiers(state.popularity(state.as_of_us)[alive])
    manifest = Manifest(release_id, NOW_US, state.as_of_us, "", {})
    made: dict[str, object] = {
        "text_classifier": make_classifier(),
        "image_classifier": FakeImageClassifier(),
        "speller": Speller.fit(counts),
        "ranker": FakeRanker(),
    } | parts
    return Release(
        manifest,
        encoder,
        LexicalIndex.build(folder / release_id, ids, texts, tiers),
        VectorIndex.build(ids, encoder.encode_items(texts)),
        **made,  # type: ignore[arg-type]
    )


def make_photos() -> NDArray[np.uint8]:
    """Photo 0 dark, photo 1 bright."""
    return np.stack([np.full((28, 28), 10), np.full((28, 28), 245)]).astype(np.uint8)


@dataclass
class World:
    """A state, a release, and the pipeline over them."""

    log: Log
    state: State
    release: Release
    view: ReleaseView
    pipeline: SearchPipeline
    folder: Path

    def refresh(self) -> None:
        """What the thread that applies events does after each batch."""
        self.view.refresh()
        self.pipeline.summaries.refresh()

    def ids(self, **fields: object) -> list[int]:
        """The item ids of a reply."""
        return self.pipeline.respond(ask(**fields)).item_ids.tolist()  # type: ignore[arg-type]


def make_world(folder: Path, *, config: PipelineConfig | None = None, **parts: object) -> World:
    """A world of its own for one test."""
    log = Log()
    state = make_state(log)
    release = replace(_first_release(folder, state), **parts)  # type: ignore[arg-type]
    view = ReleaseView(release, state)
    pipeline = SearchPipeline(
        release, view, state, config=config or PipelineConfig.for_evaluation(), photos=make_photos()
    )
    return World(log, state, release, view, pipeline, folder)


_RELEASES: list[Release] = []


def _first_release(folder: Path, state: State) -> Release:
    """The release of the state that every world begins with: immutable, so built once."""
    if not _RELEASES:
        _RELEASES.append(make_release(folder, state))
    return _RELEASES[0]


def ask(surface: str = "search", **fields: object) -> Request:
    """A request at the shop's present time."""
    return Request(surface=surface, time_us=NOW_US, **fields)  # type: ignore[arg-type]


def new_item(item_id: int, title: str, **fields: object) -> dict[str, object]:
    """An item that is not of the catalogue."""
    return {
        "item_id": item_id,
        "title": title,
        "category": "boots",
        "department": "shoes",
        "brand": "halcyon",
        "colour": "red",
        "price": 20.0,
        "stock": 4,
        "created_at": NOW_US,
        "updated_at": NOW_US,
    } | fields


def categories_of(world: World, ids: list[int]) -> list[str]:
    """The categories of items."""
    rows = world.state.item_rows(np.array(ids))
    return [orjson.loads(world.state.payload(row))["category"] for row in rows.tolist()]
