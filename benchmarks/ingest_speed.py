"""How fast `ingest` takes a bulk in: events a second, duplicates included, from first read to commit.

    python benchmarks/ingest_speed.py [--events N] [--repeats N] [--writers N] [--profile]

A day of a shop of 50,000 items, written as hourly segments by several writers, out of order, and a share of
it once more by another writer, in a folder of its own that is removed afterwards. Each repeat ingests into a
new store: the headline is the median of `events_per_s`, which ends with the transaction; `whole_s` also has
what publishing takes (sorted Parquet parts, status). A second ingest, with nothing new, has to give 0 rows,
and a third, of the same events cut otherwise into segments, no row and the same content hash. `--profile`
prints where the time goes. The last line of standard output is one JSON document.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pyarrow as pa

from data.schema import CART, CLICK, IMPRESSION, ITEM_UPSERT, ORDER, SEARCH, event_table
from data.segments import list_segments, write_segments
from data.store import IngestReport, ingest_segments
from infra.clock import DAY_US, HOUR_US, ManualClock
from infra.machine import describe_machine, source_commit
from infra.settings import Home

START_US = 1_767_225_600_000_000  # 2026-01-01
ITEMS = 50_000
KINDS = (SEARCH, IMPRESSION, CLICK, CART, ORDER)
SHARES = (0.06, 0.86, 0.06, 0.01, 0.01)
PAGE = 20  # events a request


def main() -> None:
    """Make the bulk, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=4_000_000, help="different events")
    parser.add_argument("--duplicates", type=float, default=0.1, help="share that comes twice")
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--profile", action="store_true", help="print where the time of the last repeat goes")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shelflife-ingest-") as folder:
        found = measure(Path(folder), given)
    sys.stdout.write(json.dumps(found) + "\n")


def measure(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """All figures. Raises AssertionError where an ingest is not exactly once."""
    source = Home(folder / "source")
    rng = np.random.default_rng(given.seed)
    catalogue, events = items(), history(given.events, rng)
    write(source, catalogue, events, rng, writers=given.writers, duplicates=given.duplicates)
    size = sum(p.stat().st_size for p in list_segments(source.segments))
    profile = cProfile.Profile()
    reports: list[IngestReport] = []
    for repeat in range(given.repeats):
        home = Home(folder / f"home-{repeat}")
        shutil.copytree(source.segments, home.segments)
        if given.profile and repeat == given.repeats - 1:
            profile.enable()
        reports.append(ingest(home))
        profile.disable()
        again = ingest(home)
        assert (again.rows, again.content_hash) == (0, reports[-1].content_hash)
        if repeat < given.repeats - 1:
            shutil.rmtree(home.root)
    first = reports[-1]
    assert first.total_rows == given.events + ITEMS
    shutil.rmtree(home.segments)
    write(home, catalogue, events, rng, writers=given.writers + 1, duplicates=0.0)
    other = ingest(home)
    assert (other.rows, other.content_hash) == (0, first.content_hash)
    if given.profile:
        pstats.Stats(profile, stream=sys.stdout).sort_stats("tottime").print_stats(15)
    speeds = [r.events_per_s for r in reports]
    return {
        "benchmark": "ingest_speed",
        "events_per_s": round(statistics.median(speeds)),
        "spread": [round(min(speeds)), round(max(speeds))],
        "rows": first.rows,
        "duplicates": first.duplicates,
        "segments": first.segments,
        "segment_mb": round(size / 1e6, 1),
        "whole_s": round(statistics.median(r.seconds for r in reports), 2),
        "only_duplicates_per_s": round(other.events_per_s),
        "machine": describe_machine(),
        "commit": source_commit(),
    }


def ingest(home: Home) -> IngestReport:
    """Into this home, two days after the events."""
    clock = ManualClock(START_US + 3 * DAY_US)
    return ingest_segments(home, allowed_lateness_us=6 * HOUR_US, clock=clock)


def items() -> pa.Table:
    """A catalogue."""
    ids = np.arange(ITEMS)
    titles = [f'{{"title": "red shoe {i}", "price": {i % 90 + 9}}}' for i in range(ITEMS)]
    return event_table(
        {"event_id": ids + (1 << 60), "kind": ITEM_UPSERT, "event_time": START_US - HOUR_US,
         "known_time": START_US - HOUR_US, "item_id": ids, "payload": pa.array(titles)},
        rows=ITEMS,
    )  # fmt: skip


def history(n: int, rng: np.random.Generator) -> pa.Table:
    """`n` events of a day, in order of known_time, with ids out of order."""
    known = START_US + np.sort(rng.integers(0, DAY_US, n))
    kind = rng.choice(KINDS, n, p=SHARES).astype(np.int8)
    words = pa.array([f"red dress {i}" for i in range(20_000)])
    return event_table(
        {"event_id": rng.permutation(n) + (1 << 40), "kind": kind,
         "event_time": known - rng.integers(0, 10**6, n), "known_time": known,
         "user_id": rng.integers(0, 60_000, n), "session_id": rng.integers(0, n // PAGE, n),
         "request_id": np.arange(n) // PAGE, "release_id": "r-0123456789ab", "surface": 1,
         "query": words.take(pa.array(rng.integers(0, len(words), n))),
         "item_id": np.where(kind == SEARCH, -1, rng.integers(0, ITEMS, n)),
         "position": rng.integers(0, 30, n), "state_time": known - 1000,
         "vector_score": rng.random(n, np.float32), "category_prob": rng.random(n, np.float32)},
        rows=n,
    )  # fmt: skip


def write(
    home: Home,
    catalogue: pa.Table,
    events: pa.Table,
    rng: np.random.Generator,
    *,
    writers: int,
    duplicates: float,
) -> None:
    """Segments of several writers, each with a part of the events, and of another's what comes twice."""
    write_segments(catalogue, home.segments, name=f"items-{writers}", durable=False)
    of, twice = rng.integers(0, writers, len(events)), rng.random(len(events)) < duplicates
    for writer in range(writers):
        mine = pa.array(of == writer)
        write_segments(events.filter(mine), home.segments, name=f"w{writer}-{writers}", durable=False)
        again = pa.array((of == (writer + 1) % writers) & twice)
        write_segments(events.filter(again), home.segments, name=f"again{writer}-{writers}", durable=False)


if __name__ == "__main__":
    main()
