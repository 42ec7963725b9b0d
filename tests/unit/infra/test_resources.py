"""What a block costs, held against the operating system's own figures on a known load."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from infra.errors import EnvironmentError_
from infra.resources import bounded, measured

BURN = "import time\nuntil = time.process_time() + {s}\nwhile time.process_time() < until: pass"


def read_so_far() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def rusage_s(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def test_cpu_and_wall_agree_with_getrusage_children_too() -> None:
    own, children = rusage_s(resource.RUSAGE_SELF), rusage_s(resource.RUSAGE_CHILDREN)
    wall = time.monotonic()  # what is measured lies within what is held against it
    with measured() as cost:
        exec(BURN.format(s=0.2))
        subprocess.run([sys.executable, "-S", "-c", BURN.format(s=0.2)], check=True)
        time.sleep(0.1)
    own, children = rusage_s(resource.RUSAGE_SELF) - own, rusage_s(resource.RUSAGE_CHILDREN) - children
    wall = time.monotonic() - wall
    assert own >= 0.15
    assert children >= 0.15
    assert 0.35 <= cost.cpu_s <= own + children + 0.01
    assert 0.3 <= cost.wall_s <= wall


def test_bytes_read_agree_with_proc_io(tmp_path: Path) -> None:
    path = tmp_path / "load"
    path.write_bytes(os.urandom(20_000_000))
    before = read_so_far()
    with measured() as cost:
        path.read_bytes()
        subprocess.run([sys.executable, "-S", "-c", f"open({str(path)!r}, 'rb').read()"], check=True)
    told = (read_so_far() - before) / 1e6
    assert 40.0 <= cost.read_mb <= told
    assert cost.read_mb == pytest.approx(told, abs=1.0)


def test_the_peak_is_of_the_block_and_of_those_around_it() -> None:
    with measured() as outer:
        with measured() as large:
            np.ones(20_000_000)  # 160 MB, gone at once
        with measured() as small:
            sum(range(1_000))
    assert large.peak_mb - small.peak_mb >= 140
    assert outer.peak_mb == pytest.approx(large.peak_mb, abs=20)


def test_blocks_of_equal_peaks_are_told_apart() -> None:
    with measured() as first:
        with measured() as second, measured():
            pass
        assert second.wall_s > 0
    assert first.peak_mb > 0


def test_a_block_that_fails_is_measured_too() -> None:
    with pytest.raises(ZeroDivisionError), measured() as cost:
        1 / 0  # noqa: B018
    assert cost.wall_s > 0
    with measured() as after:
        pass
    assert after.peak_mb > 0


def test_more_memory_than_the_bound_is_one_clear_line() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(EnvironmentError_, match=r"more than 200 MB of memory; .*SHELFLIFE_TRAIN_MEMORY_MB"), \
            bounded(200):  # fmt: skip
        np.ones(100_000_000)
    with bounded(200):
        np.ones(1_000_000)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="this system has no such scheduling")
def test_who_trains_runs_at_niceness_19_where_a_processor_is_idle() -> None:
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, threading; from infra.resources import nice_down; nice_down(); nice_down()\n"
            "tell = lambda: print(os.nice(0), os.sched_getscheduler(0) == os.SCHED_IDLE)\n"
            "tell(); t = threading.Thread(target=tell); t.start(); t.join()",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    assert told.stdout.split() == ["19", "True", "19", "True"]
