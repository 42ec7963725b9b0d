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
