"""What writers put into an upsert's JSON: what cannot be read stays out, and no value stops a fold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import orjson
import pytest

from data.replica import current_state
from data.schema import ITEM_UPSERT, USER_UPSERT, event_table
from data.segments import write_segments
from data.snapshots import published
from data.state import State
from flows.offline.ingest import ingest
from infra.clock import HOUR_US, ScaledClock
from infra.settings import Home, Settings

START = 1_700_000_000_000_000
UNREADABLE = (
    '{"price": NaN}',
    '{"price": -Infinity}',
    '{"price": 1e999}',
    '{"price": 1,}',
    '{"tags": ' + "[" * 400 + "]" * 400 + "}",
    '{"tags": ' + "[" * 3_000 + "]" * 3_000 + "}",
    '{"title": "\\ud800"}',
    "[1]",
    "[1",
    "null",
    "",
)
ITEM = {"price": 5, "list_price": 6, "stock": 7, "photo": 8, "rating_sum": 9, "rating_count": 3}
USER = {"gender": 1, "age": 33, "purchasing_power": 2}


def told(events: Sequence[tuple[int, str]]) -> State:
    """The state of upserts, kind and payload, of one item and one user."""
    n = len(events)
    columns = {
        "event_id": np.arange(n),
        "kind": [kind for kind, _ in events],
        "event_time": START + np.arange(n),
        "known_time": START + np.arange(n),
        "item_id": 4,
        "user_id": 5,
        "payload": [payload for _, payload in events],
    }
    state = State()
    state.apply(event_table(columns))
    return state


def test_what_the_state_could_not_read_never_comes_in(home: Home) -> None:
    """DuckDB takes some of these for JSON; one such row would stop every later fold."""
    settings = Settings(home=home.root)
    ScaledClock(START + HOUR_US, 0, 0.0).save(home.clock)
    payloads = ['{"title": "red lamp"}', *UNREADABLE, '{"age": 33}', *UNREADABLE]
    n = len(payloads)
    columns = {
        "event_id": np.arange(n),
        "kind": [ITEM_UPSERT] * (n // 2) + [USER_UPSERT] * (n // 2),
        "event_time": START,
        "known_time": START,
        "item_id": np.arange(n),
        "user_id": np.arange(n),
        "payload": payloads,
    }
    write_segments(event_table(columns), home.segments, name="a")
    for replay, rows in ((False, 2), (True, 0)):
        report = ingest(settings, replay=replay)
        assert (report["rows"], report["released"]) == (rows, 0)
        assert published(home).quarantine == {"payload is no JSON object": 2 * len(UNREADABLE)}
        state = current_state(home)
        assert (state.n_items, state.n_users) == (1, 2)  # items come with a user's id, too


@pytest.mark.parametrize("unreadable", UNREADABLE)
def test_an_upsert_that_cannot_be_read_changes_no_field(unreadable: str) -> None:
    """Stores of before let some in."""
    first = [(ITEM_UPSERT, '{"price": 5}'), (USER_UPSERT, '{"age": 33}')]
    state = told([*first, (ITEM_UPSERT, unreadable), (USER_UPSERT, unreadable)])
    assert (state.n_items, state.price[0], state.users.age[0]) == (1, 5, 33)
    assert orjson.loads(state.payload(0))["price"] == 5


def test_the_largest_numbers_of_a_field_are_taken() -> None:
    most = {"stock": 2**31 - 1, "photo": 2**31 - 1, "created_at": 2**62}
    state = told([(ITEM_UPSERT, orjson.dumps(most).decode())])
    assert (state.stock[0], state.photo[0], state.items.created_us[0]) == (2**31 - 1, 2**31 - 1, 2**62)
    state = told([(ITEM_UPSERT, '{"stock": 2147483648, "created_at": 9223372036854775808}')])
    assert (state.stock[0], state.items.created_us[0]) == (1, START)


@pytest.mark.parametrize(
    "odd", ['"nan"', '"inf"', '"abc"', "[1]", "{}", '""', "null", "1e300", "-1e300", "9" * 60]
)
def test_a_value_that_is_none_for_its_field_is_as_if_it_were_absent(odd: str) -> None:
    """Once such an event is held every fold meets it."""
    first = [
        (ITEM_UPSERT, orjson.dumps(ITEM | {"created_at": START}).decode()),
        (USER_UPSERT, orjson.dumps(USER).decode()),
    ]
    item = "{" + ", ".join(f'"{name}": {odd}' for name in (*ITEM, "created_at")) + "}"
    user = "{" + ", ".join(f'"{name}": {odd}' for name in USER) + "}"
    plain = told([*first, (ITEM_UPSERT, "{}"), (USER_UPSERT, "{}")])
    strange = told([*first, (ITEM_UPSERT, item), (USER_UPSERT, user)])
    for of in ("items", "users"):
        for name, column in getattr(plain, of)._asdict().items():
            assert np.array_equal(column[:1], getattr(getattr(strange, of), name)[:1]), name
    assert (strange.price[0], strange.stock[0], strange.photo[0], strange.users.age[0]) == (5, 7, 8, 33)
    assert orjson.loads(strange.payload(0)).keys() == orjson.loads(plain.payload(0)).keys()
