"""How a report's pictures look: colours, figures without global state, the marks that several share.

Colours are Okabe and Ito's, told apart also by line style, marker and label; `inline` turns them into
CSS variables, so that a page can be light or dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from flows.report.record import DemoRecord, Floats

__all__ = [
    "COLOURS",
    "Drawn",
    "Picture",
    "end_labels",
    "inline",
    "log_ms",
    "new_figure",
    "render",
    "shade",
    "swap_marks",
]

COLOURS = {
    "ink": "#1b1f24",
    "muted": "#5d6670",
    "grid": "#e2e6ea",
    "paper": "#fffffe",
    "frozen": "#7b8490",
    "state": "#0072b2",
    "full": "#d55e00",
    "swap": "#009e73",
    "train": "#b0659a",
    "failed": "#b3001b",
    "amber": "#c98a00",
    "sky": "#4aa3d9",
}
WIDTH = 8.6
STYLE: Any = {
    "font.size": 9,
    "axes.edgecolor": COLOURS["grid"],
    "axes.facecolor": "none",
    "axes.labelcolor": COLOURS["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": COLOURS["ink"],
    "figure.facecolor": COLOURS["paper"],
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.labelcolor": COLOURS["ink"],
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["grid"],
    "ytick.color": COLOURS["grid"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "axes.unicode_minus": True,
    "svg.fonttype": "none",
}
Record = TypeVar("Record")
Drawn = tuple[Figure, str, str, str]
"""A figure, its title, its text for those who cannot see it, its caption."""


@dataclass(frozen=True)
class Picture:
    """One picture: a whole SVG document, a PNG, what it shows, and how to read it."""

    name: str
    title: str
    svg: str
    png: bytes
    alt: str
    caption: str


def inline(picture: Picture) -> str:
    """The SVG for use inside a page: ids of its own, colours as CSS variables, no outside names."""
    svg = picture.svg[picture.svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", svg)
    svg = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{picture.name}-", svg)
    svg = re.sub(r'^<svg([^>]*?) width="[^"]*"', r"<svg\1", svg)
    svg = re.sub(r'^<svg([^>]*?) height="[^"]*"', r"<svg\1", svg)
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    label = f'<svg role="img" aria-labelledby="{picture.name}-alt"'
    return svg.replace("<svg", label, 1)


def render(name: str, maker: Callable[[Record], Drawn | None], record: Record) -> Picture | None:
    """Draw within the style; None stays None."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        made = maker(record)
        if made is None:
            return None
        figure, title, alt, caption = made
        svg, png = io.StringIO(), io.BytesIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once, for both files
        figure.savefig(svg, format="svg", metadata=nothing)
        figure.savefig(png, format="png", dpi=200)
        family = re.compile(r"font-family: [^;\"]*|(font: [^'\"]*?px) [^;\"]*")
        text = family.sub(
            lambda m: (f"{m[1]} " if m[1] else "font-family: ") + "system-ui, sans-serif", svg.getvalue()
        )
        return Picture(name, title, text, png.getvalue(), alt, caption)


def new_figure(height: float) -> Figure:
    """An empty figure of the page's width; `height` in inches."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def shade(ax: Axes, record: DemoRecord) -> None:
    """Shade when the offline loop ran and when a release was being installed; x is wall seconds."""
    for n, run in enumerate(record.refreshes):
        label = None if n else "training"
        ax.axvspan(run.begin_s, run.end_s, color=COLOURS["train"], alpha=0.10, linewidth=0, label=label)
    for n, swap in enumerate(record.swaps):
        label = None if n else "installing"
        ax.axvspan(swap.begin_s, swap.flip_s, color=COLOURS["swap"], alpha=0.22, linewidth=0, label=label)


def swap_marks(ax: Axes, at: Floats, *, numbered: bool = True) -> None:
    """A line a hot swap, numbered from 1."""
    for n, x in enumerate(at, start=1):
        ax.axvline(float(x), color=COLOURS["swap"], linewidth=1, alpha=0.75, zorder=1.5)
        if numbered:
            ax.annotate(
                str(n), (float(x), 1), xycoords=("data", "axes fraction"), xytext=(0, 2),
                textcoords="offset points", ha="center", fontsize=8, color=COLOURS["swap"],
            )  # fmt: skip


def end_labels(ax: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Name lines at the right edge (y, label, colour), pushed apart where they would overlap."""
    low, high = ax.get_ylim()
    gap, at = (high - low) * 0.075, -np.inf
    for y, label, colour in sorted(ends):
        at = max(y, at + gap)
        ax.annotate(
            label, (1.01, at), xycoords=("axes fraction", "data"), va="center", color=colour,
            weight="bold", annotation_clip=False,
        )  # fmt: skip


def log_ms(ax: Axes, values: Floats) -> None:
    """A logarithmic y axis in plain milliseconds that holds the positive, finite values."""
    x = values[np.isfinite(values) & (values > 0)]
    if not len(x):
        return
    ax.set_yscale("log")
    low, high = float(np.quantile(x, 0.005)) / 1.3, float(x.max()) * 1.5
    ax.set_ylim(low, max(high, low * 4))
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.minorticks_off()
