"""A shop of releases alone: more of them under other names, and failures at any step of what moves them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.offline import crown
from flows.offline import promote as promotion
from infra.registry import Registry
from infra.settings import Settings
from models.release import champion, load_release, make_release, publish, read_manifest
from tests.registry_fake import FakeRegistry

MUTATING = ("log_training", "log_run", "register_release", "record_verdict", "set_champion")


class Crash(BaseException):
    """As SIGKILL would: nothing of the command runs after it."""


def link_or_copy(source: str, target: str) -> None:
    """As a copy of a file, for shutil.copytree: what is never changed is linked."""
    if Path(source).suffix == ".json":
        shutil.copy(source, target)
    else:
        Path(target).hardlink_to(source)


def next_release(settings: Settings, number: int = 1) -> str:
    """Publish the champion's parts under another name, as a refresh would that learnt nothing new."""
    layout = settings.layout
    name = champion(layout)
    assert name is not None
    old = read_manifest(layout, name)
    made = make_release(
        old.artifacts, watermark_us=old.watermark_us, created_us=old.created_us + number, parent=name
    )
    publish(layout, made)
    return made.release_id


class Faulty:
    """Counts what changes something outside the process, and fails at the one of this number."""

    def __init__(self, patch: pytest.MonkeyPatch, registry: Registry, *, at: int, error: type[BaseException]):
        self.count = 0
        self.at = at
        self.error = error
        for module, names in (
            (crown, ("write_atomic", "set_champion")),
            (promotion, ("publish", "note_verdict", "drop_checkpoints")),
        ):
            for name in names:
                patch.setattr(module, name, self.failing(getattr(module, name)))
        for name in MUTATING:
            patch.setattr(registry, name, self.failing(getattr(registry, name)))

    def failing(self, effect: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            self.count += 1
            if self.count == self.at:
                raise self.error(f"at step {self.at}")
            return effect(*args, **options)

        return wrapped


def steps_of(settings: Settings, registry: FakeRegistry, act: Callable[[], Any]) -> int:
    """How many steps an action has."""
    with pytest.MonkeyPatch.context() as patch:
        counting = Faulty(patch, registry, at=0, error=Crash)
        act()
    return counting.count


def is_whole(settings: Settings, registry: FakeRegistry) -> str:
    """The champion, on which pointer and alias agree and which can be loaded."""
    name = champion(settings.layout)
    assert name is not None
    assert registry.champion_release() == name
    load_release(settings.layout, name)
    assert not (settings.layout.releases / "promotion.json").exists()
    assert [r["alias"] for r in registry.releases()].count("champion") == 1
    return name
