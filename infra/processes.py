"""The ledger of processes that Shelflife started: start, find again, stop with everything below them.

Each has a record `HOME/run/<name>.json` (pid, start time, ports, log) and a token in its environment that
its descendants inherit. A recycled pid is told by the start time; what outlived a `kill -9` of its parent by
the token, or by its session and its open files. Nothing else is ever signalled.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import psutil

from infra.errors import EnvironmentError_, ShelflifeError
from infra.files import write_atomic

__all__ = [
    "OWNER",
    "Process",
    "alive",
    "be_nice",
    "end_orphans",
    "exclusive",
    "find",
    "records",
    "start",
    "stop",
    "stop_all",
    "tail",
    "wait_ready",
]

OWNER = "_SHELFLIFE_OWNER"
"""The variable that marks every descendant of a process of the ledger."""


@dataclass(frozen=True)
class Process:
    """One started process.

    `started` is its start in clock ticks since boot, `boot` tells boots apart, and `scratch` is a folder in
    which only its family holds files open.
    """

    name: str
    pid: int
    started: int
    boot: str
    token: str
    argv: tuple[str, ...]
    log: str
    scratch: str = ""
    ports: dict[str, int] = field(default_factory=dict)


def start(
    run: Path,
    name: str,
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    ports: Mapping[str, int] | None = None,
    scratch: Path | None = None,
    nice: int = 0,
) -> Process:
    """Start a detached process in a session of its own; its output goes to `run/<name>.log`.

    `env` is laid over ours. `nice` is absolute; it can only be raised above ours. What an earlier process of
    this name left behind is ended first. Raises EnvironmentError_ if it is running already, or the program is
    not there.
    """
    if (old := find(run, name)) and alive(run, name):
        raise EnvironmentError_(
            f"{name} is already running as pid {old.pid}; stop it first with `shelflife down`"
        )
    stop(run, name)
    run.mkdir(parents=True, exist_ok=True)
    log = run / f"{name}.log"
    token = secrets.token_hex(16)
    record = Process(name, 0, 0, _boot(), token, tuple(argv), str(log), str(scratch or ""), dict(ports or {}))
    _save(run, record)  # before the start: a kill -9 in between leaves a token to look for
    with log.open("wb") as output:
        try:
            child = subprocess.Popen(
                list(argv),
                env={**os.environ, **(env or {}), OWNER: token},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as e:
            _path(run, name).unlink(missing_ok=True)
            raise EnvironmentError_(
                f"cannot start {name}: {argv[0]}: {e.strerror}; expected a program that can be run; "
                "make the environment anew with `make setup`"
            ) from None
    if nice > os.getpriority(os.PRIO_PROCESS, 0):
        os.setpriority(os.PRIO_PROCESS, child.pid, nice)
    record = replace(record, pid=child.pid, started=_started(child.pid) or 0)
    child.returncode = 0  # it outlives us: this Popen shall neither wait for it nor warn
    _save(run, record)
    return record


def be_nice(pid: int, nice: int) -> None:
    """Give a process a niceness and, if it leads a session, the session too.

    Where the kernel schedules by sessions (sched_autogroup_enabled), a process' own niceness counts only
    within its session: a trainer at 19 in another one than the service's would take half of the machine.
    """
    os.setpriority(os.PRIO_PROCESS, pid, nice)
    with contextlib.suppress(OSError):  # no such scheduling here, or not allowed
        if os.getsid(pid) == pid:
            Path(f"/proc/{pid}/autogroup").write_text(str(nice))


def find(run: Path, name: str) -> Process | None:
    """The record of this name, whether or not it still runs."""
    try:
        data = json.loads(_path(run, name).read_text())
        return Process(**{**data, "argv": tuple(data["argv"])})
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def records(run: Path) -> list[Process]:
    """All records of a home, by name."""
    return [p for path in sorted(run.glob("*.json")) if (p := find(run, path.stem))]


def alive(run: Path, name: str) -> bool:
    """Whether the recorded process itself still runs."""
    record = find(run, name)
    return record is not None and _main(record) is not None


def stop(run: Path, name: str, *, grace_s: float = 10.0) -> int:
    """End a process and all that descends from it; returns how many processes were ended.

    SIGTERM to the process itself, so that it can close its own children; after `grace_s` or once it is gone
    SIGTERM to what is left, and SIGKILL two seconds later. Forgets the record once nothing is left.
    """
    record = find(run, name)
    if record is None:
        _path(run, name).unlink(missing_ok=True)  # torn
        return 0
    main = _main(record)
    known = {p.pid: p for p in _family(record, main)}
    count = len(known)
    if main is not None:
        _signal([main], signal.SIGTERM)
        _wait([main], grace_s)
    for number, wait_s in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 15.0), (signal.SIGKILL, 15.0)):
        known |= {p.pid: p for p in _family(record, None)}
        left = [p for p in known.values() if _runs(p)]
        if not left:
            break
        _signal(left, number)
        _wait(left, wait_s)
    left = [p for p in known.values() if _runs(p)]
    if left:
        raise ShelflifeError(
            f"{name}: pid {left[0].pid} did not end on SIGKILL; it waits in the kernel (a broken disk?)"
        )
    _path(run, name).unlink(missing_ok=True)
    return count


def stop_all(run: Path, *, grace_s: float = 10.0) -> int:
    """End everything in the ledger; returns how many processes were ended."""
    return sum(stop(run, p.name, grace_s=grace_s) for p in records(run))


def end_orphans(run: Path) -> int:
    """End what processes that died without being stopped (`kill -9`) left behind; returns how many."""
    return sum(stop(run, p.name) for p in records(run) if _main(p) is None)


def wait_ready(
    run: Path, name: str, probe: Callable[[], bool], *, timeout_s: float, every_s: float = 0.1
) -> float:
    """Wait until `probe()` is true and return the seconds that it took.

    Raises ShelflifeError with the end of the log if the process dies or the time is over.
    """
    begin = time.monotonic()
    while not probe():
        waited = time.monotonic() - begin
        gone = not alive(run, name)
        if gone or waited > timeout_s:
            what = "ended" if gone else f"was not ready within {timeout_s:.0f} s"
            raise ShelflifeError(f"{name} {what}; its log {run / f'{name}.log'} ends with: {tail(run, name)}")
        time.sleep(every_s)
    return time.monotonic() - begin


def tail(run: Path, name: str, *, lines: int = 3) -> str:
    """The last lines of a process's log, on one line."""
    try:
        text = (run / f"{name}.log").read_text(errors="replace")
    except FileNotFoundError:
        return "(no log)"
    kept = [line.strip() for line in text.splitlines() if line.strip()][-lines:]
    return " | ".join(kept) or "(nothing)"


@contextlib.contextmanager
def exclusive(run: Path, what: str) -> Iterator[None]:
    """Hold a home for a command that starts or stops things; EnvironmentError_ if another one holds it."""
    run.mkdir(parents=True, exist_ok=True)
    with (run / "lock").open("a+") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            f.seek(0)
            holder = f.read().strip() or "another command"
            raise EnvironmentError_(
                f"{holder} is at work on {run.parent}; wait for it, or give this command another --home"
            ) from None
        f.truncate(0)
        f.write(f"`shelflife {what}` (pid {os.getpid()})")
        f.flush()
        try:
            yield
        finally:
            f.truncate(0)


def _path(run: Path, name: str) -> Path:
    return run / f"{name}.json"


def _save(run: Path, record: Process) -> None:
    write_atomic(_path(run, record.name), json.dumps(asdict(record)).encode())


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _started(pid: int) -> int | None:
    # Field 22 of proc(5) stat; the name in parentheses may hold blanks. Unlike a wall time it never moves.
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def _main(record: Process) -> psutil.Process | None:
    if record.pid <= 0 or record.boot != _boot() or _started(record.pid) != record.started:
        return None
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(record.pid)
        return process if _runs(process) else None
    return None


def _family(record: Process, main: psutil.Process | None) -> list[psutil.Process]:
    """The process, whoever is marked as of its family, and their descendants; never us nor our ancestors."""
    spared = {os.getpid(), *(p.pid for p in psutil.Process().parents())}
    roots = {} if main is None else {main.pid: main}
    if record.boot == _boot():
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and _is_marked(folder, record):
                with contextlib.suppress(psutil.NoSuchProcess):
                    roots[int(folder.name)] = psutil.Process(int(folder.name))
    family = dict(roots)
    for root in roots.values():
        with contextlib.suppress(psutil.NoSuchProcess):
            family |= {p.pid: p for p in root.children(recursive=True)}
    return [p for pid, p in family.items() if pid not in spared]


def _is_marked(folder: Path, record: Process) -> bool:
    """Whether `/proc/<pid>` belongs to a record's family.

    Ray's agents write their title over their environment; they are known by being of the session that we
    opened and by holding files of the record's own folder.
    """
    try:
        if f"{OWNER}={record.token}".encode() in (folder / "environ").read_bytes().split(b"\0"):
            return True
        if not record.scratch or os.getsid(int(folder.name)) != record.pid:
            return False
        descriptors = list((folder / "fd").iterdir())
    except OSError:
        return False
    for descriptor in descriptors:
        with contextlib.suppress(OSError):  # closed meanwhile
            if str(descriptor.readlink()).startswith((f"{record.scratch}/", record.log)):
                return True
    return False


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _signal(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)  # psutil refuses where the pid was recycled


def _wait(processes: Sequence[psutil.Process], timeout_s: float) -> None:
    until = time.monotonic() + timeout_s
    while any(_runs(p) for p in processes) and time.monotonic() < until:
        time.sleep(0.02)
    psutil.wait_procs(processes, timeout=0)  # reaps those that are children of ours
