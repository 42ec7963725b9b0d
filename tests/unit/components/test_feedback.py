"""Impressions and client events: what is journalled, what is refused and why."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

import numpy as np
import orjson
import pytest

from components.serving.feedback import Feedback, Shown
from components.serving.incoming import MAX_EVENTS, event_columns, item_payload, to_id
from components.serving.keys import RecentKeys
from components.serving.refusals import Refusal
from data.schema import CLICK, EVENT_SCHEMA, IMPRESSION, KINDS, NONE_ID, SEARCH, USER_UPSERT, key_to_id
from data.shop import Reply, Request

NOW_US = 1_700_000_000_000_000


def shown(i: int, n: int = 3) -> Shown:
    request = Request(
        "search", NOW_US + i, query=f"q{i}", user_id=7, session_id=8, request_id=100 + i, offset=10
    )
    propensity = np.full(n, np.nan, np.float32)
    propensity[-1:] = 0.25
    reply = Reply(100 + i, "r-1", np.arange(n) + 50, propensity, offset=10, total=99)
    scores = np.linspace(0.5, 0.7, n).astype(np.float32)
    return Shown(request, reply, NOW_US - 5, np.arange(10, 10 + n), scores, scores / 2)


class FakeJournal:
    """Keeps what is appended; fails or blocks on demand."""

    def __init__(self) -> None:
        self.batches: list[tuple[dict[str, list[Any]], int]] = []
        self.error: Exception | None = None
        self.free = threading.Event()
        self.free.set()

    def append(self, columns: Any, rows: int, *, on_commit: Any = None) -> Future[int]:
        self.free.wait()
        future: Future[int] = Future()
        if self.error is not None:
            future.set_exception(self.error)
        else:
            self.batches.append((columns, rows))
            future.set_result(rows)
        return future


def test_a_reply_becomes_a_search_and_its_impressions() -> None:
    journal = FakeJournal()
    feedback = Feedback(journal)
    for i in range(50):
        feedback.offer(shown(i))
    feedback.offer(shown(50, n=0))  # an empty page is a search all the same
    feedback.close()
    assert feedback.lost == 0
    assert feedback.journalled == sum(rows for _, rows in journal.batches) == 50 * 4 + 1
    columns: dict[str, list[Any]] = {}
    for batch, rows in journal.batches:
        for name, values in batch.items():
            assert len(values) == rows
            columns.setdefault(name, []).extend(values)
    assert set(columns) <= set(EVENT_SCHEMA.names)
    assert columns["kind"][:5] == [SEARCH, IMPRESSION, IMPRESSION, IMPRESSION, SEARCH]
    assert columns["item_id"][:4] == [NONE_ID, 50, 51, 52]
    assert columns["position"][:4] == [-1, 10, 11, 12]
    assert columns["page"][:4] == [1] * 4
    assert columns["request_id"][4] == 101
    assert columns["vector_score"][1:4] == pytest.approx([0.5, 0.6, 0.7])
    assert columns["category_prob"][1:4] == pytest.approx([0.25, 0.3, 0.35])
    assert columns["propensity"][3] == 0.25
    assert np.isnan(columns["propensity"][:3]).all()
    assert columns["state_time"][0] == NOW_US - 5


def test_a_journal_that_cannot_write_loses_impressions_and_counts_them() -> None:
    journal = FakeJournal()
    journal.error = OSError(28, "No space left on device")
    feedback = Feedback(journal)
    feedback.offer(shown(1))
    feedback.close()
    assert feedback.lost == 1
    assert "No space left" in feedback.problem
    assert feedback.journalled == 0


def test_the_queue_is_bounded_and_offering_never_waits() -> None:
    journal = FakeJournal()
    journal.free.clear()
    feedback = Feedback(journal, max_queued=10, every_s=0.0)
    for i in range(200):
        feedback.offer(shown(i))  # would hang here
    assert feedback.lost >= 200 - 10 - 64 - 1
    journal.free.set()
    feedback.close()
    kept = sum(rows for _, rows in journal.batches) // 4
    assert kept + feedback.lost == 200


def columns_of(*events: Any, **options: Any) -> Any:
    return event_columns(
        list(events),
        **{
            "now_us": NOW_US,
            "future_us": 1_000_000,
            "known_item": lambda item: item in (5, key_to_id("sku-1")),
        }
        | options,
    )


def test_events_become_columns() -> None:
    batch = columns_of(
        {
            "kind": "click",
            "item_id": "sku-1",
            "user_id": "u",
            "request_id": "123",
            "release_id": "r-1",
            "surface": "search",
            "position": 4,
            "event_key": "k1",
        },
        {"kind": "order", "item_id": 5, "event_time": NOW_US + 1_000_000},
        {"kind": "user_upsert", "user_id": 9, "payload": {"age": 30, "gender": 1}},
    )
    assert batch.rows == 3
    assert batch.columns["kind"] == [CLICK, KINDS.index("order"), USER_UPSERT]
    assert batch.columns["item_id"] == [key_to_id("sku-1"), 5, NONE_ID]
    assert batch.columns["request_id"] == [123, NONE_ID, NONE_ID]
    assert batch.columns["event_time"] == [NOW_US, NOW_US + 1_000_000, NOW_US]
    assert orjson.loads(batch.columns["payload"][2]) == {"age": 30, "gender": 1}
    assert batch.keyed[0] is not None
    assert batch.keyed[1:] == (None, None)
    assert columns_of({"kind": "click", "item_id": 5, "event_key": "k1"}).keyed[0] == batch.keyed[0]
    assert "event_id" not in columns_of({"kind": "click", "item_id": 5}).columns


CLICK_5 = {"kind": "click", "item_id": 5}


@pytest.mark.parametrize(
    ("event", "why"),
    [
        ("click", "expected a JSON object"),
        ({"kind": "buy", "item_id": 5}, "'buy'"),
        ({"kind": "impression", "item_id": 5}, "journalled by the service"),
        ({"kind": ["click"]}, "kind is"),
        ({"item_id": 5}, "kind is missing"),
        ({"kind": "click"}, "item_id is missing"),
        ({"kind": "click", "item_id": 6}, "item 6 is unknown"),
        ({"kind": "click", "item_id": "nope"}, "'nope' is unknown"),
        ({"kind": "click", "item_id": 5.5}, "item_id is 5.5"),
        ({"kind": "click", "item_id": True}, "item_id is True"),
        (CLICK_5 | {"event_time": NOW_US + 3_600_000_000}, "3600 s in the future"),
        (CLICK_5 | {"event_time": "yesterday"}, "'yesterday'"),
        (CLICK_5 | {"event_time": -4}, "event_time is -4"),
        (CLICK_5 | {"request_id": "x"}, "request_id"),
        (CLICK_5 | {"request_id": -1}, "request_id"),
        (CLICK_5 | {"position": "2"}, "position"),
        (CLICK_5 | {"position": 40_000}, "position"),
        (CLICK_5 | {"surface": "shop"}, "surface"),
        (CLICK_5 | {"colour": "red"}, "unknown field 'colour'"),
        (CLICK_5 | {"event_key": 4}, "event_key"),
        (CLICK_5 | {"query": "x" * 2_000}, "query"),
        (CLICK_5 | {"payload": {"a": 1}}, "payload"),
        ({"kind": "user_upsert", "payload": {"age": 3}}, "without user_id"),
        ({"kind": "user_upsert", "user_id": 1, "payload": {"age": 300}}, "age is 300"),
        ({"kind": "user_upsert", "user_id": 1, "payload": {"name": "x"}}, "payload"),
    ],
)
def test_a_wrong_event_is_refused_by_number_with_what_to_do(event: Any, why: str) -> None:
    with pytest.raises(Refusal, match="event 1: ") as refused:
        columns_of(CLICK_5, event)
    assert why in str(refused.value)
    assert refused.value.status == 422
    assert all(refused.value.document["error"].values())


def test_batches_are_lists_of_a_bounded_length() -> None:
    for nothing in ([], None, "x", {"events": []}):
        with pytest.raises(Refusal) as refused:
            event_columns(nothing, now_us=1, future_us=1, known_item=lambda _: True)
        assert refused.value.status == 422
    with pytest.raises(Refusal) as refused:
        columns_of(*[CLICK_5] * (MAX_EVENTS + 1))
    assert refused.value.status == 413
    assert columns_of(*[CLICK_5] * MAX_EVENTS).rows == MAX_EVENTS


def test_items_are_checked_and_carry_their_key() -> None:
    payload = orjson.loads(item_payload("sku-1", {"title": "Red shoe", "price": 9.5, "photo": -1}))
    assert payload == {"item_id": "sku-1", "title": "Red shoe", "price": 9.5, "photo": -1}
    for fields in (
        {"titel": "x"},
        {"price": "9"},
        {"price": -1},
        {"price": float("nan")},
        {"title": 4},
        {"item_id": "other"},
        {},
        [],
        None,
        {"stock": 2**40},
    ):
        with pytest.raises(Refusal) as refused:
            item_payload("sku-1", fields)
        assert refused.value.status == 422
    with pytest.raises(Refusal) as refused:
        item_payload("sku-1", {"description": "x" * 100_000})
    assert refused.value.status == 413
    for key in ("", None, 1.5, "x" * 1_000):
        with pytest.raises(Refusal):
            to_id(key, "item_id")
    assert to_id("\ud800", "item_id") == to_id("?", "item_id")  # a lone surrogate is not a crash


def test_repeats_are_known_until_they_fail_or_age() -> None:
    keys = RecentKeys(capacity=3)
    pending: Future[int] = Future()
    assert keys.unseen([1, None, 1, 2]) == ([0, 1, 3], [])
    keys.remember(1, pending)
    assert keys.unseen([1, 2]) == ([1], [pending])  # not durable yet: a repeat waits for the first
    pending.set_result(4)
    assert keys.unseen([1]) == ([], [])
    failed: Future[int] = Future()
    keys.remember(2, failed)
    failed.set_exception(OSError("full"))
    assert keys.unseen([2]) == ([0], [])  # what was not kept may be sent again
    for key in (3, 4, 5):
        keys.remember(key, Future())
    assert keys.unseen([1]) == ([0], [])
