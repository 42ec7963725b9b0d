"""The report of a live study: the page, its pictures and its document. It knows the record only."""

from __future__ import annotations

from pathlib import Path

from flows.report.words import finding
from flows.studies.live.record import LiveRecord
from flows.studies.live.words import answer, method, verdict
from flows.studies.telling.report import write_page

__all__ = ["write_report"]


def write_report(record: LiveRecord, folder: Path) -> Path:
    """Write report.html, study.json and the pictures as SVG and PNG; returns report.html in `folder`."""
    from flows.studies.live.pictures import draw  # matplotlib takes a second, and only a report needs it

    return write_page(
        folder,
        "live.html",
        record.document(),
        pictures={name: p for name, p in draw(record).items() if p},
        record=record,
        verdict=verdict(record),
        answer=answer(record),
        finding=finding(record.main.full_minus_state_fresh),
        method=method(record),
    )
