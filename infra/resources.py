"""What a block of code costs by the operating system's own accounting, and bounds for a training.

CPU-seconds, wall seconds, peak memory and bytes read come from getrusage(2) and proc(5), children that
ended counted in. It knows nothing of what the block does.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from infra.errors import EnvironmentError_

__all__ = ["Cost", "bounded", "cpu_s", "measured", "nice_down"]

_PROC = Path("/proc/self")
_MEMORY_SHARE = 0.75  # of the machine's memory, where no bound is set
_NO_MEMORY = ("bad allocation", "bad_alloc", "can't allocate memory", "out of memory", "malloc of size")


@dataclass
class Cost:
    """CPU-seconds of this process and its ended children, wall seconds, peak memory and what was read (MB).

    `peak_mb` is the largest resident set within the block. `read_mb` counts what read(2) and its kin
    returned, from the page cache too; `disk_mb` what had to come from the disk, mapped files too.
    """

    cpu_s: float = 0.0
    wall_s: float = 0.0
    peak_mb: float = 0.0
    read_mb: float = 0.0
    disk_mb: float = 0.0


@dataclass(eq=False)
class _Peak:
    """The largest resident set of a block that is open, KiB."""

    kib: int = 0


@dataclass(frozen=True)
class _Open:
    blocks: list[_Peak] = field(default_factory=list)


_OPEN = _Open()


@contextlib.contextmanager
def measured() -> Iterator[Cost]:
    """What the block costs; blocks may lie within one another. For one thread of a process."""
    cost, peak = Cost(), _Peak()
    cpu, wall, (read, disk) = cpu_s(), time.monotonic(), _bytes_read()
    children = _children_peak()
    _note_peak()
    _forget_peak()
    _OPEN.blocks.append(peak)
    try:
        yield cost
    finally:
        _note_peak()
        _forget_peak()
        _OPEN.blocks.remove(peak)  # by identity
        now = _bytes_read()
        cost.cpu_s = cpu_s() - cpu
        cost.wall_s = time.monotonic() - wall
        grown = _children_peak()
        cost.peak_mb = max(peak.kib, grown if grown > children else 0) / 1024
        cost.read_mb, cost.disk_mb = (now[0] - read) / 1e6, (now[1] - disk) / 1e6


def cpu_s() -> float:
    """CPU-seconds of this process and its ended children, since it began."""
    own, children = (resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def nice_down() -> None:
    """Training runs at niceness 19, and on Linux as work for processors that would else be idle.

    A trainer as nice as the service raised its median 60 times. Niceness alone does not tell Linux that a
    processor with nothing but a trainer on it is free: it lets the service's threads stand in line elsewhere.
    """
    os.nice(max(0, 19 - os.nice(0)))
    if hasattr(os, "SCHED_IDLE"):
        with contextlib.suppress(OSError):  # not allowed here
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


@contextlib.contextmanager
def bounded(memory_mb: int = 0, *, threads: int = 1) -> Iterator[None]:
    """Let the block use `threads` threads, and so much private memory more; 0: 3/4 of the machine's.

    The threads are those of Arrow, BLAS and OpenMP; LightGBM and torch are told their own number. Where
    the block wants more memory it ends with EnvironmentError_, and the machine's other programs go on.
    """
    import pyarrow as pa
    from threadpoolctl import threadpool_limits

    limit_mb = memory_mb or int(psutil.virtual_memory().total / 2**20 * _MEMORY_SHARE)
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = _data_bytes() + limit_mb * 2**20
    ceilings = [wanted, *(b for b in (soft, hard) if b != resource.RLIM_INFINITY)]
    arrow = pa.cpu_count()
    resource.setrlimit(resource.RLIMIT_DATA, (min(ceilings), hard))
    pa.set_cpu_count(threads)
    try:
        with threadpool_limits(threads):
            yield
    except Exception as error:
        if not _no_memory(error):
            raise
        raise EnvironmentError_(
            f"training wanted more than {limit_mb:,} MB of memory; take a smaller --fraction or --window-d, "
            "or raise SHELFLIFE_TRAIN_MEMORY_MB"
        ) from error
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
        pa.set_cpu_count(arrow)


def _no_memory(error: BaseException) -> bool:
    """Whether it says that memory is short; native libraries have errors of their own for it."""
    if isinstance(error, MemoryError):
        return True
    return any(words in str(error).lower() for words in _NO_MEMORY)


def _bytes_read() -> tuple[int, int]:
    """(through read calls, from the disk) of this process and its ended children; zeros where not told."""
    try:
        lines = (_PROC / "io").read_text().splitlines()
    except OSError:  # another system, or forbidden
        return 0, 0
    told = dict(line.split(": ") for line in lines)
    return int(told["rchar"]), int(told["read_bytes"])


def _children_peak() -> int:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


def _note_peak() -> None:
    """Every open block has had the memory that the process had at most since the last look."""
    kib = _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for block in _OPEN.blocks:
        block.kib = max(block.kib, kib)


def _forget_peak() -> None:
    with contextlib.suppress(OSError):  # not allowed: the peak is then the process's so far
        (_PROC / "clear_refs").write_text("5")


def _data_bytes() -> int:
    return _status("VmData") * 1024


def _status(name: str) -> int:
    """A figure of /proc/self/status in KiB; 0 where there is none."""
    with contextlib.suppress(OSError):
        for line in (_PROC / "status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    return 0
