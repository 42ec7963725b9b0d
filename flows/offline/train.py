"""Train one component from inputs, and put it among the blobs. Plain functions; Prefect wraps them.

Each returns the artifact with its metrics and what it cost. It does not publish or promote.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

import data
import models
from data.sources import fashion_mnist
from flows.offline.inputs import (
    Inputs,
    Scorers,
    clicked_pairs,
    clicked_queries,
    ranker_rows,
    teaches_ranker,
)
from flows.offline.lessons import expected_lessons
from flows.offline.photos import base_classifier, fit_photos, photos_missing, shop_photos
from infra.clock import Clock
from infra.errors import DataError
from infra.resources import Cost, measured
from infra.settings import Settings
from models.candidate_features import FEATURE_SCHEMA
from models.checkpoints import Checkpoint, code_key
from models.encoder import Encoder, item_text
from models.ranker import CHUNK, Ranker, RankerConfig
from models.release import Artifact, Release, put_artifact
from models.text_classifier import TextClassifier
from models.training_rows import TrainingRows

__all__ = [
    "TRAINED",
    "Parts",
    "drop_checkpoints",
    "learned_us",
    "scorers_key",
    "train_component",
]

TRAINED = ("text_classifier", "image_classifier", "encoder", "ranker")
_SCORERS = ("encoder", "text_classifier", "speller", "vector_index")
_BENEATH = {"ranker": _SCORERS}  # models whose word a training takes
MAX_PAIRS = 120_000  # newest clicked queries that an encoder learns from
QUERY_LIMIT = 60_000  # newest clicked queries that a text classifier learns from

log = logging.getLogger("shelflife.train")


@dataclass(frozen=True)
class Parts:
    """The objects of the release being built: the champion's, replaced one by one by new ones.

    `artifacts`: what the manifest will name; `costs`: of what was made now.
    """

    artifacts: dict[str, Artifact] = field(default_factory=dict)
    objects: dict[str, Any] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)
    made: tuple[str, ...] = ()

    @classmethod
    def of(cls, release: Release | None) -> Parts:
        """The parts of a loaded release; none before the first."""
        if release is None:
            return cls()
        names = release.manifest.artifacts
        return cls(dict(names), {name: getattr(release, name) for name in names})

    def scorers(self) -> Scorers:
        """What the features of these parts depend on."""
        return Scorers(
            self.get("encoder"),
            self.get("text_classifier"),
            self.get("speller"),
            self.get("vector_index"),
            scorers_key(self.artifacts),
            learned_us(self.artifacts),
        )

    def get(self, name: str) -> Any:
        """The object of that name, None if there is none."""
        return self.objects.get(name)

    def plus(self, artifact: Artifact, thing: Any, cost: Cost) -> Parts:
        """These parts with one replaced."""
        name = artifact.name
        return replace(
            self,
            artifacts=self.artifacts | {name: artifact},
            objects=self.objects | {name: thing},
            costs=self.costs | {name: cost},
            made=(*self.made, name),
        )

    def without(self, name: str) -> Parts:
        """These parts less one."""
        return replace(
            self,
            artifacts={k: v for k, v in self.artifacts.items() if k != name},
            objects={k: v for k, v in self.objects.items() if k != name},
        )


def scorers_key(artifacts: Mapping[str, Artifact]) -> tuple[str, ...]:
    """What rows depend on beside the data; equal keys, equal rows.

    The contents of the models that score (an index holds vectors of texts that may have changed since), and
    up to when they learned: sessions that taught them are left out of the rows.
    """
    contents = (artifacts[n].content if n in artifacts else "" for n in _SCORERS)
    return (*contents, str(learned_us(artifacts)))


def learned_us(artifacts: Mapping[str, Artifact]) -> int:
    """The newest watermark whose clicks the encoder or the text classifier learned from; -1 none."""
    scorers = (artifacts[n].snapshot for n in ("encoder", "text_classifier") if n in artifacts)
    return max((int(s.get("watermark_us", -1)) for s in scorers), default=-1)


def train_component(
    name: str, inputs: Inputs, parts: Parts, *, settings: Settings, clock: Clock, warm: bool, seed: int
) -> Parts:
    """Parts with the component trained anew; unchanged where the shop's data has nothing for it to learn.

    Raises DataError for an unknown component, and where the window has nothing to learn from and more data
    would, or the champion's has learnt: an empty window never takes the place of what was learnt.
    """
    trainers: dict[str, Callable[..., Parts]] = {
        "text_classifier": _text_classifier,
        "image_classifier": _image_classifier,
        "encoder": _encoder,
        "ranker": _ranker,
    }
    if name not in trainers:
        raise DataError(f"unknown component {name!r}; expected one of {', '.join(trainers)}")
    made = trainers[name](inputs, parts, settings=settings, clock=clock, warm=warm, seed=seed)
    return _recorded(name, parts, made, warm=warm, seed=seed)


def _recorded(name: str, before: Parts, made: Parts, *, warm: bool, seed: int) -> Parts:
    """With what the training needs beside its data to be repeated (`flows.offline.reproduce`)."""
    if len(made.made) == len(before.made):
        return made
    beneath = {n: before.artifacts[n].content for n in _BENEATH.get(name, ()) if n in before.artifacts}
    artifact = made.artifacts[name]
    asked = "warm" if warm else "cold"
    begun = _begun(name, before, warm=warm)
    recipe = {"recipe": {"seed": seed, "start": asked, "warm": begun, "beneath": beneath}}
    artifact = replace(artifact, snapshot=artifact.snapshot | recipe)
    return replace(made, artifacts=made.artifacts | {name: artifact})


def _text_classifier(
    inputs: Inputs, parts: Parts, *, settings: Settings, clock: Clock, warm: bool, seed: int
) -> Parts:
    """Learns categories from titles, and from what was typed before a click; none where there is but one."""
    with measured() as cost:
        pairs = _labelled_texts(inputs)
        if not _tells_apart(pairs):
            expected_lessons("text_classifier", inputs, lambda wide: _tells_apart(_labelled_texts(wide)))
            return _left_out(parts, "text_classifier", why="the catalogue has fewer than two categories")
        model = TextClassifier.fit(
            [t for t, _ in pairs],
            [c for _, c in pairs],
            seed=seed,
            init=parts.get("text_classifier") if warm else None,
            checkpoint=_checkpoint(settings, "text_classifier", inputs, parts, warm=warm, seed=seed),
        )
    return _put(settings, parts, model, "text_classifier", inputs, cost, clock, dict(model.report))


def _labelled_texts(inputs: Inputs) -> list[tuple[str, str]]:
    """Texts and their categories: titles, and the newest clicked queries."""
    state = inputs.state
    payloads = [orjson.loads(p) for p in state.payloads]
    category = [str(p.get("category") or "") for p in payloads]
    rows = np.flatnonzero(state.alive & inputs.kept(state.item_ids, salt="item")).tolist()
    rows = [r for r in rows if category[r] and payloads[r].get("title")]
    queries, clicked, _ = clicked_queries(inputs, for_scorers=True)
    queries, clicked = queries[-QUERY_LIMIT:], clicked[-QUERY_LIMIT:]
    texts = [str(payloads[r]["title"]) for r in rows] + queries
    labels = [category[r] for r in rows] + [category[r] for r in clicked.tolist()]
    return [(t, c) for t, c in zip(texts, labels, strict=True) if c]


def _tells_apart(pairs: list[tuple[str, str]]) -> bool:
    return len({category for _, category in pairs}) >= 2


def _left_out(parts: Parts, *names: str, why: str) -> Parts:
    """Parts less these; said where the release before had them."""
    if gone := [name for name in names if name in parts.artifacts]:
        log.warning("the release goes without %s: %s", " and ".join(gone), why)
    for name in names:
        parts = parts.without(name)
    return parts


def _image_classifier(
    inputs: Inputs, parts: Parts, *, settings: Settings, clock: Clock, warm: bool, seed: int
) -> Parts:
    """Learns departments from the photos of the catalogue's items."""
    both = ("image_classifier", "image_index")
    if not (inputs.state.photo >= 0).any():
        return _left_out(parts, *both, why="the catalogue has no photos")
    if not fashion_mnist.is_cached(settings.cache):
        if "image_classifier" in parts.artifacts:
            raise photos_missing(settings)
        return parts
    with measured() as cost:
        photos, labels, classes = shop_photos(inputs, seed=seed)
        if not classes:
            expected_lessons("image_classifier", inputs, lambda wide: bool(shop_photos(wide, seed=seed)[2]))
            return _left_out(parts, *both, why="no item with a photo has a department")
        init = parts.get("image_classifier") if warm else None
        start = base_classifier(settings) if init is None else init
        checkpoint = _checkpoint(
            settings, "image_classifier", inputs, parts, warm=warm, seed=seed, base=start.photo_space
        )
        model = fit_photos(settings, photos, labels, classes, seed=seed, init=start, checkpoint=checkpoint)
    provides = {"photo_space": model.photo_space}
    metrics = dict(model.report)
    return _put(settings, parts, model, "image_classifier", inputs, cost, clock, metrics, provides=provides)


def _encoder(
    inputs: Inputs, parts: Parts, *, settings: Settings, clock: Clock, warm: bool, seed: int
) -> Parts:
    """Learns which items a query leads to. Its index and ranker have to be made anew after it.

    Where nobody types (a log of clicks alone), it learns which items go together instead; where nobody ever
    clicked it is an untrained projection.
    """
    with measured() as cost:
        queries, rows, weights = _pairs(inputs)
        if not weights.sum() > 0:
            old = parts.artifacts.get("encoder")
            expected_lessons("encoder", inputs, lambda wide: bool(_pairs(wide)[2].sum() > 0), old=old)
        texts = {r: item_text(orjson.loads(inputs.state.payload(r))) for r in np.unique(rows).tolist()}
        init = parts.get("encoder") if warm else None
        checkpoint = _checkpoint(settings, "encoder", inputs, parts, warm=warm, seed=seed)
        items = [texts[r] for r in rows.tolist()]
        model = Encoder.fit(queries, items, weights, seed=seed, init=init, checkpoint=checkpoint)
    metrics = {"pairs": float(len(queries))}
    provides = {"embedding_space": model.space_id}
    return _put(settings, parts, model, "encoder", inputs, cost, clock, metrics, provides=provides)


def _pairs(inputs: Inputs) -> tuple[list[str], NDArray[np.int32], NDArray[np.float64]]:
    """What an encoder learns from: texts [n], the rows of items that they led to [n], weights [n]."""
    queries, rows, weights = clicked_queries(inputs, for_scorers=True)
    if queries:
        return queries[-MAX_PAIRS:], rows[-MAX_PAIRS:], weights[-MAX_PAIRS:]
    before, rows, weights = clicked_pairs(inputs)
    before, rows, weights = before[-MAX_PAIRS:], rows[-MAX_PAIRS:], weights[-MAX_PAIRS:]
    texts = [item_text(orjson.loads(inputs.state.payload(r))) for r in before.tolist()]
    return texts, rows, weights


def _ranker(
    inputs: Inputs, parts: Parts, *, settings: Settings, clock: Clock, warm: bool, seed: int
) -> Parts:
    """Learns the order from what shoppers did with what they were shown."""
    with measured() as cost:
        encoder = parts.get("encoder")
        rows: TrainingRows = ranker_rows(inputs, parts.scorers())
        if not (rows.labels > 0).any() and parts.get("ranker") is None:
            expected_lessons("ranker", inputs, lambda wide: teaches_ranker(wide, parts.scorers()))
            return parts  # a shop without clicks is served in order of retrieval
        init = parts.get("ranker") if _begun("ranker", parts, warm=warm) else None
        checkpoint = _checkpoint(settings, "ranker", inputs, parts, warm=warm, seed=seed)
        config = RankerConfig(half_life_d=inputs.half_life_d, chunk=CHUNK)
        model, metrics = Ranker.fit(rows, seed=seed, config=config, init=init, checkpoint=checkpoint)
    requires = {"feature_schema": FEATURE_SCHEMA}
    if encoder is not None:
        requires["embedding_space"] = encoder.space_id
    return _put(settings, parts, model, "ranker", inputs, cost, clock, metrics, requires=requires)


def _begun(name: str, parts: Parts, *, warm: bool) -> str:
    """The content of the artifact that a training goes on from; nothing where it begins cold."""
    if not warm or name not in parts.artifacts or (name == "ranker" and not _fits(parts)):
        return ""
    return parts.artifacts[name].content


def _fits(parts: Parts) -> bool:
    """Whether the ranker at hand was trained on the vectors at hand: trees of others would mislead."""
    encoder, ranker = parts.get("encoder"), parts.artifacts.get("ranker")
    space = encoder.space_id if encoder is not None else None
    return ranker is not None and ranker.requires.get("embedding_space") == space


def _checkpoint(
    settings: Settings,
    name: str,
    inputs: Inputs,
    parts: Parts,
    *,
    warm: bool,
    seed: int,
    base: str = "",
) -> Checkpoint:
    """Where this very training goes on from: same data, settings, models beneath it, and code.

    `base`: names what the training begins with beside the parts.
    """
    begun = [_begun(name, parts, warm=warm), base]
    chosen = [inputs.snapshot, inputs.since_us, inputs.watermark_us, inputs.fraction, inputs.half_life_d]
    code = code_key(*(Path(str(p)).parent for p in (models.__file__, data.__file__, __file__)))
    same = [name, chosen, seed, begun, scorers_key(parts.artifacts), FEATURE_SCHEMA, code]
    key = hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()
    return Checkpoint(_checkpoint_path(settings, name), key)


def drop_checkpoints(settings: Settings, names: Iterable[str]) -> None:
    """Forget what trainings had learnt, once their models are in the registry."""
    for name in names:
        _checkpoint_path(settings, name).unlink(missing_ok=True)


def _checkpoint_path(settings: Settings, name: str) -> Path:
    return settings.layout.checkpoints / f"{name}.safetensors"


def _put(
    settings: Settings,
    parts: Parts,
    model: Any,
    name: str,
    inputs: Inputs,
    cost: Cost,
    clock: Clock,
    metrics: dict[str, float],
    *,
    requires: dict[str, str] | None = None,
    provides: dict[str, str] | None = None,
) -> Parts:
    layout = settings.layout
    layout.making.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=layout.making) as beside:
        folder = Path(beside) / name
        model.save(folder)
        artifact = put_artifact(
            layout,
            name,
            folder,
            version="",
            requires=requires,
            provides=provides,
            metrics=metrics,
            snapshot=inputs.snapshot,
            created_us=clock.now_us(),
        )
    return parts.plus(replace(artifact, version=f"{name}-{artifact.content[:10]}"), model, cost)
