"""Content-addressed files: `blobs/ab/<sha256>`, written once, read-only, shared by hard links.

It knows folders and hashes; it knows nothing of models or releases.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from infra.errors import DataError, EnvironmentError_
from infra.files import sha256_file, sync_dir
from infra.give_way import give_way

__all__ = ["blob_path", "intact", "link_files", "put_files", "sweep", "verify_files"]


def blob_path(blobs: Path, digest: str) -> Path:
    """Where the content with this hex SHA-256 lies."""
    return blobs / digest[:2] / digest


def put_files(blobs: Path, folder: Path) -> tuple[dict[str, str], int]:
    """Store every file below `folder`; lock and temporary files are left out.

    Returns (relative POSIX path → hex SHA-256, total bytes). Idempotent: content that is there
    already is not written again, and a damaged blob is replaced.
    """
    if not folder.is_dir():
        raise DataError(f"no folder {folder}; expected the saved files of an artifact")
    digests: dict[str, str] = {}
    size = 0
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix not in (".lock", ".tmp")):
        digest = sha256_file(path)
        _put(path, blob_path(blobs, digest), digest)
        digests[path.relative_to(folder).as_posix()] = digest
        size += path.stat().st_size
    if not digests:
        raise DataError(f"no files in {folder}; expected the saved files of an artifact")
    return digests, size


def link_files(blobs: Path, files: Mapping[str, str], folder: Path) -> None:
    """Make `folder` hold `files` (relative path → SHA-256) as hard links, or copies across disks."""
    for name, digest in files.items():
        target = inside(folder, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        source = blob_path(blobs, digest)
        try:
            target.hardlink_to(source)
        except FileNotFoundError:
            raise DataError(
                f"blob {digest[:12]} of {name} is missing under {blobs}; put the artifact again"
            ) from None
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                raise
            with _disk_space(folder):
                shutil.copyfile(source, target)


def verify_files(folder: Path, files: Mapping[str, str]) -> None:
    """Raise DataError that names the first file that is absent or does not have its SHA-256."""
    for name, digest in files.items():
        path = inside(folder, name)
        give_way()
        try:
            found = sha256_file(path)
        except FileNotFoundError:
            raise DataError(
                f"{path} is missing; expected content {digest[:12]}; publish the release again"
            ) from None
        if found != digest:
            raise DataError(
                f"{path} is damaged: found content {found[:12]} ({path.stat().st_size} bytes), "
                f"expected {digest[:12]}; put the artifact and publish the release again"
            )


def intact(blobs: Path, files: Mapping[str, str]) -> bool:
    """Whether the store still has the content of all `files`."""
    try:
        return all(sha256_file(blob_path(blobs, digest)) == digest for digest in files.values())
    except FileNotFoundError:
        return False


def sweep(blobs: Path, referenced: set[str], *, grace_s: float) -> tuple[int, int]:
    """Remove blobs that are not `referenced` and were not put within `grace_s` seconds.

    The grace covers artifacts that are put but not yet published. Returns (files, bytes) removed.
    """
    before = time.time() - grace_s
    removed = size = 0
    for path in blobs.glob("??/*"):
        if path.name in referenced:
            continue
        stat = path.stat()
        if stat.st_mtime <= before:
            path.unlink(missing_ok=True)
            removed += 1
            size += stat.st_size
    return removed, size


def inside(folder: Path, name: str) -> Path:
    """`folder / name`, refused where the name would leave the folder."""
    parts = Path(name).parts
    if not parts or ".." in parts or Path(name).is_absolute():
        raise DataError(f"file name {name!r} in a manifest leaves its folder; expected a relative path")
    return folder / name


def _put(source: Path, target: Path, digest: str) -> None:
    if target.exists() and sha256_file(target) == digest:
        os.utime(target)  # its grace starts anew
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{digest}.{os.getpid()}.{time.monotonic_ns()}.tmp")
    try:
        with _disk_space(target.parent):
            shutil.copyfile(source, beside)
            with beside.open("rb+") as f:
                os.fsync(f.fileno())
        if sha256_file(beside) != digest:
            raise DataError(f"{source} changed while it was stored; save the artifact again, then put it")
        beside.chmod(0o444)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    sync_dir(target.parent)


@contextmanager
def _disk_space(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise EnvironmentError_(
            f"no disk space left under {folder}; free some or run `shelflife` elsewhere"
        ) from error
