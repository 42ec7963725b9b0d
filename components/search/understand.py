"""What a request means: words put right, likely categories, a vector, and who is asking.

The query planner of the published scenario: spelling, category of text or photo, user look-up.
It knows artifacts and state, nothing of how items are found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.search.catalogue import Lists
from components.search.live import Live
from components.search.queries import CodeProbs, KnownQuery, QueryMemory
from data.codes import CODES
from data.schema import SURFACES
from data.shop import Request
from data.state import State
from models.candidate_features import Context
from models.image_index import unit
from models.release import Release
from models.speller import Rewritten

__all__ = ["Meaning", "told", "understand"]

_SURFACE_CODE = {name: code for code, name in enumerate(SURFACES)}
_NO_CODES: NDArray[np.int32] = np.empty(0, np.int32)
_NO_PROBS: NDArray[np.float32] = np.empty(0, np.float32)
_EVERY_CODE = np.arange(CODES, dtype=np.int16)


@dataclass(frozen=True)
class Meaning:
    """All that later stages know of the request.

    `known`: what the words mean; `code_probs`: probability by category or department code, None without
    a classifier's word; image_probs float32 [C]: the image classifier's, empty where no photo was given;
    query_vector float32 [dim] or None: of the words, or of the item that similar ones are sought for.
    """

    known: KnownQuery
    context: Context
    code_probs: CodeProbs | None
    image_probs: NDArray[np.float32]
    query_vector: NDArray[np.float32] | None
    image_vector: NDArray[np.float32] | None = None

    @property
    def rewritten(self) -> Rewritten:
        """The words put right."""
        return self.known.rewritten


def understand(
    request: Request,
    *,
    release: Release,
    live: Live,
    lists: Lists,
    state: State,
    text_codes: NDArray[np.int32],
    image_codes: NDArray[np.int32],
    photo: NDArray[np.uint8] | None,
    memory: QueryMemory | None = None,
) -> Meaning:
    """The meaning of a request.

    `text_codes`, `image_codes`: `class_codes` of the release's classifiers; `photo` uint8 [28, 28]
    of an image request; `memory`: of this release, None remembers nothing.
    """
    known = (memory or QueryMemory(release, capacity=1)).of(request.query)
    code_probs: CodeProbs | None = None
    codes, probs, image_probs = _NO_CODES, _NO_PROBS, _NO_PROBS
    image_vector: NDArray[np.float32] | None = None
    if photo is not None and release.image_classifier is not None:
        if release.image_index is None:
            image_probs = release.image_classifier.predict(photo[None])[0]
        else:
            image_probs, embedding = (found[0] for found in release.image_classifier.see(photo[None]))
            image_vector = unit(embedding)
        by_code = np.bincount(image_codes, image_probs, CODES).astype(np.float32)
        codes = lists.category_codes
        probs = np.maximum(by_code[lists.category_departments], by_code[codes])
        by_code[codes] = probs
        code_probs = CodeProbs(_EVERY_CODE, by_code)
    elif known.class_probs is not None:
        code_probs, codes, probs = known.code_probs, text_codes, known.class_probs
    context = Context(
        request.time_us,
        state.user_row(request.user_id),
        request.session_id,
        _SURFACE_CODE[request.surface],
        known.tokens,
        known.key,
        codes,
        probs,
    )
    vector = known.vector
    if request.surface == "similar":
        row = state.item_row(request.item_id)
        vector = live.vectors[row] if 0 <= row < live.n else None
    return Meaning(known, context, code_probs, image_probs, vector, image_vector)


def told(meaning: Meaning, release: Release, *, top: int = 5) -> dict[str, Any]:
    """How the request was understood, for people: spelling, synonyms, the likeliest classes.

    The probabilities are calibrated on what the classifiers were not trained on.
    """
    rewritten = meaning.rewritten
    classes: tuple[str, ...] = ()
    probs = _NO_PROBS
    if len(meaning.image_probs) and release.image_classifier is not None:
        classes, probs = release.image_classifier.classes, meaning.image_probs
    elif meaning.known.class_probs is not None and release.text_classifier is not None:
        classes, probs = release.text_classifier.classes, meaning.known.class_probs
    best = np.argsort(-probs, kind="stable")[:top].tolist()
    return {
        "words": rewritten.words,
        "corrected": rewritten.corrected,
        "also": list(rewritten.instead),
        "categories": [{"category": classes[i], "probability": float(probs[i])} for i in best],
    }
