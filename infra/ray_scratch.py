"""The folder of Ray's own files for a home: its sockets and its logs. It starts and stops nothing."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path

from infra.errors import EnvironmentError_
from infra.settings import Settings

__all__ = ["fresh_scratch", "scratch_of", "trouble"]

_TROUBLE = re.compile(r"^(ERROR|WARNING|\w+(\.\w+)*(Error|Exception)\b)")
_LINE = 300  # characters that are told of one


def scratch_of(settings: Settings) -> Path:
    """Where it is, by a short name: HAProxy allows a socket 97 characters; 56 of them are an id of Ray."""
    digest = hashlib.sha256(f"{os.getuid()}:{settings.home}".encode()).hexdigest()[:8]
    return Path("/tmp") / f"sl-{digest}"


def fresh_scratch(settings: Settings) -> None:
    """Make it anew, empty. Raises EnvironmentError_ where it is another user's."""
    folder = scratch_of(settings)
    if folder.is_symlink() or (folder.exists() and folder.stat().st_uid != os.getuid()):
        raise EnvironmentError_(f"{folder} belongs to another user; remove it or choose another --home")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "h").mkdir(parents=True, mode=0o700)
    folder.chmod(0o700)


def trouble(settings: Settings) -> str:
    """How Ray Serve's own logs end, and the last warning or error of each, on one line.

    They go away with the cluster, and only they say why a replica or a proxy did not come up.
    """
    told = []
    for log in sorted(scratch_of(settings).glob("ray/session_2*/logs/serve/*.log")):
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        found = [*[line for line in lines if _TROUBLE.match(line)][-1:], *lines[-1:]]
        told += [f"{log.stem.split('_')[0]}: {line[:_LINE]}" for line in dict.fromkeys(found)]
    return " | ".join(told) or "nothing"
