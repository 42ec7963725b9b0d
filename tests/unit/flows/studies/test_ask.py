"""A study asked for: intervals, fractions, the command line; wrong input is one line before anything runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows import cli
from flows.studies.cells.asks import (
    IntervalAsk,
    duration_name,
    duration_us,
    fractions_of,
    interval_ask,
    intervals_of,
)
from flows.studies.telling.record import StudyRecord
from infra.clock import DAY_US, HOUR_US
from infra.errors import InputError
from infra.settings import Settings
from tests.unit.flows.studies.sample import study

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setenv("SHELFLIFE_HOME", str(tmp_path / "home"))

    def go(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(["study", *arguments])
        out = capsys.readouterr()
        return code, out.out, out.err

    return go


@pytest.mark.parametrize(
    ("text", "length"),
    [("30m", HOUR_US // 2), ("6h", 6 * HOUR_US), ("1d", DAY_US), ("2w", 14 * DAY_US), ("1.5d", 36 * HOUR_US)],
)
def test_durations(text: str, length: int) -> None:
    assert duration_us(text) == length
    assert duration_us(duration_name(length)) == length


@given(st.integers(1, 100_000))
def test_each_whole_minute_has_a_name_that_reads_back(minutes: int) -> None:
    length = minutes * HOUR_US // 60
    assert duration_us(duration_name(length)) == length


@pytest.mark.parametrize(
    "text", ["0h", "-1d", "0", "6", "6 x", "d", "nan d", "infd", "1e3h", "sometimes", "0.1m"]
)
def test_no_duration(text: str) -> None:
    with pytest.raises(InputError, match=r"expected e\.g\. 30m, 6h, 1d, 2w or never"):
        duration_us(text)


def test_intervals_and_fractions_are_ordered_and_each_is_there_once() -> None:
    assert intervals_of("never, 24h,90m,2w,1d") == ("90m", "1d", "14d", "never")
    assert fractions_of("1,0.2, 1.0") == (0.2, 1.0)


def test_the_command_of_an_ask_repeats_it() -> None:
    asked = interval_ask(
        "world", intervals=("1d", "never"), fractions=(0.5,), margin=0.02, exact=True, seed=3
    )
    options = asked.command().split()
    assert options[:3] == ["shelflife", "study", "interval"]
    given = dict(zip(options[3::2], options[4::2], strict=False))
    assert given["--intervals"] == "1d,never"
    assert given["--fractions"] == "0.5"
    assert given["--margin"] == "0.02"
    assert "--exact" in options
    assert "--drift" not in options, "what is the default anyway is not repeated"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["interval", "--intervals", "0h"], "interval '0h' is shorter than a minute"),
        (["interval", "--intervals", "often"], "interval 'often' is not understood; expected e.g. 30m"),
        (["interval", "--intervals", ","], "no interval was given"),
        (["interval", "--intervals", "6h,30d"], "interval 30d is longer than the horizon of world, 14 days"),
        (["interval", "--horizon-d", "5"], "interval 7d is longer than the horizon of world, 5 days"),
        (["interval", "--fractions", "0"], "fraction is 0; expected more than 0 and at most 1"),
        (["interval", "--fractions", "0.5,1.2"], "fraction is 1.2; expected more than 0 and at most 1"),
        (["interval", "--fractions", "half"], "fraction 'half' is no number"),
        (["interval", "--fractions", "nan"], "fraction is nan; expected"),
        (["interval", "--source", "/nowhere"], "--source is '/nowhere'; expected world, completejourney"),
        (["interval", "--component", "rankr"], "--component is 'rankr'; expected one of ranker"),
        (["interval", "--drift", "wild"], "--drift is 'wild'; expected none, mild or strong"),
        (["interval", "--start", "tepid"], "--start is 'tepid'; expected cold or warm"),
        (["interval", "--margin", "0"], "--margin is 0; expected an NDCG@10 above 0"),
        (["interval", "--seeds", "0"], "--seeds is 0; expected 1 or more"),
        (["interval", "--slices", "1"], "--slices is 1; expected 2 or more"),
        (["interval", "--window-d", "-3"], "--window-d is -3; expected a number above 0"),
        (["interval", "--budget-cpu-s", "nan"], "--budget-cpu-s is nan; expected a number above 0"),
        (["volume", "--fractions", "0.5"], "one fraction tells no volume from another"),
        (["volume", "--component", "encoder"], "--component is 'encoder'; expected one of ranker"),
        (["volume", "--source", "nope"], "--source is 'nope'; expected world or the folder of a home"),
        (
            ["compare", "/nowhere/a.json", "/nowhere/b"],
            "/nowhere/a.json is not there; expected the study.json",
        ),
        (["sideways"], "No such command 'sideways'"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(run: Run, arguments: list[str], message: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("shelflife: ")
    assert err.count("\n") == 1
    assert message in err


def test_too_fine_an_interval_is_refused_with_the_reason() -> None:
    with pytest.raises(InputError, match="interval 6h is finer than the time stamps of days support, 1d"):
        interval_ask("world").check(horizon_d=14, resolution_us=DAY_US, source="days")


# The command


def test_the_command_asks_writes_and_prints(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[IntervalAsk] = []

    def study_interval(settings: Settings, ask: IntervalAsk, *, progress: Any) -> StudyRecord:
        seen.append(ask)
        return replace(study(), seed=ask.seed, curves=(), heats=(), timelines=())

    module = ModuleType("flows.studies.interval")
    module.study_interval = study_interval  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flows.studies.interval", module)
    code, out, err = run("interval", "--intervals", "never,12h", "--seed", "11", "--queries", "40", "--json")
    assert code == 0, err
    assert (seen[0].intervals, seen[0].seed, seen[0].queries, seen[0].slices) == (
        ("12h", "never"),
        11,
        40,
        14,
    )
    document = json.loads(out.splitlines()[-1])
    report = Path(document["report"])
    assert report.is_relative_to(tmp_path / "home" / "reports")
    assert json.loads((report.parent / "study.json").read_text()) | {"report": str(report)} == document
    assert out.startswith("Retrain each 12 hours, on 80 % of the data.\n")
    assert str(report) in out.splitlines()[-2]


def test_the_command_declares_the_margin_that_was_calibrated() -> None:
    from flows.commands.study import interval
    from flows.studies.statistics.choice import MARGIN

    assert signature(interval).parameters["margin"].default == MARGIN == IntervalAsk().margin


def test_a_zero_that_was_given_is_repeated() -> None:
    command = interval_ask("world", seed=0, recheck=0).command()
    assert "--seed 0" in command
    assert "--recheck 0" in command
