"""One turn of the offline loop: ingest → train → index → publish → gate → promote.

Plain functions: the command line calls them, and `flows/offline/deployments.py` wraps them for Prefect.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import orjson

from flows.offline.gate import MARGIN
from flows.offline.index import INDEXES, build_index
from flows.offline.ingest import ingest
from flows.offline.inputs import Inputs, load_inputs
from flows.offline.promote import promote, publish_parts, reconcile
from flows.offline.train import TRAINED, Parts, train_component
from infra.clock import open_clock, wall_us
from infra.errors import ConfigError
from infra.processes import exclusive
from infra.resources import Cost, bounded, cpu_s, measured, nice_down
from infra.settings import Home, Settings
from models.release import Release, champion, load_release

__all__ = ["COMPONENTS", "PLAN", "WINDOW_D", "components_of", "opened", "read_refreshes", "refresh"]

COMPONENTS = ("all", "ranker", "encoder", "text_classifier", "image_classifier", "index")
WINDOW_D = 7.0
REFRESHES = "refreshes.jsonl"

# What refreshing a component makes anew, in order. An encoder brings its index and ranker along:
# neither means anything in another embedding space. So does an image classifier its index.
PLAN: dict[str, tuple[str, ...]] = {
    "all": (
        "text_classifier",
        "image_classifier",
        "encoder",
        "vector_index",
        "lexical_index",
        "image_index",
        "speller",
        "ranker",
    ),
    "ranker": ("ranker",),
    "encoder": ("encoder", "vector_index", "ranker"),
    "text_classifier": ("text_classifier",),
    "image_classifier": ("image_classifier", "image_index"),
    "index": ("vector_index", "lexical_index", "image_index", "speller"),
}
_FIRST = PLAN["all"]

Progress = Callable[..., None]


def components_of(components: str) -> tuple[str, ...]:
    """What "ranker,index" makes anew, in the order of the plan. ConfigError for an unknown component."""
    wanted: set[str] = set()
    for name in (c.strip() for c in components.split(",")):
        if name not in PLAN:
            raise ConfigError(f"unknown component {name!r}; expected one of {', '.join(PLAN)}")
        wanted.update(PLAN[name])
    return tuple(name for name in _FIRST if name in wanted)


def opened(settings: Settings) -> Release | None:
    """The champion, loaded; None before the first release."""
    reconcile(settings)
    name = champion(settings.layout)
    return load_release(settings.layout, name) if name else None


def refresh(
    settings: Settings,
    *,
    component: str = "all",
    fraction: float = 1.0,
    window_d: float | None = WINDOW_D,
    start: str = "cold",
    margin: float = MARGIN,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Ingest, make the components anew, and promote the release if the gate lets it through.

    The first refresh of a home makes everything. Returns a plain document: the release, the
    verdict, what was made, and what it cost. One refresh of a home at a time.
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"fraction is {fraction:g}; expected above 0 and at most 1")
    if start not in ("cold", "warm"):
        raise ConfigError(f"start is {start!r}; expected cold or warm")
    plan = components_of(component)
    with exclusive(settings.layout.run / "refresh", "refresh"):
        nice_down()
        with measured() as cost:
            progress("ingest")
            ingested = ingest(settings)
            champion_release = opened(settings)
            parts = Parts.of(champion_release)
            if champion_release is None:
                plan = _FIRST
            inputs = load_inputs(settings.layout, window_d=window_d, fraction=fraction)
            for name in plan:
                progress(name)
                parts = make(name, settings, inputs, parts, warm=start == "warm")
            progress("publish")
            manifest = publish_parts(settings, parts, inputs, clock=open_clock(settings.layout.clock))
            progress("gate")
            outcome = promote(settings, release_id=manifest.release_id, margin=margin, inputs=inputs)
    return report(settings, component, ingested, parts, inputs, outcome, cost)


def make(name: str, settings: Settings, inputs: Inputs, parts: Parts, *, warm: bool) -> Parts:
    """Parts with one artifact, trained or built, made anew."""
    clock, seed = open_clock(settings.layout.clock), settings.seed
    with bounded(settings.train_memory_mb):
        if name in INDEXES:
            return build_index(name, inputs, parts, settings=settings, clock=clock, seed=seed)
        assert name in TRAINED
        return train_component(name, inputs, parts, settings=settings, clock=clock, warm=warm, seed=seed)


def report(
    settings: Settings,
    component: str,
    ingested: dict[str, Any],
    parts: Parts,
    inputs: Inputs,
    outcome: dict[str, Any],
    cost: Cost,
    *,
    flow_run_id: str = "",
) -> dict[str, Any]:
    """What a refresh did, as a plain document; also kept as a line of `run/refreshes.jsonl`.

    `flow_run_id`: of Prefect, by which who asked for the run finds the document.
    """
    end_us = wall_us()
    document = {
        "component": component,
        "flow_run_id": flow_run_id,
        "begin_wall_us": end_us - int(cost.wall_s * 1e6),
        "end_wall_us": end_us,
        **outcome,
        "made": {name: parts.artifacts[name].version for name in parts.made},
        "metrics": {name: parts.artifacts[name].metrics for name in parts.made},
        "train_cpu_s": {name: round(c.cpu_s, 3) for name, c in parts.costs.items()},
        "snapshot": inputs.snapshot,
        "ingested": {k: ingested[k] for k in ("rows", "duplicates", "late", "quarantined")},
        "cpu_s": round(cost.cpu_s, 3),
        "process_cpu_s": round(cpu_s(), 3),
        "seconds": round(cost.wall_s, 3),
    }
    path = settings.layout.run / REFRESHES
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as lines:
        lines.write(orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")
    return document


def read_refreshes(layout: Home) -> list[dict[str, Any]]:
    """The documents of this home's refreshes, oldest first; a torn last line is passed over."""
    try:
        lines = (layout.run / REFRESHES).read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        with contextlib.suppress(orjson.JSONDecodeError):
            found.append(orjson.loads(line))
    return found
