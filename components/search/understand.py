"""What a request means: words put right, likely categories, a vector, and who is asking.

The query planner of the published scenario: spelling, category of text or photo, user look-up.
It knows artifacts and state, nothing of how items are found.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from components.search.catalogue import Lists
from components.search.live import Live
from components.search.recommend import user_vector
from data.codes import CODES, code_of, query_key
from data.schema import SURFACES
from data.shop import Request
from data.state import State
from data.text import token_hashes
from models.candidate_features import Context
from models.release import Release
from models.speller import Rewritten, rewrite

__all__ = ["Meaning", "class_codes", "understand"]


@dataclass(frozen=True)
class Meaning:
    """All that later stages know of the request.

    code_probs float32 [CODES]: probability by category or department code, None without a
    classifier's word; image_probs float32 [C]: the image classifier's, empty where no photo was given;
    query_vector, user_vector float32 [dim] or None.
    """

    rewritten: Rewritten
    context: Context
    code_probs: NDArray[np.float32] | None
    image_probs: NDArray[np.float32]
    query_vector: NDArray[np.float32] | None
    user_vector: NDArray[np.float32] | None


def class_codes(classes: tuple[str, ...]) -> NDArray[np.int32]:
    """The state's categorical code of each class of a classifier: int32 [C]."""
    return np.array([code_of(label) for label in classes], np.int32)


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
) -> Meaning:
    """The meaning of a request.

    `text_codes`, `image_codes`: `class_codes` of the release's classifiers; `photo` uint8 [28, 28]
    of an image request.
    """
    rewritten = rewrite(request.query, release.speller)
    asked = bool(rewritten.words)
    context = Context(
        now_us=request.time_us,
        user_row=state.user_row(request.user_id),
        session_id=request.session_id,
        surface=SURFACES.index(request.surface),
        query_tokens=token_hashes(rewritten.text),
        query_key=query_key(request.query),
    )
    code_probs: NDArray[np.float32] | None = None
    image_probs = np.empty(0, np.float32)
    if photo is not None and release.image_classifier is not None:
        image_probs = release.image_classifier.predict(photo[None])[0]
        code_probs = _by_code(image_codes, image_probs)
        codes = lists.category_codes
        probs = np.maximum(code_probs[lists.category_departments], code_probs[codes])
        code_probs[codes] = probs
        context = replace(context, category_codes=codes, category_probs=probs)
    elif asked and release.text_classifier is not None:
        probs = release.text_classifier.predict([rewritten.text])[0]
        code_probs = _by_code(text_codes, probs)
        context = replace(context, category_codes=text_codes, category_probs=probs)
    vector: NDArray[np.float32] | None = None
    if request.surface == "similar":
        row = state.item_row(request.item_id)
        vector = live.vectors[row] if 0 <= row < live.n else None
    elif asked:
        vector = release.encoder.encode_queries([rewritten.text])[0]
    user = user_vector(state, context, live.vectors)
    return Meaning(rewritten, context, code_probs, image_probs, vector, user)


def _by_code(codes: NDArray[np.int32], probs: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 [CODES]; classes that share a code share its probability."""
    return np.bincount(codes, probs, CODES).astype(np.float32)
