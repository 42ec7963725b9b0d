"""The picture of latency around the flip, and a page that opens offline with the figures beside it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from flows.bench.alignment import AFTER_MS, BIN_MS
from flows.report.theme import COLOURS, Drawn, inline, new_figure, render
from infra.files import write_atomic

__all__ = ["write_page"]

_SHOWN = (
    ("swaps", "swaps"),
    ("failed", "requests failed"),
    ("mixed", "replies mixed of two releases"),
    ("p99_quiet_ms", "p99 quiet, ms"),
    ("p99_installing_ms", "p99 installing, ms"),
    ("p999_quiet_ms", "p99.9 quiet, ms"),
    ("p999_installing_ms", "p99.9 installing, ms"),
    ("flip_excess_ms", f"median excess in the {AFTER_MS:g} ms after the flip, ms"),
    ("longest_gap_ms", "longest gap between replies, ms"),
    ("longest_gap_control_ms", "the same without swaps, ms"),
    ("peak_memory_mb", "peak memory, MB"),
    ("release_mb", "release, MB"),
    ("changed_mb", "changed a swap, MB"),
    ("memory_per_changed", "memory that a swap of the ranker alone takes, over the bytes it changes"),
    ("verdict", "the load run"),
)
_WAYS = (
    "swaps",
    "failed",
    "requests",
    "p99_installing_ms",
    "p99_quiet_ms",
    "longest_gap_ms",
    "seconds_per_swap",
)
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Shelflife bench swap</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">
<style>
:root {{ {light} }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink:#e8eaed; --muted:#a6adb5; --grid:#363b42; --paper:#16181b }} }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: var(--ink); background: var(--paper) }}
table {{ border-collapse: collapse; margin: 1rem 0 }}
td, th {{ text-align: right; padding: .15rem .8rem; border-bottom: 1px solid var(--grid) }}
td:first-child, th:first-child {{ text-align: left; padding-left: 0 }}
figure {{ margin: 1rem 0 }} figcaption {{ color: var(--muted) }} svg {{ width: 100%; height: auto }}
</style></head><body>
<h1>Swapping a release under load</h1>
<p>{about}</p>
{figure}
<h2>Figures</h2>
{figures}
<h2>The textbook ways, in the same run</h2>
{ways}
</body></html>
"""


def write_page(document: Mapping[str, Any], folder: Path) -> Path:
    """Write `flip.svg`, `flip.png` and `swaps.html` into a folder; returns the page."""
    picture = render("flip", _draw, document)
    figure = ""
    if picture is not None:
        write_atomic(folder / "flip.svg", picture.svg.encode())
        write_atomic(folder / "flip.png", picture.png)
        figure = (
            f"<figure>{inline(picture)}<figcaption><span id='flip-alt' hidden>{escape(picture.alt)}</span>"
            f"{escape(picture.caption)}</figcaption></figure>"
        )
    ways = document["alternatives"]
    page = _PAGE.format(
        light=" ".join(f"--{name}:{colour};" for name, colour in COLOURS.items()),
        about=escape(
            f"{document['items']:,} items, {document['qps']:g} requests a second, open loop; a swap every "
            f"{document['every_s']:g} s. Machine-readable: result.json."
        ),
        figure=figure,
        figures=_table(("", "value"), [(label, document.get(key)) for key, label in _SHOWN]),
        ways=_table(("", *_WAYS), [(w, *(ways[w].get(k) for k in _WAYS)) for w in ways])
        if ways
        else "<p>Left out.</p>",
    )
    path = folder / "swaps.html"
    write_atomic(path, page.encode())
    return path


def _draw(document: Mapping[str, Any]) -> Drawn | None:
    around, placebo = document["aligned"], document["aligned_placebo"]
    at = np.array(around["at_ms"], float) + BIN_MS / 2
    median, low, high = (
        np.array([np.nan if v is None else v for v in around[k]]) for k in ("median", "low", "high")
    )
    if np.isnan(median).all():
        return None
    figure = new_figure(3.2)
    ax = figure.add_subplot()
    ax.fill_between(at, low, high, color=COLOURS["full"], alpha=0.2, linewidth=0)
    ax.plot(
        at, median, color=COLOURS["full"], linewidth=1.4, label=f"{document['swaps']} flips, median and 95 %"
    )
    other = np.array([np.nan if v is None else v for v in placebo["median"]])
    ax.plot(at, other, color=COLOURS["frozen"], linewidth=1.0, linestyle="--", label="placebo flips")
    ax.axvline(0, color=COLOURS["swap"], linewidth=1.0)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("ms from the flip at which a request was due")
    ax.set_ylabel("latency, ms")
    ax.legend(loc="upper right")
    excess = document["flip_excess"]
    interval = f"{excess['low']:g} to {excess['high']:g}"
    says = f"median excess in the {AFTER_MS:g} ms after it {excess['mean']:g} ms ({interval})"
    title = "Latency around the flip"
    alt = f"Median latency by {BIN_MS:g} ms bins from before to after the flip; {says}."
    caption = f"Median latency in bins of {BIN_MS:g} ms, with 95 % intervals over flips; {says}."
    return figure, title, alt, caption


def _table(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    head = "".join(f"<th>{escape(c.replace('_', ' '))}</th>" for c in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape('–' if v is None else str(v))}</td>" for v in row) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"
