"""What the machine has to offer: free ports, disk space, and what it is (for reports).

It asks before something is started, so that a lack is one clear line and not a trace an hour later.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from infra.errors import EnvironmentError_
from infra.settings import REPOSITORY

__all__ = [
    "describe_machine",
    "free_port",
    "require_disk",
    "require_port",
    "sharp_timers",
    "source_commit",
]

HOST = "127.0.0.1"
_given: set[int] = set()  # ports that `free_port` gave


_SET_TIMER_SLACK, _GET_TIMER_SLACK = 29, 30  # of prctl(2)


@contextlib.contextmanager
def sharp_timers() -> Iterator[None]:
    """Wake this thread when its timers say, for who measures from a due time.

    Linux may wake a thread 50 us late, to wake several at once. Elsewhere nothing is changed.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    control = ctypes.CDLL(None, use_errno=True).prctl
    before = control(_GET_TIMER_SLACK, 0, 0, 0, 0)
    control(_SET_TIMER_SLACK, 1, 0, 0, 0)
    try:
        yield
    finally:
        control(_SET_TIMER_SLACK, max(0, before), 0, 0, 0)


def free_port(preferred: int = 0) -> int:
    """`preferred` if it is free on 127.0.0.1, else any free port; 0 prefers none.

    Of the others those below what Ray Serve gives to replicas and the system to connections come first: until
    a server that is told the port has bound it, nothing else takes it. Nor is one given twice by a process.
    """
    others = [p for p in random.SystemRandom().sample(range(16_384, 30_000), 32) if p not in _given]
    for port in ([preferred] if preferred else []) + others + [0]:
        with contextlib.suppress(OSError), _bind(port) as s:
            found = int(s.getsockname()[1])
            _given.add(found)
            return found
    raise EnvironmentError_(f"found no free port on {HOST}; end some programs that hold connections")


def require_port(port: int, *, option: str) -> int:
    """`port` if it is free on 127.0.0.1, any free one if it is 0.

    Raises EnvironmentError_ that names who holds it and the `option` with which to choose another.
    """
    try:
        with _bind(port or free_port()) as s:
            return int(s.getsockname()[1])
    except OverflowError:
        raise EnvironmentError_(
            f"port {port} was given; expected 0 to 65535; pass another {option}"
        ) from None
    except PermissionError:
        raise EnvironmentError_(f"port {port} needs privileges; pass a {option} above 1023") from None
    except OSError:
        raise EnvironmentError_(
            f"port {port} is in use by {_holder(port)}: stop it or pass {option} (0 takes any free port)"
        ) from None


def require_disk(path: Path, *, mb: int) -> None:
    """Raise EnvironmentError_ unless the file system of `path` has `mb` MiB free and lets us write."""
    existing = path
    while not existing.exists():
        existing = existing.parent
    if not os.access(existing, os.W_OK):
        raise EnvironmentError_(f"{existing} cannot be written; choose another folder with --home")
    free_mb = shutil.disk_usage(existing).free >> 20
    if free_mb < mb:
        raise EnvironmentError_(
            f"{path} has {free_mb} MiB free; expected {mb} MiB; make room or choose another --home"
        )


def describe_machine() -> dict[str, Any]:
    """What a report says of the machine: cores, memory in MiB, processor, kernel, Python."""
    return {
        "cores": os.cpu_count() or 1,
        "memory_mb": psutil.virtual_memory().total >> 20,
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def source_commit() -> str:
    """The short name of the commit that this code is of; empty where git cannot tell."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return ""
    return done.stdout.strip()


def _bind(port: int) -> socket.socket:
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
    try:
        s.bind((HOST, port))
        s.listen(1)
    except BaseException:
        s.close()
        raise
    return s


def _holder(port: int) -> str:
    with contextlib.suppress(psutil.Error):
        for c in psutil.net_connections("tcp"):
            if c.laddr and c.laddr.port == port and c.status == psutil.CONN_LISTEN and c.pid:
                return f"pid {c.pid} ({psutil.Process(c.pid).name()})"
    return "another program"


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
