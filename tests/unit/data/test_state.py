"""The fold: split-invariant, saved and loaded whole, and right about what it counts."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pytest

from data.codes import code_of, query_key
from data.schema import (
    CLICK,
    IMPRESSION,
    ITEM_DELETE,
    ITEM_UPSERT,
    ORDER,
    USER_UPSERT,
    canonical,
    event_table,
)
from data.state import State
from data.state_arrays import HALF_LIVES_US
from infra.clock import DAY_US
from infra.errors import DataError

START = 1_700_000_000_000_000


def random_events(seed: int, n: int = 3_000, items: int = 60, users: int = 25) -> pa.Table:
    """A mixed log: upserts first and in between, deletes, impressions, clicks, orders."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(
        [ITEM_UPSERT, ITEM_DELETE, USER_UPSERT, IMPRESSION, CLICK, ORDER],
        n,
        p=[0.05, 0.01, 0.02, 0.7, 0.17, 0.05],
    )
    kind[:items] = ITEM_UPSERT
    item = np.where(np.arange(n) < items, np.arange(n), rng.integers(0, items, n))
    payload = [
        orjson.dumps(
            {
                "title": f"red dress {int(i) % 7} model{int(i)}",
                "brand": f"b{int(i) % 5}",
                "price": float(rng.uniform(5, 90)),
                "category": f"c{int(i) % 3}",
            }
        ).decode()
        if k == ITEM_UPSERT
        else ('{"age": 30, "gender": 1}' if k == USER_UPSERT else "")
        for k, i in zip(kind, item, strict=True)
    ]
    time = START + np.sort(rng.integers(0, 5 * DAY_US, n))
    late = np.where(rng.random(n) < 0.1, rng.integers(0, DAY_US, n), 0)
    return canonical(
        event_table(
            {
                "event_id": np.arange(n),
                "kind": kind,
                "event_time": time - late,
                "known_time": time,
                "user_id": rng.integers(-1, users, n),
                "session_id": rng.integers(0, 40, n),
                "item_id": item,
                "position": rng.integers(0, 30, n),
                "query": rng.choice(["red dress", "blue coat", ""], n),
                "payload": payload,
            }
        )
    )


def folded(table: pa.Table, cuts: list[int]) -> State:
    state = State()
    bounds = [0, *sorted(cuts), table.num_rows]
    for a, b in itertools.pairwise(bounds):
        state.apply(table.slice(a, b - a))
    return state


@pytest.mark.parametrize("seed", [1, 2])
def test_any_split_gives_the_same_hash(seed: int) -> None:
    events = random_events(seed)
    whole = folded(events, []).content_hash()
    rng = np.random.default_rng(seed)
    assert folded(events, rng.integers(0, events.num_rows, 40).tolist()).content_hash() == whole
    assert folded(events, list(range(0, events.num_rows, 7))).content_hash() == whole


def test_another_history_has_another_hash() -> None:
    assert folded(random_events(1), []).content_hash() != folded(random_events(3), []).content_hash()


def test_canonical_order_undoes_any_shuffle() -> None:
    events = random_events(4)
    shuffled = events.take(pa.array(np.random.default_rng(0).permutation(events.num_rows)))
    assert folded(canonical(shuffled), []).content_hash() == folded(events, []).content_hash()


def test_saved_and_loaded_is_identical_and_goes_on_identically(tmp_path: Path) -> None:
    events = random_events(5)
    half = events.num_rows // 2
    state = folded(events.slice(0, half), [])
    state.save(tmp_path / "s")
    loaded = State.load(tmp_path / "s")
    assert loaded.content_hash() == state.content_hash()
    loaded.apply(events.slice(half))
    assert loaded.content_hash() == folded(events, []).content_hash()
    assert loaded.catalogue_version == folded(events, []).catalogue_version


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    folded(random_events(6), []).save(tmp_path / "s")
    (tmp_path / "s" / "state.safetensors").write_bytes(b"no")
    with pytest.raises(DataError, match="shelflife ingest"):
        State.load(tmp_path / "s")


def _events(rows: list[dict[str, object]]) -> pa.Table:
    names = {name for row in rows for name in row}
    none = {"user_id": -1, "session_id": -1, "position": -1, "query": "", "payload": "", "item_id": -1}
    columns = {name: [row.get(name, none.get(name)) for row in rows] for name in names}
    columns["event_id"] = list(range(len(rows)))
    columns["known_time"] = columns["event_time"]
    return event_table(columns)


def test_counters_decay_by_their_half_lives() -> None:
    state = State()
    upsert = '{"title": "x", "price": 10}'
    state.apply(
        _events(
            [
                {"kind": ITEM_UPSERT, "event_time": START, "item_id": 9, "payload": upsert},
                {"kind": CLICK, "event_time": START, "item_id": 9, "user_id": 3, "session_id": 5},
                {"kind": CLICK, "event_time": START + HALF_LIVES_US[0], "item_id": 9, "user_id": 3},
            ]
        )
    )
    clicks = state.items.counters[0, :, 2]
    assert clicks[0] == pytest.approx(1.5)
    assert clicks[1] == pytest.approx(1 + 2 ** (-HALF_LIVES_US[0] / HALF_LIVES_US[1]))
    assert state.recent_items(state.user_row(3), 5).tolist() == [0]


def test_popularity_does_not_grow_with_being_shown() -> None:
    """Clicks at random: items shown a hundred times are no more popular than those shown once or never."""
    rng = np.random.default_rng(2)
    rows: list[dict[str, object]] = [
        {"kind": ITEM_UPSERT, "event_time": START, "item_id": i, "payload": "{}"} for i in range(60)
    ]
    for item in range(60):
        for _ in range((0, 1, 100)[item % 3]):
            rows.append({"kind": IMPRESSION, "event_time": START, "item_id": item, "position": 0})
            if rng.random() < 0.4:
                rows.append({"kind": CLICK, "event_time": START, "item_id": item, "position": 0})
    state = State()
    state.apply(_events(rows))
    found = state.popularity(state.as_of_us)
    never, once, often = (found[k::3].mean() for k in range(3))
    assert np.std(found[0::3]) == 0
    assert never == pytest.approx(often, rel=0.1)
    assert once == pytest.approx(often, rel=0.1)


def test_catalogue_follows_upserts_and_deletes() -> None:
    state = State()
    state.apply(
        _events(
            [
                {
                    "kind": ITEM_UPSERT,
                    "event_time": START,
                    "item_id": 4,
                    "payload": '{"title": "Red Dress", "price": 8, "brand": "Élan"}',
                },
                {
                    "kind": ITEM_UPSERT,
                    "event_time": START + 1,
                    "item_id": 4,
                    "payload": '{"price": 6, "stock": 0}',
                },
                {"kind": ITEM_DELETE, "event_time": START + 2, "item_id": 77},
            ]
        )
    )
    assert state.n_items == 1
    assert state.price[0] == 6
    assert state.stock[0] == 0
    assert '"title":"Red Dress"' in state.payload(0)
    assert state.items.brand[0] == code_of("elan")
    version = state.catalogue_version
    state.apply(_events([{"kind": ITEM_DELETE, "event_time": START + 3, "item_id": 4}]))
    assert not state.alive[0]
    assert state.changed_since(version).tolist() == [0]
    assert state.documents == 0
    assert int(state.document_frequency.sum()) == 0


def test_query_keys_ignore_case_and_spaces() -> None:
    assert query_key("  Red   DRESS ") == query_key("red dress") != query_key("red dresser")
    assert query_key(" !!! ") == 0


def test_unknown_items_and_users_are_no_rows() -> None:
    state = State()
    state.apply(_events([{"kind": CLICK, "event_time": START, "item_id": 1, "user_id": 2, "session_id": 1}]))
    assert state.item_row(1) == -1
    assert state.user_row(2) == 0
    assert state.recent_items(0, 1).size == 0
    assert state.item_rows(np.array([1, 5])).tolist() == [-1, -1]
