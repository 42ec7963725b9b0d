"""What is wrong with an ask, a log, a cache or the disk: one line of the command, and finished cells stay.

All through the command line. Ctrl-C and `kill -9` of a real process: tests/e2e/test_study_stopped.py.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from data.schema import ITEM_UPSERT
from data.sources.tables import import_csv
from flows import cli
from flows.offline.ingest import ingest
from flows.studies.cells import cell as cells_module
from flows.studies.panels import sources
from flows.studies.panels.panel import Panel
from infra.errors import DataError
from infra.settings import Home, Settings
from tests.unit.flows import own_log
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
        assert "Traceback" not in out.err, out.err
        said = [line for line in out.err.splitlines() if not line.startswith("study interval: ")]
        return code, json.loads(out.out.splitlines()[-1]) if out.out else {}, "\n".join(said)

    return go


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> None:
    """The world is the synthetic panel."""
    monkeypatch.setattr(sources, "world_panel", lambda *_, **__: synthetic_panel())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--fractions", "0,1.0"), "fraction is 0; expected more than 0 and at most 1"),
        (("--fractions", "1.2"), "fraction is 1.2; expected more than 0 and at most 1"),
        (("--fractions", "nan"), "fraction is nan; expected more than 0 and at most 1"),
        (("--fractions", ","), "no fraction was given"),
        (("--intervals", "0h,never"), "interval '0h' is shorter than a minute"),
        (("--intervals", "-1d"), "interval '-1d' is not understood"),
        (("--intervals", "15d,never"), "interval 15d is longer than the horizon of world, 14 days"),
        (("--horizon-d", "1"), "is longer than the horizon of world, 1 days"),
        (("--horizon-d", "0"), "--horizon-d is 0; expected a number above 0"),
        (("--scale", "nan"), "--scale is nan; expected a number above 0"),
        (("--margin", "nan"), "--margin is nan; expected an NDCG@10 above 0 and below 1"),
        (("--slices", "1"), "--slices is 1; expected 2 or more"),
        (("--source", "mars"), "--source is 'mars'; expected world"),
    ],
    ids=" ".join,
)
def test_an_impossible_ask_is_one_line(
    run: Run, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    said = one_line(run(*options))
    assert message in said
    assert not (tmp_path / "home").exists(), "refused before anything was made"
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("days", "what", "options", "message"),
    [
        (6, "clicks", ("--slices", "60"), "has no basket in 0.1 days"),
        (1, "clicks", (), "expected 2 or more"),
        (1, "all", (), "expected 2 or more"),
        (6, "no items", (), "has no items; 3,956 of its events were put aside by `shelflife ingest`"),
        (6, "clicks", ("--intervals", "20d", "--slices", "3"), "interval 20d is longer than the horizon of"),
        (6, "clicks", ("--burn-in-d", "5", "--horizon-d", "4"), "shorten"),
    ],
    ids=["an empty slice", "a day of clicks", "one day", "no items", "longer than the log", "does not fit"],
)
def test_a_log_that_is_no_study_is_one_line(
    run: Run, tmp_path: Path, days: int, what: str, options: tuple[str, ...], message: str
) -> None:
    home = own_home(tmp_path / "own", days=days, what=what)
    usual = () if "--intervals" in options else ("--intervals", "6h,never")
    assert message in one_line(run("--source", str(home), *usual, *options))


def own_home(root: Path, *, days: int, what: str) -> Path:
    """A home with a small invented log: `all` of it, its `clicks` alone, or all but its items."""
    settings = Settings(home=root / "home", cache=root / "cache")
    write = own_log.write_minimal if what == "clicks" else own_log.write_full
    import_csv(write(root / "log", days=days), settings.layout)
    if what == "no items":
        strip_items(settings.layout)
    ingest(settings)
    return settings.layout.root


def strip_items(layout: Home) -> None:
    for path in layout.segments.glob("*/*/*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.filter(pc.not_equal(table["kind"], ITEM_UPSERT)), path)


def one_line(ended: tuple[int, dict[str, Any], str]) -> str:
    """What a command said that failed with 2, in one line and with no document."""
    code, document, said = ended
    assert (code, document) == (2, {}), said
    assert said.startswith("shelflife: ")
    assert said.count("\n") == 0
    return said


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
    assert message in one_line(run(*SMALL))


def spoilt(panel: Panel, name: str, value: float) -> Any:
    values = getattr(panel.slices[0], name).copy()
    values.flat[3] = value
    return replace(panel.slices[0], **{name: values})


def test_a_feature_that_is_not_known_is_no_error() -> None:
    panel = synthetic_panel()
    replace(panel, slices=(spoilt(panel, "fresh", np.nan), *panel.slices[1:])).check()
    with pytest.raises(DataError, match="infinite, below 0 or no number"):
        replace(panel, slices=(spoilt(panel, "gains", np.inf), *panel.slices[1:])).check()


@pytest.mark.usefixtures("world")
def test_a_full_disk_and_a_damaged_or_older_cell_cost_nothing_that_is_finished(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real, left = cells_module.write_atomic, [3]

    def full(path: Path, data: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, data)

    monkeypatch.setattr(cells_module, "write_atomic", full)
    said = one_line(run(*SMALL))
    assert said.startswith("shelflife: a finished training could not be kept in")
    assert "No space left on device" in said
    kept = {p: p.read_bytes() for p in (tmp_path / "home").rglob("*.npz")}
    assert len(kept) == 3
    monkeypatch.setattr(cells_module, "write_atomic", real)
    cell, whole = next(iter(kept.items()))
    cell.write_bytes(whole[:100])
    said = one_line(run(*SMALL))
    assert f"{cell} is not a finished cell" in said
    assert "delete it and run again" in said
    cell.write_bytes(whole)
    code, document, said = run(*SMALL)
    assert (code, said) == (0, "")
    assert document["cells_reused"] == 3
    assert {p: p.read_bytes() for p in kept} == kept, "finished cells are not made again"
    assert document["recheck"] == {"cells": 1, "equal": 1, "largest_difference": 0.0}
    monkeypatch.setattr(cells_module, "CELLS_VERSION", 999)
    code, other, _ = run(*SMALL, "--recheck", "0")
    assert (code, other["cells_reused"]) == (0, 0), "what another version wrote is not read"
    assert [p["ndcg10"] for p in other["policies"]] == [p["ndcg10"] for p in document["policies"]]


@pytest.mark.usefixtures("world")
def test_a_panel_that_does_not_fit_on_the_disk_leaves_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real, left = np.save, [5]

    def full(path: Path, values: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError("653828 requested and 14304 written")  # all that numpy says of a full disk
        real(path, values)

    monkeypatch.setattr(np, "save", full)
    said = one_line(run(*SMALL))
    assert "cannot write the panel" in said
    assert "not all of it fits" in said
    assert left[0] < 0, "some of it was written"
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.suffix in (".npy", ".tmp")]
