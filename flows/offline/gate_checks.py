"""What the gate asks of a challenger beside its ranking: numbers, segments, speed and size.

Segments are those of which an average tells nothing: new users, new items, queries that are seldom asked.
It decides nothing; `flows/offline/gate.py` holds what is found here against its limits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data.schema import CART, CLICK, IMPRESSION, NONE_ID, ORDER
from flows.offline.inputs import GATE_SLICE_US, Inputs
from models.encoder import item_text
from models.ranker import Ranker
from models.release import Release
from models.training_rows import TrainingRows

__all__ = ["SEGMENTS", "latencies_us", "segments", "unsound"]

SEGMENTS = ("new_users", "new_items", "tail_queries")
TAIL_ASKED = 5  # a query asked so often, or less often, is of the tail
_SAMPLE = 200  # queries, items and vectors that are looked at; candidates of a request
_REPEATS = 25


def unsound(inputs: Inputs, release: Release, rows: TrainingRows) -> str | None:
    """What of a release is not a number, on logged requests; None where all are."""
    queries = _recent_queries(inputs)
    state = inputs.state
    alive = np.flatnonzero(state.alive)[:_SAMPLE].tolist()
    texts = [item_text(orjson.loads(state.payload(row))) for row in alive]
    looks: dict[str, Callable[[], NDArray[Any]]] = {
        "the encoder's vectors of queries": lambda: release.encoder.encode_queries(queries),
        "the encoder's vectors of items": lambda: release.encoder.encode_items(texts),
        "the vectors of the index": lambda: np.asarray(release.item_vectors[:: _every(release.item_vectors)]),
    }
    if release.text_classifier is not None:
        classifier = release.text_classifier
        looks["the text classifier's probabilities"] = lambda: classifier.predict(queries)
    if release.image_classifier is not None:
        images = release.image_classifier
        looks["the image classifier's probabilities"] = lambda: images.predict(
            np.zeros((1, 28, 28), np.uint8)
        )
    if release.ranker is not None and len(rows.features):
        ranker = release.ranker
        looks["the ranker's scores"] = lambda: ranker.predict(rows.features)
    for what, look in looks.items():
        with np.errstate(all="ignore"):
            found = look()
        if not np.isfinite(found).all():
            bad = int((~np.isfinite(found)).sum())
            return f"{what} are not numbers: {bad:,} of {found.size:,} on logged requests"
    return None


def segments(inputs: Inputs, rows: TrainingRows) -> dict[str, NDArray[np.bool_]]:
    """Which of the requests belong to each of `SEGMENTS`: bool [g].

    New: first seen within the gate's slice, be it by events that retention has removed since; an unknown
    user is new. An item counts if it was clicked. How often a query was asked is counted in what is kept.
    """
    events = inputs.events
    kind, known = events["kind"].to_numpy(), events["known_time"].to_numpy()
    request = events["request_id"].to_numpy()
    since = inputs.watermark_us - GATE_SLICE_US
    gone = inputs.opened()  # what all that retention removed had folded into
    old_users = _seen_before(events["user_id"].to_numpy(), known, since)
    old_users = np.union1d(old_users, gone.users.user_ids[: gone.n_users])
    users = np.isin(rows.user_ids, old_users, invert=True)

    items = events["item_id"].to_numpy()
    reacted = np.flatnonzero(np.isin(kind, (CLICK, CART, ORDER)) & np.isin(request, rows.request_ids))
    old_items = np.union1d(_seen_before(items, known, since), gone.item_ids)
    fresh = np.isin(items[reacted], old_items, invert=True)
    of_new = np.unique(request[reacted[fresh]])

    shown = np.flatnonzero(kind == IMPRESSION)
    asked, first = np.unique(request[shown], return_index=True)
    queries = events["query"].take(pa.array(shown[first]))
    codes = _codes(queries)
    times = np.bincount(codes)[codes]
    typed = pc.greater(pc.utf8_length(pc.fill_null(queries, "")), 0).to_numpy(zero_copy_only=False)
    tail = asked[(times <= TAIL_ASKED) & typed]
    return {
        "new_users": users,
        "new_items": np.isin(rows.request_ids, of_new),
        "tail_queries": np.isin(rows.request_ids, tail),
    }


def latencies_us(rankers: Sequence[Ranker], features: NDArray[np.float32]) -> tuple[float, ...]:
    """The median time that each of the rankers takes for the candidates of a request, as it would serve them.

    They take turns, so that whatever else the machine does is the same for both. `features` float32 [n, F].
    """
    if not len(features):
        return (0.0,) * len(rankers)
    batch = np.resize(features, (_SAMPLE, features.shape[1]))
    took = np.empty((_REPEATS, len(rankers)))
    for ranker in rankers:
        ranker.predict(batch)
    for repeat in range(_REPEATS):
        for i, ranker in enumerate(rankers):
            begin = time.perf_counter_ns()
            ranker.predict(batch)
            took[repeat, i] = (time.perf_counter_ns() - begin) / 1_000
    return tuple(float(median) for median in np.median(took, axis=0))


def _recent_queries(inputs: Inputs) -> list[str]:
    queries = inputs.events["query"]
    typed = queries.filter(pc.greater(pc.utf8_length(pc.fill_null(queries, "")), 0))
    return [str(q) for q in typed.slice(max(0, len(typed) - _SAMPLE)).to_pylist()] or ["anything"]


def _seen_before(ids: NDArray[np.int64], known: NDArray[np.int64], since_us: int) -> NDArray[np.int64]:
    return np.asarray(np.unique(ids[(known < since_us) & (ids != NONE_ID)]), np.int64)


def _codes(texts: Any) -> NDArray[np.int64]:
    """A number for each distinct text: int64 [n]."""
    whole = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    encoded = pc.fill_null(whole, "").dictionary_encode()
    return np.asarray(encoded.indices.to_numpy(zero_copy_only=False), np.int64)


def _every(vectors: NDArray[np.float32]) -> int:
    return max(1, len(vectors) // _SAMPLE)
