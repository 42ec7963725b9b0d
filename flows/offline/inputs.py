"""What a training reads: published events up to a watermark, a window, a nested fraction, the state.

Everything comes from immutable snapshots, so that a training can be repeated from its record. It
reads no truth, and holds back the newest held-out sessions for the gate.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from data.fractions import in_fraction
from data.replica import current_state_and_record
from data.retention import opening_state
from data.schema import CART, CLICK, IMPRESSION, NONE_ID, ORDER, SEARCH, SURFACES
from data.snapshots import Published, as_of, published, read_events
from data.state import State
from flows.offline.selection import LABEL_DELAY_US, Selection
from infra.clock import DAY_US
from infra.errors import DataError
from infra.settings import Home
from models.encoder import Encoder, item_text
from models.speller import Speller
from models.text_classifier import TextClassifier
from models.training_rows import Requests, TrainingRows, requests_between, training_rows
from models.vector_index import VectorIndex

__all__ = [
    "COLUMNS",
    "GATE_SHARE",
    "GATE_SLICE_US",
    "LABEL_DELAY_US",
    "Inputs",
    "Scorers",
    "Selection",
    "all_vectors",
    "asked_at",
    "clicked_pairs",
    "clicked_queries",
    "gate_rows",
    "group_keys",
    "held_out",
    "inputs_of",
    "load_inputs",
    "ranker_rows",
    "teaches_ranker",
]

_LOG = logging.getLogger("shelflife.inputs")

GATE_SLICE_US = DAY_US  # the newest slice, on which the gate judges
GATE_SHARE = 0.3  # of its sessions; no training sees them while they are in the slice
SCORERS_SHARE = 0.5  # of the sessions: those whose clicks teach encoder and classifier, not the ranker
MAX_ROWS = 400_000  # of the newest impressions with a click in their request that the ranker learns from

COLUMNS = (
    "event_id", "kind", "event_time", "known_time", "user_id", "session_id", "request_id", "surface",
    "query", "photo", "item_id", "position", "propensity", "state_time", "vector_score", "category_prob",
    "payload",
)  # fmt: skip


@dataclass(frozen=True)
class Inputs:
    """Events (canonical, from the first kept up to the watermark) and the state as of them.

    The window is [since_us, watermark_us]; `fraction` is of its sessions and of the items; `half_life_d`
    of the recency weights, None where all count alike; `held`: what they were read from.
    """

    events: pa.Table
    state: State
    watermark_us: int
    since_us: int
    fraction: float
    snapshot: dict[str, Any]
    cache: dict[tuple[str, ...], tuple[TrainingRows, NDArray[np.bool_]]] = field(default_factory=dict)
    half_life_d: float | None = None
    held: Published | None = None

    def opened(self) -> State:
        """A new state as the first event meets it: empty, or that of all that retention removed."""
        return State() if self.held is None else opening_state(self.held)

    def kept(self, keys: NDArray[np.int64], *, salt: str) -> NDArray[np.bool_]:
        """Whether each key belongs to the fraction."""
        return in_fraction(keys, self.fraction, salt=salt)


def load_inputs(
    layout: Home,
    *,
    window_d: float | None,
    fraction: float = 1.0,
    half_life_d: float | None = None,
    label_delay_us: int = LABEL_DELAY_US,
) -> Inputs:
    """The newest published snapshot as training inputs; what they mean: `Selection`.

    Raises DataError where nothing is published yet, ConfigError for an impossible selection.
    """
    chosen = Selection(window_d, fraction, half_life_d, label_delay_us)
    held, state = _opened(layout)
    if held.rows == 0:
        raise DataError(f"no events in {layout.root}; run `shelflife ingest` after bringing some in")
    since = 0 if window_d is None else held.watermark_us - int(window_d * DAY_US)
    if 0 < since < held.floor_us:
        left_d = (held.watermark_us - held.floor_us) / DAY_US
        told = "a window of %g days, but retention left %.1f; from now on it keeps as many as the window has"
        _LOG.warning(told, window_d, left_d)
    snapshot = {
        "commit": held.commit,
        "content_hash": held.content_hash,
        "rows": held.rows,
        "watermark_us": held.watermark_us,
        "since_us": since,
        "floor_us": held.floor_us,
        "expired": held.expired,
        "window_d": window_d,
        "fraction": fraction,
        "half_life_d": half_life_d,
        "label_delay_us": label_delay_us,
    }
    return _inputs(held, state, chosen, snapshot)


def _opened(layout: Home) -> tuple[Published, State]:
    """What is published, and the state of just that commit.

    Ingest publishes the events, then the state: a reader may find the two apart. One more look finds the
    events that a newer state holds; while the state is still to come it is folded here.
    """
    for _ in range(2):
        held = published(layout)
        state, record = current_state_and_record(layout)
        if record.get("commit") == held.commit:
            return held, state
    return held, _folded(held)


def _folded(held: Published) -> State:
    state = opening_state(held)
    state.apply(read_events(held))
    return state


def inputs_of(layout: Home, snapshot: Mapping[str, Any]) -> Inputs:
    """The inputs of a training that was recorded with this snapshot, once more; the state is folded anew.

    Raises DataError where retention has removed what the training read.
    """
    held = as_of(published(layout), snapshot)
    chosen = Selection(
        snapshot["window_d"],
        snapshot["fraction"],
        snapshot.get("half_life_d"),
        snapshot["label_delay_us"],
    )
    return _inputs(held, _folded(held), chosen, dict(snapshot))


def _inputs(held: Published, state: State, chosen: Selection, snapshot: dict[str, Any]) -> Inputs:
    return Inputs(
        events=read_events(held, columns=list(COLUMNS)),
        state=state,
        watermark_us=snapshot["watermark_us"],
        since_us=snapshot["since_us"],
        fraction=chosen.fraction,
        snapshot=snapshot,
        half_life_d=chosen.half_life_d,
        held=held,
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


def group_keys(events: pa.Table, at: NDArray[np.int64]) -> NDArray[np.int64]:
    """What is taken or left as a whole: the session of each event, without one its user, else its request."""
    keys: NDArray[np.int64] = events["session_id"].to_numpy()[at]
    for other in ("user_id", "request_id"):
        keys = np.where(keys == NONE_ID, events[other].to_numpy()[at], keys)
    return keys


def held_out(groups: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a group's events of the newest slice are kept for the gate and for evaluation."""
    return in_fraction(groups, GATE_SHARE, salt="gate")


def _of_scorers(groups: NDArray[np.int64]) -> NDArray[np.bool_]:
    return in_fraction(groups, SCORERS_SHARE, salt="scorers")


@dataclass(frozen=True)
class Scorers:
    """What turns queries and items into scores; rows depend on it. `key` names its content.

    `learned_us`: the newest watermark up to which encoder or classifier learned from clicks; -1 never.
    """

    encoder: Encoder | None
    classifier: TextClassifier | None
    speller: Speller | None
    index: VectorIndex | None
    key: tuple[str, ...]
    learned_us: int = -1


def ranker_rows(inputs: Inputs, scorers: Scorers) -> TrainingRows:
    """Rows for the ranker: clicked requests of the window, less the gate's sessions of the newest slice.

    Less, too, the sessions whose clicks taught the encoder or the classifier: their scores know these
    clicks by heart, and a ranker would trust them far too much, even where clicks tell nothing.
    """
    rows, gate = _rows(inputs, scorers)
    return rows.take(~gate)


def gate_rows(inputs: Inputs, scorers: Scorers) -> TrainingRows:
    """Rows of the gate's sessions in the newest slice: nobody has been trained on them."""
    rows, gate = _rows(inputs, scorers)
    return rows.take(gate)


def _rows(inputs: Inputs, scorers: Scorers) -> tuple[TrainingRows, NDArray[np.bool_]]:
    """Both in one replay, kept by the content of the scorers: rows, and whether a request is the gate's."""
    if scorers.key not in inputs.cache:
        requests, sessions, keep, gate = _chosen(inputs, scorers)
        encoder = scorers.encoder
        rows = training_rows(
            inputs.events,
            requests.take(keep),
            encoder=encoder,
            classifier=scorers.classifier,
            speller=scorers.speller,
            vectors=None if encoder is None else all_vectors(encoder, inputs.state, scorers.index),
            state=inputs.opened(),
        )
        inputs.cache.clear()  # one set of rows may be hundreds of megabytes
        inputs.cache[scorers.key] = (replace(rows, session_ids=sessions[keep]), gate[keep])
    return inputs.cache[scorers.key]


def teaches_ranker(inputs: Inputs, scorers: Scorers) -> bool:
    """Whether `ranker_rows` would find any; nothing is replayed."""
    _, _, keep, gate = _chosen(inputs, scorers)
    return bool((keep & ~gate).any())


def _chosen(
    inputs: Inputs, scorers: Scorers
) -> tuple[Requests, NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Requests of the window and the gate's slice, their sessions, which are kept, which are the gate's."""
    events, watermark = inputs.events, inputs.watermark_us
    since = min(inputs.since_us, watermark - GATE_SLICE_US)
    requests = requests_between(
        events, since_us=since, until_us=watermark - inputs.snapshot["label_delay_us"]
    )
    heads = requests.rows[requests.starts[:-1]]
    sessions, known = group_keys(events, heads), events["known_time"].to_numpy()[heads]
    gate = (known >= watermark - GATE_SLICE_US) & held_out(sessions)
    keep = (known >= inputs.since_us) & inputs.kept(sessions, salt="session")
    keep &= (known > scorers.learned_us) | ~_of_scorers(sessions)
    keep = (keep | gate) & _clicked(events, heads)
    sizes = np.where(keep, np.diff(requests.starts), 0)
    keep &= np.cumsum(sizes[::-1])[::-1] <= MAX_ROWS
    return requests, sessions, keep, gate


def _clicked(events: pa.Table, heads: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the request of each of these events has a reaction: bool [n]."""
    kind, request = events["kind"].to_numpy(), events["request_id"].to_numpy()
    reacted = np.unique(request[np.isin(kind, (CLICK, CART, ORDER))])
    return np.isin(request[heads], reacted)


def clicked_queries(
    inputs: Inputs, *, for_scorers: bool = False
) -> tuple[list[str], NDArray[np.int32], NDArray[np.float64]]:
    """What was typed and then clicked in the window: (queries [n], item rows int32 [n], weights [n]).

    Weights are 1 for a click, 2 for a cart, 3 for an order, times their recency. The gate's sessions
    are left out; `for_scorers` leaves the ranker's out too.
    """
    at, weight = _learnt(inputs, for_scorers=for_scorers)
    asked = asked_at(inputs.events, at)
    at, asked, weight = at[asked >= 0], asked[asked >= 0], weight[asked >= 0]
    rows = inputs.state.item_rows(inputs.events["item_id"].to_numpy()[at])
    queries = inputs.events["query"].take(pa.array(asked)).to_pylist()
    good = np.array([r >= 0 and bool(q.strip()) for r, q in zip(rows.tolist(), queries, strict=True)], bool)
    return [q for q, g in zip(queries, good, strict=True) if g], rows[good], weight[good]


def clicked_pairs(inputs: Inputs) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
    """Two different items that the same user clicked one after the other, each way round.

    Item rows int32 [n], rows int32 [n], weights [n] (of the second): what an encoder learns from where
    nobody types. The gate's sessions and the ranker's are left out.
    """
    at, weight = _learnt(inputs, for_scorers=True)
    rows = inputs.state.item_rows(inputs.events["item_id"].to_numpy()[at])
    user = inputs.events["user_id"].to_numpy()[at]
    who = np.where(user == NONE_ID, group_keys(inputs.events, at), user)
    order = np.argsort(who, kind="stable")  # by user, in order of time
    a, b = order[:-1], order[1:]
    pair = (who[a] == who[b]) & (who[a] != NONE_ID) & (rows[a] != rows[b]) & (rows[a] >= 0) & (rows[b] >= 0)
    a, b = a[pair], b[pair]
    newest_last = np.argsort(np.concatenate([b, b]), kind="stable")
    first, second = np.concatenate([a, b])[newest_last], np.concatenate([b, a])[newest_last]
    return rows[first], rows[second], weight[second]


def _learnt(inputs: Inputs, *, for_scorers: bool) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Positions of the window's reactions that may be learnt from, and their weights."""
    events = inputs.events
    kind, known = events["kind"].to_numpy(), events["known_time"].to_numpy()
    at = np.flatnonzero(np.isin(kind, (CLICK, CART, ORDER)) & (known >= inputs.since_us))
    groups = group_keys(events, at)
    newest = known[at] >= inputs.watermark_us - GATE_SLICE_US
    keep = inputs.kept(groups, salt="session") & ~(newest & held_out(groups))
    if for_scorers and (kind == IMPRESSION).any():  # without impressions no ranker learns: all is for them
        keep &= _of_scorers(groups)
    at = at[keep]
    weight = np.select([kind[at] == CART, kind[at] == ORDER], [2.0, 3.0], 1.0)
    if inputs.half_life_d is not None:
        recency = Selection(half_life_d=inputs.half_life_d)
        weight = weight * recency.weights(known[at], now_us=inputs.watermark_us)
    return at, weight


def asked_at(events: pa.Table, at: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where it says what was typed before each reaction: a position in the events, -1 nowhere.

    That is the reaction itself if it has a query, else the search or an impression of its request.
    """
    request_ids = events["request_id"].to_numpy()[at]
    told = np.isin(events["kind"].to_numpy(), (SEARCH, IMPRESSION)) & (
        events["surface"].to_numpy() == SURFACES.index("search")
    )
    rows = np.flatnonzero(told)
    known, first = np.unique(events["request_id"].to_numpy()[rows], return_index=True)
    own = np.array([bool(q) for q in events["query"].take(pa.array(at)).to_pylist()], bool)
    if not len(known):
        return np.where(own, at, -1)
    place = np.minimum(np.searchsorted(known, request_ids), len(known) - 1)
    through = (known[place] == request_ids) & (request_ids != NONE_ID)
    return np.where(own, at, np.where(through, rows[first[place]], -1))
