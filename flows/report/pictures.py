"""The pictures of a demo's report, each with its caption and its text for those who cannot see it.

A picture that would show nothing is None. How they look is `report_theme`'s.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.ticker import MaxNLocator

from flows.report.record import (
    DemoRecord,
    as_interval,
    conditions,
    live_age,
    per_second,
    quantile,
    shop_day_at,
    waits,
)
from flows.report.theme import (
    COLOURS,
    Drawn,
    Picture,
    end_labels,
    log_ms,
    new_figure,
    render,
    shade,
    swap_marks,
)
from flows.report.words import finding, num, signed, span
from models.metrics import Interval

__all__ = ["attribution_bars", "draw"]

ARMS = (  # name, colour, line, marker
    ("frozen", "frozen", (0, (4, 2)), "s"),
    ("state_fresh", "state", (0, (1, 1)), "o"),
    ("full", "full", "solid", "D"),
)
LINES = {  # of a condition: colour, line
    "quiet": ("state", "solid"),
    "training": ("train", (0, (4, 2))),
    "installing": ("swap", (0, (1, 1))),
}


def draw(record: DemoRecord) -> dict[str, Picture | None]:
    """All pictures by name, in the report's order; None where there is nothing to show."""
    makers: dict[str, Callable[[DemoRecord], Drawn | None]] = {
        "quality": _quality,
        "attribution": _attribution,
        "latency": _latency,
        "tail": _tail,
        "freshness": _freshness,
        "timeline": _timeline,
    }
    return {name: render(name, maker, record) for name, maker in makers.items()}


def _quality(record: DemoRecord) -> Drawn | None:
    points = sorted(record.arms, key=lambda p: p.shop_day)
    if not points or all(np.isnan(getattr(p, name).mean) for p in points for name, *_ in ARMS):
        return None
    figure = new_figure(3.7)
    ax = figure.add_subplot()
    days = np.array([p.shop_day for p in points])
    ends: list[tuple[float, str, str]] = []
    for name, colour, line, marker in ARMS:
        found = [getattr(p, name) for p in points]
        mean, low, high = (np.array([getattr(i, k) for i in found]) for k in ("mean", "low", "high"))
        c, wide = COLOURS[colour], 2.4 if name == "full" else 1.8
        ax.fill_between(days, low, high, color=c, alpha=0.13, linewidth=0)
        ax.plot(days, mean, color=c, linestyle=line, linewidth=wide, marker=marker, markersize=4.5)
        if len(points) == 1:
            ax.vlines(days, low, high, color=c, linewidth=1.2)
        known = mean[~np.isnan(mean)]
        if len(known):
            ends.append((float(known[-1]), f"{name.replace('_', ' ')}  {num(float(known[-1]))}", c))
    flips = shop_day_at(record, [s.flip_s for s in record.swaps])
    reach = max(0.5, float(np.ptp(days)) * 0.04) if len(points) == 1 else float(np.ptp(days)) * 0.04
    ax.set_xlim(min([days[0], *flips]) - reach, max([days[-1], *flips]) + reach)
    swap_marks(ax, flips)
    end_labels(ax, ends)
    ax.set_xlabel("shop day")
    ax.set_ylabel("NDCG@10")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    last = ", ".join(label.replace("  ", " ") for _, label, _ in ends)
    alt = f"Lines of NDCG@10 of the three arms over {len(points)} shop days. On the last one: {last}."
    caption = (
        "All three arms answer the same queries, scored by the world’s hidden relevance. Bands are 95 % "
        "intervals of each arm alone; the arms share their queries, so that their differences (next picture) "
        "are known better than the bands suggest. "
        + (
            "Green marks are hot swaps, numbered as in the table."
            if len(flips)
            else "No release was swapped."
        )
    )
    return figure, "Quality over time", alt, caption


def _attribution(record: DemoRecord) -> Drawn | None:
    state = as_interval(record.document.get("state_fresh_minus_frozen"))
    weights = as_interval(record.document.get("full_minus_state_fresh"))
    return attribution_bars(state, weights, "the same queries in both arms, whole sessions resampled")


def attribution_bars(state: Interval, weights: Interval, how: str) -> Drawn | None:
    """The gain over frozen as two bars, state first; `how` the intervals came about. None if unknown."""
    if np.isnan(state.mean) or np.isnan(weights.mean):
        return None
    whole = state.mean + weights.mean
    figure = new_figure(2.0)
    ax = figure.add_subplot()
    rows = (
        ("fresh state", state, 0.0, "state"),
        ("fresh weights", weights, state.mean, "full"),
    )
    for y, (_, i, start, colour) in enumerate(rows):
        ax.barh(y, i.mean, left=start, height=0.56, color=COLOURS[colour], alpha=0.85, linewidth=0)
        if np.isfinite([i.low, i.high]).all():
            ax.plot([start + i.low, start + i.high], [y, y], color=COLOURS["ink"], linewidth=1.3)
            for x in (start + i.low, start + i.high):
                ax.plot([x, x], [y - 0.13, y + 0.13], color=COLOURS["ink"], linewidth=1.3)
        ax.plot(
            [start, start], [y - 0.42, y + 0.42], color=COLOURS["muted"], linewidth=1, linestyle=(0, (2, 2))
        )
        divides = finding(state) == finding(weights) == "gain"  # a share of what is not shown is no figure
        share = f" · {num(100 * i.mean / whole, 0)} %" if divides else ""
        known = not np.isnan([i.low, i.high]).any()
        below = f"{num(i.low)} to {num(i.high)}" if known else "no interval"
        for text, up, c, weight in (
            (signed(i.mean) + share, 7, colour, "bold"),
            (below, -7, "muted", "normal"),
        ):
            ax.annotate(
                text, (1.02, y), xycoords=("axes fraction", "data"), xytext=(0, up), weight=weight,
                textcoords="offset points", va="center", color=COLOURS[c], annotation_clip=False,
            )  # fmt: skip
    ax.set_yticks(range(2), [r[0] for r in rows], color=COLOURS["ink"])
    ax.set_ylim(1.6, -0.6)
    ax.grid(visible=False, axis="y")
    ax.margins(x=0.04)
    ax.set_xlabel("NDCG@10 above frozen")
    alt = f"Bars of the gain over frozen: fresh state {span(state)}, fresh weights {span(weights)} NDCG@10."
    caption = (
        "Fresh weights start where fresh state ends. Whiskers are 95 % intervals of the paired differences "
        f"({how}); one that crosses its dotted line shows no gain."
    )
    return figure, "Where the gain comes from", alt, caption


def _latency(record: DemoRecord) -> Drawn | None:
    width, starts, p50, p99 = per_second(record)
    if not len(starts):
        return None
    figure = new_figure(3.5)
    ax = figure.add_subplot()
    ms = waits(record)
    shade(ax, record)
    slow = np.argsort(-np.where(record.ok, ms, -np.inf), kind="stable")[: min(300, max(1, len(ms) // 50))]
    slow = slow[record.ok[slow]]
    middle = starts + width / 2
    ax.plot(
        record.due_s[slow],
        ms[slow],
        ".",
        color=COLOURS["frozen"],
        markersize=3,
        alpha=0.7,
        label="slowest 2 %",
    )
    for y, label, colour, line in ((p99, "p99", "full", "solid"), (p50, "p50", "state", "solid")):
        finite = np.where(np.isfinite(y), y, np.nan)
        ax.plot(middle, finite, color=COLOURS[colour], linestyle=line, linewidth=1.7, label=label)
    log_ms(ax, np.concatenate([p50, ms[slow]]))
    failed = record.due_s[~record.ok]
    if len(failed):
        top = np.full(len(failed), 0.97)
        ax.plot(failed, top, "x", color=COLOURS["failed"], transform=ax.get_xaxis_transform(), label="failed")
    swap_marks(ax, np.array([s.flip_s for s in record.swaps]))
    ends = [s.flip_s for s in record.swaps] + [r.end_s for r in record.refreshes]
    ax.set_xlim(0, max([float(record.due_s.max()) + width, *ends]))
    ax.set_xlabel("seconds of live traffic")
    ax.set_ylabel("ms from the due time")
    figure.legend(loc="outside upper right", ncols=6, fontsize=8.5, handlelength=1.6, columnspacing=1.4)
    overall = f"p50 {num(quantile(ms, 0.5), 1)} ms, p99 {num(quantile(ms, 0.99), 1)} ms"
    seconds = num(float(record.due_s.max()), 0)
    alt = f"Latency over {seconds} seconds: {overall} over all {len(ms):,} requests."
    caption = (
        f"Percentiles in bins of {num(width, 0)} s; latency counts from when a request was due, so that a "
        "stall is charged to all who waited. "
        + (f"Failed: {len(failed)}; the p99 line has a gap there." if len(failed) else "None failed.")
    )
    return figure, "Latency while models change", alt, caption


def _tail(record: DemoRecord) -> Drawn | None:
    ms = waits(record)
    held = {name: np.sort(ms[mask]) for name, mask in conditions(record).items() if mask.any()}
    if not held:
        return None
    figure = new_figure(3.1)
    ax = figure.add_subplot()
    ends = []
    for name, x in held.items():
        depth = np.linspace(0, np.log10(max(len(x), 2)), 240)  # 0: the fastest; 2: p99
        rank = np.minimum(np.ceil((1 - 10**-depth) * len(x)).astype(int), len(x) - 1)
        y = np.where(np.isfinite(x[rank]), x[rank], np.nan)
        colour, line = LINES[name]
        ax.plot(depth, y, color=COLOURS[colour], linestyle=line, linewidth=2)
        known = np.flatnonzero(np.isfinite(y))
        if len(known):
            at = (float(depth[known[-1]]), float(y[known[-1]]))
            ends.append((at, f"{name} ({len(x):,})", COLOURS[colour]))
    log_ms(ax, np.concatenate(list(held.values())))
    for at, label, colour in ends:
        ax.annotate(label, at, xytext=(5, 0), textcoords="offset points", color=colour, va="center")
    depths = [0, np.log10(2), 1, 2, 3, 4]
    labels = ["fastest", "p50", "p90", "p99", "p99.9", "p99.99"]
    deepest = max(np.log10(max(len(x), 2)) for x in held.values())
    shown = [i for i, d in enumerate(depths) if d <= deepest + 1e-9]
    ax.set_xticks([depths[i] for i in shown], [labels[i] for i in shown])
    ax.set_xlim(0, float(deepest) * 1.02)
    ax.set_ylabel("ms from the due time")
    figures = ", ".join(f"{name} {num(quantile(x, 0.99), 1)} ms" for name, x in held.items())
    caption = (
        "Each curve ends at its slowest request; the number of requests is in brackets. The scale "
        "stretches the tail: equal steps are ten times rarer."
    )
    return figure, "The tail by condition", f"Percentile curves of latency. p99: {figures}.", caption


def _freshness(record: DemoRecord) -> Drawn | None:
    weights = record.freshness_s[np.isfinite(record.freshness_s)]
    state = record.state_freshness_ms[np.isfinite(record.state_freshness_ms)]
    shown = [
        (
            weights,
            "Into fresh weights",
            "seconds from the event to the first reply trained on it",
            "s",
            "full",
        ),
        (state, "Into fresh state", "milliseconds until the event was in the live state", "ms", "state"),
    ]
    panels = [p for p in shown if len(p[0])]
    if not panels:
        return None
    figure = new_figure(2.9)
    said = []
    for n, (x, title, label, unit, colour) in enumerate(panels):
        ax = figure.add_subplot(1, len(panels), n + 1)
        p50, p99 = quantile(x, 0.5), quantile(x, 0.99)
        top = max(p99 * 1.25, 1e-9)
        ax.hist(
            np.minimum(x, top), bins=40, range=(0, top), color=COLOURS[colour], alpha=0.75,
            histtype="stepfilled", weights=np.full(len(x), 100 / len(x)),
        )  # fmt: skip
        for value, name, up in ((p50, "p50", 0.98), (p99, "p99", 0.9)):
            ax.axvline(value, color=COLOURS["ink"], linewidth=1, linestyle=(0, (3, 2)))
            ax.annotate(
                f"{name} {num(value, 1)} {unit}", (value, up), xycoords=("data", "axes fraction"),
                xytext=(3, 0), textcoords="offset points", va="top", fontsize=8.5,
            )  # fmt: skip
        ax.set_title(title)
        ax.set_xlabel(label)
        ax.set_ylabel("% of events" if n == 0 else "")
        ax.margins(y=0.18)
        ax.grid(visible=False, axis="x")
        said.append(f"{title.lower()}: p50 {num(p50, 1)} {unit}, p99 {num(p99, 1)} {unit}")
    hours = 24 / record.day_seconds
    caption = (
        f"A wall second is {num(hours, 1)} shop hours here. The last bar holds all that took longer. "
        "An event that no served release had seen at the end is not in the picture."
    )
    return figure, "Freshness", f"Histograms of freshness; {'; '.join(said)}.", caption


def _timeline(record: DemoRecord) -> Drawn | None:
    if not record.refreshes and not record.swaps:
        return None
    names = list(dict.fromkeys(r.component for r in record.refreshes))
    figure = new_figure(2.5 + 0.28 * len(names))
    grid = figure.add_gridspec(2, 1, height_ratios=[max(1.0, 0.6 * len(names)), 2.2])
    top, low = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    for run in record.refreshes:
        y, good = names.index(run.component), run.promoted
        top.barh(
            y, max(run.end_s - run.begin_s, 1e-3), left=run.begin_s, height=0.5, linewidth=1,
            color=COLOURS["train"] if good else "none", edgecolor=COLOURS["train"],
            hatch=None if good else "////",
        )  # fmt: skip
    top.set_yticks(range(len(names)), names, color=COLOURS["ink"])
    top.set_ylim(max(len(names), 1) - 0.4, -0.8)
    top.grid(visible=False, axis="y")
    top.set_title("Offline runs: filled were promoted, hatched were not", pad=15)
    t, age = live_age(record)
    low.fill_between(t, age, color=COLOURS["full"], alpha=0.13, linewidth=0)
    low.plot(t, age, color=COLOURS["full"], linewidth=1.8)
    low.set_title("Age of the live release: shop days since the newest event its training saw")
    low.set_xlabel("seconds of live traffic")
    low.set_ylabel("shop days")
    end = max([float(t[-1]), *(r.end_s for r in record.refreshes)])
    begin = min([0.0, *(r.begin_s for r in record.refreshes)])
    flips = np.array([s.flip_s for s in record.swaps])
    for ax in (top, low):
        ax.set_xlim(begin, max(end, begin + 1) * 1.01)
        swap_marks(ax, flips, numbered=ax is top)
    low.set_ylim(bottom=min(0.0, float(np.nanmin(age))))
    promoted = sum(r.promoted for r in record.refreshes)
    mean = float(np.trapezoid(age, t) / t[-1]) if t[-1] > 0 else float("nan")
    alt = (
        f"{len(record.refreshes)} offline runs, {promoted} promoted; {len(flips)} hot swaps. "
        f"The live release was {num(mean, 2)} shop days old in the mean, "
        f"{num(float(np.nanmax(age)), 2)} at most."
    )
    caption = f"{alt} What lies between the end of a run and its green mark is the installation."
    return figure, "The offline loop", alt, caption
