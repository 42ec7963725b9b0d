"""kill -9 at random moments of a refresh: does the next run end well, and does anybody ever see half of it?

    python benchmarks/kill_refresh.py [--kills 50] [--home HOME] [--seed N]

A world of a thousand items with a first release is made, or a copy of HOME is taken. In each round new
events are dropped, a refresh of everything is begun and killed at a moment that is drawn from its whole
length (stratified, so that all of it is hit), and the refresh that follows has to end well. Meanwhile a
reader looks at the champion's pointer all the time: what it names has to be whole. After each round every
event has to be in the store once, every training in the registry once, every release once, and nothing
half done on the disk. The last line of standard output is one JSON document; exit 3 if a promise broke.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from infra.files import sha256_file
from infra.settings import REPOSITORY, Home, Settings, load_settings

_NEW = 20  # events a round
_FIRST_ID = 10**12
_FAILED = 70


def main() -> int:
    """Run it; 0, or 3 if a promise broke."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shelflife-kill-") as scratch:
        home = Path(scratch) / "home"
        if asked.home is None:
            _make_shop(home)
        else:
            shutil.copytree(asked.home, home)
        report = run(load_settings(home=home, cache=home / "cache"), kills=asked.kills, seed=asked.seed)
    sys.stdout.write(json.dumps(report) + "\n")
    return 3 if report["broken"] else 0


def run(settings: Settings, *, kills: int, seed: int) -> dict[str, Any]:
    """All rounds on a home with a champion; what came of them."""
    _import_all()
    layout = settings.layout
    drop_events(settings, 0)
    begin = time.monotonic()
    _whole(lambda: _refresh(settings))
    length_s = time.monotonic() - begin
    shares = _shares(kills, seed)
    first_s = length_s
    broken: list[str] = []
    rounds: list[dict[str, Any]] = []
    with _Reader(layout) as reader:
        for number, share in enumerate(shares, 1):
            moment = share * length_s
            drop_events(settings, number)
            killed = _killed(lambda: _refresh(settings), moment)
            begin = time.monotonic()
            code = _whole(lambda: _refresh(settings))
            rounds.append({"at_s": round(moment, 3), "killed": killed, "next_s": time.monotonic() - begin})
            length_s = min(length_s, rounds[-1]["next_s"])  # later ones, too, shall end by being killed
            found = _asked(layout, number) if not code else [f"the next refresh ended with {code}"]
            broken += [f"round {number} at {moment:.2f} s: {problem}" for problem in found]
            sys.stderr.write(f"{number}/{kills}: killed at {moment:.2f} s: {found or 'ended well'}\n")
    broken += reader.problems
    return {
        "kills": sum(r["killed"] for r in rounds),
        "rounds": len(rounds),
        "seed": seed,
        "refresh_s": round(first_s, 2),
        "next_s": round(float(np.median([r["next_s"] for r in rounds])), 2),
        "reads_of_the_pointer": reader.reads,
        "champions_seen": reader.seen,
        "broken": broken,
        "moments_s": [r["at_s"] for r in rounds],
    }


def problems(layout: Home, rounds: int) -> list[str]:
    """What is half done, lost or double in a home after a refresh that ended well."""
    from infra.registry import MlflowRegistry
    from models.release import champion, list_releases, load_release

    found = []
    name = champion(layout)
    registry = MlflowRegistry(layout.mlflow)
    rows = registry.releases()
    if registry.champion_release() != name or name is None:
        found.append(f"the pointer names {name}, the registry {registry.champion_release()}")
    published = list_releases(layout)
    for manifest in published:
        load_release(layout, manifest.release_id)
    recorded, there = [r["release_id"] for r in rows], {m.release_id for m in published}
    if len(set(recorded)) < len(recorded) or not there <= set(recorded):
        found.append("releases on the disk are not those in the registry")
    if len(there) < min(len(recorded), Settings.kept_releases):  # what is older may be gone
        found.append(f"{len(there)} of {len(recorded)} releases are on the disk")
    made = Counter(
        (m.watermark_us, *sorted((n, a.content) for n, a in m.artifacts.items())) for m in published
    )
    found += [f"{n} releases of the same parts" for n in made.values() if n > 1]
    with registry._read() as (client, experiment):
        for model in client.search_registered_models():
            versions = client.search_model_versions(f"name='{model.name}'")
            keys = Counter(v.tags.get("key") or v.tags.get("release_id") for v in versions)
            found += [f"{n} versions of {model.name} for {key}" for key, n in keys.items() if n > 1]
        open_runs = client.search_runs([experiment], "attributes.status = 'RUNNING'")
        if open_runs:
            found.append(f"{len(open_runs)} runs in the registry never ended")
    found += _event_problems(layout, rounds)
    folders = (layout.releases, layout.states, layout.blobs, layout.snapshots, layout.checkpoints)
    left = [p for folder in folders for p in folder.rglob("*.tmp")]
    left += [layout.releases / "promotion.json"] if (layout.releases / "promotion.json").exists() else []
    left += list(layout.checkpoints.glob("*"))
    return found + [f"{p.relative_to(layout.root)} was left behind" for p in left]


def drop_events(settings: Settings, number: int) -> None:
    """A segment of clicks that nobody ingested yet."""

    def drop() -> None:
        from data.schema import CLICK, event_table
        from data.segments import write_segments
        from data.snapshots import published, read_events

        layout = settings.layout
        held = published(layout)
        old = read_events(held, kinds=[CLICK]).slice(0, _NEW)
        times = held.watermark_us + (number + 1) * 1_000 + np.arange(_NEW)
        new = event_table(
            {"event_id": _FIRST_ID + number * 1_000 + np.arange(_NEW), "kind": CLICK, "event_time": times,
             "known_time": times, "item_id": old["item_id"], "user_id": old["user_id"]},
            rows=_NEW,
        )  # fmt: skip
        write_segments(new, layout.segments, name=f"kill-{number}")

    _whole(drop)


def _event_problems(layout: Home, rounds: int) -> list[str]:
    from data.snapshots import published, read_events

    held = published(layout)
    ids = read_events(held, columns=["event_id"])["event_id"].to_numpy()
    found = []
    if len(ids) != len(np.unique(ids)) or len(ids) != held.rows:
        found.append(f"{len(ids):,} events, {len(np.unique(ids)):,} of them distinct, {held.rows:,} promised")
    mine = int((ids >= _FIRST_ID).sum())
    if mine != _NEW * (rounds + 1):
        found.append(f"{mine} of {_NEW * (rounds + 1)} new events are in the store")
    return found


def _refresh(settings: Settings) -> None:
    from flows.offline.refresh import refresh

    refresh(settings, margin=1.0)


def _shares(kills: int, seed: int) -> list[float]:
    """One in each of equal stretches of a refresh, in random order."""
    rng = np.random.default_rng(seed)
    return [float(m) for m in rng.permutation((np.arange(kills) + rng.random(kills)) / kills)]


def _killed(act: Callable[[], None], after_s: float) -> bool:
    """Begin it in a process of its own and kill that; False where it had ended before."""
    child = _forked(act)
    time.sleep(after_s)
    done, _ = os.waitpid(child, os.WNOHANG)
    if not done:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return not done


def _whole(act: Callable[[], None]) -> int:
    """Do it in a process of its own; its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(_forked(act), 0)[1])


def _asked(layout: Home, rounds: int) -> list[str]:
    """`problems` in a process of its own."""
    read, write = os.pipe()

    def tell() -> None:
        os.write(write, json.dumps(problems(layout, rounds)[:20]).encode())

    code = _whole(tell)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    return list(json.loads(said)) if not code else [f"looking for problems ended with {code}"]


def _forked(act: Callable[[], None]) -> int:
    """Every part in a process that has all imported and has done nothing yet: no thread, no open database."""
    child = os.fork()
    if child:
        return child
    code = _FAILED
    try:
        act()
        code = 0
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    finally:
        sys.stderr.flush()
        os._exit(code)


def _import_all() -> None:
    """What a refresh imports, before the first fork: it takes longer than the refresh."""
    for name in (
        "duckdb", "faiss", "lightgbm", "mlflow.tracking", "tantivy", "torch._dynamo",
        "flows.offline.refresh", "models.image_classifier", "models.ranker",
    ):  # fmt: skip
        importlib.import_module(name)


class _Reader:
    """A process that follows the champion's pointer as a replica does; all that it names has to be there."""

    def __init__(self, layout: Home) -> None:
        self._layout = layout
        context = multiprocessing.get_context("spawn")
        self._stop = context.Event()
        self._said, said = context.Pipe(duplex=False)
        self._process = context.Process(target=_follow, args=(layout.root, self._stop, said), daemon=True)
        self.problems: list[str] = []
        self.reads = self.seen = 0

    def __enter__(self) -> _Reader:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._said.poll(60):
            self.reads, self.seen, self.problems = self._said.recv()
        else:
            self.problems = ["the reader of the pointer ended"]
        self._process.join()


def _follow(root: Path, stop: Any, said: Any) -> None:
    layout = Home(root)
    problems, reads, seen, last = [], 0, 0, ""
    parent = os.getppid()
    while not stop.is_set() and os.getppid() == parent:
        try:
            name = json.loads((layout.releases / "champion.json").read_bytes())["release_id"]
            folder = layout.releases / name
            manifest = json.loads((folder / "manifest.json").read_bytes())
            for part, artifact in manifest["artifacts"].items():
                for file, digest in artifact["files"].items():
                    path = folder / part / file
                    if name == last:
                        path.stat()
                    elif sha256_file(path) != digest:
                        problems.append(f"{path} is not what its manifest says")
            seen += name != last
            last = name
        except (OSError, ValueError, KeyError) as error:
            problems.append(f"a reader of the pointer saw {type(error).__name__}: {error}")
        reads += 1
        time.sleep(0.002)
    said.send((reads, seen, problems[:20]))


def _make_shop(home: Path) -> None:
    environment = os.environ | {"SHELFLIFE_CACHE": str(home / "cache")}
    for arguments in (
        ["world", "generate", "--scale", "0.1", "--days", "3", "--activity", "0.3", "--drift", "strong"],
        ["refresh"],
    ):
        subprocess.run(
            [sys.executable, "-m", "flows.cli", "--home", str(home), *arguments],
            cwd=REPOSITORY, env=environment, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
