"""What a training reads: published events up to a watermark, a window, a nested fraction, the state.

Everything comes from immutable snapshots, so that a training can be repeated from its record. It
reads no truth, and holds back the newest held-out sessions for the gate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from data.fractions import in_fraction
from data.replica import current_state
from data.schema import CART, CLICK, IMPRESSION, ORDER, SURFACES
from data.snapshots import Published, published, read_events
from data.state import State
from infra.clock import DAY_US, HOUR_US
from infra.errors import DataError
from infra.settings import Home
from models.encoder import Encoder, item_text
from models.speller import Speller
from models.text_classifier import TextClassifier
from models.training_rows import TrainingRows, requests_between, training_rows
from models.vector_index import VectorIndex

__all__ = [
    "COLUMNS",
    "GATE_SHARE",
    "GATE_SLICE_US",
    "LABEL_DELAY_US",
    "Inputs",
    "Scorers",
    "all_vectors",
    "clicked_queries",
    "gate_rows",
    "load_inputs",
    "ranker_rows",
]

LABEL_DELAY_US = HOUR_US // 2  # a request is labelled once its shopper had this long to react
GATE_SLICE_US = DAY_US  # the newest slice, on which the gate judges
GATE_SHARE = 0.3  # of its sessions; no training sees them while they are in the slice
MAX_ROWS = 400_000  # of the newest impressions with a click in their request that the ranker learns from

COLUMNS = (
    "event_id", "kind", "event_time", "known_time", "user_id", "session_id", "request_id", "surface",
    "query", "photo", "item_id", "position", "state_time", "vector_score", "category_prob", "payload",
)  # fmt: skip


@dataclass(frozen=True)
class Inputs:
    """Events (canonical, from the first up to the watermark) and the state as of them.

    The window is [since_us, watermark_us]; `fraction` is of its sessions and of the items.
    """

    events: pa.Table
    state: State
    watermark_us: int
    since_us: int
    fraction: float
    snapshot: dict[str, Any]
    cache: dict[tuple[str, ...], tuple[TrainingRows, NDArray[np.bool_]]] = field(default_factory=dict)

    def kept(self, keys: NDArray[np.int64], *, salt: str) -> NDArray[np.bool_]:
        """Whether each key belongs to the fraction."""
        return in_fraction(keys, self.fraction, salt=salt)


def load_inputs(
    layout: Home, *, window_d: float | None, fraction: float = 1.0, label_delay_us: int = LABEL_DELAY_US
) -> Inputs:
    """The newest published snapshot as training inputs. DataError where nothing is published yet."""
    held: Published = published(layout)
    if held.rows == 0:
        raise DataError(f"no events in {layout.root}; run `shelflife ingest` after bringing some in")
    events = read_events(held, columns=list(COLUMNS))
    state = current_state(layout)
    watermark = held.watermark_us
    since = 0 if window_d is None else watermark - int(window_d * DAY_US)
    return Inputs(
        events=events,
        state=state,
        watermark_us=watermark,
        since_us=since,
        fraction=fraction,
        snapshot={
            "commit": held.commit,
            "content_hash": held.content_hash,
            "rows": held.rows,
            "watermark_us": watermark,
            "since_us": since,
            "window_d": window_d,
            "fraction": fraction,
            "label_delay_us": label_delay_us,
        },
    )


def all_vectors(
    encoder: Encoder, state: State, known: VectorIndex | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Vectors of every item that the state ever held: ids int64 [n], float32 [n, dim].

    Those that `known`, an index of the same encoder, holds are taken from it.
    """
    ids = state.item_ids.copy()
    vectors = np.zeros((len(ids), encoder.dim), np.float32)
    missing = np.ones(len(ids), bool)
    if known is not None:
        held = state.item_rows(known.item_ids)
        vectors[held[held >= 0]] = known.vectors[held >= 0]
        missing[held[held >= 0]] = False
    rows = np.flatnonzero(missing)
    if len(rows):
        vectors[rows] = encoder.encode_items(
            [item_text(orjson.loads(state.payload(r))) for r in rows.tolist()]
        )
    return ids, vectors


def _held_out(sessions: NDArray[np.int64]) -> NDArray[np.bool_]:
    return in_fraction(sessions, GATE_SHARE, salt="gate")


@dataclass(frozen=True)
class Scorers:
    """What turns queries and items into scores; rows depend on it. `key` names its content."""

    encoder: Encoder | None
    classifier: TextClassifier | None
    speller: Speller | None
    index: VectorIndex | None
    key: tuple[str, ...]


def ranker_rows(inputs: Inputs, scorers: Scorers) -> TrainingRows:
    """Rows for the ranker: clicked requests of the window, less the gate's sessions of the newest slice."""
    rows, gate = _rows(inputs, scorers)
    return rows.take(~gate)


def gate_rows(inputs: Inputs, scorers: Scorers) -> TrainingRows:
    """Rows of the gate's sessions in the newest slice: nobody has been trained on them."""
    rows, gate = _rows(inputs, scorers)
    return rows.take(gate)


def _rows(inputs: Inputs, scorers: Scorers) -> tuple[TrainingRows, NDArray[np.bool_]]:
    """Both in one replay, kept by the content of the scorers: rows, and whether a request is the gate's."""
    if scorers.key not in inputs.cache:
        events, watermark = inputs.events, inputs.watermark_us
        since = min(inputs.since_us, watermark - GATE_SLICE_US)
        requests = requests_between(
            events, since_us=since, until_us=watermark - inputs.snapshot["label_delay_us"]
        )
        heads = requests.rows[requests.starts[:-1]]
        sessions, known = events["session_id"].to_numpy()[heads], events["known_time"].to_numpy()[heads]
        gate = (known >= watermark - GATE_SLICE_US) & _held_out(sessions)
        keep = (known >= inputs.since_us) & inputs.kept(sessions, salt="session")
        keep = (keep | gate) & _clicked(events, heads)
        sizes = np.where(keep, np.diff(requests.starts), 0)
        keep &= np.cumsum(sizes[::-1])[::-1] <= MAX_ROWS
        encoder = scorers.encoder
        rows = training_rows(
            events,
            requests.take(keep),
            encoder=encoder,
            classifier=scorers.classifier,
            speller=scorers.speller,
            vectors=None if encoder is None else all_vectors(encoder, inputs.state, scorers.index),
        )
        inputs.cache.clear()  # one set of rows may be hundreds of megabytes
        inputs.cache[scorers.key] = (rows, gate[keep])
    return inputs.cache[scorers.key]


def _clicked(events: pa.Table, heads: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the request of each of these events has a reaction: bool [n]."""
    kind, request = events["kind"].to_numpy(), events["request_id"].to_numpy()
    reacted = np.unique(request[np.isin(kind, (CLICK, CART, ORDER))])
    return np.isin(request[heads], reacted)


def clicked_queries(inputs: Inputs) -> tuple[list[str], NDArray[np.int32], NDArray[np.float64]]:
    """What was typed and then clicked in the window: (queries [n], item rows int32 [n], weights [n]).

    Weights are 1 for a click, 2 for a cart, 3 for an order. The gate's sessions are left out.
    """
    events = inputs.events
    kind, known = events["kind"].to_numpy(), events["known_time"].to_numpy()
    at = np.flatnonzero(np.isin(kind, (CLICK, CART, ORDER)) & (known >= inputs.since_us))
    sessions = events["session_id"].to_numpy()[at]
    newest = known[at] >= inputs.watermark_us - GATE_SLICE_US
    asked = _asked(events, events["request_id"].to_numpy()[at])
    keep = (asked >= 0) & inputs.kept(sessions, salt="session") & ~(newest & _held_out(sessions))
    at, asked = at[keep], asked[keep]
    rows = inputs.state.item_rows(events["item_id"].to_numpy()[at])
    queries = events["query"].take(pa.array(asked)).to_pylist()
    good = np.array([r >= 0 and bool(q.strip()) for r, q in zip(rows.tolist(), queries, strict=True)], bool)
    weight = np.select([kind[at] == CART, kind[at] == ORDER], [2.0, 3.0], 1.0)
    return [q for q, g in zip(queries, good, strict=True) if g], rows[good], weight[good]


def _asked(events: pa.Table, request_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """An impression that tells what each request searched for, by position in the events; -1 none."""
    shown = (events["kind"].to_numpy() == IMPRESSION) & (
        events["surface"].to_numpy() == SURFACES.index("search")
    )
    rows = np.flatnonzero(shown)
    known, first = np.unique(events["request_id"].to_numpy()[rows], return_index=True)
    if not len(known):
        return np.full(len(request_ids), -1, np.int64)
    place = np.minimum(np.searchsorted(known, request_ids), len(known) - 1)
    return np.where(known[place] == request_ids, rows[first[place]], -1)
