"""What is particular to the registry on MLflow; what every registry promises is in tests/contract."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from infra.errors import EnvironmentError_
from infra.registry import MlflowRegistry
from infra.settings import REPOSITORY, Home


def test_importing_it_does_not_import_mlflow() -> None:
    code = "import sys, infra.registry; assert not {'mlflow', 'sqlalchemy'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_two_processes_see_the_same(registry_folder: Path) -> None:
    MlflowRegistry(registry_folder).register_release({"release_id": "r1", "created_us": 5})
    MlflowRegistry(registry_folder).set_champion("r1")
    assert MlflowRegistry(registry_folder).champion_release() == "r1"


def test_a_run_that_was_killed_is_not_among_the_recorded(registry_folder: Path) -> None:
    registry = MlflowRegistry(registry_folder)
    registry.log_run("refresh", metrics={"cpu_s": 1.0})
    with registry._write() as (client, experiment):
        client.create_run(experiment, run_name="refresh")  # and no end to it
    again = MlflowRegistry(registry_folder)  # ends it as killed
    for held in (registry, again):
        assert [run["metrics"] for run in held.recorded("refresh")] == [{"cpu_s": 1.0}]


def test_a_locked_database_is_one_clear_line(registry_folder: Path) -> None:
    registry = MlflowRegistry(registry_folder, busy_s=0.1)
    registry.register_release({"release_id": "r1", "created_us": 5})
    holder = sqlite3.connect(registry_folder / "mlflow.db")
    try:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(EnvironmentError_, match=r"mlflow\.db cannot be used: .*locked; another program"):
            registry.set_champion("r1")
    finally:
        holder.close()


def test_a_file_that_is_no_database_is_one_clear_line(home: Home) -> None:
    home.mlflow.mkdir()
    (home.mlflow / "mlflow.db").write_bytes(b"not a database, but long enough to look at" * 10)
    with pytest.raises(EnvironmentError_, match=r"cannot be used: .*not a database; restore the file"):
        MlflowRegistry(home.mlflow).champion_release()


def test_a_database_of_another_mlflow_is_one_clear_line(registry_folder: Path) -> None:
    with sqlite3.connect(registry_folder / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    database.close()
    before = (registry_folder / "mlflow.db").read_bytes()
    with pytest.raises(EnvironmentError_) as told:
        MlflowRegistry(registry_folder).champion_release()
    assert "out-of-date database schema (found version ffffffffffff" in str(told.value)
    assert str(told.value).endswith("another MLflow made it; use the Shelflife that this home was made with")
    assert (registry_folder / "mlflow.db").read_bytes() == before


def test_a_folder_that_is_none_is_one_clear_line(home: Home) -> None:
    home.mlflow.write_text("no folder")
    with pytest.raises(EnvironmentError_, match=r"mlflow cannot be used: File exists; expected a folder"):
        MlflowRegistry(home.mlflow).champion_release()


def test_metrics_that_are_not_numbers_do_not_spoil_the_list(registry_folder: Path) -> None:
    registry = MlflowRegistry(registry_folder)
    registry.register_release(
        {"release_id": "r1", "created_us": 5, "metrics": {"ndcg10": float("nan"), "mrr": 0.5}}
    )
    assert registry.releases()[0]["metrics"] == {"mrr": 0.5}
