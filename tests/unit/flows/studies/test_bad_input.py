"""Panels with values that are no number: one line of the command, before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows import cli
from flows.studies.panels import sources
from flows.studies.panels.panel import Panel
from infra.errors import DataError
from tests.unit.flows.studies.panels import synthetic_panel

pytestmark = pytest.mark.slow  # studies of a small shop

Run = Callable[..., tuple[int, dict[str, Any], str]]
SMALL = (
    "--intervals",
    "2d,never",
    "--fractions",
    "1.0",
    "--window-d",
    "1",
    "--slices",
    "4",
    "--workers",
    "1",
)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """`shelflife study interval`: its code, its document, what it said on standard error but progress."""
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setenv("SHELFLIFE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SHELFLIFE_CACHE", str(tmp_path / "cache"))

    def go(*arguments: str) -> tuple[int, dict[str, Any], str]:
        code = cli.main(["study", "interval", *arguments, "--json"])
        out = capsys.readouterr()
        said = [line for line in out.err.splitlines() if not line.startswith("study interval: ")]
        return code, json.loads(out.out.splitlines()[-1]) if out.out else {}, "\n".join(said)

    return go


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: replace(p, slices=(spoilt(p, "gains", np.nan), *p.slices[1:])), "1 gains of slice 0"),
        (lambda p: replace(p, slices=(spoilt(p, "ideal", -1.0), *p.slices[1:])), "1 ideals of slice 0"),
        (lambda p: replace(p, slices=(spoilt(p, "fresh", np.inf), *p.slices[1:])), "1 features of slice 0"),
        (lambda p: replace(p, rows=replace(p.rows, labels=-p.rows.labels)), "labels of rows"),
    ],
    ids=["NaN gains", "ideal below 0", "infinite features", "labels below 0"],
)
def test_what_is_no_number_is_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Panel], Panel], message: str
) -> None:
    monkeypatch.setattr(sources, "world_panel", lambda *_, **__: spoil(synthetic_panel()))
    code, document, said = run(*SMALL)
    assert (code, document) == (2, {})
    assert said.startswith("shelflife: ")
    assert message in said
    assert said.count("\n") == 0


def spoilt(panel: Panel, name: str, value: float) -> Any:
    values = getattr(panel.slices[0], name).copy()
    values.flat[3] = value
    return replace(panel.slices[0], **{name: values})


def test_a_feature_that_is_not_known_is_no_error() -> None:
    panel = synthetic_panel()
    replace(panel, slices=(spoilt(panel, "fresh", np.nan), *panel.slices[1:])).check()
    with pytest.raises(DataError, match="infinite, below 0 or no number"):
        replace(panel, slices=(spoilt(panel, "gains", np.inf), *panel.slices[1:])).check()
