"""A cache entry is whole or made anew, by one process at a time."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from infra.cache import ensure, fault, locked
from infra.errors import EnvironmentError_


def write(folder: Path) -> None:
    (folder / "a.bin").write_bytes(b"a" * 1000)
    (folder / "sub").mkdir()
    (folder / "sub" / "b.bin").write_bytes(b"b")


def test_made_once_and_then_offline(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "entry"
    assert fault(folder) is not None
    assert ensure(folder, write)
    assert fault(folder) is None

    def never(_: Path) -> None:
        raise AssertionError("made again")

    assert not ensure(folder, never)


@pytest.mark.parametrize("name", ["a.bin", "sub/b.bin", "manifest.json"])
@pytest.mark.parametrize("damage", ["change", "remove", "truncate"])
def test_damage_is_noticed_said_and_made_good(tmp_path: Path, name: str, damage: str) -> None:
    folder = tmp_path / "entry"
    ensure(folder, write)
    path = folder / name
    if damage == "change":
        path.write_bytes(b"x" * path.stat().st_size)
    elif damage == "remove":
        path.unlink()
    else:
        path.write_bytes(b"")
    assert fault(folder) is not None
    said: list[str] = []
    assert ensure(folder, write, say=said.append)
    assert "making it again" in said[0]
    assert fault(folder) is None
    assert (folder / "a.bin").read_bytes() == b"a" * 1000


def test_a_failed_or_interrupted_making_leaves_nothing_visible(tmp_path: Path) -> None:
    folder = tmp_path / "entry"

    def interrupted(into: Path) -> None:
        write(into)
        raise KeyboardInterrupt

    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(KeyboardInterrupt):
        ensure(folder, interrupted)
    with pytest.raises(EnvironmentError_, match="free space"):
        ensure(folder, full)
    assert not folder.exists()
    assert ensure(folder, write)
    with pytest.raises(EnvironmentError_, match="choose another"):
        ensure(folder / "a.bin" / "x", write)


def test_two_at_once_make_it_once(tmp_path: Path) -> None:
    folder = tmp_path / "entry"
    made: list[int] = []
    said: list[str] = []

    def waiting() -> list[str]:
        return [s for s in said if "waiting" in s]

    def slowly(into: Path) -> None:
        made.append(1)
        until = time.monotonic() + 60
        while len(waiting()) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        write(into)

    threads = [
        threading.Thread(target=ensure, args=(folder, slowly), kwargs={"say": said.append}) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len(waiting()) == 2


def test_waiting_for_ever_is_an_error(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "x"),
        pytest.raises(EnvironmentError_, match="end it"),
        locked(tmp_path / "x", timeout_s=0.1),
    ):
        raise AssertionError("two held it")
