"""How well a release understands words and photos: text classifier, speller, image classifier.

On what no training saw: the queries of the day after the log (their intent known to the world) or of
its held-out sessions, and the 10,000 test photos.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import orjson

from data.replica import current_state
from data.schema import SURFACES
from data.snapshots import published
from data.sources import fashion_mnist
from data.state import State
from data.text import tokens
from data.world.queries import clean_words, misspell
from data.world.shop import World, public_path
from data.world.words import CATEGORIES, vocabulary
from flows.evaluation.arms import first_pages
from flows.evaluation.log import questions
from flows.evaluation.search import opened_release
from flows.offline.inputs import load_inputs
from infra.clock import DAY_US
from infra.errors import DataError
from infra.settings import Settings
from models.metrics import bootstrap_mean, expected_calibration_error
from models.release import Release
from models.speller import rewrite

__all__ = ["evaluate_image", "evaluate_text"]

Progress = Callable[..., None]
_BATCH = 500


def evaluate_text(
    settings: Settings, *, release_id: str | None = None, queries: int = 1_000
) -> dict[str, Any]:
    """Accuracy of the text classifier on queries, and what the speller makes of typing errors.

    Returns {"accuracy", "top3", "typos_corrected", "titles_changed", "queries_changed": {"mean", "low",
    "high"}, "calibration_error", "synonyms" (learnt words), ...}; a part that the release does not
    have is absent. DataError where it has neither.
    """
    release = opened_release(settings, release_id)
    state = current_state(settings.layout)
    document: dict[str, Any] = {"release_id": release.release_id}
    if release.text_classifier is not None:
        source, texts, labels = _labelled(settings, state, most=queries)
        document |= {"source": source, "queries": len(texts)} | _accuracy(
            release, texts, labels, settings.seed
        )
    if release.speller is not None:
        document |= _spelling(release, state, most=queries, seed=settings.seed)
        clean = _clean_queries(settings, most=queries)
        if clean:
            changed = np.array([rewrite(query, release.speller).corrected for query in clean])
            document |= {
                "clean_queries": len(clean),
                "queries_changed": bootstrap_mean(changed, seed=settings.seed).as_dict(),
            }
        document["synonyms"] = len(release.speller.synonyms)
    if len(document) == 1:
        raise DataError(
            f"{release.release_id} has neither a text classifier nor a speller; the catalogue needs two "
            "categories or more for the one: `shelflife refresh` makes them"
        )
    return document


def evaluate_image(
    settings: Settings, *, release_id: str | None = None, progress: Progress = lambda *_: None
) -> dict[str, Any]:
    """Accuracy of the image classifier on the 10,000 test photos of Fashion-MNIST, which no item carries.

    Returns {"accuracy": {"mean", "low", "high"}, "top3", "calibration_error", "by_class": {class: share
    right}, "photos", ...}.
    DataError where the photos are not fetched or the release has no image classifier.
    """
    release = opened_release(settings, release_id)
    if release.image_classifier is None:
        raise DataError(
            f"{release.release_id} has no image classifier; its shop needs items with photos: run "
            "`shelflife data fetch fashion-mnist` and `shelflife world generate`, then `shelflife refresh`"
        )
    images, labels = fashion_mnist.load(settings.cache)
    images, labels = images[fashion_mnist.TRAIN :], labels[fashion_mnist.TRAIN :]
    classes = np.array(release.image_classifier.classes)
    found = np.empty((len(labels), len(classes)), np.float32)
    for start in range(0, len(labels), _BATCH):
        part = slice(start, start + _BATCH)
        found[part] = release.image_classifier.predict(images[part])
        progress(f"{min(start + _BATCH, len(labels))} of {len(labels)} photos")
    code = {name: i for i, name in enumerate(classes.tolist())}
    truth = np.array([code.get(name, -1) for name in fashion_mnist.CLASSES])[labels]
    hit = np.argsort(-found, axis=1)[:, :3] == truth[:, None]
    right = hit[:, 0]
    return {
        "release_id": release.release_id,
        "photos": len(labels),
        "accuracy": bootstrap_mean(right, seed=settings.seed).as_dict(),
        "top3": bootstrap_mean(hit.any(axis=1), seed=settings.seed).as_dict(),
        "calibration_error": expected_calibration_error(found, truth),
        "by_class": {name: float(right[labels == i].mean()) for i, name in enumerate(fashion_mnist.CLASSES)},
    }


def _labelled(settings: Settings, state: State, *, most: int) -> tuple[str, list[str], list[str]]:
    """(source, queries, the category that each was for)."""
    if not public_path(settings.layout).is_file():
        inputs = load_inputs(settings.layout, window_d=None)
        texts, labels = [], []
        for question in questions(inputs, most=most, seed=settings.seed):
            item_id = int(question.ids[int(np.argmax(question.grades))])
            category = str(orjson.loads(state.payload(state.item_row(item_id))).get("category") or "")
            if question.request.query and category:
                texts.append(question.request.query)
                labels.append(category)
        return "log", texts, labels
    world = World.open(settings.layout)
    since = published(settings.layout).watermark_us
    texts, labels = [], []
    first = int((since - world.start_us) // DAY_US)
    for day in (first, first + 1):
        plan = world.day(day)
        for i in first_pages(
            plan, since_us=since, until_us=since + DAY_US, most=len(plan), seed=settings.seed
        ).tolist():
            if plan.surface[i] == SURFACES.index("search") and plan.query[i] and plan.intent[i, 1] >= 0:
                texts.append(plan.query[i])
                labels.append(CATEGORIES[int(plan.intent[i, 1])].name)
    return "truth", texts[:most], labels[:most]


def _clean_queries(settings: Settings, *, most: int) -> list[str]:
    """Queries of the two days after the world's log that hold no typing error; none without a world."""
    if not public_path(settings.layout).is_file():
        return []
    world = World.open(settings.layout)
    since = published(settings.layout).watermark_us
    clean: list[str] = []
    known = clean_words(vocabulary(world.config.seed))
    for day in range(int((since - world.start_us) // DAY_US), int((since - world.start_us) // DAY_US) + 2):
        plan = world.day(day)
        for i in np.flatnonzero((plan.page == 0) & (plan.time_us >= since)).tolist():
            if plan.query[i] and plan.surface[i] == SURFACES.index("search"):
                clean += [plan.query[i]] * known.issuperset(plan.query[i].split())
    return clean[:most]


def _accuracy(release: Release, texts: list[str], labels: list[str], seed: int) -> dict[str, Any]:
    if not texts:
        return {}
    assert release.text_classifier is not None
    words = [rewrite(t, release.speller).text for t in texts]
    probabilities = release.text_classifier.predict(words)
    best = np.argsort(-probabilities, axis=1)[:, :3]
    classes = release.text_classifier.classes
    hit = np.array(classes)[best] == np.array(labels)[:, None]
    code = {name: i for i, name in enumerate(classes)}
    truth = np.array([code.get(label, -1) for label in labels])
    return {
        "calibration_error": expected_calibration_error(probabilities, truth),
        "accuracy": bootstrap_mean(hit[:, 0], seed=seed).as_dict(),
        "top3": bootstrap_mean(hit.any(axis=1), seed=seed).as_dict(),
    }


def _spelling(release: Release, state: State, *, most: int, seed: int) -> dict[str, Any]:
    """One typing error in words of the catalogue: how often the words come back; and titles left alone."""
    rng = np.random.default_rng(seed)
    rows = rng.choice(np.flatnonzero(state.alive), most)
    titles = [str(orjson.loads(state.payload(r)).get("title") or "").casefold() for r in rows.tolist()]
    made, kept = [], []
    for title, luck in zip(titles, rng.random((most, 4)), strict=True):
        words = [w for w in title.split() if len(w) >= 4 and w.isalpha()]
        kept.append(rewrite(title, release.speller).corrected)
        if not words:
            continue
        word = words[int(luck[3] * len(words))]
        wrong = misspell(word, *luck[:3].tolist())
        if tokens(wrong) != tokens(word):
            made.append(rewrite(wrong, release.speller).words == tokens(word))
    found: dict[str, Any] = {"titles_changed": bootstrap_mean(np.array(kept), seed=seed).as_dict()}
    if made:
        found |= {"typos": len(made), "typos_corrected": bootstrap_mean(np.array(made), seed=seed).as_dict()}
    return found
