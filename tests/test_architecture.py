"""The house stands as drawn: names, layers, sizes, docstrings, and the tree in the README."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from infra.settings import REPOSITORY

PACKAGES = ("flows", "components", "models", "data", "infra")
SOURCES = sorted(p for package in PACKAGES for p in (REPOSITORY / package).rglob("*.py"))
PYTHON = [*SOURCES, *sorted((REPOSITORY / "tests").rglob("*.py"))]
IN_ENVIRONMENT = Path(sys.prefix) == REPOSITORY / ".venv"


def name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def fresh(code: str, *, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if not IN_ENVIRONMENT:  # run by another interpreter, for which nothing is installed
        env["PYTHONPATH"] = str(REPOSITORY)
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True, timeout=600
    )


def test_the_five_names_resolve_to_this_repository_from_anywhere(tmp_path: Path) -> None:
    code = f"import importlib.util as u; print(*(u.find_spec(n).origin for n in {PACKAGES}), sep='\\n')"
    done = fresh(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(REPOSITORY / p / "__init__.py") for p in PACKAGES]


def test_imports_go_right_only() -> None:
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([linter, "--no-logo"], cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 broken" in done.stdout


def test_import_linter_would_see_a_wrong_import(tmp_path: Path) -> None:
    """The contracts bite: a copy of the packages with one wrong import each fails them all."""
    for source in SOURCES:
        copy = tmp_path / source.relative_to(REPOSITORY)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text("")
    (tmp_path / "pyproject.toml").write_text((REPOSITORY / "pyproject.toml").read_text())
    (tmp_path / "infra" / "errors.py").write_text("import data.schema\n")
    (tmp_path / "components" / "__init__.py").write_text("import prefect\n")
    (tmp_path / "models" / "__init__.py").write_text("import ray\n")
    (tmp_path / "flows" / "studies" / "panels" / "panel.py").write_text("import flows.studies.cells.cell\n")
    (tmp_path / "flows" / "offline" / "gate.py").write_text("import flows.evaluation.arms\n")
    linter = Path(sys.executable).parent / "lint-imports"
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [linter, "--no-logo", "--no-cache"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 1
    assert "0 kept, 6 broken" in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("components.search.pipeline", "mlflow prefect pandas torch ray"),
        ("components.serving.app", "mlflow prefect torch"),  # ray.serve itself imports pandas
        ("components.serving.host", "mlflow prefect torch"),
        ("components.load.driver", "mlflow prefect pandas torch ray"),
        ("infra.cluster", "mlflow prefect pandas torch ray"),
        ("infra.registry", "mlflow sqlalchemy pandas"),
    ],
)
def test_what_a_process_must_not_load_is_not_loaded(module: str, absent: str) -> None:
    code = (
        f"import importlib, sys; importlib.import_module({module!r})\n"
        f"found = set({absent!r}.split()) & set(sys.modules); assert not found, found"
    )
    done = fresh(code, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("path", PYTHON, ids=name)
def test_no_file_is_long_and_each_says_what_it_is(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    assert ast.get_docstring(ast.parse(text)), "a module opens with what it does"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_what_is_public_has_a_docstring(path: Path) -> None:
    missing = []
    for node in ast.parse(path.read_text()).body:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        if node.name.startswith("_"):
            continue
        inner = node.body if isinstance(node, ast.ClassDef) else []
        found = [node, *(f for f in inner if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef)))]
        missing += [f.name for f in found if not f.name.startswith("_") and not ast.get_docstring(f)]
    assert not missing


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_public_names_are_there(path: Path) -> None:
    tree = ast.parse(path.read_text())
    listed: list[str] = []
    defined: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            defined.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            defined |= {(a.asname or a.name).split(".")[0] for a in node.names}
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
            if "__all__" in names and node.value is not None:
                listed = ast.literal_eval(node.value)
            defined |= names
    assert set(listed) <= defined
    assert len(set(listed)) == len(listed)


def test_the_tree_in_the_readme_is_the_tree_on_disk() -> None:
    """Each folder and file at the root is named in the README's tree, and nothing else is."""
    readme = (REPOSITORY / "README.md").read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```$", readme, flags=re.M | re.S)
    trees = [b for b in blocks if all(f"{p}/" in b for p in PACKAGES)]
    assert len(trees) == 1, "the README shows the tree in one code block"
    drawn = set(re.findall(r"^([\w.][\w.\-]*/?)(?=\s|$)", trees[0], flags=re.M))
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    on_disk = {f"{f.split('/')[0]}/" if "/" in f else f for f in files}
    assert drawn == on_disk


def test_ignore_rules_hide_no_package() -> None:
    """The rules are anchored: `data/` and `models/` are source here, not output."""
    rules = [r for r in (REPOSITORY / ".gitignore").read_text().split("\n") if r]
    assert all(r.startswith("/") or r in ("__pycache__/", "*.egg-info/") for r in rules)
    probes = [f"{p}/new_module.py" for p in (*PACKAGES, "tests")]
    ignored = subprocess.run(["git", "check-ignore", *probes], cwd=REPOSITORY, capture_output=True, text=True)
    assert ignored.stdout == ""


def test_the_lock_is_complete_exact_and_portable() -> None:
    """Every line pins one version; torch has neither local version nor hash; all that we ask for is in it."""
    import tomllib

    lines = (REPOSITORY / "requirements.lock").read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._\-]+==[A-Za-z0-9.!_]+", line) for line in lines)
    locked = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    assert len(locked) == len(lines)
    assert "torch==2.13.0" in lines
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["dev"], "hatchling", "editables"]
    names = {re.split(r"[\[<>=~! ]", a)[0].lower().replace("_", "-") for a in asked}
    assert names <= locked
