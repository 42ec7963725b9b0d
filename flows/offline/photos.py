"""The image classifier of a shop: a base network of the whole photo library, fitted to the shop's items.

The base is trained once a machine, on the library's training photos, and kept in the cache: the photos of
a shop of 10,000 items alone teach 85 % of the test photos right, the library 92.5 %. Its training, if
killed, goes on from its checkpoint in the cache. One in twenty training photos is kept from every training,
for the temperature. It never sees the library's test photos.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

import models
from data.sources import fashion_mnist
from flows.offline.inputs import Inputs
from infra.cache import ensure
from infra.errors import EnvironmentError_
from infra.settings import Settings
from models.checkpoints import Checkpoint, code_key
from models.image_classifier import ImageClassifier
from models.image_index import ImageIndex
from models.residual_network import EMBEDDING_DIM

__all__ = [
    "MAX_PHOTOS",
    "base_classifier",
    "calibrates",
    "fit_photos",
    "index_photos",
    "photos_at_hand",
    "photos_missing",
    "shop_photos",
]

MAX_PHOTOS = 10_000  # of a shop's, drawn at random, in one training
BASE_EPOCHS = 10
_BASE = "photo-base-2"  # raise the number when the recipe changes
_SEED = 7
_KEPT_BACK = 20  # one photo in so many
_THREADS = 1  # a fixed number: sums in another order would make another network; two spin on a busy machine


def calibrates(photos: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Which photos, by number, no network is trained on: bool [n]."""
    return np.asarray(photos % _KEPT_BACK == _KEPT_BACK - 1)


def shop_photos(inputs: Inputs, *, seed: int) -> tuple[NDArray[np.int32], NDArray[np.int64], list[str]]:
    """Photos of the fraction's items, each once: (photos [n], labels [n] into classes, classes)."""
    state = inputs.state
    rows = np.flatnonzero(state.alive & (state.photo >= 0) & inputs.kept(state.item_ids, salt="item"))
    department = {r: str(orjson.loads(state.payload(r)).get("department") or "") for r in rows.tolist()}
    rows = np.array([r for r in rows.tolist() if department[r]], np.int64)
    photos, first = np.unique(state.photo[rows], return_index=True)
    rows = rows[first]
    if len(rows) > MAX_PHOTOS:
        pick = np.sort(np.random.default_rng(seed).choice(len(rows), MAX_PHOTOS, replace=False))
        rows, photos = rows[pick], photos[pick]
    classes = sorted({department[r] for r in rows.tolist()})
    labels = np.array([classes.index(department[r]) for r in rows.tolist()], np.int64)
    return photos, labels, classes


def fit_photos(
    settings: Settings,
    photos: NDArray[np.int32],
    labels: NDArray[np.int64],
    classes: list[str],
    *,
    seed: int,
    init: ImageClassifier,
    checkpoint: Checkpoint | None = None,
) -> ImageClassifier:
    """A classifier of the shop's departments. `init`: the champion's for a warm start, else the base.

    Departments that are the library's need one epoch, and its photos that were kept back join those of the
    shop for the temperature; others are learnt from the base's shapes in three.
    """
    images, truth = fashion_mnist.load(settings.cache)
    known = set(classes) <= set(init.classes)
    library: NDArray[np.int32] = np.empty(0, np.int32)
    if set(classes) <= set(fashion_mnist.CLASSES):
        of = {name: i for i, name in enumerate(classes)}
        code = np.array([of.get(name, -1) for name in fashion_mnist.CLASSES])
        library = np.arange(fashion_mnist.TRAIN, dtype=np.int32)
        library = library[calibrates(library) & (code[truth[: len(library)]] >= 0)]
        library = np.setdiff1d(library, photos)
        labels = np.concatenate([labels, code[truth[library]]])
    photos = np.concatenate([photos, library])
    return ImageClassifier.fit(
        images[photos],
        labels,
        classes=classes,
        seed=seed,
        epochs=1 if known else 3,
        init=init,
        held=calibrates(photos),
        checkpoint=checkpoint,
    )


def base_classifier(settings: Settings, *, progress: Callable[[str], None] | None = None) -> ImageClassifier:
    """The library's classifier from the cache; made first where it is missing or damaged."""
    folder = settings.cache / _BASE
    checkpoint = Checkpoint(settings.cache / f"{_BASE}.checkpoint", _base_key())

    def make(into: Path) -> None:
        images, truth = fashion_mnist.load(settings.cache)
        ImageClassifier.fit(
            np.asarray(images[: fashion_mnist.TRAIN]),
            np.asarray(truth[: fashion_mnist.TRAIN], np.int64),
            classes=fashion_mnist.CLASSES,
            seed=_SEED,
            epochs=BASE_EPOCHS,
            threads=_THREADS,
            held=calibrates(np.arange(fashion_mnist.TRAIN)),
            checkpoint=checkpoint,
        ).save(into)

    if ensure(folder, make, say=progress):
        checkpoint.path.unlink(missing_ok=True)
    return ImageClassifier.load(folder)


def _base_key() -> str:
    """Names what the base is trained on and how. The library's photos are the same on every machine."""
    recipe = [_BASE, fashion_mnist.TRAIN, BASE_EPOCHS, _SEED, _THREADS, _KEPT_BACK]
    code = code_key(Path(models.__file__).parent)
    return hashlib.sha256(json.dumps([recipe, code]).encode()).hexdigest()


def photos_at_hand(settings: Settings, classifier: ImageClassifier | None) -> bool:
    """Whether items' photos can be embedded."""
    return classifier is not None and fashion_mnist.is_cached(settings.cache)


def photos_missing(settings: Settings) -> EnvironmentError_:
    """What to say where a home has an image classifier and the photos are not there any more."""
    return EnvironmentError_(
        f"the photos that the champion's image classifier was learnt from are not in {settings.cache}; "
        "fetch them again with `shelflife data fetch fashion-mnist`"
    )


def index_photos(
    settings: Settings, inputs: Inputs, classifier: ImageClassifier, *, known: ImageIndex | None
) -> ImageIndex:
    """The alive items by their photos' embeddings; each photo is embedded once.

    `known`: an index of the same classifier, whose photos need not be embedded again.
    """
    images, _ = fashion_mnist.load(settings.cache)
    state = inputs.state
    rows = np.flatnonzero(state.alive & (state.photo >= 0) & (state.photo < len(images)))
    photos, of_photo = np.unique(state.photo[rows], return_inverse=True)
    embeddings = np.zeros((len(photos), EMBEDDING_DIM), np.float32)
    missing = np.ones(len(photos), np.bool_)
    if known is not None and len(known):
        held, first = np.unique(known.photos, return_index=True)
        place = np.minimum(np.searchsorted(held, photos), len(held) - 1)
        missing = held[place] != photos
        embeddings[~missing] = known.vectors[first[place[~missing]]]
    embeddings[missing] = classifier.embed(np.asarray(images[photos[missing]]))
    return ImageIndex.build(state.item_ids[rows], state.photo[rows], embeddings[of_photo])
