"""The same parts are one release: by their contents, which are the same whichever process made them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from flows.offline.refresh import refresh
from infra.files import sha256_file
from infra.settings import REPOSITORY, Settings
from models.release import champion, list_releases, make_release, publish, read_manifest

pytestmark = pytest.mark.slow  # stands on a trained release

BUILD = """
import sys
from pathlib import Path
import numpy as np
from data.text import tokens
from models.item_words import Compounds, item_words
from models.lexical_index import LexicalIndex
kinds = ("night stand", "nightstand", "bar stool", "area rug", "floor lamp", "oak desk")
items = [
    {"title": f"{k} {c} model{i}", "category": k, "brand": f"brand{i % 5}", "description": f"{c} {k}"}
    for i, (k, c) in enumerate((k, c) for k in kinds for c in ("red", "blue", "light grey"))
]
compounds = Compounds.of(tokens(item["title"]) for item in items)
words = [item_words(item, compounds) for item in items]
LexicalIndex.build(Path(sys.argv[1]), np.arange(len(items)), words, np.arange(len(items), dtype=np.int8) % 3)
"""


def test_a_lexical_index_has_the_same_files_in_every_process(tmp_path: Path) -> None:
    made = []
    for seed in ("1", "2"):  # of hashes: sets and their order differ
        folder = tmp_path / seed
        subprocess.run(
            [sys.executable, "-c", BUILD, str(folder)],
            cwd=REPOSITORY, env=os.environ | {"PYTHONHASHSEED": seed}, check=True,
        )  # fmt: skip
        made.append({p.name: sha256_file(p) for p in folder.iterdir()})
    assert made[0] == made[1]
    assert len(made[0]) > 3


def test_a_release_with_another_index_of_the_same_data_is_not_taken_for_the_new_one(shop: Settings) -> None:
    """One of an older Shelflife could not even be loaded."""
    layout = shop.layout
    live = str(champion(layout))
    parts = read_manifest(layout, live)
    other = replace(parts.artifacts["lexical_index"], files=dict(parts.artifacts["speller"].files))
    artifacts = parts.artifacts | {"lexical_index": other}
    newer = make_release(
        artifacts, watermark_us=parts.watermark_us, created_us=parts.created_us + 1, parent=live
    )
    publish(layout, newer)
    assert list_releases(layout)[-1].release_id == newer.release_id != live
    report = refresh(shop, component="index")
    assert report["release_id"] == live == report["champion"]
    assert [m.release_id for m in list_releases(layout)] == [live, newer.release_id]
