"""The HTML report of a study: one page that opens offline, pictures as SVG and PNG and the JSON beside it.

A report's folder appears whole: written beside, then renamed. It knows records, not how they came about.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from flows.report import words as report_words
from flows.report.page import page_environment
from flows.studies.telling import words
from flows.studies.telling.record import DOCUMENT, StudyRecord, save_document
from infra.files import sync_dir, write_atomic

if TYPE_CHECKING:
    from flows.report.theme import Picture

__all__ = ["REPORT", "report_folder", "write_page", "write_report"]

REPORT = "report.html"  # its name in a report's folder


def report_folder(reports: Path, study: str) -> Path:
    """A new folder's path for a report of that study: named by the time, never one that is there."""
    stem = f"study-{study}-{time.strftime('%Y%m%d-%H%M%S')}"
    found, n = reports / stem, 1
    while found.exists():
        n += 1
        found = reports / f"{stem}-{n}"
    return found


def write_report(record: StudyRecord, folder: Path) -> Path:
    """Write report.html, study.json and each picture as .svg and .png; returns report.html in `folder`.

    An older report of that folder is replaced as a whole.
    """
    from flows.studies.telling.pictures import draw  # matplotlib takes a second, and only a report needs it

    return write_page(
        folder,
        "study.html",
        record.document(),
        pictures={name: p for name, p in draw(record).items() if p},
        record=record,
        verdict=words.verdict(record),
        answer=words.answer(record),
        finding=report_words.finding(record.full_minus_state_fresh),
        method=words.how_measured(record),
    )


def write_page(
    folder: Path,
    template: str,
    document: Mapping[str, Any],
    *,
    pictures: Mapping[str, Picture],
    **context: Any,
) -> Path:
    """Render a page from `flows/templates` and write it with its document and pictures as one folder."""
    from flows.report.theme import COLOURS, inline

    environment = page_environment(span=report_words.span, plainly=_plainly, ticks=_ticks)
    page = environment.get_template(template).render(
        document=document,
        embedded=Markup(json.dumps(document, allow_nan=False).replace("<", "\\u003c")),
        pictures={name: (picture, Markup(inline(picture))) for name, picture in pictures.items()},
        colours=COLOURS,
        words=words,
        json_name=DOCUMENT,
        **context,
    )
    beside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        for name, picture in pictures.items():
            write_atomic(beside / f"{name}.svg", picture.svg.encode())
            write_atomic(beside / f"{name}.png", picture.png)
        save_document(document, beside)
        write_atomic(beside / REPORT, page.encode())
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    sync_dir(folder.parent)
    return folder / REPORT


def _plainly(value: Any) -> str:
    """A value of the settings' tables."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_plainly(v)}" for k, v in value.items()) or report_words.NONE
    if isinstance(value, (list, tuple)):
        return ", ".join(_plainly(v) for v in value) or report_words.NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.10g}"
    return report_words.NONE if value is None else str(value)


def _ticks(text: str) -> Markup:
    """Text whose `backticks` become code."""
    parts = text.split("`")
    found = Markup()
    for n, part in enumerate(parts):
        found += Markup("<code>{}</code>").format(part) if n % 2 else part
    return found
