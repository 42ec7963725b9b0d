"""One run of a policy without Prefect: a refresh, or an ingest alone.

    python -m flows.studies.live.turn --home HOME --seed N --asked JSON

`--asked`: what `flows/policies/live.py` asks of a refresh; nothing of an ingest. It ends with its parent.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from infra.errors import ShelflifeError
from infra.settings import Settings, load_settings

__all__ = ["main", "turn"]

_PR_SET_PDEATHSIG = 1  # of prctl(2)


def turn(settings: Settings, asked: dict[str, Any]) -> None:
    """Do what is asked: with nothing, take new events in."""
    from flows.offline.gate import GateLimits
    from flows.offline.ingest import ingest
    from flows.offline.refresh import refresh

    if not asked:
        ingest(settings)
        return
    limits = GateLimits(**asked.pop("gate"))
    refresh(settings, limits=limits, **asked)


def main(arguments: list[str] | None = None) -> int:
    """The process' entry: 0, or the error's own code after one line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--asked", type=json.loads, required=True)
    given = parser.parse_args(arguments)
    try:
        turn(load_settings(home=given.home, seed=given.seed), given.asked)
    except ShelflifeError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def _end_with(parent: int) -> None:
    """Be killed when the parent is: a study that was killed leaves no training behind."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


if __name__ == "__main__":
    _end_with(os.getppid())
    sys.exit(main())
