"""The text classifier under study: trained as the service's is, its word is the feature `category_prob`.

It learns categories from the titles of the items that the shop had, and from what was typed before a
click. It knows neither rankers nor schedules.
"""

from __future__ import annotations

import hashlib
import time

import numpy as np
from numpy.typing import NDArray

from flows.offline.train import QUERY_LIMIT
from flows.studies.cells.learner import Fit, Fitted
from flows.studies.cells.token_models import packed, started, unpacked
from flows.studies.cells.words import Asked, Words
from infra.errors import DataError
from models.hashing import TokenTable
from models.text_classifier import TextClassifier

__all__ = ["TextClassifierScorer"]

_VERSION = 1  # raise when equal words would no longer give equal models


class TextClassifierScorer:
    """Implements `flows.studies.cells.words.Scorer`."""

    name = "text_classifier"
    columns = ("category_prob",)

    @property
    def key(self) -> str:
        """Hash of this module's version and of how many queries it reads."""
        return hashlib.sha256(repr((self.name, _VERSION, QUERY_LIMIT)).encode()).hexdigest()[:16]

    def fit(self, words: Words, fit: Fit, *, parent: bytes | None = None) -> Fitted:
        """Train on titles and clicked queries. Raises DataError for fewer than two categories."""
        started()
        began = time.process_time()
        texts, category = words.texts, words.said("category", fit.trained_us)
        items, title = words.items(fit), words.said("title", fit.trained_us)
        clicks = words.clicks(fit, newest=QUERY_LIMIT)
        read = [(title[r], category[r]) for r in items.tolist()]
        read += list(zip(clicks.text.tolist(), category[clicks.item].tolist(), strict=True))
        pairs = [(texts[t], texts[c]) for t, c in read if texts[t] and texts[c]]
        if len({c for _, c in pairs}) < 2:
            raise DataError(
                f"fewer than two categories before {fit.trained_us} µs with fraction {fit.fraction:g}; a "
                "text classifier needs some: describe the items' categories, or take a larger fraction"
            )
        model = TextClassifier.fit(
            [t for t, _ in pairs],
            [c for _, c in pairs],
            seed=fit.seed,
            init=_read(parent) if parent else None,
        )
        about = {"classes": list(model.classes), "report": dict(model.report)}
        made = packed(model.table.rows, fit.seed, {"head": model.head, "bias": model.bias}, about)
        return Fitted(made, time.process_time() - began, len(pairs), dict(model.report))

    def rewrite(self, words: Words, model: bytes, asked: Asked, out: NDArray[np.float32]) -> None:
        """The probability of each candidate's category, where words were typed: float32 [n, 1]."""
        classifier = _read(model)
        used, query = np.unique(asked.text, return_inverse=True)
        probs = classifier.predict([words.texts[t] for t in used.tolist()])
        of_text = np.full(len(words.texts), len(classifier.classes))
        classes = {name: k for k, name in enumerate(classifier.classes)}
        category = words.said("category", asked.at_us)
        for t in np.unique(category).tolist():
            of_text[t] = classes.get(words.texts[t], len(classes))
        probs = np.hstack([probs, np.zeros((len(probs), 1), np.float32)])  # of a category never learned
        typed = np.array([bool(words.texts[t]) for t in used.tolist()], bool)[query]
        at = np.repeat(typed, asked.groups)
        said = probs[np.repeat(query, asked.groups)[at], of_text[category[asked.item[at]]]]
        out[at, 0] = said


def _read(model: bytes) -> TextClassifier:
    rows, arrays, about = unpacked(model)
    return TextClassifier(
        tuple(about["classes"]), arrays["head"], arrays["bias"], TokenTable(rows), about["report"]
    )
