"""The pictures of a live study, each with its caption and its text for those who cannot see it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.ticker import MaxNLocator

from flows.report.pictures import attribution_bars
from flows.report.theme import COLOURS, Drawn, Picture, end_labels, log_ms, new_figure, render
from flows.report.words import num, signed, span
from flows.studies.live.record import LiveRecord
from flows.studies.statistics.choice import pareto
from models.metrics import Interval

__all__ = ["draw"]

BANDS = {
    "shopping": ("sky", 0.10),
    "training": ("train", 0.12),
    "installing": ("swap", 0.45),
    "measuring": ("frozen", 0.14),
}
MARKS = ("o", "s", "D", "^", "v", "P")
ARMS = (("frozen", "frozen", (0, (4, 2))), ("state_fresh", "state", (0, (1, 1))), ("full", "full", "solid"))


def draw(record: LiveRecord) -> dict[str, Picture | None]:
    """All pictures by name, in the report's order; None where there is nothing to show."""
    makers: dict[str, Callable[[LiveRecord], Drawn | None]] = {
        "latency": _latency,
        "cost": _cost,
        "verdict": _verdict,
        "freshness": _freshness,
        "quality": _quality,
        "attribution": _attribution,
    }
    return {name: render(name, maker, record) for name, maker in makers.items()}


def _latency(record: LiveRecord) -> Drawn | None:
    shown = [p for p in record.policies if len(p.over.start_s)]
    if not shown:
        return None
    figure = new_figure(1.0 + 2.2 * len(shown))
    said = []
    top = None
    for n, p in enumerate(shown):
        ax = figure.add_subplot(len(shown), 1, n + 1, sharey=top)
        top = top or ax
        named: set[str] = set()
        for band in p.over.bands:
            colour, alpha = BANDS[band.condition]
            label = None if n or band.condition in named else band.condition
            named.add(band.condition)
            ax.axvspan(band.begin_s, band.end_s, color=COLOURS[colour], alpha=alpha, linewidth=0, label=label)
        at = p.over.start_s + p.over.bin_s / 2
        for values, name, colour in ((p.over.p99_ms, "p99", "full"), (p.over.p50_ms, "p50", "state")):
            finite = np.where(np.isfinite(values), values, np.nan)
            label = None if n else name
            ax.plot(at, finite, color=COLOURS[colour], linewidth=1.3, label=label)
        c = p.tail.by_condition
        quiet, training = (num(c[k].get("p99"), 1) for k in ("quiet", "training"))
        words = f"{p.name}: p99 quiet {quiet} ms, training {training} ms"
        ax.set_title(words)
        said.append(words)
        ax.set_xlim(0, float(at[-1] + p.over.bin_s / 2))
        ax.set_ylabel("ms from the due time")
    assert top is not None
    log_ms(top, np.concatenate([x for p in shown for x in (p.over.p50_ms, p.over.p99_ms)]))
    ax.set_xlabel("seconds of live traffic")
    figure.legend(loc="outside upper right", ncols=5, fontsize=8.5, handlelength=1.6, columnspacing=1.4)
    alt = f"Latency over time, shaded by condition. {'; '.join(said)}."
    caption = (
        f"Percentiles in bins of {num(shown[0].over.bin_s, 0)} s. Shaded: while a run of the policy was "
        "under way (training), while the service installed a release, and, left out of all percentiles, "
        "while shoppers beside the load acted in process (shopping) and the study scored the arms "
        "(measuring)."
    )
    return figure, "Latency while models change", alt, caption


def _cost(record: LiveRecord) -> Drawn | None:
    shown = [p for p in record.policies if np.isfinite(p.arms.full.mean)]
    if not shown:
        return None
    p99 = [p.tail.recombined.get("p99") for p in shown]
    figure = new_figure(3.6)
    ax = figure.add_subplot()
    known = [x for x in p99 if x is not None]
    most = max(known, default=1.0)
    paired = any(p.over_control is not None for p in shown)
    level = Interval(0.0, 0.0, 0.0)  # of the control against itself
    said: list[str] = []
    at: list[tuple[float, float]] = []
    for n, (p, tail) in enumerate(zip(shown, p99, strict=True)):
        colour = COLOURS["frozen"] if p.control else COLOURS[("full", "state", "swap", "amber")[n % 4]]
        y, x = (p.over_control or level if paired else p.arms.full), p.cpu_s_per_day
        at.append((x, y.mean))
        if np.isfinite([y.low, y.high]).all():
            ax.plot([x, x], [y.low, y.high], color=colour, linewidth=1, alpha=0.6)
        size = 40.0 if tail is None else 40 + 320 * tail / most
        ax.scatter([x], [y.mean], s=size, color=colour, marker=MARKS[n % len(MARKS)], alpha=0.85, zorder=3)
        words = f"{p.name}: p99 {num(tail, 1)} ms"
        ax.annotate(
            words, (x, y.mean), xytext=(14, 0), textcoords="offset points", va="center", weight="bold",
            color=colour, annotation_clip=False,
        )  # fmt: skip
        said.append(f"{words}, NDCG@10 {num(p.arms.full.mean)} for {num(x, 1)} CPU-seconds a day")
    front = pareto(*zip(*at, strict=True))
    xs, ys = zip(*(at[i] for i in front.tolist()), strict=True)
    ax.step(xs, ys, where="post", color=COLOURS["ink"], linewidth=1.2, alpha=0.6, zorder=2)
    widest = max(p.cpu_s_per_day for p in shown)
    ax.set_xlim(-0.06 * max(widest, 1.0), 1.35 * max(widest, 1.0))
    ax.margins(y=0.2)
    ax.set_xlabel("CPU-seconds of refreshes a shop day")
    ax.set_ylabel("NDCG@10 over never, live" if paired else "NDCG@10, live (full)")
    alt = f"Policies by cost, quality and tail. {'; '.join(said)}."
    caption = (
        "A mark a policy: cost to the right, quality upwards, and the third axis, the p99 of the policy's "
        "true interval, as the mark's size and in words. The line is the Pareto front of cost and quality. "
        "Whiskers are 95 % intervals, "
        + ("paired with never on the same queries." if paired else "of each policy alone.")
    )
    return figure, "Cost, quality and tail", alt, caption


def _verdict(record: LiveRecord) -> Drawn | None:
    p = record.main
    live = p.full - p.state_fresh
    if not np.isfinite(p.predicted).any() or not np.isfinite(live).any():
        return None
    figure = new_figure(3.2)
    ax = figure.add_subplot()
    margin = p.verdict.margin
    ax.axhline(0, color=COLOURS["muted"], linewidth=1)
    ax.fill_between(
        p.days + 1,
        p.predicted - margin,
        p.predicted + margin,
        color=COLOURS["state"],
        alpha=0.12,
        linewidth=0,
    )
    ax.plot(
        p.days + 1, p.predicted, color=COLOURS["state"], linestyle=(0, (4, 2)), marker="o", markersize=3.5
    )
    ax.plot(p.days + 1, live, color=COLOURS["full"], linewidth=2.0, marker="D", markersize=3.5)
    lines = [(p.predicted, "predicted", "state"), (live, "live", "full")]
    if np.isfinite(p.hindcast).any():
        ax.plot(p.days + 1, p.hindcast, color=COLOURS["muted"], linewidth=1.4, linestyle=(0, (1, 1.5)))
        lines.append((p.hindcast, "afterwards", "muted"))
    ends = [(float(v[np.isfinite(v)][-1]), name, COLOURS[colour]) for v, name, colour in lines]
    ax.margins(y=0.15)
    end_labels(ax, ends)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set_xlabel("live shop day")
    ax.set_ylabel("NDCG@10 that fresh weights add")
    v = p.verdict
    alt = (
        f"Gain of fresh weights by day, predicted and live: {v.word}; live less predicted "
        f"{span(v.difference)}."
    )
    caption = (
        f"{p.name}: full − state fresh on each day, predicted beforehand and measured live; the band is the "
        f"declared margin of {num(margin)}. Afterwards: told by the same instrument from the log that the "
        f"policy itself wrote. The test is of the mean over the days on which a release of the "
        f"policy was live: {v.word}. Single days are of few queries."
    )
    return figure, "Predicted and live", alt, caption


def _freshness(record: LiveRecord) -> Drawn | None:
    p = record.main
    stages = [s for s in p.freshness if np.isfinite([s.p50_s, s.p95_s]).all() and s.p95_s > 0]
    if not stages:
        return None
    figure = new_figure(0.9 + 0.36 * len(stages))
    ax = figure.add_subplot()
    least = min(max(s.p50_s, s.p95_s / 100) for s in stages) / 3
    for y, s in enumerate(stages):
        width = max(s.p50_s - least, 0.0)
        ax.barh(y, width, left=least, height=0.5, color=COLOURS["state"], alpha=0.8, linewidth=0)
        ax.plot([max(s.p50_s, least), s.p95_s], [y, y], color=COLOURS["ink"], linewidth=1.2)
        ax.plot([s.p95_s], [y], "|", color=COLOURS["ink"], markersize=8)
        ax.annotate(
            f"{_seconds(s.p50_s)}, p95 {_seconds(s.p95_s)}", (1.01, y),
            xycoords=("axes fraction", "data"), va="center", color=COLOURS["muted"], annotation_clip=False,
        )  # fmt: skip
    ax.set_xscale("log")
    ax.set_xlim(left=least)
    ax.set_yticks(range(len(stages)), [s.name for s in stages], color=COLOURS["ink"])
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("seconds that the stage takes, of shop time")
    last = stages[-1]
    alt = "Freshness by stage: " + "; ".join(f"{s.name} {_seconds(s.p50_s)}" for s in stages) + "."
    caption = (
        f"{p.name}: bars end at the median of what each stage takes, lines at its p95; waiting for the next "
        f"run is in the ingested stage. From the event to {last.name}: median {_seconds(last.whole_p50_s)}, "
        f"p95 {_seconds(last.whole_p95_s)}."
    )
    return figure, "Freshness by stage", alt, caption


def _seconds(x: float) -> str:
    if x < 0.1:
        return f"{num(1e3 * x, 1)} ms"
    return f"{num(x, 1)} s" if x < 600 else f"{num(x / 3600, 1)} h"


def _quality(record: LiveRecord) -> Drawn | None:
    p = record.main
    if not len(p.days):
        return None
    figure = new_figure(3.3)
    ax = figure.add_subplot()
    ends = []
    for name, colour, line in ARMS:
        values = getattr(p, name)
        ax.plot(
            p.days + 1, values, color=COLOURS[colour], linestyle=line, linewidth=2.0, marker="o", markersize=3
        )
        ends.append(
            (float(values[-1]), f"{name.replace('_', ' ')}  {num(float(values[-1]))}", COLOURS[colour])
        )
    end_labels(ax, ends)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set_xlabel("live shop day")
    ax.set_ylabel("NDCG@10")
    alt = f"The three arms over {len(p.days)} days of {p.name}."
    caption = f"{p.name}: the arms on the same queries of each day, judged by the world's hidden relevance."
    return figure, "Quality over the days", alt, caption


def _attribution(record: LiveRecord) -> Drawn | None:
    p = record.main
    return attribution_bars(
        p.state_fresh_minus_frozen,
        p.full_minus_state_fresh,
        f"of {p.name}: the same queries in all arms, moving blocks of days resampled; whole "
        f"{signed(p.arms.full.mean - p.arms.frozen.mean)}",
    )
