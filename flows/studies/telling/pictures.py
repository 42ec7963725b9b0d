"""The pictures of a study of update intervals, each with its caption and its text for who cannot see it.

A picture that would show nothing is None. How they look is `flows.report.theme`'s; importing this
module loads matplotlib.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from flows.report.pictures import attribution_bars
from flows.report.theme import COLOURS, Drawn, Picture, end_labels, new_figure, render
from flows.report.words import num, signed
from flows.studies.telling.record import Curve, Floats, Heat, PolicyResult, Recommendation, StudyRecord
from flows.studies.telling.words import age_name, half_life_words, is_advice, policy_name
from models.metrics import Interval

__all__ = ["draw"]

HUES = ("full", "state", "swap", "train", "amber", "sky", "frozen")
MARKS = ("o", "s", "D", "^", "v", "P", "X", "*", "<", ">")
LINES = ("solid", (0, (4, 2)), (0, (1, 1)), (0, (6, 2, 1, 2)))
ROWS = 4  # timelines, at most


def draw(record: StudyRecord) -> dict[str, Picture | None]:
    """All pictures by name, in the report's order; None where there is nothing to show."""
    makers: dict[str, Callable[[StudyRecord], Drawn | None]] = {
        "staleness": _staleness,
        "cost": _cost,
        "attribution": _attribution,
        "heat": _heat,
        "age": _age,
    }
    return {name: render(name, maker, record) for name, maker in makers.items()}


def _staleness(record: StudyRecord) -> Drawn | None:
    curves = [c for c in record.curves if np.isfinite(c.mean).any()]
    if not curves:
        return None
    figure = new_figure(3.7)
    ax = figure.add_subplot()
    ax.axhline(0, color=COLOURS["muted"], linewidth=1)
    ends = []
    for n, c in enumerate(curves):
        colour, line = COLOURS[HUES[n % len(HUES)]], LINES[n % len(LINES)]
        ax.fill_between(c.ages_d, c.low, c.high, color=colour, alpha=0.15, linewidth=0)
        ax.plot(
            c.ages_d, c.mean, color=colour, linestyle=line, linewidth=2.2,
            marker=MARKS[n % len(MARKS)], markersize=4.5,
        )  # fmt: skip
        known = np.flatnonzero(np.isfinite(c.mean))
        name = c.component.replace("_", " ") if len(curves) > 1 else "measured"
        ends.append((float(c.mean[known[-1]]), f"{name}  {signed(float(c.mean[known[-1]]))}", colour))
        if c.truth is not None:
            ax.plot(c.ages_d, c.truth, color=COLOURS["ink"], linewidth=1.4, linestyle=(0, (2, 2)))
            told = c.truth[np.isfinite(c.truth)]
            ends += (
                [(float(told[-1]), f"truth  {signed(float(told[-1]))}", COLOURS["ink"])] if len(told) else []
            )
        _half_life(ax, c, colour, n)
    _ages(ax, np.unique(np.concatenate([c.ages_d for c in curves])))
    ax.set_ylabel("NDCG@10 against the youngest model")
    ax.set_xlabel("age of the model: since the newest event of its training data")
    ax.margins(y=0.12)
    end_labels(ax, ends)
    said = "; ".join(
        f"{c.component.replace('_', ' ')}: {signed(float(c.mean[np.isfinite(c.mean)][-1]))} at "
        f"{age_name(float(c.ages_d[np.isfinite(c.mean)][-1]))}, {half_life_words(c.half_life_d)}"
        for c in curves
    )
    caption = (
        "Models of each age answered the same queries, with the same candidates and the same fresh "
        "state; only "
        "differences within a slice count, so that calendar and hour cancel. Bands are 95 % intervals "
        "(moving blocks of slices resampled); a band that holds zero shows no loss. Ages are spaced "
        "logarithmically."
    )
    return figure, "How a model loses with age", f"Staleness curves. {said}.", caption


def _half_life(ax: Axes, curve: Curve, colour: str, row: int) -> None:
    found = curve.half_life_d
    if found is None or not np.isfinite(found.mean):
        return
    ages = curve.ages_d
    if found.mean > 1.5 * float(ages[-1]):
        return
    if np.isfinite([found.low, found.high]).all():
        ax.axvspan(found.low, min(found.high, float(ages[-1]) * 2), color=colour, alpha=0.07, linewidth=0)
    ax.axvline(found.mean, color=colour, linewidth=1.2, linestyle=(0, (3, 2)))
    right = found.mean < np.sqrt(ages[0] * ages[-1])
    ax.annotate(
        half_life_words(found), (found.mean, 0.985 - 0.085 * row), xycoords=("data", "axes fraction"),
        xytext=(5 if right else -5, 0), textcoords="offset points", va="top",
        ha="left" if right else "right", color=colour, weight="bold", fontsize=8.5,
    )  # fmt: skip


def _ages(ax: Axes, ages: Floats) -> None:
    """A logarithmic axis of ages, named in hours and days, never too dense to read."""
    ax.set_xscale("log")
    low, high = float(ages.min()), float(ages.max())
    reach = max(1.04, (high / low) ** 0.02)
    ax.set_xlim(low / reach, high * reach)
    names = np.array(
        [
            1 / 1440,
            1 / 288,
            1 / 96,
            1 / 48,
            1 / 24,
            1 / 12,
            1 / 8,
            0.25,
            0.5,
            1,
            2,
            4,
            7,
            14,
            28,
            56,
            112,
            224,
        ]
    )
    shown = names[(names >= low / reach) & (names <= high * reach)]
    ax.xaxis.set_major_locator(FixedLocator(list(shown if len(shown) else ages[:1])))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: age_name(v)))


def _cost(record: StudyRecord) -> Drawn | None:
    shown = [p for p in record.policies if np.isfinite(p.ndcg10.mean) and np.isfinite(p.cpu_s_per_day)]
    if not shown:
        return None
    components = list(dict.fromkeys(p.component for p in shown))
    intervals = list(dict.fromkeys(p.interval for p in shown))
    figure = new_figure(4.1 if len(components) == 1 else 3.5 * len(components))
    paired = _paired(shown)
    for n, component in enumerate(components):
        ax = figure.add_subplot(len(components), 1, n + 1)
        mine = [p for p in shown if p.component == component]
        _policies(ax, mine, intervals, record.recommendation, paired=paired)
        if len(components) > 1:
            ax.set_title(component.replace("_", " "))
        ax.set_ylabel("NDCG@10 against the shortest" if paired else "NDCG@10")
    ax.set_xlabel("CPU-seconds of training a shop day")
    handles = [
        ax.plot([], [], MARKS[i % len(MARKS)], color=COLOURS[HUES[i % len(HUES)]], label=name)[0]
        for i, name in enumerate(intervals)
    ]
    figure.legend(
        handles=handles, loc="outside upper right", ncols=min(len(handles), 10), fontsize=8.5,
        handletextpad=0.2, columnspacing=1.1,
    )  # fmt: skip
    best = max(shown, key=lambda p: p.ndcg10.mean)
    front = [p for p in shown if p.on_front]
    alt = (
        f"{len(shown)} policies by cost and quality. Best: {policy_name(best)}, NDCG@10 "
        f"{num(best.ndcg10.mean)} for {num(best.cpu_s_per_day, 1)} CPU-seconds a day. On the front: "
        f"{'; '.join(policy_name(p) for p in front) or 'none'}."
    )
    caption = (
        "A mark a policy: its shape and colour tell the interval, its size the fraction of the data. "
        "The line is "
        "the Pareto front: nothing left of a mark on it is as good. Whiskers are 95 % intervals, "
        + ("paired with the shortest interval on all data" if paired else "each policy alone")
        + " (drawn for the front and for all data); neighbours whose whiskers overlap widely are not "
        "told apart."
    )
    return figure, "What quality costs", alt, caption


def _paired(policies: Sequence[PolicyResult]) -> bool:
    """Whether all but one of each component tell their difference from that one."""
    alone = [p.component for p in policies if p.minus_shortest is None]
    known = all(np.isfinite(p.minus_shortest.mean) for p in policies if p.minus_shortest is not None)
    return known and len(alone) == len(set(alone))


def _policies(
    ax: Axes,
    mine: Sequence[PolicyResult],
    intervals: Sequence[str],
    advice: Recommendation | None,
    *,
    paired: bool,
) -> None:
    cost = np.array([p.cpu_s_per_day for p in mine])
    least = float(cost[cost > 0].min()) if (cost > 0).any() else 1.0
    zero = least / 2.2  # where no cost at all is drawn on the logarithmic axis
    ax.set_xscale("log")
    level = Interval(0.0, 0.0, 0.0)  # of the reference against itself
    seen = [(p.minus_shortest or level) if paired else p.ndcg10 for p in mine]
    for p, found, x in zip(mine, seen, np.where(cost > 0, cost, zero), strict=True):
        i = intervals.index(p.interval)
        colour = COLOURS[HUES[i % len(HUES)]]
        if (p.on_front or p.fraction == 1) and np.isfinite([found.low, found.high]).all():
            ax.plot([x, x], [found.low, found.high], color=colour, linewidth=1, alpha=0.6, zorder=2)
        ax.plot(
            [x], [found.mean], MARKS[i % len(MARKS)], color=colour, markersize=3.5 + 5 * p.fraction,
            alpha=1 if p.on_front else 0.7, zorder=3, markeredgewidth=0.8,
            markeredgecolor=COLOURS["ink"] if p.on_front else colour,
        )  # fmt: skip
    shown_at = np.where(cost > 0, cost, zero)
    front = sorted((float(x), f.mean) for x, f, p in zip(shown_at, seen, mine, strict=True) if p.on_front)
    if front:
        xs, ys = zip(*front, strict=True)
        ax.step(xs, ys, where="post", color=COLOURS["ink"], linewidth=1.2, alpha=0.7, zorder=2.5)
    for x, f, p in zip(shown_at, seen, mine, strict=True):
        if is_advice(p, advice):
            ax.plot([x], [f.mean], "o", markersize=17, color=COLOURS["ink"], fillstyle="none", zorder=4)
            ax.annotate(
                "recommended", (float(x), f.mean), xytext=(0, 12), textcoords="offset points",
                ha="center", va="bottom", weight="bold", fontsize=8.5,
            )  # fmt: skip
    top = float(max(cost.max(), least))
    ax.set_xlim(zero / 1.5, top * 1.6)
    ticks = [
        x for e in range(-4, 7) for x in (10.0**e, 2 * 10.0**e, 5 * 10.0**e) if zero * 1.4 <= x <= top * 1.6
    ]
    if len(ticks) > 9:
        ticks = [x for x in ticks if f"{x:e}".startswith("1")]
    at = [zero, *ticks] if (cost == 0).any() else ticks
    ax.xaxis.set_major_locator(FixedLocator(at))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: "none" if abs(v - zero) < 1e-9 else f"{v:g}"))
    ax.margins(y=0.14)


def _attribution(record: StudyRecord) -> Drawn | None:
    unknown = Interval(np.nan, np.nan, np.nan)
    return attribution_bars(
        record.state_fresh_minus_frozen or unknown,
        record.full_minus_state_fresh or unknown,
        "the same queries and candidates in all arms, moving blocks of slices resampled",
    )


def _heat(record: StudyRecord) -> Drawn | None:
    heats = [h for h in record.heats if h.ndcg.size and np.isfinite(h.ndcg).any()]
    if not heats:
        return None
    heat = heats[0]
    loss = heat.ndcg - _youngest(heat)[:, None]
    reach = max(float(np.nanquantile(np.abs(loss), 0.98)), 1e-6)
    figure = new_figure(min(7.0, 1.5 + 0.2 * max(len(heat.slice_days), 7)))
    ax = figure.add_subplot()
    ax.grid(visible=False)
    ax.patch.set(facecolor=COLOURS["grid"], alpha=0.5)
    worse, better = COLOURS["full"], COLOURS["state"]
    # Clear in the middle, so that "no difference" is the page's own colour, light or dark.
    stops = [
        (0.0, to_rgba(worse, 1)),
        (0.5, to_rgba(worse, 0)),
        (0.5, to_rgba(better, 0)),
        (1.0, to_rgba(better, 1)),
    ]
    colours = LinearSegmentedColormap.from_list("loss", stops)
    rows, columns = loss.shape
    mesh = ax.pcolormesh(
        np.arange(columns + 1), np.arange(rows + 1), loss, cmap=colours,
        vmin=-reach, vmax=reach, edgecolors=COLOURS["paper"], linewidth=0.6,
    )  # fmt: skip
    for row, column in zip(*np.nonzero(np.isfinite(loss)), strict=True):
        if columns <= 16 and rows <= 30 and column:
            ax.text(
                column + 0.5, row + 0.5, _hundredths(float(loss[row, column])), ha="center", va="center",
                fontsize=7, color=COLOURS["ink"],
            )  # fmt: skip
    every = max(1, columns // 14)
    ax.set_xticks(np.arange(0, columns, every) + 0.5, [age_name(a) for a in heat.ages_d[::every]], fontsize=8)
    thin = max(1, rows // 18)
    ax.set_yticks(np.arange(0, rows, thin) + 0.5, [num(d, 1) for d in heat.slice_days[::thin]], fontsize=8)
    ax.set_ylim(rows, 0)
    ax.set_xlabel("age of the model")
    ax.set_ylabel("slice: shop day of the horizon")
    bar = figure.colorbar(mesh, ax=ax, shrink=0.8, pad=0.015)
    bar.outline.set_visible(False)
    bar.ax.yaxis.set_major_locator(MaxNLocator(5))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: signed(v)))
    worst = np.unravel_index(int(np.nanargmin(loss)), loss.shape)
    name = heat.component.replace("_", " ")
    alt = (
        f"Heat map of the {name}: NDCG@10 by age and slice, against the youngest model of the same slice. "
        f"The largest loss is {signed(float(loss[worst]))}, at age {age_name(float(heat.ages_d[worst[1]]))} "
        f"on day {num(float(heat.slice_days[worst[0]]), 1)}."
    )
    caption = (
        f"The {name} in single slices: NDCG@10 against the youngest model of the same slice, in "
        f"hundredths; orange is "
        "worse, blue is better, grey is unknown. Loss that grows to the right is decay; a diagonal edge is "
        "one shift on one day; stripes are recurrence; rows alike all along are noise of the slice."
    )
    return figure, "Age and day", alt, caption


def _youngest(heat: Heat) -> Floats:
    """The youngest known model's NDCG@10 of each slice: float64 [s]."""
    known = np.isfinite(heat.ndcg)
    first = known.argmax(axis=1)
    found: Floats = np.where(known.any(axis=1), heat.ndcg[np.arange(len(first)), first], np.nan)
    return found


def _hundredths(x: float) -> str:
    text = num(100 * x, 1 if abs(x) < 0.0995 else 0)
    return "0" if not any(c in "123456789" for c in text) else text


def _age(record: StudyRecord) -> Drawn | None:
    lines = [t for t in record.timelines if len(t.days)][:ROWS]
    if not lines:
        return None
    figure = new_figure(0.9 + 1.05 * len(lines))
    said = []
    for n, line in enumerate(lines):
        ax = figure.add_subplot(len(lines), 1, n + 1)
        colour = COLOURS[HUES[n % len(HUES)]]
        ax.fill_between(line.days, line.age_d, color=colour, alpha=0.15, linewidth=0)
        ax.plot(line.days, line.age_d, color=colour, linewidth=1.4)
        days = float(np.ptp(line.days))
        mean = float(np.trapezoid(line.age_d, line.days) / days) if days > 0 else float(line.age_d.mean())
        words = (
            f"{line.policy}: {age_name(mean)} in the mean, {age_name(float(np.nanmax(line.age_d)))} at most"
        )
        ax.set_title(words)
        said.append(words)
        ax.set_ylim(0, max(float(np.nanmax(line.age_d)) * 1.12, 1e-6))
        ax.set_xlim(float(line.days.min()), float(line.days.max()))
        ax.yaxis.set_major_locator(MaxNLocator(3))
        ax.set_ylabel("days")
        if n < len(lines) - 1:
            ax.tick_params(labelbottom=False)
    ax.set_xlabel("shop day of the horizon")
    caption = (
        "Days since the newest event that the live model’s training saw. Each tooth is a swap; it "
        "does not come down "
        "to zero, since training, gate, publishing and loading take their time too. Each row has its "
        "own scale."
    )
    return figure, "How old the live model is", f"Age of the live model. {'; '.join(said)}.", caption
