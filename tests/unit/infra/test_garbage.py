"""What was left out of collections takes part again when the interpreter ends."""

from __future__ import annotations

import gc
import subprocess
import sys

from infra.garbage import freeze
from infra.settings import REPOSITORY


def test_what_is_frozen_is_left_out_of_collections() -> None:
    before = gc.get_freeze_count()
    try:
        freeze()
        assert gc.get_freeze_count() > 0
    finally:
        if before == 0:
            gc.unfreeze()


def test_frozen_modules_are_freed_at_the_end_and_nothing_is_said_to_be_leaked() -> None:
    script = "import duckdb\nfrom infra.garbage import freeze\nfreeze(); freeze()"
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


_OFTEN = """
import gc, time, weakref
from infra.garbage import collect_young_often

class Node:
    def __init__(self):
        self.me = self

seen = []
gc.callbacks.append(lambda phase, info: seen.append(info["generation"]) if phase == "start" else None)
collect_young_often(0.01)
assert collect_young_often(0.01) is collect_young_often(0.01)
gone = weakref.ref(Node())
until = time.monotonic() + 60
while gone() is not None and time.monotonic() < until:
    time.sleep(0.01)
assert gone() is None
gc.disable()
time.sleep(0.05)
del seen[:]
kept = weakref.ref(Node())
time.sleep(0.3)
assert kept() is not None and not seen, seen
gc.enable()
while kept() is not None and time.monotonic() < until:
    time.sleep(0.01)
assert kept() is None and set(seen) == {0}, seen
"""


def test_the_young_are_looked_through_often_unless_that_is_switched_off() -> None:
    done = subprocess.run([sys.executable, "-c", _OFTEN], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
