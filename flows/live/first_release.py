"""The first releases of a home whose world has just been generated, made in processes of their own.

Training lowers its priority for good; whoever drives shoppers afterwards keeps theirs.
"""

from __future__ import annotations

import os
import subprocess
import sys

from infra.errors import InputError, ShelflifeError
from infra.settings import REPOSITORY, Settings

__all__ = ["first_release", "younger_ranker"]

_WHATEVER = ("--margin", "1", "--limit", "segment_margin=1", "--limit", "fewest=1")


def first_release(settings: Settings, *, window_d: float) -> None:
    """Ingest what there is, and train all components on `window_d` days. Raises what the refresh said."""
    _refresh(settings, "--component", "all", "--window-d", f"{window_d:g}")


def younger_ranker(settings: Settings, *, window_d: float) -> None:
    """Ingest what has come, and make ranker and indexes anew, however the gate finds them."""
    _refresh(settings, "--component", "index,ranker", "--window-d", f"{window_d:g}", *_WHATEVER)


def _refresh(settings: Settings, *arguments: str) -> None:
    command = [sys.executable, "-m", "flows.cli", "refresh", *arguments]
    done = subprocess.run(
        [*command, "--home", str(settings.home), "--seed", str(settings.seed)],
        cwd=REPOSITORY,
        env=os.environ | {"SHELFLIFE_CACHE": str(settings.cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        line = (done.stderr.strip().splitlines() or ["no message"])[-1].removeprefix("shelflife: ")
        raise (InputError if done.returncode == 2 else ShelflifeError)(
            f"making a first release failed: {line}"
        )
