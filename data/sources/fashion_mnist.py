"""70,000 product photos (Fashion-MNIST, Expat licence) from Debian's package, kept as plain arrays.

Needs apt-get and dpkg-deb, no root; without them the four files can be put in place by hand
(docs/photos.md). Offline once cached. It knows nothing of categories beyond their numbers.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from infra.cache import Say, ensure, fault
from infra.errors import DataError, EnvironmentError_

__all__ = ["CLASSES", "PHOTOS", "TRAIN", "fetch", "is_cached", "load"]

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
PHOTOS, TRAIN = 70_000, 60_000
PACKAGE = "dataset-fashion-mnist"

# SHA-256 of the unpacked files, so that the way they were packed does not matter.
FILES = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
_APT_TIMEOUT_S = 600


def fetch(cache: Path, *, progress: Say | None = None) -> Path:
    """Obtain the photos unless they are cached and whole; the folder that holds the arrays.

    Files put into `cache/downloads/fashion-mnist` by hand are used first. A download that was
    cut short goes on where it stopped. Raises EnvironmentError_ where apt-get is missing or finds
    no package, DataError where a file put there by hand is not the one that was expected.
    """
    folder = _folder(cache)
    ensure(folder, lambda into: _make(cache, into, progress or _silent), say=progress)
    return folder


def is_cached(cache: Path) -> bool:
    """Whether the photos are there and whole."""
    return fault(_folder(cache)) is None


def load(cache: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The photos, memory-mapped and read-only: images uint8 [70000, 28, 28], labels uint8 [70000].

    The first 60,000 are the training part. Raises DataError where they are not cached or damaged.
    """
    folder = _folder(cache)
    _checked(folder, _stamps(folder))
    return np.load(folder / "images.npy", mmap_mode="r"), np.load(folder / "labels.npy", mmap_mode="r")


def _folder(cache: Path) -> Path:
    return cache / "fashion-mnist"


def _silent(_message: str) -> None:
    return None


def _stamps(folder: Path) -> tuple[tuple[str, int, int], ...]:
    paths = sorted(folder.glob("*")) if folder.is_dir() else []
    return tuple((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in paths)


@lru_cache(maxsize=8)
def _checked(folder: Path, _stamps: tuple[tuple[str, int, int], ...]) -> None:
    wrong = fault(folder)
    if wrong is not None:
        raise DataError(f"no product photos: {wrong}; run `shelflife data fetch fashion-mnist`")


# ---- making the entry


def _make(cache: Path, into: Path, say: Say) -> None:
    by_hand = cache / "downloads" / "fashion-mnist"
    found = _unpacked(by_hand)
    if found is None:
        downloads = cache / "downloads" / "debian"
        downloads.mkdir(parents=True, exist_ok=True)
        deb = _download(downloads, by_hand, say)
        say("unpacking")
        tree = into / "tree"
        _run(["dpkg-deb", "-x", str(deb), str(tree)], by_hand)
        found = _unpacked(next((p.parent for p in tree.rglob("train-images-idx3-ubyte*")), tree))
        shutil.rmtree(tree)
        if found is None:
            deb.unlink()
            raise EnvironmentError_(f"package {PACKAGE} holds other files than expected; {_manual(by_hand)}")
    images = [np.frombuffer(found[f"{p}-images-idx3-ubyte"], np.uint8, offset=16) for p in ("train", "t10k")]
    labels = [np.frombuffer(found[f"{p}-labels-idx1-ubyte"], np.uint8, offset=8) for p in ("train", "t10k")]
    np.save(into / "images.npy", np.concatenate(images).reshape(PHOTOS, 28, 28))
    np.save(into / "labels.npy", np.concatenate(labels))
    shutil.rmtree(cache / "downloads" / "debian", ignore_errors=True)


def _unpacked(folder: Path) -> dict[str, bytes] | None:
    """The four files' content, from plain or .gz files; None where none of them is there."""
    found: dict[str, bytes] = {}
    for name, expected in FILES.items():
        path = next((p for p in (folder / name, folder / f"{name}.gz") if p.exists()), None)
        if path is None:
            continue
        try:
            raw = path.read_bytes()
            content = gzip.decompress(raw) if path.suffix == ".gz" else raw
        except (OSError, EOFError) as error:
            raise DataError(
                f"{path} is no whole gzip file ({error}); put the right one there or remove it"
            ) from error
        actual = hashlib.sha256(content).hexdigest()
        if actual != expected:
            raise DataError(
                f"{path} is another file: SHA-256 {actual[:12]}… expected {expected[:12]}…; remove it"
            )
        found[name] = content
    if found and len(found) < len(FILES):
        missing = ", ".join(sorted(set(FILES) - set(found)))
        raise DataError(f"{folder} lacks {missing}; put these beside the others, or remove the folder")
    return found or None


def _manual(by_hand: Path) -> str:
    return f"put {', '.join(f'{n}.gz' for n in FILES)} into {by_hand} and run it again (docs/photos.md)"


def _download(downloads: Path, by_hand: Path, say: Say) -> Path:
    """The package's file. If the system's lists do not have it, they are refreshed in a folder of our own."""
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise EnvironmentError_(f"{program} is not on this machine; {_manual(by_hand)}")
    say("downloading 31 MB with apt-get")
    command = ["apt-get", "-q", *_OPTIONS, "download", PACKAGE]
    problem = _try(command, downloads)
    if problem is not None:
        say("refreshing package lists")
        private = _private(downloads)
        problem = _try(["apt-get", "-q", *_OPTIONS, *private, "update"], downloads)
        again = _try(["apt-get", "-q", *_OPTIONS, *private, "download", PACKAGE], downloads)
        shutil.rmtree(downloads / "lists", ignore_errors=True)
        if again is not None:
            raise EnvironmentError_(
                f"apt-get cannot download {PACKAGE} ({problem or again}); {_manual(by_hand)}"
            )
    return max(downloads.glob(f"{PACKAGE}_*.deb"), key=lambda p: p.stat().st_mtime_ns)


_OPTIONS = ["-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=30", "-o", "APT::Sandbox::User="]


def _private(downloads: Path) -> list[str]:
    lists = downloads / "lists"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    (downloads / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    return [
        "-o", f"Dir::State::Lists={lists}",
        "-o", f"Dir::Cache={downloads}",
        "-o", f"Dir::Cache::Archives={downloads / 'archives'}",
    ]  # fmt: skip


def _try(command: list[str], folder: Path) -> str | None:
    """Run it; None if it succeeded, else its last words."""
    try:
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "LC_ALL": "C"}, capture_output=True, text=True,
            timeout=_APT_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no answer within {_APT_TIMEOUT_S} s"
    if done.returncode == 0:
        return None
    words = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines()
    return words[0].removeprefix("E: ") if words else f"exit code {done.returncode}"


def _run(command: list[str], by_hand: Path) -> None:
    problem = _try(command, Path.cwd())
    if problem is not None:
        raise EnvironmentError_(f"{command[0]} failed ({problem}); {_manual(by_hand)}")
