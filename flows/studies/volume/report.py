"""The report of a study of volume: words, pictures and the page. It knows the record only."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from pathlib import Path

from flows.report.words import num, signed
from flows.studies.telling.report import write_page
from flows.studies.volume.record import VolumeCurve, VolumeRecord

__all__ = ["answer", "summary", "verdict", "write_report"]

_NAMES = {
    "ranker": "ranker",
    "text_classifier": "text classifier",
    "image_classifier": "image classifier",
}


def write_report(record: VolumeRecord, folder: Path) -> Path:
    """Write report.html, study.json and the pictures as SVG and PNG; returns report.html in `folder`."""
    from flows.report.theme import render
    from flows.studies.volume import pictures as draw

    makers: dict[str, Callable[[VolumeRecord], draw.Drawn | None]] = {
        "volume": draw.volume,
        "time": draw.training_time,
    }
    drawn = {name: render(name, maker, record) for name, maker in makers.items()}
    return write_page(
        folder,
        "volume.html",
        record.document(),
        pictures={name: p for name, p in drawn.items() if p},
        record=record,
        verdict=verdict(record),
        answer=answer(record),
        names=_NAMES,
    )


def verdict(record: VolumeRecord) -> str:
    """What the data is worth, short enough for a heading."""
    paying = [_NAMES.get(c.component, c.component) for c in record.curves if _pays(c)]
    if not paying:
        return "More data brings nothing that can be shown."
    if len(paying) == len(record.curves):
        return "More data pays for all that was trained."
    return f"More data pays for the {' and the '.join(paying)} only."


def _pays(curve: VolumeCurve) -> bool:
    return bool(curve.steps) and curve.steps[0].quality_points.low > 0


def answer(record: VolumeRecord) -> list[str]:
    """One sentence a component: what the last step costs and brings, and where more stops paying."""
    return [_said(c, record.margin) for c in record.curves]


def _said(curve: VolumeCurve, margin: float) -> str:
    name = _NAMES.get(curve.component, curve.component).capitalize()
    if not curve.steps:
        return f"{name}: one fraction only, nothing to compare."
    step = curve.steps[0]
    gain = step.quality_points
    text = (
        f"{name}: from {num(100 * step.fraction, 0)} to 100 % of the data costs "
        f"{signed(step.time_pct, 0)} % time "
        f"and changes {curve.metric} by {signed(gain.mean, 2)} points [{num(gain.low, 2)}, "
        f"{num(gain.high, 2)}]"
    )
    if gain.low <= 0 <= gain.high:
        return f"{text}, which is not told from nothing."
    if curve.law is None:
        return f"{text}."
    if curve.diminishing is None:
        return (
            f"{text}; at all of it, ten per cent more would still bring {num(curve.more_now, 4)} (margin "
            f"{num(margin)}), by the fitted law."
        )
    rows = [p.rows for p in curve.points]
    if curve.diminishing <= rows[0] / rows[-1] * 1.001:
        return f"{text}; by the fitted law ten per cent more brings less than {num(margin)} at each fraction."
    at = num(100 * curve.diminishing, 0)
    return f"{text}; from {at} % on, ten per cent more brings less than the margin of {num(margin)}."


def summary(record: VolumeRecord, report: str = "") -> str:
    """The text that the command prints at its end."""
    lines = [verdict(record)]
    lines += [line for sentence in answer(record) for line in textwrap.wrap(sentence, 110)]
    lines.append("")
    for c in record.curves:
        law = c.law
        if law is not None and math.isfinite(law.a):
            fitted = f"error ≈ {law.a:.3g}·n^−{law.b:.2f} + {law.c:.3g} (n: share of the data)"
            lines.append(f"  {_NAMES.get(c.component, c.component):<17} {fitted}, rms {law.rms:.2g}")
    lines += [f"  left out          {name}: {why}" for name, why in record.left_out.items()]
    if report:
        lines.append(f"  report            {report}")
    return "\n".join(lines)
