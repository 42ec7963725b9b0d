"""Features of given items for a request, as the rank stage makes them: retrieval is left out.

By one release and one state: to compare states, or what was logged with what is known now.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from components.search.live import ReleaseView
from components.search.queries import QueryMemory, class_codes
from components.search.rank import candidate_inputs
from components.search.understand import understand
from data.shop import Request
from data.state import State
from models.candidate_features import FEATURES, candidate_features
from models.release import Release

__all__ = ["GivenItems"]

_NO_CODES: NDArray[np.int32] = np.empty(0, np.int32)


class GivenItems:
    """A release with a state, which may go on between two requests."""

    def __init__(self, release: Release, state: State) -> None:
        self.release = release
        self.state = state
        self.view = ReleaseView(release, state)
        text = release.text_classifier
        self._codes = class_codes(text.classes if text else ())
        self._memory = QueryMemory(release)

    def features(
        self, request: Request, item_ids: NDArray[np.int64], *, vectors: NDArray[np.float32] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Features of items for a request, float32 [n, F], and whether the state knows them, bool [n].

        What it does not know is a row of NaN. `vectors` float32 [items, dim]: in place of the view's own,
        by row of the state.
        """
        self.view.refresh()
        live = self.view.live if vectors is None else replace(self.view.live, vectors=vectors)
        meaning = understand(
            request,
            release=self.release,
            live=live,
            lists=self.view.catalogue.lists,
            state=self.state,
            text_codes=self._codes,
            image_codes=_NO_CODES,
            photo=None,
            memory=self._memory,
        )
        rows = self.state.item_rows(item_ids)
        known = rows >= 0
        out = np.full((len(rows), len(FEATURES)), np.nan, np.float32)
        if known.any():
            vector_scores, user_scores, probs = candidate_inputs(meaning, self.state, live, rows[known])
            out[known] = candidate_features(
                self.state,
                meaning.context,
                rows[known],
                vector_scores=vector_scores,
                user_scores=user_scores,
                category_probs=probs,
            )
        return out, known
