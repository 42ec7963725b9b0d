"""Features taken in replay equal those that a live state gives; nothing later is seen."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from data.codes import query_key
from data.schema import CLICK, IMPRESSION, ITEM_UPSERT, ORDER, USER_UPSERT, canonical, event_table
from data.state import State
from data.text import token_hashes
from models.candidate_features import FEATURES, Context, candidate_features, candidate_scores
from models.training_rows import TrainingRows, requests_between, training_rows

START = 1_700_000_000_000_000
ITEMS, USERS = 80, 12
QUERIES = ("red dress", "blue coat", "", "green shoe")


class HashEncoder:
    """A fixed encoder: the vector of a text is drawn from its key."""

    def encode_queries(self, texts: list[str]) -> np.ndarray:
        return np.array([np.random.default_rng(abs(query_key(t))).normal(size=8) for t in texts], np.float32)


class TwoClasses:
    """A fixed classifier over two categories."""

    classes = ("c0", "c1")

    def predict(self, texts: list[str]) -> np.ndarray:
        first = np.array([(abs(query_key(t)) % 97) / 97 for t in texts], np.float32)
        return np.stack([first, 1 - first], 1)


def shop_log(seed: int, requests: int = 300) -> pa.Table:
    """A log of requests with ten impressions each, clicks, orders, and catalogue changes in between."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    now = START

    def add(**row: object) -> None:
        rows.append({"event_id": len(rows), "event_time": now, "known_time": now, **row})

    def upsert(item: int) -> None:
        price = float(rng.uniform(5, 80))
        add(
            kind=ITEM_UPSERT,
            item_id=1000 + item,
            payload=json.dumps(
                {
                    "title": f"{QUERIES[item % 4]} n{item}",
                    "category": f"c{item % 2}",
                    "brand": f"b{item % 5}",
                    "price": price,
                }
            ),
        )

    for item in range(ITEMS // 2):
        now += 1
        upsert(item)
    alive = ITEMS // 2
    for request in range(requests):
        now += int(rng.integers(1, 3_600_000_000))
        if rng.random() < 0.2 and alive < ITEMS:
            upsert(alive)
            alive += 1
            now += 5
        if rng.random() < 0.1:
            add(kind=USER_UPSERT, user_id=int(rng.integers(USERS)), payload='{"age": 40, "gender": 0}')
            now += 5
        user, query, state = int(rng.integers(-1, USERS)), str(rng.choice(QUERIES)), now
        shown = rng.choice(alive, 10, replace=False)
        who = {
            "user_id": user,
            "session_id": request // 3,
            "request_id": request,
            "query": query,
            "surface": 1,
        }
        now += 3
        for position, item in enumerate(shown):
            add(kind=IMPRESSION, item_id=1000 + int(item), position=position, state_time=state, **who)
        for position, item in enumerate(shown):
            if rng.random() < 0.15:
                now += 7
                add(kind=CLICK, item_id=1000 + int(item), position=position, **{**who, "query": ""})
                if rng.random() < 0.3:
                    now += 7
                    add(kind=ORDER, item_id=1000 + int(item), position=position, **who)
    none = {
        "user_id": -1,
        "session_id": -1,
        "request_id": -1,
        "position": -1,
        "query": "",
        "payload": "",
        "surface": 0,
        "state_time": 0,
    }
    names = {name for row in rows for name in row}
    return canonical(event_table({n: [r.get(n, none.get(n, -1)) for r in rows] for n in names}))


def vectors_of(log: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    ids = np.unique(log["item_id"].to_numpy()[log["kind"].to_numpy() == ITEM_UPSERT])
    return ids, np.random.default_rng(5).normal(size=(len(ids), 8)).astype(np.float32)


def rows_of(log: pa.Table, **window: int) -> TrainingRows:
    requests = requests_between(log, **({"since_us": 0, "until_us": 1 << 62} | window))
    return training_rows(
        log, requests, encoder=HashEncoder(), classifier=TwoClasses(), speller=None, vectors=vectors_of(log)
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_batch_features_equal_online_features(seed: int) -> None:
    log = shop_log(seed)
    rows = rows_of(log)
    starts = np.concatenate([[0], np.cumsum(rows.groups)])
    known = log["known_time"].to_numpy()
    ids, vectors = vectors_of(log)
    state, at = State(), 0
    requests = requests_between(log, since_us=0, until_us=1 << 62)
    for g in range(0, len(rows.groups)):
        upto = int(np.searchsorted(known, requests.state_us[g], side="right"))
        state.apply(log.slice(at, upto - at))
        at = upto
        shown = log.take(pa.array(requests.rows[requests.starts[g] : requests.starts[g + 1]]))
        query = shown["query"][0].as_py()
        context = Context(
            now_us=shown["event_time"][0].as_py(),
            user_row=state.user_row(shown["user_id"][0].as_py()),
            session_id=shown["session_id"][0].as_py(),
            surface=1,
            query_tokens=token_hashes(query),
            query_key=query_key(query),
        )
        item_rows = state.item_rows(shown["item_id"].to_numpy())
        aligned = vectors[np.searchsorted(ids, state.item_ids)]
        query_vector = HashEncoder().encode_queries([query])[0]
        vector_scores, user_scores, _ = candidate_scores(state, context, item_rows, aligned, query_vector)
        probs = TwoClasses().predict([query])[0] * bool(query)
        category = np.array([probs[(i - 1000) % 2] for i in shown["item_id"].to_pylist()], np.float32)
        online = candidate_features(
            state,
            context,
            item_rows,
            vector_scores=vector_scores,
            user_scores=user_scores,
            category_probs=category,
        )
        np.testing.assert_array_equal(rows.features[starts[g] : starts[g + 1]], online)


def test_what_happens_later_changes_no_feature() -> None:
    log = shop_log(3)
    whole = rows_of(log)
    cut = int(np.quantile(log["known_time"].to_numpy(), 0.6))
    early = log.filter(pa.array(log["known_time"].to_numpy() < cut))
    part = rows_of(early, until_us=cut - 60_000_000)
    n = len(part.labels)
    assert 0 < n < len(whole.labels)
    np.testing.assert_array_equal(part.features, whole.features[:n])


def test_labels_are_the_strongest_reaction() -> None:
    log = shop_log(4)
    rows = rows_of(log)
    kind = log["kind"].to_numpy()
    assert int((rows.labels == 3).sum()) == int((kind == ORDER).sum())
    assert int((rows.labels >= 1).sum()) == int((kind == CLICK).sum())
    assert int((rows.labels == 2).sum()) == 0


def test_a_window_takes_only_its_requests() -> None:
    log = shop_log(5)
    middle = int(np.median(log["known_time"].to_numpy()))
    late = rows_of(log, since_us=middle)
    assert 0 < len(late.groups) < len(rows_of(log).groups)
    assert late.time_us.min() >= middle - 1_000_000
    assert late.features.shape[1] == len(FEATURES)


def test_an_empty_window_has_no_rows() -> None:
    rows = rows_of(shop_log(6, requests=5), since_us=1 << 61)
    assert len(rows.groups) == 0
    assert rows.features.shape == (0, len(FEATURES))
