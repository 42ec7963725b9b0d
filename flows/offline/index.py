"""Build the indexes of a release from the published state: vectors, lexical tiers, photos, the speller."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from data.state import State
from data.text import normalise, tokens
from flows.offline.inputs import Inputs, all_vectors, clicked_queries
from flows.offline.photos import index_photos, photos_at_hand, photos_missing
from flows.offline.train import Parts
from infra.clock import Clock
from infra.errors import DataError
from infra.resources import measured
from infra.settings import Settings
from models.encoder import Encoder, item_text
from models.image_classifier import ImageClassifier
from models.image_index import ImageIndex
from models.item_words import Compounds, item_words, known_words
from models.lexical_index import LexicalIndex, assign_tiers
from models.release import put_artifact
from models.speller import Speller
from models.synonyms import Synonyms
from models.vector_index import VectorIndex

__all__ = ["INDEXES", "build_index"]

INDEXES = ("vector_index", "lexical_index", "image_index", "speller")
SYNONYM_CLICKS = 60_000  # newest clicked queries that synonyms are learnt from
QUERY_WORD_CLICKS = 5  # clicks that make a typed word a known one


def build_index(
    name: str, inputs: Inputs, parts: Parts, *, settings: Settings, clock: Clock, seed: int
) -> Parts:
    """Parts with the index built anew. Without an encoder the vectors are an untrained projection.

    Raises DataError for an unknown index, and for a catalogue without items.
    """
    if name not in INDEXES:
        raise DataError(f"unknown index {name!r}; expected one of {', '.join(INDEXES)}")
    if not inputs.state.alive.any():
        raise DataError("the catalogue is empty; bring in items and run `shelflife ingest`")
    if name == "image_index" and not (
        photos_at_hand(settings, parts.get("image_classifier"))
        and parts.artifacts["image_classifier"].provides  # one of an older release names no space
    ):
        if name in parts.artifacts and not photos_at_hand(settings, parts.get("image_classifier")):
            raise photos_missing(settings)
        return parts.without(name)
    layout = settings.layout
    layout.making.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=layout.making) as beside:
        folder = Path(beside) / name
        with measured() as cost:
            thing, requires = _BUILDERS[name](inputs, parts, folder, settings)
        artifact = put_artifact(
            layout,
            name,
            folder,
            version="",
            requires=requires,
            metrics={"entries": float(len(thing))},
            snapshot=inputs.snapshot,
            created_us=clock.now_us(),
        )
    return parts.plus(replace(artifact, version=f"{name}-{artifact.content[:10]}"), thing, cost)


def _vector_index(
    inputs: Inputs, parts: Parts, folder: Path, _: Settings
) -> tuple[VectorIndex, dict[str, str]]:
    encoder: Encoder = parts.objects["encoder"]
    known = parts.get("vector_index")
    same = (
        known is not None
        and parts.artifacts["vector_index"].requires.get("embedding_space") == encoder.space_id
    )
    ids, vectors = all_vectors(encoder, inputs.state, None if not same else known)
    if same:  # texts may have changed since: encode those anew
        _renew(
            inputs,
            encoder,
            since_us=parts.artifacts["vector_index"].snapshot["watermark_us"],
            vectors=vectors,
        )
    alive = inputs.state.alive
    index = VectorIndex.build(ids[alive], vectors[alive])
    index.save(folder)
    return index, {"embedding_space": encoder.space_id}


def _renew(inputs: Inputs, encoder: Encoder, *, since_us: int, vectors: Any) -> None:
    from data.schema import ITEM_UPSERT

    kind, known = inputs.events["kind"].to_numpy(), inputs.events["known_time"].to_numpy()
    changed = np.unique(inputs.events["item_id"].to_numpy()[(kind == ITEM_UPSERT) & (known > since_us)])
    rows = inputs.state.item_rows(changed)
    rows = rows[rows >= 0]
    if len(rows):
        vectors[rows] = encoder.encode_items(
            [item_text(orjson.loads(inputs.state.payload(r))) for r in rows.tolist()]
        )


def _lexical_index(
    inputs: Inputs, parts: Parts, folder: Path, _: Settings
) -> tuple[LexicalIndex, dict[str, str]]:
    state = inputs.state
    rows = np.flatnonzero(state.alive)
    payloads = [orjson.loads(state.payload(r)) for r in rows.tolist()]
    compounds = Compounds.of(tokens(str(p.get("title") or "")) for p in payloads)
    words = [item_words(p, compounds) for p in payloads]
    if state.items.counters[: state.n_items].any():
        tiers = assign_tiers(state.popularity(inputs.watermark_us)[rows])
    else:  # nothing was ever shown or clicked: no item is known to be better than another
        tiers = np.zeros(len(rows), np.int8)
    return LexicalIndex.build(folder, state.item_ids[rows], words, tiers), {}


def _image_index(
    inputs: Inputs, parts: Parts, folder: Path, settings: Settings
) -> tuple[ImageIndex, dict[str, str]]:
    classifier: ImageClassifier = parts.objects["image_classifier"]
    known = parts.get("image_index")
    if known is not None and parts.artifacts["image_index"].requires["photo_space"] != classifier.photo_space:
        known = None
    index = index_photos(settings, inputs, classifier, known=known)
    index.save(folder)
    return index, {"photo_space": classifier.photo_space}


def _speller(inputs: Inputs, parts: Parts, folder: Path, _: Settings) -> tuple[Speller, dict[str, str]]:
    state = inputs.state
    counts: Counter[str] = Counter()
    mentioned: set[str] = set()  # known, so never corrected; as corrections they are the last choice
    for row in np.flatnonzero(state.alive).tolist():
        naming, others = known_words(orjson.loads(state.payload(row)))
        counts.update(naming)
        mentioned |= others
    for word in mentioned:
        counts.setdefault(word, 1)
    typed: Counter[str] = Counter()
    queries, clicked, _weights = clicked_queries(inputs)
    for query in queries:
        typed.update(tokens(query))
    counts.update({word: n for word, n in typed.items() if n >= QUERY_WORD_CLICKS})
    synonyms = _synonyms(state, queries[-SYNONYM_CLICKS:], clicked[-SYNONYM_CLICKS:].tolist())
    speller = Speller.fit(counts, forms=_forms(state), synonyms=synonyms)
    speller.save(folder)
    return speller, {}


def _synonyms(state: State, queries: list[str], clicked: list[int]) -> Synonyms:
    """What shoppers call by another word than the items that they then click."""
    words = {row: tokens(item_text(orjson.loads(state.payload(row)))) for row in set(clicked)}
    typed = {query: tokens(query) for query in set(queries)}
    return Synonyms.fit((typed[q], row, words[row]) for q, row in zip(queries, clicked, strict=True))


def _forms(state: State) -> dict[str, str]:
    """Plurals and the like in the items' names → their stems."""
    names = (item_text(orjson.loads(state.payload(row))) for row in np.flatnonzero(state.alive).tolist())
    written = {word for name in names for word in normalise(name).split()}
    stems = ((word, tokens(word)) for word in written)
    return {word: stem[0] for word, stem in stems if len(stem) == 1 and stem[0] != word}


_BUILDERS: dict[str, Any] = {
    "vector_index": _vector_index,
    "lexical_index": _lexical_index,
    "image_index": _image_index,
    "speller": _speller,
}
