"""A home with a journalled catalogue and published releases: what an engine needs, made in a second."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import orjson

from data.journal import JournalWriter
from data.schema import CLICK, IMPRESSION, ITEM_UPSERT
from infra.clock import ManualClock
from infra.settings import Home
from models.encoder import Encoder, item_text
from models.lexical_index import LexicalIndex, assign_tiers
from models.release import make_release, publish, put_artifact, set_champion
from models.speller import Speller
from models.vector_index import VectorIndex
from tests.unit.components.search_world import (
    BRANDS,
    CATEGORIES,
    COLOURS,
    NOW_US,
    catalogue_items,
    make_classifier,
)


def make_home(folder: Path) -> Home:
    """A home whose journal holds 300 items and some clicks; no release yet."""
    layout = Home(folder / "home")
    items = catalogue_items()
    for item in items:
        item["item_id"] = str(item["item_id"])  # as PUT /items writes it
    ids = [int(str(item["item_id"])) for item in items]
    writer = JournalWriter(layout.journal / "seed", clock=ManualClock(NOW_US - 1_000_000_000))
    writer.append(
        {"kind": ITEM_UPSERT, "item_id": ids, "payload": [orjson.dumps(i).decode() for i in items]}, len(ids)
    )
    writer.append({"kind": IMPRESSION, "item_id": ids, "position": 3}, len(ids))
    writer.append({"kind": CLICK, "item_id": ids[2::6][:6], "user_id": 1}, 6)
    writer.close()
    return layout


def publish_release(layout: Home, *, number: int = 0, seed: int = 1, promote: bool = True) -> str:
    """Publish a release of the catalogue (without ranker and image classifier); its id."""
    scratch = layout.root / f"scratch-{number}"
    items = catalogue_items()
    texts = [item_text(i) for i in items]
    ids = np.array([i["item_id"] for i in items], np.int64)
    encoder = Encoder.fit([], [], [], seed=seed)
    encoder.save(scratch / "encoder")
    LexicalIndex.build(scratch / "lexical_index", ids, texts, assign_tiers(np.arange(len(ids)) / len(ids)))
    VectorIndex.build(ids, encoder.encode_items(texts)).save(scratch / "vector_index")
    words = {w.removesuffix("s"): 50 + number for w in (*CATEGORIES, *BRANDS, *COLOURS)}
    Speller.fit(words).save(scratch / "speller")
    make_classifier().save(scratch / "text_classifier")
    space = {"embedding_space": encoder.space_id}
    provides: Mapping[str, Mapping[str, str]] = {"encoder": space}
    requires: Mapping[str, Mapping[str, str]] = {"vector_index": space}
    artifacts = {
        path.name: put_artifact(
            layout,
            path.name,
            path,
            version="1",
            provides=provides.get(path.name),
            requires=requires.get(path.name),
            created_us=NOW_US,
        )
        for path in scratch.iterdir()
    }
    shutil.rmtree(scratch)
    manifest = make_release(artifacts, watermark_us=NOW_US - 100 + number, created_us=NOW_US)
    publish(layout, manifest)
    if promote:
        set_champion(layout, manifest.release_id, at_us=NOW_US, by="test")
    return manifest.release_id
