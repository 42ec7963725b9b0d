"""The pictures of a study of volume: quality by fraction with the fitted law, and training time.

Importing this module loads matplotlib. It knows the record only.
"""

from __future__ import annotations

import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter

from flows.report.theme import COLOURS, Drawn, new_figure
from flows.report.words import num
from flows.studies.volume.record import VolumeRecord

__all__ = ["Drawn", "training_time", "volume"]

_LOOKS = (("full", "o"), ("state", "s"), ("swap", "D"))


def volume(record: VolumeRecord) -> Drawn | None:
    """Quality by share of the data, a panel a component."""
    curves = [c for c in record.curves if len(c.points) > 1]
    if not curves:
        return None
    figure = new_figure(3.3)
    said = []
    for n, c in enumerate(curves):
        ax = figure.add_subplot(1, len(curves), n + 1)
        colour, mark = COLOURS[_LOOKS[n % 3][0]], _LOOKS[n % 3][1]
        rows = np.array([p.rows for p in c.points], float)
        x = rows / rows[-1]
        mean, low, high = (
            np.array([getattr(p.quality, k) for p in c.points]) for k in ("mean", "low", "high")
        )
        ax.vlines(x, low, high, color=colour, linewidth=1.3, alpha=0.8)
        ax.plot(x, mean, mark, color=colour, markersize=6)
        if c.law is not None:
            fine = np.linspace(x[0], 1.15, 100)
            ax.plot(fine, 1 - c.law.error(fine), color=COLOURS["ink"], linewidth=1.2, linestyle=(0, (4, 2)))
        if c.diminishing is not None and c.diminishing > x[0]:
            ax.axvline(c.diminishing, color=COLOURS["muted"], linewidth=1, linestyle=(0, (1, 2)))
        ax.set_title(c.component.replace("_", " "))
        ax.set_ylabel(c.metric)
        ax.set_xlabel(f"of {num(int(rows[-1]))} rows")
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.yaxis.set_major_locator(MaxNLocator(5))
        ax.set_xlim(0, 1.18)
        ax.margins(y=0.15)
        said.append(f"{c.component.replace('_', ' ')} {num(float(mean[0]))} to {num(float(mean[-1]))}")
    caption = (
        "Marks are means over the seeds with 95 % intervals of each fraction alone; differences "
        "between fractions are "
        "paired and known better (table). Dashed: the fitted law, drawn a little beyond the data. Dotted: "
        "from there on ten per cent more data brings less than the margin."
    )
    return figure, "What more data brings", f"Quality by share of the data: {'; '.join(said)}.", caption


def training_time(record: VolumeRecord) -> Drawn | None:
    """CPU-seconds of a training by share of the data, relative to all of it."""
    curves = [c for c in record.curves if len(c.points) > 1 and c.points[-1].cpu_s.mean > 0]
    if not curves:
        return None
    figure = new_figure(2.9)
    ax = figure.add_subplot()
    for n, c in enumerate(curves):
        whole = c.points[-1].cpu_s.mean
        x = np.array([p.fraction for p in c.points])
        mean, low, high = (
            np.array([getattr(p.cpu_s, k) for p in c.points]) / whole for k in ("mean", "low", "high")
        )
        colour, mark = COLOURS[_LOOKS[n % 3][0]], _LOOKS[n % 3][1]
        ax.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)
        name = f"{c.component.replace('_', ' ')}: all takes {num(whole, 1)} s"
        ax.plot(x, mean, color=colour, marker=mark, markersize=5, linewidth=1.6, label=name)
    ax.plot([0, 1], [0, 1], color=COLOURS["muted"], linewidth=1, linestyle=(0, (2, 2)), label="in proportion")
    ax.set_xlim(0, 1.03)
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.set_xlabel("fraction of the data")
    ax.set_ylabel("CPU-seconds")
    figure.legend(loc="outside upper right", ncols=2, fontsize=8.5, columnspacing=1.4)
    caption = (
        "CPU-seconds of one training against those on all of the data; bands are the least and the most of "
        "the seeds."
    )
    told = "; ".join(
        f"{c.component.replace('_', ' ')} {num(c.points[0].cpu_s.mean, 2)} to "
        f"{num(c.points[-1].cpu_s.mean, 2)} s"
        for c in curves
    )
    return figure, "What more data costs", f"Training time by fraction: {told}.", caption
