"""Trains a home's ranker over and over: what a service has to live beside.

    python -m flows.bench.trainer --home HOME [--nice N]

At niceness N with its session; without, as every training here runs.

Says "training" once its rows are read; ends on SIGTERM. What it trains is thrown away.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from flows.offline.inputs import load_inputs, ranker_rows
from flows.offline.train import Parts
from infra.errors import DataError
from infra.processes import be_nice
from infra.resources import nice_down
from infra.settings import Home
from models.ranker import Ranker
from models.release import champion, load_release

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """The process' entry; returns only where there is nothing to train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--nice", type=int)
    given = parser.parse_args(arguments)
    layout = Home(given.home)
    name = champion(layout)
    if name is None:
        raise DataError(f"{given.home} has no champion; `shelflife refresh` makes one")
    rows = ranker_rows(load_inputs(layout, window_d=None), Parts.of(load_release(layout, name)).scorers())
    if given.nice is None:
        nice_down()
    else:
        be_nice(os.getpid(), given.nice)
    sys.stdout.write("training\n")
    sys.stdout.flush()
    seed = 0
    while True:
        Ranker.fit(rows, seed=seed)
        seed += 1


if __name__ == "__main__":
    sys.exit(main())
