"""One turn of the offline loop: ingest → train → index → publish → gate → promote.

Plain functions: the command line calls them, and `flows/policies/loop.py` wraps them for Prefect.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import orjson

from flows.offline.crown import promoting, reconcile
from flows.offline.gate import MARGIN
from flows.offline.index import INDEXES, build_index
from flows.offline.ingest import ingest
from flows.offline.inputs import Inputs, load_inputs
from flows.offline.promote import CHOSEN, Limits, promote, publish_parts
from flows.offline.tidy import tidy
from flows.offline.train import TRAINED, Parts, train_component
from flows.offline.unrecorded import log_or_keep
from infra.clock import open_clock, wall_us
from infra.errors import ConfigError, DataError
from infra.files import append_line
from infra.processes import exclusive
from infra.registry import open_registry
from infra.resources import Cost, bounded, cpu_s, measured, nice_down
from infra.settings import Home, Settings
from models.release import Release, champion, load_release

__all__ = [
    "COMPONENTS",
    "PLAN",
    "WINDOW_D",
    "check_choices",
    "components_of",
    "make",
    "opened",
    "plan_of",
    "read_refreshes",
    "refresh",
    "report",
]

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

log = logging.getLogger("shelflife.refresh")


def components_of(components: str) -> tuple[str, ...]:
    """What "ranker,index" makes anew, in the order of the plan. ConfigError for an unknown component."""
    wanted: set[str] = set()
    for name in (c.strip() for c in components.split(",")):
        if name not in PLAN:
            raise ConfigError(f"unknown component {name!r}; expected one of {', '.join(PLAN)}")
        wanted.update(PLAN[name])
    return tuple(name for name in _FIRST if name in wanted)


def plan_of(components: str, parts: Parts) -> tuple[str, ...]:
    """What is made anew: the components; everything where there is no release to keep the others of."""
    return components_of(components) if parts.artifacts else _FIRST


def check_choices(*, component: str, fraction: float, start: str) -> None:
    """ConfigError for choices that no training can be made with."""
    components_of(component)
    if not 0 < fraction <= 1:
        raise ConfigError(f"fraction is {fraction:g}; expected above 0 and at most 1")
    if start not in ("cold", "warm"):
        raise ConfigError(f"start is {start!r}; expected cold or warm")


def opened(settings: Settings) -> Release | None:
    """The champion, loaded; None before the first release, and where it cannot be loaded any more.

    A damaged file, or features of another version: all is then made anew, and takes its place.
    """
    with promoting(settings, "refresh"):
        reconcile(settings)
    name = champion(settings.layout)
    try:
        return load_release(settings.layout, name) if name else None
    except DataError as error:
        log.warning("the champion cannot be loaded (%s); everything is made anew", error)
        return None


def refresh(
    settings: Settings,
    *,
    component: str = "all",
    fraction: float = 1.0,
    window_d: float | None = WINDOW_D,
    half_life_d: float | None = None,
    start: str = "cold",
    margin: float = MARGIN,
    limits: Limits | None = None,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Ingest, make the components anew, and promote the release if the gate lets it through.

    `half_life_d`: age at which data counts half for encoder and ranker, None all alike.
    `limits`: of the gate, None the default ones with this `margin`. A refresh that was killed may simply
    run again: trainings go on from their checkpoints, and nothing is recorded or published twice.
    The first refresh of a home makes everything. Returns a plain document: the release, the
    verdict, what was made, and what it cost. One refresh of a home at a time.
    """
    check_choices(component=component, fraction=fraction, start=start)
    with exclusive(settings.layout.run / "refresh", "refresh"):
        nice_down()
        steps: dict[str, Cost] = {}
        with measured() as cost:
            progress("ingest")
            with measured() as steps["ingest"]:
                ingested = ingest(settings)
            with measured() as steps["open"]:
                parts = Parts.of(opened(settings))
                inputs = load_inputs(
                    settings.layout, window_d=window_d, fraction=fraction, half_life_d=half_life_d
                )
            for name in plan_of(component, parts):
                progress(name)
                with measured() as steps[name]:
                    parts = make(name, settings, inputs, parts, warm=start == "warm")
            progress("publish")
            with measured() as steps["publish"]:
                manifest = publish_parts(settings, parts, inputs, clock=open_clock(settings.layout.clock))
            progress("gate")
            with measured() as steps["gate"]:
                name = manifest.release_id
                outcome = promote(settings, release_id=name, margin=margin, limits=limits, inputs=inputs)
            outcome["removed"] = tidy(settings)
    return report(settings, component, ingested, parts, inputs, outcome, cost, start=start, steps=steps)


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
    start: str,
    flow_run_id: str = "",
    steps: Mapping[str, Cost] | None = None,
) -> dict[str, Any]:
    """What a refresh did, as a plain document; also kept as a line of `run/refreshes.jsonl`.

    `flow_run_id`: of Prefect, by which who asked for the run finds the document. `steps`: what each step
    cost; in the registry it is a run named `refresh`. What cannot be recorded now fails nothing: it stands
    in `unrecorded`, and what comes next records it.
    """
    end_us = wall_us()
    document = {
        "component": component,
        "start": start,
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
        "steps": {name: {k: round(v, 3) for k, v in asdict(c).items()} for name, c in (steps or {}).items()},
    }
    missing = _log_costs(settings, document, {"whole": cost, **(steps or {})})
    document["unrecorded"] = [] if missing is None else [missing]
    line = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    try:
        append_line(settings.layout.run / REFRESHES, line)
    except OSError as error:  # a full disk, mostly; the caller still has the document
        log.warning("the refresh is not among the records of %s: %s", settings.layout.run, error)
        document["unrecorded"].append(f"the refresh in {settings.layout.run / REFRESHES}")
    return document


def _log_costs(settings: Settings, document: Mapping[str, Any], costs: Mapping[str, Cost]) -> str | None:
    figures = {f"{name}/{k}": v for name, c in costs.items() for k, v in asdict(c).items()}
    told = {k: document[k] for k in ("component", "start", "release_id", "promoted", "removed")}
    read = {k: v for k, v in document["snapshot"].items() if k in CHOSEN}
    limits = {f"gate.{k}": v for k, v in (document["verdict"] or {}).get("limits", {}).items()}
    params = {**told, **read, **limits, "seed": settings.seed}
    registry = open_registry(settings.layout.mlflow)
    return log_or_keep(settings.layout, registry, "refresh", metrics=figures, params=params)


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
