"""What holds of a demo before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.demo.run import demo
from infra.errors import EnvironmentError_
from infra.processes import exclusive
from infra.settings import Settings


def test_a_second_demo_leaves_the_first_alone(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", cache=tmp_path / "cache")
    kept = settings.home / "demo" / "kept"
    kept.mkdir(parents=True)
    with (
        exclusive(settings.layout.run, "demo"),
        pytest.raises(EnvironmentError_, match=r"`shelflife demo` \(pid \d+\) is at work on .*--home"),
    ):
        demo(settings)
    assert kept.exists()
