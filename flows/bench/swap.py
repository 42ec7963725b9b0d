"""`shelflife bench swap`: what changing the release costs those who are being answered meanwhile.

Open loop at one rate; swaps in blocks, one every few seconds, with quiet stretches and placebo flips
between. Releases are a few trained ones under new ids, so that each is a whole installation. Beside it,
in the same run, the two textbook ways. Latency counts from the due time; windows are whole installations.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from components.load.result import LoadResult
from components.load.verdict import Limits, judge
from data.shop import Request
from data.world.shop import World
from flows.bench.alignment import (
    Window,
    aligned,
    excess,
    group_of,
    longest_gap_ms,
    summary_ms,
    tail_ratio,
)
from flows.bench.catalogue import bench_requests, copy_home, prepare
from flows.bench.hosts import get, http_requests, serving, workspace
from flows.bench.memory import MemoryWatch
from flows.bench.mixture import Pager, check_journal
from flows.bench.swap_load import Stretch, SwapBench, drive_swaps
from flows.bench.swap_memory import installing_memory
from flows.bench.textbook import measure_textbook
from infra.errors import DataError, ShelflifeError
from infra.files import write_atomic
from infra.settings import Home, Settings
from models.manifest import ARTIFACTS, Manifest, diff, make_release
from models.release import champion, list_releases, publish, read_manifest

__all__ = ["SwapBench", "bench_swap", "reidentified"]

Progress = Callable[..., None]

TRAINED = 3
MOST_REQUESTS = 20_000
MEMORY_SWAPS = 8  # in a process of their own


def reidentified(layout: Home, trained: Sequence[str], swaps: int, *, only: str | None = None) -> list[str]:
    """As many releases, in turn the trained ones under ids of their own, published; the first follows
    `trained[0]`, so that each differs from the one before.

    `only`: an artifact, which they take in turn, and all others of `trained[0]`. Raises DataError where
    that makes no difference.
    """
    manifests = [read_manifest(layout, name) for name in trained]
    if only is not None:
        manifests = _differing_in(manifests, only)
    made = []
    for k in range(1, swaps + 1):
        old = manifests[k % len(manifests)]
        again = make_release(
            old.artifacts,
            watermark_us=old.watermark_us,
            created_us=old.created_us + k,
            parent=old.parent,
            metrics=old.metrics,
        )
        publish(layout, again)
        made.append(again.release_id)
    return made


def _differing_in(manifests: Sequence[Manifest], only: str) -> list[Manifest]:
    """The first with each other's artifact in place of its own, where they belong together."""
    first = manifests[0]
    found = {}
    for other in manifests:
        if only in other.artifacts and only in first.artifacts:
            artifacts = {**first.artifacts, only: other.artifacts[only]}
            with contextlib.suppress(DataError):  # made for another encoder
                make_release(artifacts, watermark_us=first.watermark_us, created_us=first.created_us)
                found[other.artifacts[only].content] = replace(first, artifacts=artifacts)
    if len(found) < 2:
        raise DataError(
            f"the releases {', '.join(m.release_id for m in manifests)} have no two different artifacts "
            f"{only!r} that fit the first; expected one of {', '.join(ARTIFACTS)} made more than once"
        )
    return list(found.values())


def bench_swap(
    settings: Settings, bench: SwapBench, *, progress: Progress = lambda *_: None
) -> dict[str, Any]:
    """Measure; the document, the picture and the page are written to `<home>/reports/bench-swap/`."""
    began = time.monotonic()
    if bench.source is None:
        # Two differ in the ranker alone, the third in all that is learnt.
        wanted = 2 if bench.only == "ranker" else TRAINED
        prepared = prepare(settings, items=bench.items, trained=wanted, progress=progress)
        source, trained, setup = prepared.layout, list(prepared.releases), prepared.about()
    else:
        source = Home(bench.source)
        trained = _trained(source)
        setup = {"source": str(bench.source), "releases": trained}
    document: dict[str, Any] = {
        "qps": bench.qps,
        "peak_share": bench.peak_share,
        "every_s": bench.every_s,
        "only": bench.only,
        "setup": setup,
    }
    with workspace(settings, "bench-swap") as (folder, own):
        copy_home(source, own.layout, champion_id=trained[0])
        document["items"] = World.open(own.layout).config.n_items
        requests = bench_requests(own.layout, most=MOST_REQUESTS)
        sent = http_requests(requests)
        releases = reidentified(own.layout, trained, bench.swaps, only=bench.only)
        document |= _swapped(
            own, bench, trained[0], releases, sent, [r.query for r in requests if r.query], folder, progress
        )
        document["alternatives"] = {}
        for way in ("user_config", "redeploy") if bench.alternatives else ():
            copy_home(source, own.layout, champion_id=trained[0])
            releases = reidentified(own.layout, trained, bench.alternatives)
            document["alternatives"][way] = measure_textbook(
                own, way, releases, sent, qps=document["qps"], out=folder / f"{way}.npz", progress=progress
            )
        copy_home(source, own.layout, champion_id=trained[0])
        document |= _memory(own, trained, bench.only or "ranker", requests, progress)
    document["total_seconds"] = round(time.monotonic() - began, 1)
    write_atomic(folder / "result.json", json.dumps(document, indent=1).encode())
    from flows.bench.swap_report import write_page

    write_page(document, folder)
    return document


def _memory(
    own: Settings, trained: list[str], only: str, requests: list[Request], progress: Progress
) -> dict[str, Any]:
    """`memory_per_changed`: what a swap of `only` (the ranker) takes of memory over the bytes it changed.

    The median over swaps of how far the replica's own pages rise above the level before, in a process of its
    own; `memory_swap` has what it is made of. None where no two of the releases differ so.
    """
    try:
        releases = reidentified(own.layout, trained, MEMORY_SWAPS, only=only)
    except DataError as error:
        return {"memory_per_changed": None, "memory_swap": {"only": only, "reason": str(error)}}
    progress(f"memory of {len(releases)} swaps of the {only}, in a process of their own")
    changed = _changed(own.layout, [trained[0], *releases])
    found = installing_memory(own, releases, requests, changed)
    return {"memory_per_changed": found["own_per_changed"], "memory_swap": {"only": only, **found}}


def _changed(layout: Home, chain: Sequence[str]) -> list[int]:
    """Bytes that each release changes of the one before."""
    return [
        diff(read_manifest(layout, a), read_manifest(layout, b))["changed_size"] for a, b in pairwise(chain)
    ]


def _trained(source: Home) -> list[str]:
    """The releases of a home, its champion first."""
    first = champion(source)
    others = [m.release_id for m in list_releases(source) if m.release_id != first]
    if first is None or not others:
        raise ShelflifeError(f"{source.root} has {len(others) + bool(first)} releases; swapping needs two")
    return [first, *others[-TRAINED + 1 :]]


def _swapped(
    own: Settings,
    bench: SwapBench,
    first: str,
    releases: list[str],
    sent: list[bytes],
    queries: list[str],
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    """The service's own swaps under load."""
    layout = own.layout
    with serving(own, "service") as running:
        pager = Pager(running, queries)
        with MemoryWatch(int(get(running, "/release")["pid"])) as memory, pager:
            stretches = drive_swaps(running, bench, releases, sent, folder, progress)
        status = get(running, "/release")
    swaps = [s for s in status["swaps"] if s["release_id"] in set(releases)]
    done = [s for s in swaps if s["flipped"]]
    rates = [stretch.rate for stretch in stretches]
    changed = float(np.mean(_changed(layout, [first, *releases])))
    progress("looking for mixtures in what was journalled")
    checked = check_journal(layout, status["writer"])
    return _figures(stretches, done, memory, changed) | {
        **{name: round(float(np.mean([r[name] for r in rates])), 1) for name in rates[0]},
        "rates": rates,
        "swaps": len(done),
        "refused": [s["reason"] for s in swaps if not s["flipped"]],
        "missed": bench.swaps - len(swaps),
        "mixed": checked.mixed + pager.mixed,
        "mixed_checks": {
            "replies": checked.replies,
            "told_apart": checked.told_apart,
            "paged": pager.sessions,
            "paged_across_a_swap": pager.crossed,
            "paging_failed": pager.failed,
        },
        "release_mb": round(read_manifest(layout, releases[-1]).size / 1e6, 3),
        "changed_mb": round(changed / 1e6, 3),
    }


def _figures(
    stretches: Sequence[Stretch], done: list[dict[str, Any]], memory: MemoryWatch, changed_bytes: float
) -> dict[str, Any]:
    """Installing against quiet, aligned to the flip."""
    result = LoadResult.joined([stretch.result for stretch in stretches])
    latency_ms = result.latency_us / 1e3
    installing: list[Window] = [(s["begin_wall_us"], max(s["end_wall_us"], s["flip_wall_us"])) for s in done]
    quiet = [window for stretch in stretches for window in stretch.quiet(installing)]
    flips = [s["flip_wall_us"] for s in done]
    placebos = [s.start_us + int(at * 1e6) for s in stretches for at in s.plan.placebos]
    of_install, of_quiet = group_of(result.due_us, installing), group_of(result.due_us, quiet)
    during, still = of_install >= 0, of_quiet >= 0
    of_window, of_still = summary_ms(latency_ms[during]), summary_ms(latency_ms[still])
    flip_excess = excess(result.due_us, latency_ms, flips, still)
    verdict = judge(result, limits=Limits(min_requests=100))
    ok = result.done_us[result.ok]
    quiet_s = sum(end - begin for begin, end in quiet) / 1e6
    return {
        "failed": result.failed,
        "requests": len(result),
        "verdict": verdict.word,
        "reasons": list(verdict.reasons),
        "driver_lag_ms": verdict.figures["driver_lag_ms"],
        "p50_installing_ms": of_window["p50"],
        "p50_quiet_ms": of_still["p50"],
        "p99_installing_ms": of_window["p99"],
        "p99_quiet_ms": of_still["p99"],
        "p999_installing_ms": of_window["p999"],
        "p999_quiet_ms": of_still["p999"],
        "requests_installing": of_window["requests"],
        "requests_quiet": of_still["requests"],
        "p99_ratio": tail_ratio(latency_ms[during], of_install[during], latency_ms[still], of_quiet[still]),
        "flip_excess_ms": flip_excess["mean"],
        "flip_excess": flip_excess,
        "placebo_excess": excess(result.due_us, latency_ms, placebos, still),
        "longest_gap_ms": round(longest_gap_ms(ok, installing), 2),
        "longest_gap_control_ms": round(longest_gap_ms(ok, quiet), 2),
        "installing_s": round(sum(end - begin for begin, end in installing) / 1e6, 1),
        "quiet_s": round(quiet_s, 1),
        "installation_ms": summary_ms(np.array([(e - b) / 1e3 for b, e in installing])),
        "aligned": aligned(result.due_us, latency_ms, flips).to_json(),
        "aligned_placebo": aligned(result.due_us, latency_ms, placebos).to_json(),
        **memory.figures(flips),
        "memory_service": memory.rise(installing, quiet, changed_bytes),
    }
