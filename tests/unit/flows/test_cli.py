"""The command line: instant help, one line an error, the right exit code, one JSON document."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from flows import cli
from flows.commands import session as sessions
from flows.commands import status as status_verb
from infra.errors import ConfigError, PromiseBroken, ShelflifeError
from infra.settings import REPOSITORY, Settings

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command line in this process, on a home of its own: (exit code, stdout, stderr)."""
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setenv("SHELFLIFE_HOME", str(tmp_path / "home"))

    def go(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(arguments)
        out = capsys.readouterr()
        return code, out.out, out.err

    return go


@pytest.fixture
def ingest(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """Put a function in the place of `flows.offline.ingest.ingest`."""

    def replace(function: Callable[..., Any]) -> None:
        module = ModuleType("flows.offline.ingest")
        module.ingest = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "flows.offline.ingest", module)

    return replace


def one_line(text: str) -> str:
    assert text.startswith("shelflife: ")
    assert text.count("\n") == 1
    assert text.endswith("\n")
    return text.removeprefix("shelflife: ").strip()


def fresh(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("SHELFLIFE_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={**env, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_no_verb_imports_anything_heavy() -> None:
    heavy = "mlflow prefect ray torch numpy pandas pyarrow duckdb lightgbm faiss matplotlib sqlalchemy rich"
    code = (
        "import sys; from flows.cli import VERBS, main\n"
        "for verb in VERBS: assert main([verb, '--help']) == 0, verb\n"
        f"loaded = set('{heavy}'.split()) & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    done = fresh(code)
    assert done.returncode == 0, done.stderr


def test_help_has_one_sentence_for_each_verb(run: Run) -> None:
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    rows = re.findall(r"^  (\w+) {2,}(\S.*)$", out.split("Commands:")[1], flags=re.M)
    assert tuple(verb for verb, _ in rows) == cli.VERBS
    assert "..." not in out.split("Commands:")[1]


def test_no_arguments_show_the_help(run: Run) -> None:
    assert run() == run("--help")


@pytest.mark.parametrize("verb", cli.VERBS)
def test_each_verb_has_help_and_stands_in_the_docs(run: Run, verb: str) -> None:
    code, out, _ = run(verb, "--help")
    assert code == 0
    assert f"Usage: shelflife {verb}" in out
    docs = "\n".join(p.read_text() for p in (REPOSITORY / "docs").rglob("*.md"))
    assert f"shelflife {verb}" in docs + (REPOSITORY / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stauts"], "unknown verb 'stauts'; did you mean 'status'; see `shelflife --help`"),
        (["xyzzy"], "unknown verb 'xyzzy'; expected one of demo, data, "),
        (["--nope"], "No such option: --nope"),
        (["refresh", "--nope"], "No such option: --nope"),
        (["refresh", "--fraction", "much"], "Invalid value for '--fraction'"),
        (["refresh", "--fraction", "0"], "--fraction is 0; expected above 0 and at most 1"),
        (["refresh", "--fraction", "1.01"], "--fraction is 1.01; expected"),
        (["refresh", "--fraction", "nan"], "--fraction is nan; expected"),
        (["refresh", "--window-d", "-1"], "--window-d is -1; expected"),
        (["refresh", "--start", "tepid"], "--start is 'tepid'; expected cold or warm"),
        (["refresh", "--component", "rankr"], "unknown component 'rankr'; expected one of all, ranker"),
        (["data"], "Missing command"),
        (["data", "fetch"], "Missing argument"),
        (["data", "fetch", "mnist"], "unknown data set 'mnist'; expected one of fashion-mnist"),
        (["data", "import", "xml", "."], "unknown format 'xml'; expected one of csv"),
        (
            ["data", "import", "csv", "/nowhere"],
            "/nowhere is not a folder; expected one that holds items.csv",
        ),
        (["load", "--rate", "0"], "Invalid value for '--rate'"),
        (["status", "extra"], "Got unexpected extra argument"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(run: Run, arguments: list[str], message: str) -> None:
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert message in one_line(err)


def test_an_unknown_setting_is_one_line_and_exit_2(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELFLIFE_HMOE", "x")
    code, _, err = run("status")
    assert code == 2
    assert "unknown setting SHELFLIFE_HMOE" in one_line(err)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigError("found x,\n expected y"), 2, "found x, expected y"),
        (PromiseBroken("3 requests failed"), 3, "3 requests failed"),
        (ShelflifeError("it is our fault"), 1, "it is our fault"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device", "/x"), 2, "No space left on device at /x; make room"),
        (PermissionError(13, "Permission denied", "/x"), 2, "Permission denied at /x"),
    ],
)
def test_errors_become_a_line_and_a_code(
    run: Run, ingest: Callable[..., None], error: BaseException, code: int, message: str
) -> None:
    def fail(settings: Settings, replay: bool, progress: Any) -> None:
        raise error

    ingest(fail)
    got, out, err = run("ingest")
    assert (got, out) == (code, "")
    assert message in one_line(err)


def test_a_defect_shows_its_trace_and_exits_1(run: Run, ingest: Callable[..., None]) -> None:
    ingest(lambda settings, replay, progress: {}["missing"])
    code, _, err = run("ingest")
    assert code == 1
    assert "Traceback" in err
    assert "a defect in Shelflife: KeyError: 'missing'" in err.splitlines()[-1]


@dataclass(frozen=True)
class Report:
    rows: int
    home: Path


def test_json_is_the_last_line_of_standard_output(run: Run, ingest: Callable[..., None]) -> None:
    ingest(lambda settings, replay, progress: Report(3, settings.home))
    for arguments in (["ingest", "--json"], ["--json", "ingest"]):
        code, out, _ = run(*arguments)
        assert code == 0
        assert json.loads(out.splitlines()[-1]) == {"rows": 3, "home": os.environ["SHELFLIFE_HOME"]}
    code, out, _ = run("ingest")
    assert out == f"rows: 3\nhome: {os.environ['SHELFLIFE_HOME']}\n"


@pytest.mark.parametrize("before", [True, False])
def test_home_and_seed_may_stand_before_or_after_the_verb(
    run: Run, ingest: Callable[..., None], tmp_path: Path, before: bool
) -> None:
    seen: list[Settings] = []
    ingest(lambda settings, replay, progress: seen.append(settings))
    options = ["--home", str(tmp_path / "other"), "--seed", "11"]
    code, _, err = run(*options, "ingest") if before else run("ingest", *options)
    assert code == 0, err
    assert (seen[0].home, seen[0].seed) == (tmp_path / "other", 11)


def test_status_of_an_empty_home_says_that_nothing_runs(run: Run) -> None:
    code, out, err = run("status", "--json")
    assert (code, err) == (0, "")
    document = json.loads(out.splitlines()[-1])
    assert set(document["processes"]) == {"prefect", "serve", "runner"}
    assert not any(p["running"] for p in document["processes"].values())
    assert document["service"] is document["prefect"] is document["health"] is None


def test_down_on_an_empty_home_is_no_error(run: Run) -> None:
    code, out, _ = run("down")
    assert code == 0
    assert "nothing was running" in out


def test_a_process_that_died_is_called_dead() -> None:
    report = {
        "home": "/h",
        "processes": {
            "serve": {"running": False, "pid": 7, "ports": {"http": 8000}, "log": "/h/run/serve.log"}
        },
        "service": None,
        "prefect": None,
        "health": None,
        "exposed": None,
    }
    text = status_verb.describe(report)
    assert re.search(r"serve +died \(`shelflife down` tidies\) +7 +http:8000", text)


def test_world_generate_has_every_knob_of_the_world(monkeypatch: pytest.MonkeyPatch) -> None:
    from data.world.config import WorldConfig
    from flows.commands.world import generate

    options = set(inspect.signature(generate).parameters) - {"ctx", "drift", "force", "home", "as_json"}
    assert options == {f.name for f in fields(WorldConfig)}


def test_refresh_offers_what_can_be_refreshed() -> None:
    from flows.commands import refresh as verb
    from flows.offline.refresh import COMPONENTS

    assert verb.COMPONENTS == COMPONENTS


def test_progress_goes_to_standard_error(run: Run, ingest: Callable[..., None], monkeypatch: Any) -> None:
    @contextmanager
    def loud(self: sessions.Session, what: str) -> Iterator[Callable[..., None]]:
        sys.stderr.write(f"{what} begins\n")
        yield print

    monkeypatch.setattr(sessions.Session, "progress", loud)
    ingest(lambda settings, replay, progress: {"rows": 1})
    assert run("ingest") == (0, "rows: 1\n", "ingest begins\n")


def test_progress_writes_a_line_a_message_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "time", SimpleNamespace(monotonic=lambda: 5.0))  # it stands still
    session = sessions.Session(Settings(home=tmp_path), as_json=False)
    with session.progress("train") as say:
        say("epoch", 1, 0.12345)
        say("too soon for another line")
    assert re.fullmatch(r"train: epoch 1 0\.123 \(\d s\)\n", capsys.readouterr().err)


def test_sigterm_runs_what_stands_in_finally(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, types\n"
        "from flows.cli import main\n"
        "def ingest(settings, replay, progress):\n"
        "    try: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    finally: print('cleaned up')\n"
        "sys.modules['flows.offline.ingest'] = types.SimpleNamespace(ingest=ingest)\n"
        "sys.exit(main(['ingest']))"
    )
    done = fresh(code, SHELFLIFE_HOME=str(tmp_path))
    assert (done.returncode, done.stdout) == (143, "cleaned up\n")
    assert one_line(done.stderr) == "ended by SIGTERM"


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    code = "import sys; from flows.cli import main; sys.exit(main(['status']))"
    command = f'{sys.executable} -c "{code}" | true'
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=REPOSITORY,
        env={**os.environ, "SHELFLIFE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
