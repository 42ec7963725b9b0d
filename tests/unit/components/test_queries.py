"""What a release remembers of the queries that it was asked."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from components.search.queries import KnownQuery, MadeOf, QueryMemory
from models.release import Artifact, Release
from models.speller import Speller
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


def test_what_earlier_releases_knew_makes_room_one_by_one(release: Release) -> None:
    old = QueryMemory(release, capacity=5)
    for i in range(5):
        old.of(f"red boots {i}")
    new = QueryMemory(release, before=old, capacity=5)
    left = []
    for i in range(7):
        new.of(f"blue shirts {i}")
        left.append(old.size)
    assert left == [4, 3, 2, 1, 0, 0, 0]
    assert new.size == 5
    old.of("red boots 1")  # of a cursor, as long as its release is held
    assert old.size == 1


def test_of_many_releases_the_earliest_are_forgotten_though_there_is_room(release: Release) -> None:
    memories = [QueryMemory(release)]
    for k in range(6):
        for i in range(4):
            memories[-1].of(f"red boots {k} {i}")
        memories.append(QueryMemory(release, before=memories[-1]))
    for i in range(20):
        memories[-1].of(f"blue shirts {i}")
    assert [memory.size for memory in memories] == [0, 0, 0, 4, 4, 4, 20]


def _with(release: Release, contents: dict[str, str]) -> Release:
    """The release with a manifest that says what its artifacts hold."""
    artifacts = {n: Artifact(n, "1", {"weights": contents.get(n, n)}, 1) for n in MadeOf._fields}
    return replace(release, manifest=replace(release.manifest, artifacts=artifacts))


@pytest.mark.parametrize("changed", ["", *MadeOf._fields])
def test_only_what_follows_from_another_artifact_is_found_out_again(release: Release, changed: str) -> None:
    def asked(memory: QueryMemory, query: str, of: Release) -> KnownQuery:
        known = memory.of(query)
        known.text_hits(of.lexical_index, 5, enough=2)
        known.nearest(of.vector_index, 5)
        return known

    release, other = _with(release, {}), _with(release, {changed: "another"})
    old = QueryMemory(release)
    was = asked(old, "red boots", release)
    new = QueryMemory(other, before=QueryMemory(release, before=old))
    known = new.of("red boots")
    for name, same in (
        ("rewritten", changed != "speller"),
        ("tokens", True),
        ("class_probs", changed != "text_classifier"),
        ("code_probs", changed != "text_classifier"),
        ("vector", changed != "encoder"),
        ("_text", changed != "lexical_index"),
        ("_nearest", changed not in ("encoder", "vector_index")),
    ):
        assert (getattr(known, name) is getattr(was, name)) == same, name
    alone = asked(QueryMemory(other), "red boots", other)
    asked(new, "red boots", other)
    for one, two in zip(*(_arrays(k) for k in (known, alone)), strict=True):
        np.testing.assert_array_equal(one, two)


def test_what_a_manifest_does_not_name_is_like_no_other(release: Release) -> None:
    assert not set(MadeOf.of(release)) & set(MadeOf.of(release)) - {""}
    assert MadeOf.of(_with(release, {})) == MadeOf.of(_with(release, {}))
    without = replace(release, speller=None)
    assert MadeOf.of(without).speller == MadeOf.of(without).speller == ""


def _arrays(known: KnownQuery) -> list[NDArray[Any]]:
    assert known.code_probs is not None
    assert known._text is not None
    assert known._nearest is not None
    found = [known.tokens, known.class_probs, known.vector, known.code_probs.probs, known._text[1].at]
    found += [known._text[1].scores, known._nearest[1].at, known._nearest[1].scores]
    return [np.asarray(array) for array in found]


def test_words_put_right_otherwise_are_another_query(release: Release) -> None:
    assert release.speller is not None
    release = _with(release, {})
    other = replace(_with(release, {"speller": "another"}), speller=Speller({"booth": 9}, {}))
    old = QueryMemory(release)
    was = old.of("red bootz")
    known = QueryMemory(other, before=old).of("red bootz")
    assert was.rewritten.words
    assert known.rewritten.words != was.rewritten.words
    alone = QueryMemory(other).of("red bootz")
    np.testing.assert_array_equal(known.tokens, alone.tokens)
    assert known.vector is not None
    assert alone.vector is not None
    np.testing.assert_array_equal(known.vector, alone.vector)


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
