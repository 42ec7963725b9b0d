"""A tiny trained shop that the tests of the offline loop share; each changes a copy of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from data.world.config import world_config
from data.world.history import generate
from flows.offline import crown
from flows.offline import promote as promotion
from flows.offline.crown import reconcile
from flows.offline.refresh import refresh
from infra.settings import Settings
from tests.registry_fake import FakeRegistry
from tests.unit.flows.light_shop import link_or_copy


@pytest.fixture(scope="session")
def as_nice_as_before() -> Iterator[None]:
    """Niceness would last for ever: a refresh in this process keeps it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.offline.refresh.nice_down", lambda: None)
        yield


@pytest.fixture(scope="session")
def first(
    tmp_path_factory: pytest.TempPathFactory, migrated_registry: Path, as_nice_as_before: None
) -> Settings:
    """A home with a world of 1,000 items and 4 days, and a first release; not to be changed."""
    root = tmp_path_factory.mktemp("world")
    settings = Settings(home=root / "home", cache=root / "cache")
    shutil.copytree(migrated_registry, settings.layout.mlflow)
    generate(world_config("none", scale=0.1, days=4, activity=0.3), settings.layout)
    refresh(settings)
    return settings


@pytest.fixture
def shop(first: Settings, tmp_path: Path) -> Settings:
    """A copy of it, to change."""
    shutil.copytree(first.home, tmp_path / "copy")
    return replace(first, home=tmp_path / "copy")


@pytest.fixture
def light(first: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Settings, FakeRegistry]:
    """The releases of the trained shop alone, and a registry in memory that knows their champion."""
    settings = replace(first, home=tmp_path / "light")
    for name in ("releases", "blobs", "snapshots", "states"):
        shutil.copytree(first.home / name, settings.home / name, copy_function=link_or_copy)
    registry = FakeRegistry()
    for module in (crown, promotion):
        monkeypatch.setattr(module, "open_registry", lambda _: registry)
    reconcile(settings)
    return settings, registry
