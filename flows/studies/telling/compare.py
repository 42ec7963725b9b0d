"""Two studies of intervals side by side: which of their answers agree, and how their policies differ.

It reads two documents. Policies are paired only where both studies asked the same queries (same panel,
same seed); else their intervals are taken for independent, which is cautious where they are not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.report.words import finding, num, span
from flows.studies.statistics.intervals import interval
from flows.studies.telling.record import PolicyResult, StudyRecord, plain
from flows.studies.telling.words import FINDINGS, half_life_words, interval_words
from models.metrics import Interval

__all__ = ["compare", "compare_records", "describe"]


def compare(a: Path, b: Path) -> dict[str, Any]:
    """Compare two studies by their study.json or their report's folder. DataError where one is none.

    Returns {"a", "b", "same_queries", "questions": [{"question", "a", "b", "agree"}], "policies":
    [{"component", "interval", "fraction", "start", "a", "b", "b_minus_a", "b_cpu_over_a"}],
    "only_a", "only_b"}.
    """
    return {"a": str(a), "b": str(b)} | compare_records(StudyRecord.load(a), StudyRecord.load(b))


def compare_records(a: StudyRecord, b: StudyRecord) -> dict[str, Any]:
    """As `compare`, of records."""
    same = bool(a.panel_key) and a.panel_key == b.panel_key and a.seed == b.seed
    ours, theirs = _by_name(a), _by_name(b)
    policies = []
    for name in [n for n in ours if n in theirs]:
        left, right = ours[name], theirs[name]
        policies.append(
            dict(zip(("component", "interval", "fraction", "start"), name, strict=True))
            | {
                "a": plain(left.ndcg10),
                "b": plain(right.ndcg10),
                "b_minus_a": plain(_difference(left, right, same=same)),
                "b_cpu_over_a": _ratio(left.cpu_s_per_day, right.cpu_s_per_day),
            }
        )
    return {
        "sources": [a.source, b.source],
        "seeds": [a.seed, b.seed],
        "same_queries": same,
        "questions": _questions(a, b),
        "policies": policies,
        "only_a": [list(n) for n in ours if n not in theirs],
        "only_b": [list(n) for n in theirs if n not in ours],
    }


_Name = tuple[str, str, float, str]


def _by_name(record: StudyRecord) -> dict[_Name, PolicyResult]:
    return {(p.component, p.interval, p.fraction, p.start): p for p in record.policies}


def _difference(a: PolicyResult, b: PolicyResult, *, same: bool) -> Interval:
    """b less a: slice by slice on the same queries, where both tell it."""
    if same and a.by_slice is not None and b.by_slice is not None and len(a.by_slice) == len(b.by_slice):
        return interval(b.by_slice - a.by_slice)
    return _independent(a.ndcg10, b.ndcg10)


def _independent(a: Interval, b: Interval) -> Interval:
    """b less a where chance in one tells nothing of the other: half widths add as squares."""
    mean = b.mean - a.mean
    low = math.hypot(b.mean - b.low, a.high - a.mean)
    high = math.hypot(b.high - b.mean, a.mean - a.low)
    return Interval(mean, mean - low, mean + high)


def _overlap(a: Interval | None, b: Interval | None) -> bool | None:
    """Whether two intervals may be of the same value; None where one is unknown."""
    if a is None or b is None:
        return None if (a is None) != (b is None) else True
    gap = _independent(a, b)
    return None if math.isnan(gap.low) or math.isnan(gap.high) else gap.low <= 0 <= gap.high


def _questions(a: StudyRecord, b: StudyRecord) -> list[dict[str, Any]]:
    """Each answer of both, and whether they agree; None where it cannot be told."""
    advice = [
        None if r.recommendation is None else (r.recommendation.interval, r.recommendation.fraction)
        for r in (a, b)
    ]
    left, right = a.full_minus_state_fresh, b.full_minus_state_fresh
    rows: list[tuple[str, str, str, bool | None]] = [
        (
            "How often to retrain, on how much data?",
            _advice(advice[0]),
            _advice(advice[1]),
            None if None in advice else advice[0] == advice[1],
        ),
        (
            "What kind of effect is it?",
            _kind(a),
            _kind(b),
            None if not (a.finding and b.finding) else a.finding == b.finding,
        ),
        *_gains("fresh weights", left, right),
        *_gains("fresh state", a.state_fresh_minus_frozen, b.state_fresh_minus_frozen),
        (
            "What is the half-life?",
            half_life_words(a.half_life_d),
            half_life_words(b.half_life_d),
            _overlap(a.half_life_d, b.half_life_d),
        ),
    ]
    return [{"question": q, "a": x, "b": y, "agree": same} for q, x, y, same in rows]


def _gains(what: str, a: Interval | None, b: Interval | None) -> list[tuple[str, str, str, bool | None]]:
    """Whether both find a gain, and whether it may be the same one."""
    kinds = finding(a), finding(b)
    told = None if "unknown" in kinds else kinds[0] == kinds[1]
    return [
        (f"Is there a gain of {what}?", kinds[0], kinds[1], told),
        (f"How large is the gain of {what}?", span(a), span(b), _overlap(a, b)),
    ]


def _advice(found: tuple[str, float] | None) -> str:
    if found is None:
        return "no advice"
    return f"{interval_words(found[0])}, {num(100 * found[1], 0)} % of the data"


def _kind(record: StudyRecord) -> str:
    return record.finding.replace("_", " ") if record.finding in FINDINGS else record.finding or "not told"


def _ratio(a: float, b: float) -> float | None:
    return b / a if a > 0 and math.isfinite(a) and math.isfinite(b) else None


def describe(found: Mapping[str, Any]) -> str:
    """A comparison in plain lines: the questions first, then the policies that surely differ."""
    lines = []
    if "a" in found:
        lines += [f"A: {found['a']}", f"B: {found['b']}"]
    lines.append(
        "Both asked the same queries."
        if found["same_queries"]
        else "They asked different queries: differences are of independent intervals."
    )
    lines.append("")
    words = {True: "agree", False: "DIFFER", None: "cannot be told"}
    for q in found["questions"]:
        lines.append(f"{q['question']} {words[q['agree']]}")
        lines += [f"  A: {q['a']}", f"  B: {q['b']}"]
    policies = found["policies"]
    apart = [p for p in policies if finding(p["b_minus_a"]) in ("gain", "loss")]
    lines += ["", f"{len(policies)} policies are in both; {len(apart)} differ by more than chance."]
    lines += [
        f"  {p['component']} {interval_words(p['interval'])}, {num(100 * p['fraction'], 0)} %, {p['start']}: "
        f"B less A {span(p['b_minus_a'], 4)}"
        for p in apart
    ]
    for side in ("a", "b"):
        if found[f"only_{side}"]:
            lines.append(f"{len(found[f'only_{side}'])} policies are only in {side.upper()}.")
    return "\n".join(lines)
