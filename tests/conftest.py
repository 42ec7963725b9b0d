"""What all tests share: a home of their own, no settings from outside, quiet and private outside systems."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

from infra.settings import Home

os.environ.update(
    {
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
)


# The same examples each time and no clock: a busy machine or an unlucky draw is no defect. To look for new
# ones: pytest --hypothesis-profile default
hypothesis.settings.register_profile(
    "suite",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("suite")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("SHELFLIFE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty home folder."""
    root = tmp_path / "home"
    root.mkdir()
    return Home(root)


@pytest.fixture(scope="session")
def migrated_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry's folder whose database was migrated once for the session (it takes 2 s)."""
    from infra.registry import MlflowRegistry

    folder = tmp_path_factory.mktemp("registry") / "mlflow"
    assert MlflowRegistry(folder).releases() == []
    return folder


@pytest.fixture
def registry_folder(migrated_registry: Path, home: Home) -> Path:
    """A fresh, migrated registry in `home`."""
    shutil.copytree(migrated_registry, home.mlflow)
    return home.mlflow


@pytest.fixture
def write_files(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    """Write files below a temporary folder and return it."""

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write
