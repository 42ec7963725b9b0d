"""The photos come whole or not at all; what is wrong is said in one line. No network here."""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from data.sources import fashion_mnist
from data.sources.fashion_mnist import fetch, is_cached, load
from infra.errors import DataError, EnvironmentError_

N_TRAIN, N_TEST = 30, 12


def contents() -> dict[str, bytes]:
    rng = np.random.default_rng(1)
    made = {}
    for part, n in (("train", N_TRAIN), ("t10k", N_TEST)):
        made[f"{part}-images-idx3-ubyte"] = bytes(16) + rng.integers(0, 256, n * 784, np.uint8).tobytes()
        made[f"{part}-labels-idx1-ubyte"] = bytes(8) + rng.integers(0, 10, n, np.uint8).tobytes()
    return made


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A data set of 42 photos instead of the 70,000."""
    made = contents()
    monkeypatch.setattr(fashion_mnist, "FILES", {n: hashlib.sha256(c).hexdigest() for n, c in made.items()})
    monkeypatch.setattr(fashion_mnist, "PHOTOS", N_TRAIN + N_TEST)
    return made


def by_hand(cache: Path, made: dict[str, bytes]) -> Path:
    folder = cache / "downloads" / "fashion-mnist"
    folder.mkdir(parents=True)
    for name, content in made.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    return folder


def no_apt(monkeypatch: pytest.MonkeyPatch, folder: Path, *, script: str | None = None) -> None:
    """A machine without apt-get, or with one that does what the script says."""
    folder.mkdir()
    for name in ("apt-get", "dpkg-deb") if script else ():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(folder))


def test_files_put_there_by_hand_become_mapped_arrays(tmp_path: Path, small: dict[str, bytes]) -> None:
    assert not is_cached(tmp_path)
    folder = by_hand(tmp_path, small)
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    (folder / "t10k-labels-idx1-ubyte").write_bytes(small["t10k-labels-idx1-ubyte"])  # unpacked is as good
    fetch(tmp_path)
    images, labels = load(tmp_path)
    assert (images.shape, images.dtype, labels.shape, labels.dtype) == (
        (42, 28, 28),
        np.uint8,
        (42,),
        np.uint8,
    )
    assert isinstance(images, np.memmap)
    assert images[N_TRAIN].tobytes() == small["t10k-images-idx3-ubyte"][16 : 16 + 784]
    assert labels.tobytes() == small["train-labels-idx1-ubyte"][8:] + small["t10k-labels-idx1-ubyte"][8:]
    assert is_cached(tmp_path)


def test_damage_is_found_and_fetched_again(tmp_path: Path, small: dict[str, bytes]) -> None:
    by_hand(tmp_path, small)
    fetch(tmp_path)
    path = tmp_path / "fashion-mnist" / "images.npy"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    os.utime(path, (1, 1))  # not in the tick of the file system's clock in which it was made
    with pytest.raises(DataError, match=r"damaged.*data fetch"):
        load(tmp_path)
    said: list[str] = []
    fetch(tmp_path, progress=said.append)
    assert "damaged" in said[0]
    load(tmp_path)


def test_wrong_or_missing_files_are_named(tmp_path: Path, small: dict[str, bytes]) -> None:
    with pytest.raises(DataError, match="data fetch fashion-mnist"):
        load(tmp_path)
    folder = by_hand(tmp_path, small)
    path = folder / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(b"other"))
    with pytest.raises(DataError, match="another file"):
        fetch(tmp_path)
    path.write_bytes(b"not gzip")
    with pytest.raises(DataError, match="gzip"):
        fetch(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match="lacks train-labels"):
        fetch(tmp_path)


def test_without_apt_one_line_says_what_to_put_where(
    tmp_path: Path, small: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    no_apt(monkeypatch, tmp_path / "bin")
    with pytest.raises(EnvironmentError_) as error:
        fetch(tmp_path / "cache")
    text = str(error.value)
    assert "\n" not in text
    assert str(tmp_path / "cache" / "downloads" / "fashion-mnist") in text
    assert all(f"{name}.gz" in text for name in small)


def test_offline_one_line_says_why_and_what_to_do(
    tmp_path: Path, small: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert small
    no_apt(monkeypatch, tmp_path / "bin", script='echo "E: Unable to locate package" >&2; exit 100')
    said: list[str] = []
    with pytest.raises(EnvironmentError_, match=r"Unable to locate package.*docs/photos\.md"):
        fetch(tmp_path / "cache", progress=said.append)
    assert said == ["downloading 31 MB with apt-get", "refreshing package lists"]
    assert not is_cached(tmp_path / "cache")
