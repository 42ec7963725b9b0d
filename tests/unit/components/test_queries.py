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
    for query in ("red boots", "blue shirts", "green sandals", "red boots", "black hoodies"):
        memory.of(query)
    assert memory.last(5) == ["black hoodies", "red boots", "green sandals"]
    assert memory.last(1) == ["black hoodies"]
    assert memory.size == 3
    memory.of("blue shirts")
    assert memory.counts == (1, 5)


def test_all_is_forgotten_and_asked_again_it_is_known_anew(release: Release) -> None:
    memory = QueryMemory(release)
    old = [memory.of(f"red boots {i}") for i in range(50)]
    memory.forget(at_a_time=7, pause_s=0.0)
    assert memory.size == 0
    assert memory.of("red boots 3") is not old[3]
    assert memory.of("red boots 3").tokens.tolist() == old[3].tokens.tolist()


def test_requests_under_way_may_ask_what_is_being_forgotten(release: Release) -> None:
    memory = QueryMemory(release, capacity=20)
    done = threading.Event()
    wrong: list[object] = []

    def ask() -> None:
        i = 0
        while not done.is_set():
            try:
                known = memory.of(f"red boots {i % 30}")
                if not isinstance(known, KnownQuery) or known.rewritten.words[0] != "red":
                    wrong.append(known)
            except Exception as error:
                wrong.append(error)
            i += 1

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    forgetting = [threading.Thread(target=memory.forget, kwargs={"pause_s": 0.0}) for _ in range(2)]
    for thread in forgetting:
        thread.start()
    done.wait(0.3)
    done.set()
    for thread in [*threads, *forgetting]:
        thread.join(10.0)
        assert not thread.is_alive()
    assert wrong == []
    assert memory.size <= 22
