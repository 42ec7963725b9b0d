"""The HTML report of `shelflife demo`: one page that opens offline, pictures and figures beside it.

It knows neither the service nor the offline loop, only the `DemoRecord` that the demo made of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import orjson
from markupsafe import Markup

from flows.report import words
from flows.report.record import (
    ArmsPoint,
    DemoRecord,
    RefreshMark,
    SwapMark,
    as_interval,
    by_condition,
    completed,
    live_age,
    mean_of,
    per_second,
    quantile,
    shop_day_at,
)
from flows.report.words import summary
from infra.files import write_atomic

__all__ = [
    "ArmsPoint",
    "DemoRecord",
    "RefreshMark",
    "SwapMark",
    "command",
    "completed",
    "page_environment",
    "summary",
    "write_report",
]

TEMPLATES = Path(__file__).parents[1] / "templates"
REPEATABLE = (
    "seconds",
    "rate",
    "scale",
    "days",
    "day_seconds",
)  # options of the demo, if the document has them


def write_report(record: DemoRecord, folder: Path) -> Path:
    """Write report.html, demo.json and each picture as .svg and .png into `folder`; returns report.html.

    demo.json holds the demo's document, what follows from it, and every table that is shown.
    The page is written last: where it stands, all stands.
    """
    from flows.report.pictures import draw  # matplotlib takes a second, and only a report needs it
    from flows.report.theme import COLOURS, inline

    found = figures(record)
    pictures = {name: picture for name, picture in draw(record).items() if picture}
    for name, picture in pictures.items():
        write_atomic(folder / f"{name}.svg", picture.svg.encode())
        write_atomic(folder / f"{name}.png", picture.png)
    found["pictures"] = {
        n: {"title": p.title, "alt": p.alt, "caption": p.caption} for n, p in pictures.items()
    }
    options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
    write_atomic(folder / "demo.json", orjson.dumps(found, option=options, default=str))
    environment = page_environment(mean=mean_of, exact=_exact)
    page = environment.get_template("report.html").render(
        record=record,
        document=found["document"],
        answer=words.answer(found["document"]),
        verdict=words.verdict(found["document"]),
        finding=words.finding(found["document"].get("full_minus_state_fresh")),
        share=as_interval(found["document"].get("weights_share")),
        figures=found,
        leaves=list(_leaves(found["document"])),
        pictures={name: (picture, Markup(inline(picture))) for name, picture in pictures.items()},
        colours=COLOURS,
        command=command(record),
    )
    write_atomic(folder / "report.html", page.encode())
    return folder / "report.html"


def page_environment(**filters: Callable[..., Any]) -> jinja2.Environment:
    """What pages are rendered with: the templates, `num`, `signed` and further filters; a gap is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(num=words.num, signed=words.signed, **filters)
    return environment


def figures(record: DemoRecord) -> dict[str, Any]:
    """Every figure that the report shows. In JSON, NaN and infinity (a failed request's wait) become null."""
    width, starts, p50, p99 = per_second(record)
    age_s, age = live_age(record)
    flips = shop_day_at(record, [s.flip_s for s in record.swaps])
    document = completed(record)
    return {
        "document": document,
        "answer": list(words.answer(document)),
        "by_condition": by_condition(record),
        "arms": [
            vars(p) | {n: vars(getattr(p, n)) for n in ("frozen", "state_fresh", "full")} for p in record.arms
        ],
        "swaps": [
            vars(s) | {"shop_day": float(day), "age_days": float(day) - s.watermark_day}
            for s, day in zip(record.swaps, flips, strict=True)
        ],
        "refreshes": [vars(r) for r in record.refreshes],
        "freshness_s": _quantiles(record.freshness_s),
        "state_freshness_ms": _quantiles(record.state_freshness_ms),
        "latency_over_time": {"bin_s": width, "start_s": starts, "p50_ms": p50, "p99_ms": p99},
        "live_release_age": {"wall_s": age_s, "shop_days": age},
        "day_seconds": record.day_seconds,
        "machine": record.machine,
        "world": record.world,
        "commit": record.commit,
    }


def command(record: DemoRecord) -> str:
    """The command line that repeats the demo."""
    document = record.document
    parts = ["shelflife demo"]
    if "seed" in document:
        parts.append(f"--seed {document['seed']}")
    parts += [f"--{k.replace('_', '-')} {_exact(document[k])}" for k in REPEATABLE if k in document]
    if "day_seconds" not in document:
        parts.append(f"--day-seconds {_exact(record.day_seconds)}")
    return " ".join(parts)


def _quantiles(values: Any) -> dict[str, float]:
    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    return {"events": len(finite), **{f"p{q}": quantile(finite, q / 100) for q in (5, 25, 50, 75, 95, 99)}}


def _leaves(found: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(found, Mapping):
        for key, value in found.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(found, (list, tuple)) and found and isinstance(found[0], (Mapping, list, tuple)):
        for n, value in enumerate(found):
            yield from _leaves(value, f"{path}[{n}]")
    else:
        yield path, found


def _exact(x: Any) -> str:
    if isinstance(x, (list, tuple)):
        return ", ".join(_exact(v) for v in x) or words.NONE
    if isinstance(x, (float, np.floating)):
        return f"{float(x):.10g}" if np.isfinite(x) else words.NONE
    return words.NONE if x is None else str(x)
