"""Files are whole or absent."""

from __future__ import annotations

import hashlib
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.files import append_line, clear_unfinished, sha256_file, sync_dir, write_atomic


def test_a_file_is_written_with_its_folders_and_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_failed_write_leaves_the_old_file_and_nothing_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_readers_see_the_old_or_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"a" * 100_000)
    with path.open("rb") as reader:
        write_atomic(path, b"b" * 100_000)
        assert set(reader.read()) == {ord("a")}
    assert set(path.read_bytes()) == {ord("b")}


def test_the_hash_is_that_of_the_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1_000_003)
    assert sha256_file(path) == hashlib.sha256(b"x" * 1_000_003).hexdigest()


def test_syncing_a_folder_that_is_not_there_fails(tmp_path: Path) -> None:
    sync_dir(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync_dir(tmp_path / "nowhere")


def test_a_record_keeps_its_newest_lines_whole(tmp_path: Path) -> None:
    path = tmp_path / "run" / "record.jsonl"
    for number in range(1_000):
        append_line(path, b"%04d" % number, most_bytes=100)
        assert path.stat().st_size <= 100
        lines = path.read_bytes().split(b"\n")
        assert lines.pop() == b""
        assert lines == [b"%04d" % n for n in range(number + 1 - len(lines), number + 1)]
        assert len(lines) >= min(10, number + 1)


def test_a_torn_line_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    path.write_bytes(b"one\ntw")
    append_line(path, b"three")
    assert path.read_bytes() == b"one\ntw\nthree\n"


def test_lines_of_many_writers_are_all_there(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: append_line(path, b"%03d" % n), range(200)))
    assert sorted(path.read_bytes().split()) == [b"%03d" % n for n in range(200)]


def test_what_killed_writers_left_goes_and_what_others_are_writing_stays(tmp_path: Path) -> None:
    ended = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout.strip()
    inner = tmp_path / "a"
    (inner / f".made.{ended}.98765432109876.tmp").mkdir(parents=True)
    left = [inner / f".model.bin.{ended}.tmp", inner / f".made.{ended}.98765432109876.tmp" / "part"]
    kept = [inner / f".model.bin.{os.getpid()}.tmp", inner / "model.bin", inner / ".plain.tmp"]
    for path in left + kept:
        path.write_text("x")
    assert clear_unfinished(tmp_path) == 2
    assert sorted(inner.iterdir()) == sorted(kept)
    assert clear_unfinished(tmp_path / "absent") == 0
