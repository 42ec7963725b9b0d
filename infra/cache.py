"""A folder of the download cache: whole and checked, or made anew; one process makes it at a time.

An entry is a folder with a `manifest.json` of its files' SHA-256. It is made beside and renamed. It
knows nothing of what is in the files or where they come from.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.errors import EnvironmentError_
from infra.files import sha256_file, sync_dir

__all__ = ["Say", "ensure", "fault", "locked"]

Say = Callable[[str], None]

MANIFEST = "manifest.json"


def fault(folder: Path) -> str | None:
    """What is wrong with an entry, None if it is whole: every file is there and has its hash."""
    try:
        files: dict[str, str] = json.loads((folder / MANIFEST).read_bytes())["files"]
    except FileNotFoundError:
        return f"{folder} is not there"
    except (ValueError, KeyError, TypeError):
        return f"{folder / MANIFEST} is damaged"
    for name, expected in files.items():
        try:
            found = sha256_file(folder / name)
        except FileNotFoundError:
            return f"{folder / name} is missing"
        if found != expected:
            return f"{folder / name} is damaged (SHA-256 {found[:12]}…, expected {expected[:12]}…)"
    return None


def ensure(folder: Path, make: Callable[[Path], None], *, say: Say | None = None) -> bool:
    """Make the entry unless it is whole; True if it was made.

    `make(empty)` fills an empty folder, which then takes the place of a missing or damaged one.
    A second process waits and finds it done. Raises EnvironmentError_ where the disk is full.
    """
    with locked(folder, say=say):
        wrong = fault(folder)
        if wrong is None:
            return False
        if folder.exists() and say is not None:
            say(f"{wrong}; making it again")
        beside = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        try:
            make(beside)
            _seal(beside)
            shutil.rmtree(folder, ignore_errors=True)
            beside.rename(folder)
            sync_dir(folder.parent)
        except OSError as error:
            raise EnvironmentError_(
                f"cannot write {folder}: {error}; free space there and try again"
            ) from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return True


def _seal(folder: Path) -> None:
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        files[str(path.relative_to(folder))] = sha256_file(path)
        _sync(path)
    (folder / MANIFEST).write_text(json.dumps({"files": files}, indent=1))
    _sync(folder / MANIFEST)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def locked(path: Path, *, say: Say | None = None, timeout_s: float = 900.0) -> Iterator[None]:
    """Hold the lock file beside `path`; wait for another process, saying so once.

    The lock goes with its process. Raises EnvironmentError_ after `timeout_s`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise EnvironmentError_(f"cannot use the cache {path.parent}: {error}; choose another") from error
    try:
        until, waiting = time.monotonic() + timeout_s, False
        while not _try_lock(fd):
            if say is not None and not waiting:
                say(f"another process is making {path}; waiting for it")
            waiting = True
            if time.monotonic() > until:
                raise EnvironmentError_(
                    f"another process has been making {path} for {timeout_s:.0f} s; end it"
                )
            time.sleep(0.05)
        yield
    finally:
        os.close(fd)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
