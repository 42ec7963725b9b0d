"""Sentences that a study's report adds: what was left out, what learned nothing."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from flows.studies.cells.asks import interval_ask
from flows.studies.cells.cell import Cell, Scores
from flows.studies.telling.findings import findings


def _run(*trees: tuple[float, int]) -> Any:
    found = {
        Cell("ranker", at, fraction, None): Scores(metrics={"trees": float(count)})
        for at, (fraction, count) in enumerate(trees)
    }
    return cast(Any, SimpleNamespace(found=found))


def _told(name: str, values: list[float], fraction: float = 1.0) -> Any:
    return cast(Any, SimpleNamespace(name=name, by_slice=np.array(values), fraction=fraction))


def test_rankers_without_trees_are_told_by_fraction() -> None:
    ask = interval_ask("world")
    runs = {"ranker": [_run((0.2, 0), (0.2, 3), (1.0, 5)), _run((0.2, 0), (1.0, 9))]}
    (only,) = findings(ask, runs, "1d", [_told("6h", [0.3, 0.2])])
    assert only.startswith("2 of 3 trainings on 20% of the data ended without a tree")


def test_slices_that_are_left_out_are_told_and_never_too() -> None:
    ask = interval_ask("world")
    told = [_told("6h", [np.nan, 0.2, 0.3]), _told("7d", [np.nan, np.nan, 0.3])]
    found = findings(ask, {"ranker": [_run((1.0, 5))]}, "never", told)
    assert found[0].startswith("1 of 3 slices are left out")
    assert found[1] == "Of 7d only 1 slices tell anything."
    assert found[2].startswith("Not retraining at all was as good")
