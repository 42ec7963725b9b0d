"""The ledger of processes: nothing of ours survives, nothing of others is touched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from infra import processes
from infra.errors import EnvironmentError_, ShelflifeError

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
DEAF = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); "
    "time.sleep(600)",
]
FAMILY = [
    sys.executable,
    "-c",
    "import subprocess, sys, time\n"
    "sleep = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
    "child = subprocess.Popen(sleep, start_new_session=True)\n"
    "print(child.pid, flush=True)\n"
    "time.sleep(600)",
]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "run"
    yield folder
    processes.stop_all(folder, grace_s=0.2)


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def first_line(run: Path, name: str) -> str:
    until(lambda: "\n" in (run / f"{name}.log").read_text())
    return (run / f"{name}.log").read_text().split("\n")[0]


def test_a_started_process_is_found_and_stopped(run: Path) -> None:
    started = processes.start(run, "sleeper", SLEEP, ports={"http": 8000})
    assert processes.find(run, "sleeper") == started
    assert started.ports == {"http": 8000}
    assert processes.alive(run, "sleeper")
    assert processes.stop(run, "sleeper") == 1
    assert not runs(started.pid)
    assert processes.records(run) == []


def test_the_environment_is_laid_over_ours_and_output_goes_to_the_log(run: Path) -> None:
    show = [sys.executable, "-c", "import os; print(os.environ['GIVEN'], 'PATH' in os.environ)"]
    processes.start(run, "show", show, env={"GIVEN": "yes"})
    assert first_line(run, "show") == "yes True"


def test_starting_twice_is_refused(run: Path) -> None:
    processes.start(run, "sleeper", SLEEP)
    with pytest.raises(EnvironmentError_, match="already running as pid"):
        processes.start(run, "sleeper", SLEEP)


def test_a_missing_program_is_one_clear_line_and_leaves_no_record(run: Path) -> None:
    with pytest.raises(EnvironmentError_, match="cannot start x: /nowhere/at/all"):
        processes.start(run, "x", ["/nowhere/at/all"])
    assert processes.records(run) == []


def test_niceness_is_raised(run: Path) -> None:
    started = processes.start(run, "sleeper", SLEEP, nice=19)
    assert psutil.Process(started.pid).nice() == 19


def test_a_process_that_ignores_sigterm_is_killed(run: Path) -> None:
    started = processes.start(run, "deaf", DEAF)
    first_line(run, "deaf")
    processes.stop(run, "deaf", grace_s=0.1)
    assert not runs(started.pid)


def test_children_in_sessions_of_their_own_are_ended_too(run: Path) -> None:
    processes.start(run, "family", FAMILY)
    child = int(first_line(run, "family"))
    assert processes.stop(run, "family") == 2
    assert not runs(child)


def test_what_a_kill_9_leaves_behind_is_ended(run: Path) -> None:
    parent = processes.start(run, "family", FAMILY)
    child = int(first_line(run, "family"))
    os.kill(parent.pid, signal.SIGKILL)
    until(lambda: not runs(parent.pid))
    assert runs(child)
    assert not processes.alive(run, "family")
    assert processes.end_orphans(run) == 1
    assert not runs(child)
    assert processes.records(run) == []


def test_an_orphan_without_its_environment_is_known_by_session_and_open_files(
    run: Path, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    # Ray's agents lose their environment by writing a title over it; `env={}` stands for that.
    code = (
        "import subprocess, sys, time\n"
        f"log = open({str(scratch / 'agent.log')!r}, 'w')\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "child = subprocess.Popen(sleep, env={}, stdout=log)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)"
    )
    parent = processes.start(run, "host", [sys.executable, "-c", code], scratch=scratch)
    child = int(first_line(run, "host"))
    os.kill(parent.pid, signal.SIGKILL)
    until(lambda: not runs(parent.pid))
    assert processes.end_orphans(run) == 1
    assert not runs(child)


def test_end_orphans_leaves_what_runs_as_it_should(run: Path) -> None:
    processes.start(run, "sleeper", SLEEP)
    assert processes.end_orphans(run) == 0
    assert processes.alive(run, "sleeper")


def test_a_recycled_pid_is_never_touched(run: Path) -> None:
    processes.start(run, "old", SLEEP)
    path = run / "old.json"
    record = json.loads(path.read_text())
    processes.stop(run, "old")
    with subprocess.Popen(SLEEP, start_new_session=True) as stranger:
        try:
            path.write_text(json.dumps({**record, "pid": stranger.pid}))  # same pid, another start
            assert not processes.alive(run, "old")
            assert processes.stop(run, "old") == 0
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_record_of_an_earlier_boot_is_forgotten(run: Path) -> None:
    started = processes.start(run, "sleeper", SLEEP)
    path = run / "sleeper.json"
    ours = path.read_text()
    path.write_text(json.dumps({**json.loads(ours), "boot": "another"}))
    assert not processes.alive(run, "sleeper")
    assert processes.stop(run, "sleeper") == 0
    assert runs(started.pid)
    path.write_text(ours)


def test_a_torn_record_is_ignored_and_removed(run: Path) -> None:
    run.mkdir()
    (run / "torn.json").write_text('{"name": "to')
    assert processes.find(run, "torn") is None
    assert processes.stop(run, "torn") == 0
    assert not (run / "torn.json").exists()


def test_waiting_for_a_process_that_dies_names_its_last_words(run: Path) -> None:
    processes.start(run, "dies", [sys.executable, "-c", "raise SystemExit('no such port')"])
    with pytest.raises(ShelflifeError, match=r"dies ended; its log .*dies\.log ends with: no such port"):
        processes.wait_ready(run, "dies", lambda: False, timeout_s=60)


def test_waiting_is_bounded(run: Path) -> None:
    processes.start(run, "sleeper", SLEEP)
    with pytest.raises(ShelflifeError, match="not ready within 0 s"):
        processes.wait_ready(run, "sleeper", lambda: False, timeout_s=0.1)


def test_a_home_is_held_by_one_command_at_a_time(run: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom infra import processes\n"
        "with processes.exclusive(Path(sys.argv[1]), 'up'):\n"
        "    print('held', flush=True)\n    sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(run)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(processes.__file__).parent.parent,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(EnvironmentError_, match=rf"`shelflife up` \(pid {holder.pid}\) is at work"),
            processes.exclusive(run, "down"),
        ):
            pass
        holder.kill()
    with processes.exclusive(run, "down"):  # a killed holder holds nothing
        assert "down" in (run / "lock").read_text()


def test_niceness_goes_to_the_session_too_where_the_kernel_schedules_by_sessions(tmp_path: Path) -> None:
    nice = min(19, os.getpriority(os.PRIO_PROCESS, 0) + 7)
    record = processes.start(tmp_path, "sleeper", SLEEP)
    try:
        processes.be_nice(record.pid, nice)
        assert os.getpriority(os.PRIO_PROCESS, record.pid) == nice
        group = Path(f"/proc/{record.pid}/autogroup")
        # Absent or empty where the kernel does not schedule by sessions.
        if group.exists() and group.read_text().split():

            def taken() -> bool:  # the kernel lets a user without privileges change one each 100 ms
                processes.be_nice(record.pid, nice)
                return group.read_text().split()[-1] == str(nice)

            until(taken)
            # Empty, too, for a process that was given to no session of its own.
            assert Path("/proc/self/autogroup").read_text().split()[-1:] != [str(nice)]
    finally:
        processes.stop(tmp_path, "sleeper", grace_s=1.0)
