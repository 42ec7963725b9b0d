"""Settings: from the environment, from arguments, and never silently ignored."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from infra.errors import ConfigError
from infra.settings import REPOSITORY, Home, Settings, load_settings


def test_defaults() -> None:
    settings = load_settings()
    assert settings.home == REPOSITORY / "var"
    assert settings.host == "127.0.0.1"
    assert settings.seed == 7


def test_arguments_come_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELFLIFE_SEED", "3")
    monkeypatch.setenv("SHELFLIFE_HTTP_PORT", "8111")
    settings = load_settings(seed=4, http_port=None)
    assert (settings.seed, settings.http_port) == (4, 8111)


def test_a_home_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHELFLIFE_HOME", "here")
    assert load_settings().home == tmp_path / "here"


def test_an_unknown_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELFLIFE_HTTP_PROT", "8111")
    with pytest.raises(
        ConfigError, match="unknown setting SHELFLIFE_HTTP_PROT; expected one of SHELFLIFE_HOME"
    ):
        load_settings()


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown setting prot"):
        load_settings(prot=1)


def test_a_number_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELFLIFE_SEED", "lucky")
    with pytest.raises(ConfigError, match="SHELFLIFE_SEED is 'lucky'; expected a whole number"):
        load_settings()


def test_a_home_keeps_a_release_at_least() -> None:
    assert load_settings().kept_releases == 20
    with pytest.raises(ConfigError, match="SHELFLIFE_KEPT_RELEASES is 0; expected 1 or more"):
        load_settings(kept_releases=0)


def test_everything_of_a_home_lies_in_it() -> None:
    home = Home(Path("/somewhere"))
    places = [getattr(home, n) for n, v in vars(Home).items() if isinstance(v, property)]
    assert len(set(places)) == len(places) > 10
    assert all(p.is_relative_to(home.root) for p in places)


def test_each_setting_is_documented_with_its_default() -> None:
    text = (REPOSITORY / "docs" / "settings.md").read_text()
    rows = dict(re.findall(r"^\| `SHELFLIFE_(\w+)` \| `([^`]+)` \|", text, flags=re.M))
    defaults = Settings()
    expected = {}
    for field in fields(Settings):
        value = getattr(defaults, field.name)
        expected[field.name.upper()] = str(
            value.relative_to(REPOSITORY) if isinstance(value, Path) else value
        )
    assert rows == expected
