"""The first release of a home whose world has just been generated, made in a process of its own.

Training lowers its priority for good; whoever drives shoppers afterwards keeps theirs.
"""

from __future__ import annotations

import os
import subprocess
import sys

from infra.errors import InputError, ShelflifeError
from infra.settings import REPOSITORY, Settings

__all__ = ["first_release"]


def first_release(settings: Settings, *, window_d: float) -> None:
    """Ingest what there is, and train all components on `window_d` days. Raises what the refresh said."""
    command = [
        sys.executable,
        "-m",
        "flows.cli",
        "refresh",
        "--component",
        "all",
        "--window-d",
        f"{window_d:g}",
    ]
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
        raise (InputError if done.returncode == 2 else ShelflifeError)(f"the first release failed: {line}")
