"""A tiny shop made by the real command line, and the real command line as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.clock import ScaledClock, wall_us
from infra.settings import REPOSITORY, Home

SCALE, DAYS, ACTIVITY = "0.1", "3", "0.3"
RATE = 120.0
"""Shop seconds a wall second: label delays of half an hour pass in 15 s."""

HELD = """
import itertools, sys, threading, time, types
from flows.cli import main
from flows.commands import session

after, arguments, err = sys.argv[1], sys.argv[2:], sys.stderr
session.time = types.SimpleNamespace(monotonic=itertools.count().__next__)  # each message is a line

class Held:
    def write(self, text):
        err.write(text)
        err.flush()
        if after in text and threading.current_thread() is threading.main_thread():
            time.sleep(600)

    def __getattr__(self, name):
        return getattr(err, name)

sys.stderr = Held()
sys.exit(main(arguments))
"""
"""The command line; where it has said `after` it stays until it is interrupted, however fast it is."""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The last line of standard output as JSON."""
        return json.loads(self.out.splitlines()[-1])

    @property
    def line(self) -> str:
        """The one line that the command said for itself; progress lines begin with the verb's name."""
        said = [row for row in self.err.splitlines() if row.startswith("shelflife: ")]
        assert len(said) == 1, self.err
        assert "Traceback" not in self.err, self.err
        assert self.err.rstrip("\n").endswith(said[0]), self.err
        return said[0].removeprefix("shelflife: ")


def environment(home: Path, **more: str) -> dict[str, str]:
    """Our environment with the settings of a home; no photos, so that every machine does the same."""
    return os.environ | {"SHELFLIFE_HOME": str(home), "SHELFLIFE_CACHE": str(home / "cache")} | more


def start(
    home: Path, *arguments: str, program: Sequence[str] = ("-m", "flows.cli"), **more: str
) -> subprocess.Popen[str]:
    """Start `shelflife <arguments>` in a process group of its own.

    Ctrl-C works in it even where it is off here, as in what a shell runs in the background.
    """
    return subprocess.Popen(
        [sys.executable, *program, *arguments],
        cwd=REPOSITORY,
        env=environment(home, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def finish(process: subprocess.Popen[str], *, timeout_s: float = 600.0) -> Done:
    """Wait for a started command."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return Done(process.returncode, out, err)


def shelflife(home: Path, *arguments: str, **more: str) -> Done:
    """Run `shelflife <arguments>` to its end."""
    return finish(start(home, *arguments, **more))


def interrupted(home: Path, arguments: Sequence[str], *, after: str, timeout_s: float = 300.0) -> Done:
    """Start a command and press Ctrl-C once a line of standard error holds `after`."""
    process = start(home, *arguments, program=("-c", HELD, after))
    assert process.stderr is not None
    said = ""
    while after not in said:
        line = process.stderr.readline()
        assert line, f"ended before it said {after!r}: {said}"
        said += line
    os.killpg(process.pid, signal.SIGINT)
    done = finish(process, timeout_s=timeout_s)
    return Done(done.code, done.out, said + done.err)


def make_shop(root: Path) -> Home:
    """A world of a thousand items and its first release; the truth is moved beside the home first."""
    layout = Home(root)
    made = shelflife(
        root, "world", "generate", "--scale", SCALE, "--days", DAYS, "--activity", ACTIVITY,
        "--drift", "strong", "--json",
    )  # fmt: skip
    assert made.code == 0, made.err
    layout.truth.rename(root.with_name("truth"))
    first = shelflife(root, "refresh", "--json")
    assert first.code == 0, first.err
    assert first.document["promoted"]
    return layout


def set_clock(layout: Home, *, end_us: int) -> None:
    """Let the shop's time go on from the end of its history."""
    ScaledClock(end_us, wall_us(), RATE).save(layout.clock)


def wait_until(condition: Any, *, timeout_s: float, every_s: float = 0.2) -> Any:
    """The first true value of `condition()`; fails after `timeout_s`."""
    until = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < until, f"{condition} was not true within {timeout_s} s"
        time.sleep(every_s)
    return found
