"""The shop that is measured: a generated catalogue of any size with releases trained on its own history.

Made once and kept in the cache under a key of its config and of the code that made it; each run works
on a copy (files that never change are linked). It knows nothing of what is measured.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from data.shop import Request
from data.world.config import WorldConfig, world_config
from data.world.history import generate
from data.world.shop import World
from flows.offline.refresh import refresh
from infra.clock import ScaledClock, wall_us
from infra.errors import DataError, EnvironmentError_, ShelflifeError
from infra.files import write_atomic
from infra.settings import REPOSITORY, Home, Settings
from models.release import champion, read_manifest, set_champion

__all__ = ["Prepared", "bench_requests", "bench_world", "copy_home", "prepare"]

Progress = Callable[..., None]

SESSIONS = 4_000  # of the one day of history: enough clicks for a ranker to learn from
ITEMS = (200, 2_000_000)
FIRST_DAYS = 40  # of the world after its history, from which requests are taken
_RECORD = "bench.json"
_LINKED = ("blobs", "releases", "states", "snapshots", "segments")
_COPIED = ("world", "truth", "store", "mlflow")
_CODE = ("models", "data", "flows/offline", "flows/bench/catalogue.py")
"""Folders and files whose code makes what is kept."""


@dataclass(frozen=True)
class Prepared:
    """A home ready to be copied: `releases`, trained ones, the first of them champion.

    `seconds`: what making it took; `cached`: whether it was made before.
    """

    layout: Home
    releases: tuple[str, ...]
    seconds: float
    cached: bool

    def about(self) -> dict[str, Any]:
        """For the report."""
        return {"releases": list(self.releases), "seconds": self.seconds, "cached": self.cached}


def bench_world(items: int, *, seed: int) -> WorldConfig:
    """The world of a bench: `items` items and one day of about `SESSIONS` sessions, without drift."""
    if not ITEMS[0] <= items <= ITEMS[1]:
        raise DataError(f"a catalogue of {items} items; expected {ITEMS[0]} to {ITEMS[1]:,}")
    scale = items / 10_000
    activity = min(0.9, SESSIONS / (6_000 * scale))
    return world_config("none", scale=scale, days=1, seed=seed, activity=activity)


def prepare(
    settings: Settings, *, items: int, trained: int = 1, progress: Progress = lambda *_: None
) -> Prepared:
    """The home of a catalogue with `trained` releases: the first with everything, then in turn one whose
    ranker alone is another and one whose encoder, indexes and ranker are. None has an image classifier:
    its training takes minutes, and photos are 1 % of what is asked.

    Taken from `<cache>/bench/<key>` where it was made before; else made, which takes about a minute
    and a half for 100,000 items: in a process of its own, as training lowers the priority of its process for
    good, and what is measured would be started with it.
    """
    config = bench_world(items, seed=settings.seed)
    root = settings.cache / "bench" / _key(config)
    found = _made(root, trained)
    if found is not None:
        return found
    processes = multiprocessing.get_context("spawn")
    told, tells = processes.Pipe(duplex=False)
    maker = processes.Process(target=_make, args=(settings, config, root, trained, tells))
    maker.start()
    tells.close()
    try:
        while True:
            said = told.recv()
            if isinstance(said, Exception):
                raise said
            progress(said)
    except EOFError:
        maker.join()
    finally:
        maker.terminate()
        maker.join()
        told.close()
    found = _made(root, trained)
    if found is None:
        raise EnvironmentError_(
            f"making a shop of {items:,} items ended with code {maker.exitcode}; expected 0: see above, and "
            "whether there is memory and disk for it"
        )
    return replace(found, cached=False)


def _made(root: Path, trained: int) -> Prepared | None:
    """What was made before, if it has as many releases."""
    record = root / _RECORD
    if not record.is_file():
        return None
    known = json.loads(record.read_bytes())
    if len(known["releases"]) < trained:
        return None
    return Prepared(Home(root), tuple(known["releases"][:trained]), known["seconds"], cached=True)


def _make(settings: Settings, config: WorldConfig, root: Path, trained: int, tells: Connection) -> None:
    """Make what is missing; tells what it is at, or why it cannot go on."""
    try:
        _make_home(settings, config, root, trained, tells.send)
    except ShelflifeError as error:
        tells.send(error)
    finally:
        tells.close()


def _make_home(
    settings: Settings, config: WorldConfig, root: Path, trained: int, progress: Callable[[str], None]
) -> None:
    record = root / _RECORD
    began = time.monotonic()
    layout = Home(root)
    own = replace(settings, home=root, cache=root / "no-photos")
    releases: list[str] = json.loads(record.read_bytes())["releases"] if record.is_file() else []
    before_s = json.loads(record.read_bytes())["seconds"] if record.is_file() else 0.0
    if not releases:
        shutil.rmtree(root, ignore_errors=True)
        progress(f"making a shop of {config.n_items:,} items")
        generate(config, layout)
        made = refresh(own, progress=lambda name: progress(f"first release: {name}"))
        releases.append(str(made["release_id"]))
    while len(releases) < trained:
        component = "ranker" if len(releases) % 2 else "encoder,index"
        fraction = 1.0 - 0.1 * len(releases)  # other rows, so that another model comes of it
        made = refresh(
            replace(own, seed=settings.seed + len(releases)),
            component=component,
            fraction=fraction,
            margin=1.0,
            progress=lambda name: progress(f"release {len(releases) + 1} of {trained}: {name}"),
        )
        if str(made["release_id"]) in releases:
            raise DataError(f"refreshing {component} gave release {made['release_id']} again")
        releases.append(str(made["release_id"]))
    set_champion(layout, releases[0], at_us=read_manifest(layout, releases[0]).created_us, by="bench")
    seconds = round(before_s + time.monotonic() - began, 1)
    document = {"config": asdict(config), "releases": releases, "seconds": seconds}
    write_atomic(record, json.dumps(document).encode())


def copy_home(source: Home, target: Home, *, champion_id: str | None = None) -> None:
    """What serving and its world need; files that never change are linked where that is possible.

    The shop's clock begins at the end of the history and goes as fast as the wall's. `champion_id`: made
    champion of the copy. What was in the target is removed.
    """
    if champion(source) is None:
        raise DataError(f"{source.root} has no champion; `shelflife refresh` makes one")
    shutil.rmtree(target.root, ignore_errors=True)
    for name in (*_LINKED, *_COPIED, "journal"):
        folder = source.root / name
        if folder.is_dir():
            copy = _link if name in _LINKED else shutil.copy2
            shutil.copytree(folder, target.root / name, copy_function=copy)
    world = World.open(target)
    ScaledClock(world.start_of(world.config.days), wall_us(), 1.0).save(target.clock)
    if champion_id is not None:
        set_champion(target, champion_id, at_us=read_manifest(target, champion_id).created_us, by="bench")


def bench_requests(layout: Home, *, most: int) -> list[Request]:
    """First pages that the world's shoppers ask for in the days after its history, in their order.

    A turned page is looked up, not made, so that each of these costs a whole search; photos are left out.
    Fewer than `most`
    where the days hold no more.
    """
    world = World.open(layout)
    found: list[Request] = []
    for day in range(world.config.days, world.config.days + FIRST_DAYS):
        plan = world.day(day)
        asked = (plan.page == 0) & (plan.photo < 0)
        found += [plan.request(i) for i in np.flatnonzero(asked).tolist()]
        if len(found) >= most:
            break
    return found[:most]


def _key(config: WorldConfig) -> str:
    """16 hex digits over what is made and the code that makes it."""
    digest = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode())
    for name in _CODE:
        path = REPOSITORY / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else (path,):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
