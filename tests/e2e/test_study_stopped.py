"""A study stopped by Ctrl-C and by kill -9 keeps its finished cells, and ends as if nothing had been.

Each run is the command line in a process of its own, forked from one that has imported everything.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from data.sources.tables import import_csv
from flows.offline.ingest import ingest
from infra.settings import REPOSITORY, Settings
from tests.e2e.shop_process import environment
from tests.unit.flows import own_log

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ASKED = (
    "--intervals", "1d,2d,never", "--fractions", "1.0", "--slices", "4", "--window-d", "2",
    "--workers", "1", "--json",
)  # fmt: skip

FORKED = """
    import json, os, signal, sys, time
    from pathlib import Path
    import lightgbm, matplotlib.figure  # before the fork: importing takes the time
    import flows.studies.interval, flows.studies.telling.report
    from flows.cli import main
    from flows.studies.cells.cell import CellStore

    root, arguments = Path(sys.argv[1]), sys.argv[2:]
    put = CellStore.put

    def hold_at(folder, cells):
        # Once so many are kept, the next one is held back until this process is stopped.
        def held(self, *cell):
            if len(list(folder.glob("*/*.npz"))) >= cells:
                (root / "held").touch()
                time.sleep(600)
            put(self, *cell)

        CellStore.put = held

    def study(home, number=None, cells=0):
        folder = root / home / "studies" / "cells"
        (root / "held").unlink(missing_ok=True)
        child = os.fork()
        if not child:
            if number is not None:
                hold_at(folder, cells)
            for stream, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(root / f"{home}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            code = main(["--home", str(root / home), "study", "interval", *arguments])
            sys.stdout.flush()
            os._exit(code)
        while number is not None and not (root / "held").exists():
            assert os.waitpid(child, os.WNOHANG) == (0, 0), "ended before it could be stopped"
            time.sleep(0.01)
        if number is not None:
            os.kill(child, number)
        status = os.waitpid(child, 0)[1]
        return {
            "code": os.waitstatus_to_exitcode(status),
            "cells": {p.name: p.stat().st_mtime_ns for p in folder.glob("*/*.npz")},
            "left": [p.name for p in folder.rglob("*") if p.is_file() and p.suffix != ".npz"],
            "out": (root / f"{home}.out").read_text(),
            "err": (root / f"{home}.err").read_text(),
        }

    runs = [
        study("calm"),
        study("stopped", signal.SIGINT, 3),
        study("stopped", signal.SIGKILL, 7),
        study("stopped"),
    ]
    print(json.dumps(runs))
"""
OF_THE_RUN = {
    "cells_reused", "cpu_s_per_day", "each_policy_alone_cpu_s", "exact_grid_cpu_s", "report", "train_cpu_s",
    "wall_s",
}  # fmt: skip
"""What two runs of one study may differ in: what they measured of themselves."""


def told(value: Any) -> Any:
    """A document without what a run measured of itself."""
    if isinstance(value, dict):
        return {k: told(v) for k, v in value.items() if k not in OF_THE_RUN}
    return [told(v) for v in value] if isinstance(value, list) else value


@pytest.mark.timeout(1_200)
def test_a_stopped_study_keeps_its_cells_and_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    shop = Settings(home=tmp_path / "shop", cache=tmp_path / "cache")
    import_csv(own_log.write_minimal(tmp_path / "log", days=8), shop.layout)
    ingest(shop)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORKED), str(tmp_path), "--source", str(shop.home), *ASKED],
        cwd=REPOSITORY, env=environment(tmp_path), capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    calm, interrupted, killed, last = json.loads(done.stdout)
    assert calm["code"] == last["code"] == 0, calm["err"] + last["err"]
    assert interrupted["code"] == 130
    said = [line for line in interrupted["err"].splitlines() if not line.startswith("study interval: ")]
    assert said == ["shelflife: interrupted; what was acknowledged is kept, and the next command cleans up"]
    assert killed["code"] == -9
    assert interrupted["out"] == killed["out"] == ""
    whole = len(calm["cells"])
    assert 3 == len(interrupted["cells"]) < len(killed["cells"]) < whole == len(last["cells"])
    for earlier, later in ((interrupted, killed), (killed, last)):
        assert earlier["cells"].items() <= later["cells"].items(), "a finished cell was made again"
    one, two = (json.loads(r["out"].splitlines()[-1]) for r in (calm, last))
    assert (one["cells_reused"], two["cells_reused"]) == (0, len(killed["cells"]))
    assert told(one) == told(two)
    assert interrupted["left"] == calm["left"] == last["left"] == []
