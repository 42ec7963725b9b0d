"""The encoder under study: trained as the service's is; its products are `vector_score` and `user_score`.

It learns from what was typed and then clicked. Candidates stay as they are: what a fresher encoder would
have found besides is not told. It knows neither rankers nor schedules.
"""

from __future__ import annotations

import hashlib
import time

import numpy as np
from numpy.typing import NDArray

from flows.offline.train import MAX_PAIRS
from flows.studies.cells.learner import Fit, Fitted
from flows.studies.cells.token_models import packed, started, unpacked
from flows.studies.cells.words import Asked, Words
from infra.errors import DataError
from models.candidate_kernel import RECENCY
from models.encoder import Encoder
from models.hashing import TokenTable

__all__ = ["EncoderScorer"]

_VERSION = 1  # raise when equal words would no longer give equal models


class EncoderScorer:
    """Implements `flows.studies.cells.words.Scorer`."""

    name = "encoder"
    columns = ("vector_score", "user_score")

    @property
    def key(self) -> str:
        """Hash of this module's version and of how many pairs it reads."""
        return hashlib.sha256(repr((self.name, _VERSION, MAX_PAIRS)).encode()).hexdigest()[:16]

    def fit(self, words: Words, fit: Fit, *, parent: bytes | None = None) -> Fitted:
        """Train on queries and the items clicked after them. Raises DataError where there are none."""
        started()
        began = time.process_time()
        clicks = words.clicks(fit, newest=MAX_PAIRS)
        if not len(clicks.text):
            raise DataError(
                f"nobody clicked after typing in the window of a training at {fit.trained_us} µs with "
                f"fraction {fit.fraction:g}; an encoder needs some: take a longer window or a larger fraction"
            )
        said = words.said("text", fit.trained_us)
        model = Encoder.fit(
            [words.texts[t] for t in clicks.text.tolist()],
            [words.texts[t] for t in said[clicks.item].tolist()],
            clicks.weight,
            seed=fit.seed,
            init=_read(parent) if parent else None,
        )
        towers = {"query_tower": model.query_tower, "item_tower": model.item_tower}
        made = packed(model.table.rows, fit.seed, towers, {})
        pairs = len(clicks.text)
        return Fitted(made, time.process_time() - began, pairs, {"pairs": float(pairs)})

    def rewrite(self, words: Words, model: bytes, asked: Asked, out: NDArray[np.float32]) -> None:
        """Products of query (where words were typed) and of shopper with each candidate: float32 [n, 2].

        NaN for a shopper who clicked nothing lately, as the service has it.
        """
        encoder = _read(model)
        there = asked.recent >= 0
        rows = np.unique(np.concatenate([asked.item, asked.recent[there]]))
        said = words.said("text", asked.at_us)[rows]
        vectors = encoder.encode_items([words.texts[t] for t in said.tolist()])
        items = vectors[np.searchsorted(rows, asked.item)]

        used, query = np.unique(asked.text, return_inverse=True)
        asking = encoder.encode_queries([words.texts[t] for t in used.tolist()])
        typed = np.array([bool(words.texts[t]) for t in used.tolist()], bool)[query]
        at = np.repeat(typed, asked.groups)
        out[at, 0] = np.einsum("nd,nd->n", asking[np.repeat(query, asked.groups)[at]], items[at])

        weight = np.where(there, np.float32(RECENCY) ** np.arange(there.shape[1]), 0).astype(np.float32)
        place = np.minimum(np.searchsorted(rows, asked.recent), len(rows) - 1)
        users = np.einsum("gk,gkd->gd", weight, vectors[place])
        norms = np.linalg.norm(users, axis=1, keepdims=True)
        users /= np.where(norms > 0, norms, 1)
        told = np.einsum("nd,nd->n", np.repeat(users, asked.groups, axis=0), items)
        out[:, 1] = np.where(np.repeat(there.any(axis=1), asked.groups), told, np.nan)


def _read(model: bytes) -> Encoder:
    rows, arrays, _ = unpacked(model)
    return Encoder(TokenTable(rows), arrays["query_tower"], arrays["item_tower"])
