"""What installing a release takes of memory, in a process of its own in which nothing else happens.

    python -m flows.bench.swap_memory --home HOME --requests FILE --releases ID,ID,...

Each release is installed twice: once to see how far the process' pages rise above the level before, and once
with every allocation of Python and NumPy counted (tracemalloc), which knows neither pages nor room that an
allocator has spare, and comes out the same each time. The last line of standard output is one JSON document.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import pickle
import re
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from components.serving.engine import Engine, EngineConfig
from components.serving.process import start_engine
from components.serving.shadow import ShadowLimits
from data.shop import Request
from infra.errors import ShelflifeError
from infra.settings import REPOSITORY, Settings

__all__ = ["installing_memory", "main", "measure", "pages", "summed_up"]

WARM = 200  # requests before the first swap
_EVERY_S = 0.002
_PAGES = Path("/proc/self/smaps_rollup")
_KB = {name: re.compile(rf"^{name}:\s+(\d+) kB", re.MULTILINE) for name in ("Anonymous", "Rss")}


def installing_memory(
    own: Settings, releases: Sequence[str], requests: Sequence[Request], changed: Sequence[int]
) -> dict[str, Any]:
    """What `measure` finds in a process of its own, summed up; `changed`: bytes, an entry a release.

    The releases follow each other, the first one the champion. Raises ShelflifeError where one is refused.
    """
    path = own.layout.run / "requests.pickle"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(list(requests[:WARM])))
    command = [sys.executable, "-m", "flows.bench.swap_memory", "--home", str(own.home)]
    command += ["--requests", str(path), "--releases", ",".join(releases)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ShelflifeError(f"memory of swaps: {done.stderr.strip().splitlines()[-1:]}")
    return summed_up(json.loads(done.stdout.strip().splitlines()[-1]), changed)


def summed_up(found: dict[str, list[int]], changed: Sequence[int]) -> dict[str, Any]:
    """Medians over swaps: `…_bytes`, and `…_per_changed`, over the mean bytes that a swap changed.

    None where nothing was found.
    """
    size = float(np.mean(changed))
    document: dict[str, Any] = {"swaps": len(changed), "changed_bytes": round(size)}
    for name, values in found.items():
        middle = float(np.median(values)) if values else None
        document[f"{name}_bytes"] = None if middle is None else round(middle)
        document[f"{name}_per_changed"] = None if middle is None else round(middle / size, 3)
    return document


def main(arguments: list[str] | None = None) -> int:
    """The process' entry."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--requests", type=Path, required=True)
    parser.add_argument("--releases", required=True)
    given = parser.parse_args(arguments)
    requests: list[Request] = pickle.loads(given.requests.read_bytes())
    # No rests in the shadow check, as there is nobody to wait for, and no refusal for a moment's slowness.
    limits = ShadowLimits(free_ms=math.inf, pause_s=0.0, rest=0.0)
    config = EngineConfig(writer="swap-memory", follow=False, limits=limits)
    engine = start_engine(given.home, config)
    try:
        found = measure(engine, given.releases.split(","), requests)
    finally:
        engine.close()
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


def measure(engine: Engine, releases: Sequence[str], requests: Sequence[Request]) -> dict[str, list[int]]:
    """Bytes above the level just before, an entry a release.

    `own`: the highest level, while the release is installed, of pages that are the process' own; `resident`:
    the same with pages of mapped files; both empty where the system does not tell. `counted`: the same of
    the bytes that Python and NumPy hold; `counted_after`: once the release is live, and the one that it took
    the place of is gone. At least three releases, or the next would be one that is still held. Raises
    ShelflifeError where one is refused.
    """
    for request in requests:
        engine.respond(replace(request, time_us=engine.clock.now_us()))
    found: dict[str, list[int]] = {"own": [], "resident": [], "counted": [], "counted_after": []}
    for release_id in releases:
        gc.collect()
        before = pages()
        highest = _highest(partial(_install, engine, release_id))
        if before and highest:
            found["own"].append(highest[0] - before[0])
            found["resident"].append(highest[1] - before[1])
    tracemalloc.start()
    try:
        for release_id in releases:
            gc.collect()
            tracemalloc.reset_peak()
            level, _ = tracemalloc.get_traced_memory()
            _install(engine, release_id)
            after, peak = tracemalloc.get_traced_memory()
            found["counted"].append(peak - level)
            found["counted_after"].append(after - level)
    finally:
        tracemalloc.stop()
    return found


def pages() -> tuple[int, int] | None:
    """Bytes of this process' own pages, and of all that is resident; None where the system does not tell.

    From the page tables, not from the kernel's running counts, which may be some hundred kB behind.
    """
    try:
        text = _PAGES.read_text()
    except OSError:
        return None
    kb = [pattern.search(text) for pattern in _KB.values()]
    if kb[0] is None or kb[1] is None:
        return None
    return int(kb[0][1]) << 10, int(kb[1][1]) << 10


def _install(engine: Engine, release_id: str) -> None:
    record = engine.install(release_id)
    if not record.flipped:
        raise ShelflifeError(f"release {release_id} was refused: {record.reason}")


def _highest(work: Callable[[], None]) -> tuple[int, int] | None:
    """The highest levels of `pages` while the work is done."""
    samples: list[tuple[int, int]] = []
    stopped = threading.Event()

    def watch() -> None:
        while not stopped.wait(_EVERY_S):
            now = pages()
            if now is not None:
                samples.append(now)

    thread = threading.Thread(target=watch, name="pages", daemon=True)
    thread.start()
    try:
        work()
    finally:
        stopped.set()
        thread.join()
    now = pages()
    if now is not None:
        samples.append(now)
    return None if not samples else (max(own for own, _ in samples), max(held for _, held in samples))


if __name__ == "__main__":
    sys.exit(main())
