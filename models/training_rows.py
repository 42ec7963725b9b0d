"""Rows for the ranker: the fold is replayed, and features are taken as of each request.

Impressions become rows, grouped by request; what the shopper did with them becomes labels.
Nothing later than the request's `state_time` is ever seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from data.codes import CODES, code_of
from data.event_batch import Batch
from data.schema import CART, CLICK, IMPRESSION, ORDER, SURFACES
from data.state import State
from data.state_kernel import fold_events
from data.text import token_hashes
from models.candidate_features import FEATURES
from models.candidate_kernel import features_into, user_scores_into
from models.speller import Speller, rewrite

if TYPE_CHECKING:
    from models.encoder import Encoder
    from models.text_classifier import TextClassifier

__all__ = ["LABELS", "Requests", "TrainingRows", "requests_between", "training_rows"]

_IMAGE, _SIMILAR = SURFACES.index("image"), SURFACES.index("similar")
LABELS = {CLICK: 1, CART: 2, ORDER: 3}  # the grade of an impression is its strongest reaction


@dataclass(frozen=True)
class Requests:
    """Impressions of requests, grouped: `starts` int64 [g + 1] into `rows`, event positions int64 [n].

    Groups are in order of their state time.
    """

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    state_us: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.state_us)

    def take(self, keep: NDArray[np.bool_]) -> Requests:
        """The groups for which `keep` bool [g] holds."""
        sizes = np.diff(self.starts)[keep]
        rows = self.rows[np.repeat(keep, np.diff(self.starts))]
        return Requests(rows, np.concatenate([[0], np.cumsum(sizes)]), self.state_us[keep])


@dataclass(frozen=True)
class TrainingRows:
    """What the ranker learns from.

    `features` float32 [n, F]; `labels` int8 [n] (0 to 3); `positions` int16 [n]; `groups` int32 [g]
    sizes; `request_ids`, `user_ids`, `session_ids`, `time_us` int64 [g]; `propensity` float32 [n]: of
    what randomised slots showed, else NaN.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int8]
    positions: NDArray[np.int16]
    groups: NDArray[np.int32]
    request_ids: NDArray[np.int64]
    user_ids: NDArray[np.int64]
    session_ids: NDArray[np.int64]
    time_us: NDArray[np.int64]
    propensity: NDArray[np.float32]

    def clicked(self) -> NDArray[np.bool_]:
        """Whether anything of each group was clicked: bool [g]."""
        group = np.repeat(np.arange(len(self.groups)), self.groups)
        return np.bincount(group, self.labels > 0, len(self.groups)) > 0

    def take(self, keep: NDArray[np.bool_]) -> TrainingRows:
        """The groups for which `keep` bool [g] holds."""
        rows = np.repeat(keep, self.groups)
        return TrainingRows(
            self.features[rows],
            self.labels[rows],
            self.positions[rows],
            self.groups[keep],
            self.request_ids[keep],
            self.user_ids[keep],
            self.session_ids[keep],
            self.time_us[keep],
            self.propensity[rows],
        )


def requests_between(events: pa.Table, *, since_us: int, until_us: int) -> Requests:
    """The requests whose impressions were known in [since_us, until_us), in order of state time."""
    known = events["known_time"].to_numpy()
    kind = events["kind"].to_numpy()
    rows = np.flatnonzero((kind == IMPRESSION) & (known >= since_us) & (known < until_us))
    request = events["request_id"].to_numpy()[rows]
    state_us = events["state_time"].to_numpy()[rows]
    state_us = np.where(state_us > 0, state_us, known[rows] - 1)
    order = np.lexsort((events["position"].to_numpy()[rows], request, state_us))
    rows, request, state_us = rows[order], request[order], state_us[order]
    first = (
        np.flatnonzero(np.concatenate([[True], request[1:] != request[:-1]]))
        if len(rows)
        else np.empty(0, int)
    )
    return Requests(rows, np.append(first, len(rows)), state_us[first])


def training_rows(
    events: pa.Table,
    requests: Requests,
    *,
    encoder: Encoder | None,
    classifier: TextClassifier | None,
    speller: Speller | None,
    vectors: tuple[NDArray[np.int64], NDArray[np.float32]] | None,
    state: State | None = None,
) -> TrainingRows:
    """Replay `events` (canonical, from the first) and take the features of `requests`.

    `encoder`, `classifier`, `speller`: of the release being built; their scores are recomputed, None
    gives zeros. What they cannot recompute (the photo's category, the vector of a similar item) is
    taken as it was served.
    `vectors`: (item ids int64 [m], item vectors float32 [m, dim]) of that encoder. `state`: what the
    first event meets, None the empty one; the replay changes it.
    """
    batch = Batch(events)
    state = state or State()
    by_row = state.bind(batch)
    item_rows = by_row.item_row[requests.rows]
    item_ids = _ids_by_row(batch, by_row.item_row, state.item_ids)
    state.reserve(items=len(item_ids))
    dim = vectors[1].shape[1] if vectors is not None else 1
    aligned = np.zeros((len(item_ids), dim), np.float32)
    if vectors is not None:
        order = np.argsort(vectors[0])
        place = np.minimum(np.searchsorted(vectors[0], item_ids, sorter=order), len(order) - 1)
        found = vectors[0][order[place]] == item_ids
        aligned[found] = vectors[1][order[place[found]]]

    heads = requests.rows[requests.starts[:-1]]
    queries, which = _unique_queries(events, heads)
    queries = [rewrite(q, speller).text for q in queries]
    query_vectors = np.zeros((len(queries), dim), np.float32)
    if encoder is not None and vectors is not None:
        query_vectors[:] = encoder.encode_queries(queries)
    probs, class_of = _category_probs(queries, classifier)
    tokens = [token_hashes(q) for q in queries]
    token_starts = np.concatenate([[0], np.cumsum([len(t) for t in tokens])]).astype(np.int64)
    flat_tokens = np.concatenate([*tokens, np.empty(0, np.uint32)]).astype(np.uint32)
    served = np.stack(
        [events[name].to_numpy()[requests.rows] for name in ("category_prob", "vector_score")], axis=1
    ).astype(np.float32)
    surface = events["surface"].to_numpy()[heads].astype(np.int64)

    out = np.empty((len(requests.rows), len(FEATURES)), np.float32)
    until = np.searchsorted(batch.known_us, requests.state_us, side="right")
    users = batch.user_id[heads]
    bounds = np.append(batch.changes, len(batch.kind))
    sessions, times, keys = batch.session_id[heads], batch.event_us[heads], batch.query_key[heads]
    user_rows = by_row.user_row[heads]
    at = group = 0
    for change in bounds.tolist():
        stop_group = group
        while stop_group < len(until) and until[stop_group] <= change:
            stop_group += 1
        if change > at or stop_group > group:
            state.meet_users(change)
            _replay(
                state.items, state.users, state.sessions, state.pairs, state.requests, state.category_price,
                state.n_items, state.document_frequency, state.documents, by_row, at, change,
                until, group, stop_group, requests.starts, item_rows, user_rows, sessions, times, surface,
                keys, which, token_starts, flat_tokens, aligned, query_vectors, probs, class_of, served, out,
            )  # fmt: skip
            group = stop_group
        if change < len(batch.kind):
            state.change(batch, change)
        at = change + 1
    return TrainingRows(
        features=out,
        labels=_labels(events, requests),
        positions=batch.position[requests.rows],
        groups=np.diff(requests.starts).astype(np.int32),
        request_ids=events["request_id"].to_numpy()[heads],
        user_ids=users,
        session_ids=batch.session_id[heads],
        time_us=batch.event_us[heads],
        propensity=events["propensity"].to_numpy()[requests.rows].astype(np.float32),
    )


def _ids_by_row(batch: Batch, item_row: NDArray[np.int32], known: NDArray[np.int64]) -> NDArray[np.int64]:
    """The item id of each row: those `known` int64 to the state, and those that the batch makes."""
    ids = np.full(max(int(item_row.max(initial=-1)) + 1, len(known)), -1, np.int64)
    ids[: len(known)] = known
    held = item_row >= 0
    ids[item_row[held]] = batch.item_id[held]
    return ids


def _unique_queries(events: pa.Table, heads: NDArray[np.int64]) -> tuple[list[str], NDArray[np.int64]]:
    texts = events["query"].take(pa.array(heads)).combine_chunks().dictionary_encode()
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    return texts.dictionary.to_pylist() or [""], texts.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def _category_probs(
    queries: list[str], classifier: TextClassifier | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Probabilities float32 [queries, classes + 1] (last column 0) and class index by category code."""
    if classifier is None:
        return np.zeros((len(queries), 1), np.float32), np.zeros(CODES, np.int64)
    found = classifier.predict(queries)
    class_of = np.full(CODES, found.shape[1], np.int64)
    for k, name in enumerate(classifier.classes):
        class_of[code_of(name)] = k
    worded = np.array([bool(q) for q in queries])
    return np.hstack([found * worded[:, None], np.zeros((len(queries), 1))]).astype(np.float32), class_of


def _labels(events: pa.Table, requests: Requests) -> NDArray[np.int8]:
    kind = events["kind"].to_numpy()
    request = events["request_id"].to_numpy()
    item = events["item_id"].to_numpy()
    reacted = np.flatnonzero(np.isin(kind, list(LABELS)) & (request != -1))
    grade = np.zeros(max(LABELS) + 1, np.int8)
    for code, value in LABELS.items():
        grade[code] = value
    known: dict[tuple[int, int], int] = {}
    for r, i, g in zip(
        request[reacted].tolist(), item[reacted].tolist(), grade[kind[reacted]].tolist(), strict=True
    ):
        known[r, i] = max(g, known.get((r, i), 0))
    pairs = zip(request[requests.rows].tolist(), item[requests.rows].tolist(), strict=True)
    return np.fromiter((known.get(p, 0) for p in pairs), np.int8, len(requests.rows))


@njit(cache=True)
def _replay(
    items: Any, users: Any, sessions: Any, pairs: Any, requests: Any, category_price: Any, n_items: int,
    frequency: Any, documents: int, events: Any, start: int, stop: int, until: Any, group: int,
    stop_group: int, starts: Any, item_rows: Any, user_rows: Any, session_ids: Any, time_us: Any,
    surface: Any, query_keys: Any, which: Any, token_starts: Any, tokens: Any, vectors: Any,
    query_vectors: Any, probs: Any, class_of: Any,
    served: Any, out: Any,
) -> None:  # fmt: skip
    at = start
    for g in range(group, stop_group):
        upto = max(until[g], start)
        fold_events(items, users, sessions, pairs, requests, category_price, n_items, events, at, upto)
        at = max(at, upto)
        a, b = starts[g], starts[g + 1]
        rows = item_rows[a:b]
        q = which[g]
        scores = np.empty((2, b - a), np.float32)
        user = user_rows[g] if user_rows[g] < len(users.user_ids) else -1
        user_scores_into(users, sessions, vectors, user, session_ids[g], rows, query_vectors[q], scores)
        category = np.zeros(b - a, np.float32)
        for i in range(b - a):
            if surface[g] == _SIMILAR and not np.isnan(served[a + i, 1]):
                scores[0, i] = served[a + i, 1]
            if surface[g] == _IMAGE:
                category[i] = served[a + i, 0]
            elif rows[i] >= 0:
                category[i] = probs[q, class_of[items.category[rows[i]]]]
        features_into(
            items, users, sessions, pairs, category_price, frequency, documents, time_us[g], user,
            session_ids[g], surface[g], tokens[token_starts[q] : token_starts[q + 1]], query_keys[g], rows,
            scores[0], scores[1], category, np.empty(b - a, np.float32), out[a:b],
        )  # fmt: skip
    fold_events(items, users, sessions, pairs, requests, category_price, n_items, events, at, stop)
