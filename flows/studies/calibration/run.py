"""The calibration of the instrument: worlds with known answers, studied, and the answers compared.

`python -m flows.studies.calibration.run` (`make calibrate`) runs them in parallel, goes on where it was
stopped, and writes `docs/studies/calibration.json` and the table in `docs/studies/calibration.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flows.studies.calibration.cases import CASES, REGRET, Case
from flows.studies.calibration.runs import Measured, Setting, measured
from flows.studies.statistics.attribution import arms
from flows.studies.statistics.choice import MARGIN, Policy, choose, interval_name
from flows.studies.statistics.intervals import interval
from flows.studies.statistics.shape import shape
from flows.studies.statistics.staleness import AgeScores, curve, half_life, interval_quality
from flows.studies.telling.page import placed
from infra.clock import DAY_US, HOUR_US
from infra.files import write_atomic

__all__ = ["calibrate", "judge", "policies", "summary", "table"]

INTERVALS_US = (12 * HOUR_US, DAY_US, 2 * DAY_US, 4 * DAY_US, 7 * DAY_US, None)
DELAY_US = 6 * HOUR_US
_MARKS = ("<!-- calibration: begin -->", "<!-- calibration: end -->")


def policies(scores: AgeScores) -> list[Policy]:
    """What each interval is worth on each slice of a world."""
    found = [
        Policy(
            us,
            1.0,
            interval_quality(scores.ages_us, scores.ndcg, interval_us=us, delay_us=DELAY_US),
            scores.cpu_s * DAY_US / us,
        )
        for us in INTERVALS_US
        if us is not None
    ]
    return [*found, Policy(None, 1.0, scores.never, 0.0)]


def judge(found: Measured, *, seed: int = 0) -> dict[str, Any]:
    """All that the instrument says of a world, and what is true of it, as JSON."""
    scores = found.scores
    ageing = curve(scores, seed=seed)
    kind = shape(scores, fractions=found.parts[:-1], found=ageing, seed=seed)
    gain = arms(
        found.frozen,
        scores.never,
        scores.ndcg[:, 0],
        queries=found.arms,
        clusters=scores.clusters,
        seed=seed,
    )
    half = half_life(ageing)
    by_age = [
        interval(scores.ndcg[:, a] - scores.never, seed=seed, trend=True) for a in range(len(scores.ages_us))
    ]
    told: dict[str, Any] = {
        "kind": kind.kind,
        "source": gain.source,
        "weights": gain.weights.as_dict(),
        "state": gain.state.as_dict(),
        "half_life_d": None if half is None else half.as_dict(),
        "loss": ageing.loss.tolist(),
        "nothing_learned": all(i.low < 1e-12 and i.high > -1e-12 for i in by_age),
        "trainings": found.trainings,
        "cpu_s": round(found.cpu_s, 2),
    }
    if kind.by_size is not None and kind.at_equal_size is not None:
        told |= {"by_size": kind.by_size.as_dict(), "at_equal_size": kind.at_equal_size.as_dict()}
    options = policies(scores)
    if all(np.isfinite(p.quality).all() for p in options):
        chosen = choose(options, margin=MARGIN, seed=seed)
        told |= {"interval": interval_name(chosen.interval_us), "holds": chosen.holds, "why": chosen.why}
        if found.truth is not None:
            told |= _truth(found.truth, chosen.interval_us)
            true_h = told["true_half_life_d"]
            told["covers"] = (half is None) == (true_h is None) and (
                half is None or half.low <= true_h <= half.high
            )
    return told


def _truth(truth: AgeScores, interval_us: int | None) -> dict[str, Any]:
    """The true curve's half-life by the same fit, and the regret of a choice as a share of the range."""
    half = half_life(curve(truth))
    worth = {p.interval_us: float(p.quality.mean()) for p in policies(truth)}
    best, worst = max(worth.values()), min(worth.values())
    span = best - worst
    return {
        "true_half_life_d": None if half is None else half.mean,
        "true_loss": curve(truth).loss.tolist(),
        "regret": (best - worth[interval_us]) / span if span > 1e-9 else 0.0,
        "range": span,
    }


def _run(setting: Setting, folder: Path, seed: int, until_s: float | None = None) -> dict[str, Any] | None:
    world = replace(setting, world=replace(setting.world, seed=seed))
    found = measured(world, folder, until_s=until_s)
    return None if found is None else judge(found, seed=seed) | {"seed": seed}


def calibrate(
    folder: Path,
    *,
    worlds: int = 20,
    workers: int = 2,
    niceness: int = 19,
    cases: Iterable[Case] = CASES,
    seconds: float | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Run the cases: `worlds` each. Finished worlds stay in `folder`.

    `seconds`: no new world is begun after that; the table says how many there are. What is kept is always
    judged, by the statistics as they are now.
    """
    cases = tuple(cases)
    settings = list(dict.fromkeys(c.setting for c in cases))
    most = {c.setting: c.most or worlds for c in cases}
    first = {c.setting: c.first for c in cases}
    jobs = [(s, first[s] + k) for k in range(worlds) for s in settings if k < most[s]]
    began = time.time()
    until_s = None if seconds is None else began + seconds
    found: dict[Setting, list[dict[str, Any]]] = {s: [] for s in settings}
    with ProcessPoolExecutor(workers, initializer=_nice, initargs=(niceness,)) as pool:
        pending = {pool.submit(_run, s, folder, seed, until_s): s for s, seed in jobs}
        for done, future in enumerate(as_completed(pending), 1):
            told = future.result()
            if told is not None:
                found[pending[future]].append(told)
            say(f"{done} of {len(jobs)} worlds, {time.time() - began:.0f} s")
    return summary(cases, {s: sorted(r, key=lambda x: int(x["seed"])) for s, r in found.items()})


def summary(cases: Sequence[Case], found: Mapping[Setting, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """The document: of each case how many worlds came out as expected, and all that was found."""
    rows = []
    for case in cases:
        results = found[case.setting]
        right = [bool(case.right(r)) for r in results]
        need = -(-case.least * len(right) // 20)
        rows.append(
            {
                "case": case.name,
                "expected": case.expected,
                "worlds": len(right),
                "right": sum(right),
                "needed": need,
                "passed": bool(right) and sum(right) >= need,
                "wrong_seeds": [r["seed"] for r, ok in zip(results, right, strict=True) if not ok],
                "note": _note(case, results),
            }
        )
    worlds = [
        {"setting": repr(setting), "results": [dict(r) for r in results]}
        for setting, results in found.items()
    ]
    return {"margin": MARGIN, "regret_limit": REGRET, "cases": rows, "worlds": worlds}


def _note(case: Case, results: Sequence[Mapping[str, Any]]) -> str:
    if not results:
        return ""
    if case.name.startswith("half-life"):
        told = [r["half_life_d"] for r in results if r["half_life_d"] is not None]
        if not told:
            return "none was found"
        ratio = [t["high"] / t["low"] for t in told]
        edge = sum(t["edge"] != "" for t in told)
        own = np.median([t["mean"] for t in told])
        true = np.median([r["true_half_life_d"] for r in results if r["true_half_life_d"] is not None])
        return (
            f"median {own:.1f} d, of the true curves {true:.1f} d; upper over lower bound "
            f"{np.median(ratio):.1f} (median); {edge} at the edge of what the ages tell"
        )
    if case.name.startswith("regret"):
        regret = np.array([r["regret"] for r in results])
        picks = sorted({str(r["interval"]) for r in results})
        return f"median {np.median(regret):.1%}, largest {regret.max():.1%}; {', '.join(picks)}".replace(
            "%", " %"
        )
    if case.name in ("values only", "tastes and churn only", "shuffled clicks") or case.name.startswith(
        "shop"
    ):
        weights = np.median([r["weights"]["mean"] for r in results])
        state = np.median([r["state"]["mean"] for r in results])
        return f"full − state_fresh {weights:+.3f}, state_fresh − frozen {state:+.3f} (medians)"
    key = "interval" if case.name.startswith("null") else "kind"
    told_as = [str(r[key]) for r in results]
    counts = ", ".join(f"{told_as.count(k)} {k}" for k in sorted(set(told_as)))
    parted = [r for r in results if "by_size" in r]
    if not parted:
        return counts
    size, age = (np.median([r[k]["mean"] for r in parted]) for k in ("by_size", "at_equal_size"))
    return f"{counts}; lost by size {size:.3f}, by age {age:.3f} (medians)"


def table(document: Mapping[str, Any]) -> str:
    """The document's cases as a Markdown table."""
    lines = ["| case | expected | right | needed | | what was found |", "|---|---|---|---|---|---|"]
    for row in document["cases"]:
        verdict = "holds" if row["passed"] else "fails"
        lines.append(
            f"| {row['case']} | {row['expected']} | {row['right']} of {row['worlds']} | {row['needed']} "
            f"| {verdict} | {row['note']} |"
        )
    return "\n".join(lines) + "\n"


def _nice(niceness: int) -> None:
    os.nice(max(0, niceness - os.nice(0)))
    os.environ["OMP_NUM_THREADS"] = "1"


def _write(document: Mapping[str, Any], docs: Path) -> None:
    write_atomic(docs / "calibration.json", (json.dumps(document, indent=1) + "\n").encode())
    page = docs / "calibration.md"
    begin, end = _MARKS
    text = placed(page.read_text(), table(document).rstrip("\n"), begin=begin, end=end)
    write_atomic(page, text.encode())


def main(argv: Sequence[str] | None = None) -> int:
    """`make calibrate`: 3 where a case fails."""
    parser = argparse.ArgumentParser(prog="calibrate", description=__doc__)
    parser.add_argument("--worlds", type=int, default=20, help="of each case")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--niceness", type=int, default=19)
    parser.add_argument("--minutes", type=float, default=None, help="begin no world after that")
    parser.add_argument("--folder", type=Path, default=Path("var/calibration"), help="finished worlds")
    parser.add_argument("--docs", type=Path, default=Path("docs/studies"))
    given = parser.parse_args(argv)
    document = calibrate(
        given.folder,
        worlds=given.worlds,
        workers=given.workers,
        niceness=given.niceness,
        seconds=None if given.minutes is None else given.minutes * 60,
        say=lambda line: _say(f"\r{line}", sys.stderr.isatty()),
    )
    _write(document, given.docs)
    sys.stdout.write(table(document))
    return 0 if all(row["passed"] for row in document["cases"]) else 3


def _say(line: str, terminal: bool) -> None:
    sys.stderr.write(line if terminal else line.strip() + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    raise SystemExit(main())
