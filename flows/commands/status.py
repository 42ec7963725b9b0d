"""`shelflife status`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import typer

from flows.commands.session import HomeOption, JsonOption, SeedOption, open_session, table, verb

app = verb("Show what is served and how old it is, what runs next, and what listens where.")


@app.command()
def run(
    ctx: typer.Context, home: HomeOption = None, seed: SeedOption = None, as_json: JsonOption = False
) -> None:
    """Show what is served and how old it is, what runs next, and what listens where."""
    from flows.policies.overview import overview

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    report = overview(session.settings)
    session.emit(report, describe(report))


def describe(report: Mapping[str, Any]) -> str:
    """A status document as one screen; parts that it lacks are left out."""
    return "\n".join(line for part in _PARTS for line in part(report))


def _head(report: Mapping[str, Any]) -> Iterator[str]:
    yield f"home: {report['home']}"
    if "now_us" not in report:
        return
    release, ingest = report["release"], report["ingest"]
    whole = not report["problems"]
    if release is None:
        yield "release: none; `shelflife refresh` makes one" if whole else "release: none that can be read"
    else:
        yield (
            f"release: {release['release_id']}, live for {_age(release['age_s'])} by {release['by']}, "
            f"of data {_age(release['watermark_age_s'])} old"
        )
    if ingest is None:
        yield "ingest: nothing yet; `shelflife ingest`" if whole else "ingest: nothing that can be read"
    else:
        held = f", {ingest['quarantined']:,} rows in quarantine" if ingest["quarantined"] else ""
        yield f"ingest: {ingest['rows']:,} rows, {_age(ingest['lag_s'])} behind{held}"
    yield f"CPU spent today on refreshes: {report['cpu_s_today']:,.0f} s"
    yield from (f"problem: {p}" for p in report["problems"])


def _artifacts(report: Mapping[str, Any]) -> Iterator[str]:
    if not report.get("artifacts"):
        return
    rows = [
        (name, a["version"].removeprefix(f"{name}-"), _age(a["age_s"]), _age(a["data_age_s"]))
        for name, a in report["artifacts"].items()
    ]
    yield ""
    yield table(("artifact", "version", "age", "age of its data"), rows)


def _policy(report: Mapping[str, Any]) -> Iterator[str]:
    policy = report.get("policy")
    if not policy or policy["name"] is None:
        return
    now = report["now_us"]
    running = {n for firing in policy["running"] for n in firing["components"]}
    rows = []
    for name, part in policy["components"].items():
        next_us = part["next_us"]
        upcoming = (
            "now" if name in running else None if next_us is None else f"in {_age((next_us - now) / 1e6)}"
        )
        rows.append((name, part["trigger"], upcoming, part["said"]))
    asked = policy["ticked_wall_us"]
    yield ""
    yield f"policy {policy['name']}: " + (
        "not asked yet; `shelflife up` runs it"
        if asked is None
        else f"last asked {_age(time.time() - asked / 1e6)} ago"
    )
    yield table(("component", "is made anew", "next", "the trigger says"), rows)
    for entry in policy["recent"]:
        if entry["ended"] not in ("done", "again"):
            yield f"run {entry['firing']['number']} failed: {entry['said']}"


def _verdicts(report: Mapping[str, Any]) -> Iterator[str]:
    if report.get("verdicts"):
        rows = [
            (
                _age(time.time() - v["end_wall_us"] / 1e6) + " ago",
                v["release_id"],
                v["component"],
                "promoted" if v["promoted"] else "not promoted",
                "; ".join(v["reasons"]) or None,
            )
            for v in report["verdicts"]
        ]
        yield ""
        yield table(("ended", "release", "of", "was", "because"), rows)
    for name, refused in report.get("refused", {}).items():
        yield f"the service refused {name}: {refused['reason']}"


def _processes(report: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        (
            name,
            "running"
            if p["running"]
            else "stopped"
            if p["pid"] is None
            else "died (`shelflife down` tidies)",
            p["pid"],
            " ".join(f"{k}:{v}" for k, v in p["ports"].items()) or None,
            p.get("cpu_s"),
            p["log"],
        )
        for name, p in report["processes"].items()
    ]
    yield ""
    yield table(("process", "is", "pid", "ports", "CPU-s", "log"), rows)
    yield from (
        f"{key}: {report[key]}"
        for key in ("service", "prefect", "mlflow", "health", "exposed")
        if report.get(key)
    )


_PARTS = (_head, _artifacts, _policy, _verdicts, _processes)


def _age(seconds: float | None) -> str:
    """A span in its two largest units: `3 d 4 h`, `12 min 5 s`."""
    if seconds is None:
        return "-"
    left, units = abs(int(seconds)), (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    found: list[str] = []
    for unit, size in units:
        if left >= size or (unit == "s" and not found):
            found.append(f"{left // size} {unit}")
            left %= size
    return ("-" if seconds <= -1 else "") + " ".join(found[:2])
