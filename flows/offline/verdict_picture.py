"""The gate's verdict as a picture: by how much the challenger's NDCG@10 differs, of all and of each segment.

An SVG in the look of the reports. It decides nothing; matplotlib is imported at the first picture.
"""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

__all__ = ["data_url", "verdict_svg"]

_WIDTH, _HEIGHT, _ROW = 8.6, 0.9, 0.32  # inches; of the axis, and of each row
_GOOD, _BAD, _LIMIT, _ZERO = "#0072b2", "#b3001b", "#b0659a", "#5d6670"  # those of the reports
_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "svg.fonttype": "none",
}


def verdict_svg(verdict: Mapping[str, Any]) -> str | None:
    """Differences with their 95 % intervals and the limits; None where nothing was compared.

    `verdict`: `Verdict.as_dict()` of the gate.
    """
    rows = _rows(verdict)
    if not rows:
        return None
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({**_STYLE, "svg.hashsalt": str(verdict["challenger"])}):
        figure = Figure(figsize=(_WIDTH, _HEIGHT + _ROW * len(rows)), layout="constrained")
        ax = figure.add_subplot()
        for y, (_, mean, low, high, limit) in enumerate(rows):
            colour = _BAD if mean < limit else _GOOD
            ax.plot([low, high], [y, y], color=colour, linewidth=2)
            ax.plot([mean], [y], "o", color=colour, markersize=5)
            ax.plot([limit, limit], [y - 0.35, y + 0.35], color=_LIMIT, linewidth=1.5)
        ax.axvline(0.0, color=_ZERO, linewidth=0.8)
        ax.set_yticks(range(len(rows)), [name for name, *_ in rows])
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.set_xlabel("NDCG@10 less the champion's, 95 % interval; a bar marks how much worse it may be")
        did = "passed" if verdict["passed"] else "refused"
        ax.set_title(f"{verdict['challenger']} against {verdict['champion']}: {did}")
        svg = io.StringIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(svg, format="svg", metadata=nothing)
        return svg.getvalue()


def data_url(svg: str) -> str:
    """A picture as an address that holds it."""
    return f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}"


def _rows(verdict: Mapping[str, Any]) -> list[tuple[str, float, float, float, float]]:
    """(name, mean, low, high, limit) of all requests and of the segments that any request is of."""
    found = []
    limits = verdict.get("limits") or {}
    compared: dict[str, Any] = {"all": (verdict.get("difference"), verdict.get("requests"), "margin")}
    for name, figures in (verdict.get("segments") or {}).items():
        compared[name] = (figures, figures.get("requests"), "segment_margin")
    for name, (figures, requests, limit) in compared.items():
        if figures and "mean" in figures:
            words = f"{name.replace('_', ' ')} ({requests:.0f})"
            found.append((words, figures["mean"], figures["low"], figures["high"], -limits.get(limit, 0.0)))
    return found
