"""Trains an artifact of a release once more from what was recorded of its training, and compares the files.

The snapshot says which events were read and how they counted, the recipe which models the training stood
on, where it began and its seed. It publishes nothing. Equal means bit for bit: the same content hash.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from flows.offline.inputs import inputs_of
from flows.offline.train import TRAINED, Parts, drop_checkpoints, train_component
from infra.clock import open_clock
from infra.errors import ConfigError, DataError
from infra.settings import Home, Settings
from models.release import Artifact, champion, list_releases, load_release, read_manifest

__all__ = ["Reproduced", "reproduce"]


@dataclass(frozen=True)
class Reproduced:
    """What came of it: the contents (hex SHA-256) then and now."""

    release_id: str
    component: str
    commit: int
    rows: int
    recorded: str
    found: str
    equal: bool

    @property
    def text(self) -> str:
        """One line."""
        verdict = "equal, bit for bit" if self.equal else "NOT equal: the code or a package has changed since"
        return (
            f"{self.component} of {self.release_id} from commit {self.commit} ({self.rows} events): "
            f"{self.found[:16]}, recorded {self.recorded[:16]}: {verdict}"
        )


def reproduce(settings: Settings, *, component: str = "ranker", release_id: str | None = None) -> Reproduced:
    """Train a component of a release (None: the champion) from its record.

    Raises DataError where there is no such record, where a model that it stood on was removed, or where
    retention has removed what it read.
    """
    if component not in TRAINED:
        raise ConfigError(f"unknown component {component!r}; expected one of {', '.join(TRAINED)}")
    layout = settings.layout
    name = release_id or champion(layout)
    if name is None:
        raise DataError(f"no release in {layout.root} yet; run `shelflife refresh` first")
    artifact = read_manifest(layout, name).artifacts.get(component)
    if artifact is None or "recipe" not in artifact.snapshot:
        raise DataError(f"release {name} has no {component} whose training is recorded; train it anew")
    snapshot = {k: v for k, v in artifact.snapshot.items() if k != "recipe"}
    recipe = artifact.snapshot["recipe"]
    wanted = dict(recipe["beneath"])
    if recipe["warm"]:
        wanted[component] = recipe["warm"]
    parts = _parts(layout, wanted, beside=name)
    inputs = inputs_of(layout, snapshot)
    layout.run.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=layout.run) as aside:  # its blobs and checkpoints are nobody's
        apart = replace(settings, home=Path(aside))
        again = train_component(
            component,
            inputs,
            parts,
            settings=apart,
            clock=open_clock(layout.clock),
            warm=bool(recipe["warm"]),
            seed=int(recipe["seed"]),
        )
        drop_checkpoints(apart, [component])
    found = again.artifacts[component].content if component in again.made else ""
    return Reproduced(
        name,
        component,
        snapshot["commit"],
        snapshot["rows"],
        artifact.content,
        found,
        found == artifact.content,
    )


def _parts(layout: Home, wanted: dict[str, str], *, beside: str) -> Parts:
    """The artifacts of these contents, from the release `beside` or any other that has them."""
    manifests = sorted(list_releases(layout), key=lambda m: m.release_id != beside)
    holders: dict[str, tuple[str, Artifact]] = {}
    for name, content in wanted.items():
        for manifest in manifests:
            held = manifest.artifacts.get(name)
            if held is not None and held.content == content:
                holders[name] = (manifest.release_id, held)
                break
        else:
            raise DataError(f"the {name} that the training stood on ({content[:16]}) was removed since")
    loaded = {i: load_release(layout, i) for i in {i for i, _ in holders.values()}}
    return Parts(
        artifacts={name: held for name, (_, held) in holders.items()},
        objects={name: getattr(loaded[i], name) for name, (i, _) in holders.items()},
    )
