"""A study's page in the docs: the answer and its tables, written from study.json between two markers.

`python -m flows.studies.telling.page REPORT_FOLDER docs/studies/NAME.md` writes the page, NAME.json and
NAME.svg beside it. What stands outside the markers is written by hand and kept. It knows the document
only, so that a page can be told from its JSON whether it is still the same.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.report.words import num, span
from flows.studies.telling.record import DOCUMENT, PolicyResult, StudyRecord, load_document
from flows.studies.telling.words import (
    age_name,
    answer,
    half_life_words,
    how_measured,
    interval_words,
    is_advice,
    verdict,
)
from infra.errors import DataError, ShelflifeError
from infra.files import write_atomic
from models.metrics import Interval

__all__ = ["BEGIN", "BULKY", "END", "LARGEST", "PICTURE", "main", "placed", "rendered", "trimmed", "write"]

BEGIN, END = "<!-- study: begin -->", "<!-- study: end -->"
LARGEST = 200_000  # bytes of a document in the docs
PICTURE = "staleness"  # of a report's, the one that a page shows
BULKY = ("timelines", "heats")  # left out of a document that is too large, in this order
_TRIMMED = "trimmed"  # where a document says what was left out of it


def rendered(document: Mapping[str, Any], *, name: str) -> str:
    """What stands between the markers, for the document of a study of intervals; `name`: of its files."""
    record = StudyRecord.from_document(document)
    parts = [
        [f"**Question.** {record.question} Source: {record.source}{_drift(record)}."],
        [f"**Answer: {verdict(record)}** {' '.join(answer(record))}"],
        [f"![How a model loses with age]({name}.svg)"] if record.curves else [],
        _policies(record),
        _arms(record),
        _ages(record),
        _baselines(record),
        _besides(record),
        _costs(record),
        _measured(record, name, document.get(_TRIMMED, ())),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines).replace("<", "&lt;")


def placed(page: str, text: str, *, begin: str = BEGIN, end: str = END) -> str:
    """A page with `text` between its markers; a page without any gets them at its end.

    Raises DataError where only one of the markers is there, or they stand the wrong way round.
    """
    if begin not in page and end not in page:
        return f"{page.rstrip()}\n\n{begin}\n{text}\n{end}\n".lstrip()
    before, _, rest = page.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise DataError(f"the page has one of {begin} and {end} only; expected both, the first one first")
    return f"{before}{begin}\n{text}\n{end}{after}"


def trimmed(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document of at most `LARGEST` bytes: bulky arrays left out where need be, and named."""
    found = dict(document)
    left_out = list(found.get(_TRIMMED, ()))
    for name in BULKY:
        if len(_json(found)) <= LARGEST:
            break
        if found.get(name):
            found[name] = []
            left_out.append(name)
            found[_TRIMMED] = left_out
    if len(_json(found)) > LARGEST:
        raise DataError(
            f"the document has {len(_json(found)):,} bytes without {', '.join(BULKY)}; expected at most "
            f"{LARGEST:,}: ask the study for fewer policies or slices"
        )
    return found


def write(report: Path, page: Path) -> Path:
    """Write `page` and, beside it, its JSON and its picture from a report's folder; returns `page`.

    `report` may be the page's own JSON: then its words are told anew, and the picture stays. A new page
    begins with a title. Raises DataError where the folder holds no study of intervals.
    """
    document = trimmed(load_document(report, study="interval"))
    record = StudyRecord.from_document(document)
    name = page.stem
    text = page.read_text() if page.is_file() else f"# {record.question}\n"
    text = placed(text, rendered(document, name=name))
    picture = None
    if record.curves and report.resolve() != page.with_suffix(".json").resolve():
        picture = (report if report.is_dir() else report.parent) / f"{PICTURE}.svg"
        if not picture.is_file():
            raise DataError(f"{picture} is not there; expected the folder of a whole report")
    page.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(page.with_suffix(".json"), _json(document))
    if picture is not None:
        shutil.copyfile(picture, page.with_suffix(".svg"))
    write_atomic(page, text.encode())
    return page


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m flows.studies.telling.page", description=__doc__)
    parser.add_argument("report", type=Path, help=f"a report's folder, with its {DOCUMENT}")
    parser.add_argument("page", type=Path, help="the page, such as docs/studies/NAME.md")
    given = parser.parse_args(arguments)
    try:
        written = write(given.report, given.page)
    except ShelflifeError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{written}\n")
    return 0


def _json(document: Mapping[str, Any]) -> bytes:
    """One line a field, and one a part of a list: short, and a change is found in a diff."""
    lines = []
    for name, value in document.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            inner = ",\n  ".join(_line(v) for v in value)
            lines.append(f" {json.dumps(name)}: [\n  {inner}\n ]")
        else:
            lines.append(f" {json.dumps(name)}: {_line(value)}")
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _line(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _titled(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"### {title}", *_table(heads, rows)] if rows else []


def _drift(record: StudyRecord) -> str:
    return f", {record.drift} drift" if record.drift else ""


def _level(found: Interval | None) -> str:
    """A quality, which has no sign."""
    return "–" if found is None else span(found).removeprefix("+")


def _policies(record: StudyRecord) -> list[str]:
    """The Pareto front, the recommended policy, and every interval on most data."""
    most: dict[str, float] = {}
    for p in record.policies:
        most[p.component] = max(most.get(p.component, 0.0), p.fraction)

    def shown(p: PolicyResult) -> bool:
        return p.on_front or is_advice(p, record.recommendation) or p.fraction == most[p.component]

    kept = [p for p in record.policies if shown(p)]
    several = len(most) > 1
    rows = [
        [
            *([p.component.replace("_", " ")] if several else []),
            f"**{interval_words(p.interval)}**"
            if is_advice(p, record.recommendation)
            else interval_words(p.interval),
            f"{num(100 * p.fraction, 0)} %",
            _level(p.ndcg10),
            "–" if p.minus_shortest is None else span(p.minus_shortest, 4),
            num(p.cpu_s_per_day, 2),
            "yes" if p.on_front else "",
        ]
        for p in kept
    ]
    heads = ["retrain", "data", "NDCG@10", "less the shortest, all data", "CPU-s a day", "on the front"]
    found = _titled("Policies", [*(["component"] if several else []), *heads], rows)
    hidden = len(record.policies) - len(kept)
    if hidden:
        found += [
            "",
            f"In bold what is recommended; {hidden} more policies, behind the front, are in the JSON.",
        ]
    return found


def _arms(record: StudyRecord) -> list[str]:
    rows = []
    if record.arms is not None:
        rows += [
            ["weights and state of the horizon's start (`frozen`)", _level(record.arms.frozen)],
            ["the same weights, fresh state (`state_fresh`)", _level(record.arms.state_fresh)],
            ["both fresh (`full`)", _level(record.arms.full)],
        ]
    rows += [
        ["fresh state gains (`state_fresh − frozen`)", span(record.state_fresh_minus_frozen, 4)],
        ["**fresh weights gain** (`full − state_fresh`)", span(record.full_minus_state_fresh, 4)],
    ]
    if record.weights_share is not None:
        share = record.weights_share
        bounds = f"[{num(100 * share.low, 0)}, {num(100 * share.high, 0)}]"
        rows.append(["of the gain, in the weights", f"{num(100 * share.mean, 0)} % {bounds}"])
    return _titled("Where the gain comes from", ["", "NDCG@10"], rows)


def _ages(record: StudyRecord) -> list[str]:
    """The curve of each component by age, and its half-life where there is decay."""
    lines: list[str] = []
    for c in record.curves:
        rows = [
            [age_name(float(a)), span(Interval(float(m), float(low), float(high)), 4)]
            for a, m, low, high in zip(c.ages_d, c.mean, c.low, c.high, strict=True)
            if math.isfinite(m)
        ]
        of = f": {c.component.replace('_', ' ')}" if len(record.curves) > 1 else ""
        lines += [*([""] if lines else []), *_titled(f"By age{of}", ["age", "less the youngest"], rows)]
    half = half_life_words(record.half_life_d).capitalize()
    why = "" if record.half_life_d is not None else ": told only where the finding is decay"
    return [*lines, "", f"{half}{why}."] if lines else []


def _baselines(record: StudyRecord) -> list[str]:
    rows = [
        [b.name.replace("_", " "), _level(b.ndcg10), span(b.ours_minus, 4), b.note] for b in record.baselines
    ]
    return _titled("What a ranker has to beat", ["", "NDCG@10", "ours less it", "what"], rows)


def _besides(record: StudyRecord) -> list[str]:
    """Further sentences of the document: nulls and surprises."""
    return ["### Nulls and surprises", *(f"- {f}" for f in record.findings)] if record.findings else []


def _costs(record: StudyRecord) -> list[str]:
    rows = [
        ["the cells of this study", num(record.cells), num(record.train_cpu_s, 0)],
        ["each policy run alone, on its own schedule", "", num(record.each_policy_alone_cpu_s, 0)],
        ["every training time of the finest grid", "", num(record.exact_grid_cpu_s, 0)],
    ]
    return _titled("What it cost", ["", "trainings", "CPU-seconds of training"], rows)


def _measured(record: StudyRecord, name: str, left_out: Sequence[str]) -> list[str]:
    method, machine, said = record.method, record.machine, dict(how_measured(record))
    history = f"{_days(method.get('burn_in_d'))} before it"
    if method.get("window_d") is not None:
        history += f", a window of {_days(method.get('window_d'))}"
    facts = [
        f"{num(method.get('queries'))} queries in {num(method.get('slices'))} slices of a horizon of "
        f"{_days(method.get('horizon_d'))}, {history}; training seeds: {num(method.get('seeds'))}; "
        f"{method.get('start', 'unknown')} start, {method.get('mode', 'unknown')}; margin "
        f"{num(record.margin)}, publish delay {num(record.publish_delay_s, 1)} s.",
        f"Machine: {num(machine.get('cores'))} cores, {machine.get('processor', 'unknown')}, Python "
        f"{machine.get('python', 'unknown')}; {num(record.wall_s, 0)} s; seed {record.seed}; commit "
        f"{record.commit[:7] or 'unknown'}; {num(record.cells_reused)} of {num(record.cells)} cells were "
        "there before.",
        f"Repeat: `{record.command}`, then `python -m flows.studies.telling.page REPORT_FOLDER "
        f"docs/studies/{name}.md`.",
        *(f"{title} {said[title]}" for title in ("Checks.", "What it cannot show.") if title in said),
    ]
    rest = f" (without its {' and '.join(left_out)}, to keep it small)" if left_out else ""
    facts.append(f"Every figure: [{name}.json]({name}.json){rest}.")
    return ["### How it was measured", *(f"- {f}" for f in facts)]


def _days(days: Any) -> str:
    return "–" if days is None else f"{float(days):g} days"


if __name__ == "__main__":
    sys.exit(main())
