"""What a release remembers of the queries that it was asked."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from components.search.queries import KnownQuery, QueryMemory
from models.release import Release
from tests.unit.components.search_world import Log, make_release, make_state


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    folder: Path = tmp_path_factory.mktemp("release")
    return make_release(folder, make_state(Log()))


@pytest.fixture
def memory(release: Release) -> QueryMemory:
    return QueryMemory(release, capacity=3)


def test_a_query_is_understood_once_however_it_is_typed(memory: QueryMemory) -> None:
    first = memory.of("red boots")
    assert memory.of("  Red BOOTS ") is first
    assert memory.counts == (1, 1)
    assert first.vector is not None
    assert np.isclose(np.linalg.norm(first.vector), 1.0)


def test_what_was_not_asked_for_longest_goes_first(memory: QueryMemory) -> None:
    kept = {q: memory.of(q) for q in ("red boots", "blue shirts", "green sandals")}
    memory.of("red boots")
    memory.of("black hoodies")  # there is room for three
    assert memory.size == 3
    assert memory.of("red boots") is kept["red boots"]
    assert memory.of("green sandals") is kept["green sandals"]
    assert memory.of("blue shirts") is not kept["blue shirts"]
    assert memory.counts == (3, 5)


def test_each_query_makes_the_memory_before_forget_two(release: Release) -> None:
    old = QueryMemory(release)
    for i in range(5):
        old.of(f"red boots {i}")
    new = QueryMemory(release, before=old)
    left = []
    for i in range(4):
        new.of(f"blue shirts {i % 2}")
        left.append(old.size)
    assert left == [3, 1, 0, 0]
    assert new.size == 2
    old.of("red boots 1")  # of a cursor, as long as its release is held
    new.of("blue shirts 1")
    assert old.size == 1
    old.clear()
    assert old.size == 0


def test_requests_under_way_may_ask_what_is_being_forgotten(release: Release) -> None:
    old = QueryMemory(release, capacity=20)
    wrong: list[object] = []

    def ask(memory: QueryMemory, word: str) -> None:
        for i in range(300):
            try:
                known = memory.of(f"{word} boots {i % 30}")
                if not isinstance(known, KnownQuery) or known.rewritten.words[0] != word:
                    wrong.append(known)
            except Exception as error:
                wrong.append(error)

    memories = [old, old, QueryMemory(release, before=old), QueryMemory(release, before=old)]
    threads = [
        threading.Thread(target=ask, args=(memory, word))
        for memory, word in zip(memories, ("red", "blue", "red", "blue"), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
        assert not thread.is_alive()
    assert wrong == []
    assert old.size <= 22
