"""Ray's folder of a home, and what its logs tell of a service that does not come up."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.ray_scratch import fresh_scratch, scratch_of, trouble
from infra.settings import Settings

SOCKET = 97 - 1 - 56  # characters that HAProxy leaves for the folder and a socket's name


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    own = Settings(home=tmp_path)
    fresh_scratch(own)
    yield own
    shutil.rmtree(scratch_of(own))


def test_it_is_short_private_and_of_one_home(settings: Settings, tmp_path: Path) -> None:
    folder = scratch_of(settings)
    assert len(f"{folder}/h/admin.sock") < SOCKET
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folder != scratch_of(Settings(home=tmp_path / "other"))
    (folder / "left").write_text("of a run that was killed")
    fresh_scratch(settings)
    assert [p.name for p in folder.iterdir()] == ["h"]


def test_what_went_wrong_is_told_from_each_log(settings: Settings) -> None:
    assert trouble(settings) == "nothing"
    logs = scratch_of(settings) / "ray" / "session_2026-11-22" / "logs" / "serve"
    logs.mkdir(parents=True)
    (logs / "controller_17.log").write_text(
        "INFO starting\nWARNING an old one\nERROR no port\nINFO waiting\n"
    )
    (logs / "replica_shop_1.log").write_text("Traceback:\n  File\ninfra.errors.DataError: no release\n")
    told = trouble(settings)
    assert told == "controller: ERROR no port | controller: INFO waiting | " + (
        "replica: infra.errors.DataError: no release"
    )
