"""One document of all that a home does: what it serves and how old that is, what comes next, what it cost.

Read from the home's own files, without Prefect, MLflow or the store; what is not there yet is None.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from data.snapshots import read_status
from flows.offline.refresh import read_refreshes
from flows.offline.refusals import last_verdicts, refusals
from flows.policies.home import policy_of, read_state
from flows.policies.show import foretold
from infra import cluster
from infra.clock import DAY_US, open_clock, wall_us
from infra.errors import InputError
from infra.settings import Home, Settings
from models.release import champion_record, read_manifest

__all__ = ["overview"]

VERDICTS = 5


def overview(settings: Settings) -> dict[str, Any]:
    """`cluster.status`, and: now_us, release, artifacts, ingest, policy, verdicts, refused, cpu_s_today."""
    layout = settings.layout
    problems: list[str] = []
    document = cluster.status(settings)
    for entry in document["processes"].values():
        entry["cpu_s"] = _cpu_s(entry["pid"]) if entry["running"] else None
    now = open_clock(layout.clock).now_us()  # just before the rest is read, which may change meanwhile
    release, artifacts = _release(layout, now, problems)
    refreshes = read_refreshes(layout)
    return document | {
        "now_us": now,
        "release": release,
        "artifacts": artifacts,
        "ingest": _ingest(layout, now, problems),
        "policy": _policy(layout, now, problems),
        "verdicts": _verdicts(layout, refreshes),
        "refused": refusals(layout),
        "cpu_s_today": _cpu_s_today(refreshes),
        "problems": problems,
    }


def _release(layout: Home, now: int, problems: list[str]) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    try:
        record = champion_record(layout)
        if record is None:
            return None, {}
        manifest = read_manifest(layout, record["release_id"])
    except InputError as error:
        problems.append(str(error))
        return None, {}
    live = {
        "release_id": record["release_id"],
        "previous": record.get("previous"),
        "by": record.get("by"),
        "age_s": (now - int(record["at_us"])) / 1e6,
        "watermark_age_s": (now - manifest.watermark_us) / 1e6,
    }
    made = {
        name: {
            "version": a.version,
            "age_s": (now - a.created_us) / 1e6,
            "data_age_s": (now - int(a.snapshot["watermark_us"])) / 1e6
            if "watermark_us" in a.snapshot
            else None,
        }
        for name, a in manifest.artifacts.items()
    }
    return live, made


def _ingest(layout: Home, now: int, problems: list[str]) -> dict[str, Any] | None:
    try:
        status = read_status(layout)
    except InputError as error:
        if (layout.snapshots / "status.json").exists():  # else nothing was ingested yet
            problems.append(str(error))
        return None
    return {
        "commit": status["commit"],
        "rows": status["rows"],
        "lag_s": (now - status["watermark_us"]) / 1e6,
        "quarantined": sum(status["quarantine"].values()),
    }


def _policy(layout: Home, now: int, problems: list[str]) -> dict[str, Any]:
    """Its name, the next run of each component (shop time), what runs, and what the triggers said last."""
    try:
        policy, state = policy_of(layout), read_state(layout)
        times = foretold(policy, now_us=now, layout=layout)
    except InputError as error:
        problems.append(str(error))
        return {"name": None, "components": {}, "running": [], "recent": [], "ticked_wall_us": None}
    held: Mapping[str, Any] = state or {}
    problems += [str(error) for error in held.get("errors", {}).values()]
    why = held.get("engine", {}).get("why", {})
    return {
        "name": policy.name,
        "components": {
            name: {
                "trigger": part.trigger.words(),
                "next_us": next(iter(times[name]), None),
                "said": why.get(name),
            }
            for name, part in policy.components.items()
        },
        "running": [entry["firing"] for entry in held.get("open", ())],
        "recent": list(held.get("recent", ()))[-VERDICTS:],
        "ticked_wall_us": held.get("ticked_wall_us"),
    }


def _verdicts(layout: Home, refreshes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The newest verdicts of the gate, of refreshes and of promotions by themselves."""
    spans = [(r["release_id"], r["begin_wall_us"], r["end_wall_us"]) for r in refreshes]
    alone = [
        v
        for v in last_verdicts(layout, VERDICTS)
        if not any(name == v["challenger"] and begin <= v["wall_us"] <= end for name, begin, end in spans)
    ]
    told = [_verdict(r) for r in refreshes[-VERDICTS:]]
    told += [
        {
            "release_id": v["challenger"],
            "component": "promote",
            "promoted": v["passed"],
            "reasons": v["reasons"],
            "end_wall_us": v["wall_us"],
            "cpu_s": None,
        }
        for v in alone
    ]
    return sorted(told, key=lambda v: int(v["end_wall_us"]), reverse=True)[:VERDICTS]


def _verdict(refresh: Mapping[str, Any]) -> dict[str, Any]:
    verdict = refresh.get("verdict") or {}
    return {
        "release_id": refresh["release_id"],
        "component": refresh["component"],
        "promoted": refresh["promoted"],
        "reasons": list(verdict.get("reasons", ())),
        "end_wall_us": refresh["end_wall_us"],
        "cpu_s": refresh.get("process_cpu_s", refresh.get("cpu_s")),
    }


def _cpu_s_today(refreshes: list[dict[str, Any]]) -> float:
    """CPU-seconds of the refreshes that ended today (UTC, wall time)."""
    today = wall_us() // DAY_US
    return sum(
        float(r.get("process_cpu_s", r["cpu_s"]))
        for r in refreshes
        if int(r["end_wall_us"]) // DAY_US == today
    )


def _cpu_s(pid: int) -> float | None:
    """CPU-seconds of a process and those below it that live, since they began."""
    import psutil

    total = 0.0
    try:
        whole = psutil.Process(pid)
        for process in (whole, *whole.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
    except psutil.Error:
        return None
    return round(total, 1)
