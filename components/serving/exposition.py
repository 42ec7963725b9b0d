"""What a replica tells Prometheus beside its counters: state, releases, stages, and how its caches do."""

from __future__ import annotations

from collections.abc import Sequence

from components.search.queries import normalised
from components.serving.feedback import Feedback
from components.serving.follower import Follower
from components.serving.installed import Installed, Shared
from components.serving.metrics import Gauges
from components.serving.swap import SwapRecord

__all__ = ["gauges_of"]


def gauges_of(
    *,
    ready: bool,
    uptime_s: float,
    installing: bool,
    records: Sequence[SwapRecord],
    live: Installed | None,
    age_us: int,
    shared: Shared | None,
    follower: Follower | None,
    feedback: Feedback | None,
) -> Gauges:
    """Gauges by name. `age_us`: of the live release's watermark, in shop time."""
    gauges: Gauges = {
        "shelflife_ready": float(ready),
        "shelflife_uptime_seconds": uptime_s,
        "shelflife_installing": float(installing),
        "shelflife_swaps": float(sum(r.flipped for r in records)),
        "shelflife_swaps_refused": float(sum(not r.flipped for r in records)),
    }
    if live is not None:
        gauges["shelflife_release_info"] = ({"release_id": live.release_id}, 1.0)
        gauges["shelflife_release_age_shop_seconds"] = age_us / 1e6
        gauges |= _stages(live)
    if shared is not None:
        gauges |= _caches(shared, live)
    if follower is not None:
        gauges["shelflife_state_items"] = float(follower.state.n_items)
        gauges["shelflife_state_users"] = float(follower.state.n_users)
        gauges["shelflife_state_lag_p99_seconds"] = follower.lag_ms().get("p99", 0.0) / 1e3
    if feedback is not None:
        gauges["shelflife_replies_not_journalled"] = float(feedback.lost)
        gauges["shelflife_replies_queued"] = float(feedback.queued)
    return gauges


def _stages(live: Installed) -> Gauges:
    """Of the last requests, by stage and quantile; `mean` beside them."""
    levels: list[tuple[dict[str, str], float]] = []
    for stage in live.pipeline.times.summary():
        if not stage.count:
            continue
        for quantile, us in (("mean", stage.mean_us), ("0.5", stage.p50_us), ("0.99", stage.p99_us)):
            labels = {"stage": stage.name, "kind": stage.kind, "quantile": quantile}
            levels.append((labels, us / 1e6))
    return {"shelflife_stage_seconds": levels} if levels else {}


def _caches(shared: Shared, live: Installed | None) -> Gauges:
    """Look-ups that a cache answered and that it did not, and how much it holds."""
    found = {
        "lists": (shared.pages.hits, shared.pages.misses, len(shared.pages)),
        "summaries": (shared.summaries.hits, shared.summaries.misses, len(shared.summaries)),
    }
    text = normalised.cache_info()
    found["texts"] = (text.hits, text.misses, text.currsize)
    if live is not None:
        found["queries"] = (*live.pipeline.queries.counts, live.pipeline.queries.size)
    columns = zip(*found.values(), strict=True)
    names = ("shelflife_cache_hits", "shelflife_cache_misses", "shelflife_cache_entries")
    return {
        name: [({"cache": cache}, float(n)) for cache, n in zip(found, column, strict=True)]
        for name, column in zip(names, columns, strict=True)
    }
