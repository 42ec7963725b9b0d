"""Work beside requests waits while one is answered, and ends all the same."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
import weakref

import numpy as np
import pytest

from components.serving.gate import Gate
from components.serving.polite import compile_waiting, polite
from infra.give_way import give_way


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    """As before the first request: what compiling takes is no waiting."""
    compile_waiting()


def test_it_waits_where_it_gives_way_until_the_request_has_its_answer() -> None:
    gate = Gate()
    order: list[str] = []
    begun = threading.Event()

    def work() -> None:
        with polite(gate.serving, at_a_time_s=60.0, in_all_s=60.0):
            begun.set()
            while not order:
                give_way()
            give_way()
            order.append("work")

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    with gate.serve():
        time.sleep(0.02)
        order.append("request")
        time.sleep(0.02)
        order.append("answered")
    thread.join(60)
    assert order == ["request", "answered", "work"]


def test_it_waits_no_longer_at_a_time_nor_in_all_than_it_may() -> None:
    waits: list[float] = []
    with polite(np.ones(1, np.int64), at_a_time_s=0.002, in_all_s=0.2):
        for _ in range(1_000):
            began = time.perf_counter()
            give_way()
            waits.append(time.perf_counter() - began)
    waited = [w for w in waits if w > 0.0015]
    assert 2 <= len(waited) <= 400  # some hundred of two milliseconds, and what a busy machine adds
    assert len(waits) == 1_000


def test_until_idle_it_waits_for_requests_that_follow_at_once() -> None:
    gate = Gate()
    order: list[str] = []
    begun = threading.Event()

    def work() -> None:
        with polite(gate.serving, idle_s=60.0, still_s=0.5, in_all_s=60.0):
            begun.set()
            give_way(until_idle=True)
            order.append("work")

    thread = threading.Thread(target=work)
    with gate.serve():
        thread.start()
        begun.wait()
    for _ in range(100):
        with gate.serve():
            time.sleep(0.001)
    order.append("requests")
    thread.join(60)
    assert order == ["requests", "work"]


def test_until_idle_it_waits_longer_but_no_longer_than_it_may() -> None:
    with polite(np.ones(1, np.int64), idle_s=0.05):
        began = time.perf_counter()
        give_way(until_idle=True)
        assert 0.05 <= time.perf_counter() - began < 30.0


def test_it_leaves_no_trace_even_after_an_error() -> None:
    with pytest.raises(ValueError, match="broken"), polite(np.ones(1, np.int64), at_a_time_s=60.0):
        raise ValueError("broken")
    began = time.perf_counter()
    give_way()
    assert time.perf_counter() - began < 30.0


def test_only_the_thread_within_gives_way() -> None:
    def elsewhere() -> None:
        give_way()
        done.set()

    done = threading.Event()
    with polite(np.ones(1, np.int64), at_a_time_s=600.0):
        threading.Thread(target=elsewhere).start()
        assert done.wait(60.0)


def test_no_garbage_is_looked_for_meanwhile() -> None:
    assert gc.isenabled()
    with polite(np.zeros(1, np.int64)):
        assert not gc.isenabled()
        made = [[] for _ in range(10)]
    assert gc.isenabled()
    assert not any(each is one for one in gc.get_objects(0) for each in made)
    gc.unfreeze()


def test_nothing_made_within_is_left_out_of_collections_if_it_fails() -> None:
    class Node:
        """Refers to itself."""

        def __init__(self) -> None:
            self.me = self

    gc.collect()
    gone = []
    for fails in (True, False):
        with contextlib.suppress(ValueError), polite(np.zeros(1, np.int64)):
            gone.append(weakref.ref(Node()))
            if fails:
                raise ValueError("broken")
        gc.collect()
    assert gone[0]() is None
    assert gone[1]() is not None
    gc.unfreeze()


def test_the_gate_says_whether_a_request_is_answered_but_not_for_a_reader() -> None:
    gate = Gate()
    with gate.read():
        assert not gate.serving
        with gate.serve():
            assert gate.serving
            assert gate.readers == 2
        assert not gate.serving
    assert gate.readers == 0
