"""A study's cells as Ray tasks: as in one process, at niceness 19, and Ray ends with them."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from flows.studies.cells import workers
from flows.studies.cells.cell import CellStore
from flows.studies.cells.exact import Policy, wanted
from flows.studies.cells.learner import Fit, Fitted
from flows.studies.cells.ranker import RankerLearner
from flows.studies.cells.workers import run_cells
from flows.studies.panels.panel import Panel
from infra.clock import DAY_US, HOUR_US
from infra.errors import DataError, EnvironmentError_
from models.boosting import RankerConfig
from tests.unit.flows.studies.panels import synthetic_panel

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.services,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray's own pipes and files
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
]
QUICK = RankerConfig(max_trees=30, warm_trees=10, num_leaves=7, learning_rate=0.2, doubt=1.0)


def ray_processes() -> dict[str, int]:
    """Name → niceness of what Ray has started and is not dead."""
    found: dict[str, int] = {}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            if "ray" in process.name() and process.status() != psutil.STATUS_ZOMBIE:
                found[process.name()] = process.nice()
    return found


def ended() -> bool:
    """Whether all of Ray ends, each in its time."""
    until = time.monotonic() + 60
    while (left := ray_processes()) and time.monotonic() < until:
        time.sleep(0.1)
    return not left


class Nice(RankerLearner):
    """Notes beside the panel how nice the process is that trains."""

    def fit(self, panel: Panel, fit: Fit, *, parent: bytes | None = None) -> Fitted:
        """As RankerLearner.fit."""
        (Path(os.environ["NOTED"]) / str(os.getpid())).write_text(str(os.nice(0)))
        return super().fit(panel, fit, parent=parent)


def test_ray_gives_what_one_process_gives_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "FEW", 1)
    panel = synthetic_panel()
    panel.save(tmp_path / "panel")
    asked = wanted(
        [Policy("ranker", 12 * HOUR_US, f, DAY_US, s) for f in (0.5, 1.0) for s in ("cold", "warm")],
        panel,
        delay_us=HOUR_US,
    )
    noted = tmp_path / "noted"
    noted.mkdir()
    monkeypatch.setenv("NOTED", str(noted))
    plain = run_cells(tmp_path / "panel", RankerLearner(QUICK), asked, CellStore(tmp_path / "one"))
    found = run_cells(tmp_path / "panel", Nice(QUICK), asked, CellStore(tmp_path / "ray"), workers=2)
    assert found.keys() == plain.keys()
    for cell, scores in plain.items():
        assert scores.ndcg.keys() == found[cell].ndcg.keys()
        assert all(np.array_equal(v, found[cell].ndcg[k]) for k, v in scores.ndcg.items())
    assert {path.read_text() for path in noted.iterdir()} == {"19"}
    assert not {"RAY_worker_niceness", "RAY_AUTH_TOKEN"} & os.environ.keys()  # of that Ray only
    assert ended(), ray_processes()


def test_an_error_of_a_worker_is_said_as_in_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "FEW", 1)
    panel = synthetic_panel()
    panel.save(tmp_path / "panel")
    about = json.loads((tmp_path / "panel" / "panel.json").read_text())
    (tmp_path / "panel" / "panel.json").write_text(json.dumps(about | {"version": 0}))
    asked = wanted([Policy("ranker", DAY_US, 1.0, DAY_US)], panel, delay_us=HOUR_US)
    with pytest.raises(DataError, match="a panel of version 0"):
        run_cells(
            tmp_path / "panel",
            RankerLearner(QUICK),
            asked,
            CellStore(tmp_path / "cells"),
            workers=2,
            panel=panel,
        )
    assert ended(), ray_processes()


def test_a_cluster_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "FEW", 1)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    panel = synthetic_panel()
    panel.save(tmp_path / "panel")
    asked = wanted([Policy("ranker", DAY_US, 1.0, DAY_US)], panel, delay_us=HOUR_US)
    with pytest.raises(EnvironmentError_, match=r"Connection refused.*one worker"):
        run_cells(tmp_path / "panel", RankerLearner(QUICK), asked, CellStore(tmp_path / "cells"), workers=2)
