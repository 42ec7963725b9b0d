"""What a study is asked: intervals, fractions, where, how long; checked before anything runs.

It knows neither panels nor models.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from flows.studies.statistics.choice import MARGIN
from infra.clock import DAY_US, HOUR_US
from infra.errors import ConfigError, InputError

__all__ = [
    "COMPONENTS",
    "NEVER",
    "SOURCE_DEFAULTS",
    "VOLUME_COMPONENTS",
    "WORDLESS",
    "IntervalAsk",
    "VolumeAsk",
    "confirm_of",
    "duration_name",
    "duration_us",
    "fractions_of",
    "interval_ask",
    "intervals_of",
    "volume_ask",
]

NEVER = "never"
COMPONENTS = ("ranker", "text_classifier", "encoder")
WORDLESS = ("completejourney", "movielens")  # sources without searches
VOLUME_COMPONENTS = ("ranker", "text_classifier", "image_classifier")
_UNITS = {"m": HOUR_US // 60, "h": HOUR_US, "d": DAY_US, "w": 7 * DAY_US}
_MINUTE_US = _UNITS["m"]

# What is left out is taken from here; a home's own log is told by its length, once it is read.
SOURCE_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "world": {
        "intervals": ("6h", "12h", "1d", "2d", "7d", NEVER),
        "window_d": 4.0,
        "horizon_d": 14.0,
        "burn_in_d": 22.0,
        "slices": 14,
        "queries": 150,
    },
    "completejourney": {
        "intervals": ("1d", "7d", "14d", "28d", "56d", NEVER),
        "fractions": (0.2, 0.6, 1.0),
        "horizon_d": 168.0,
        "burn_in_d": 182.0,
        "slices": 24,
        "queries": 150,
    },
    "movielens": {
        "intervals": ("1d", "7d", "14d", "28d", NEVER),
        "fractions": (0.2, 0.6, 1.0),
        "horizon_d": 84.0,
        "burn_in_d": 112.0,
        "slices": 21,
        "queries": 100,
    },
    "home": {"intervals": ("6h", "12h", "1d", "2d", "7d", NEVER), "slices": 14, "queries": 150},
}


@dataclass(frozen=True)
class IntervalAsk:
    """One study of update intervals, complete but for what only the source can tell (None).

    `intervals`: canonical names, shortest first, `never` last; `margin`: NDCG@10 that a policy may
    lose and still count as not worse; `budget_cpu_s`: CPU-seconds a day that training may take;
    `window_d` None: all history; `workers` None: one a core; `seeds` trainings (and worlds) from `seed` on;
    `recheck`: cells of each component to train again, None one if any was trained; `confirm`: policies to
    run alone, as `1d:0.6`.
    """

    source: str = "world"
    intervals: tuple[str, ...] = ("6h", "12h", "1d", "2d", "7d", NEVER)
    fractions: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8, 1.0)
    component: str = "ranker"
    seeds: int = 1
    seed: int = 7
    drift: str = "strong"
    scale: float = 0.5
    window_d: float | None = 4.0
    horizon_d: float | None = 14.0
    burn_in_d: float | None = 22.0
    slices: int = 14
    queries: int = 150
    start: str = "cold"
    margin: float = MARGIN
    budget_cpu_s: float | None = None
    exact: bool = False
    workers: int | None = None
    dump: Path | None = None
    recheck: int | None = None
    confirm: tuple[str, ...] = ()

    @property
    def intervals_us(self) -> tuple[int | None, ...]:
        """Microseconds of each interval; None for `never`."""
        return tuple(duration_us(i) for i in self.intervals)

    @property
    def window_us(self) -> int | None:
        """The window in microseconds; None for all history."""
        return None if self.window_d is None else int(self.window_d * DAY_US)

    @property
    def components(self) -> tuple[str, ...]:
        """The components under study, one stale at a time."""
        return COMPONENTS if self.component == "all" else (self.component,)

    @property
    def confirmed(self) -> tuple[tuple[int | None, float], ...]:
        """Interval and fraction of each policy to run alone."""
        each = [text.split(":") for text in self.confirm]
        return tuple((duration_us(interval), float(fraction)) for interval, fraction in each)

    def check(self, *, horizon_d: float, resolution_us: int = 0, source: str = "") -> None:
        """Raise InputError for an interval longer than the horizon, or finer than the time stamps."""
        where = f" of {source or self.source}"
        for name, length in zip(self.intervals, self.intervals_us, strict=True):
            if length is None:
                continue
            if length > horizon_d * DAY_US:
                raise InputError(
                    f"interval {name} is longer than the horizon{where}, {horizon_d:g} days; "
                    "leave it out, ask for `never`, or lengthen --horizon-d"
                )
            if length < resolution_us:
                raise InputError(
                    f"interval {name} is finer than the time stamps{where} support, "
                    f"{duration_name(resolution_us)}; expected that or longer"
                )

    def command(self) -> str:
        """The command line that repeats this study."""
        return _command("shelflife study interval", self, interval_ask(self.source, check=False))


@dataclass(frozen=True)
class VolumeAsk:
    """One study of training data's volume: which fractions, of what, how often repeated.

    `source`: world, made of `scale` and `days`, or the folder of a home; `photos`: all of the image
    classifier's data; `margin`: the least gain of quality by ten per cent more data that counts.
    """

    source: str = "world"
    fractions: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8, 1.0)
    components: tuple[str, ...] = VOLUME_COMPONENTS
    seeds: int = 3
    seed: int = 7
    scale: float = 0.5
    days: int = 14
    photos: int = 12_000
    margin: float = 0.002

    def command(self) -> str:
        """The command line that repeats this study."""
        return _command("shelflife study volume", self, VolumeAsk(self.source))


def interval_ask(source: str = "world", *, check: bool = True, **given: Any) -> IntervalAsk:
    """An ask with what was not given (None) taken from the source's defaults; InputError for nonsense."""
    if source in SOURCE_DEFAULTS and source != "home":
        defaults = SOURCE_DEFAULTS[source]
    elif not check or Path(source).expanduser().is_dir():
        defaults = SOURCE_DEFAULTS["home"]
    else:
        raise InputError(
            f"--source is {source!r}; expected world, completejourney, movielens or the folder of a home"
        )
    blank: dict[str, Any] = {"source": source, "window_d": None, "horizon_d": None, "burn_in_d": None}
    chosen = {k: v for k, v in given.items() if v is not None}
    ask = replace(IntervalAsk(), **(blank | dict(defaults) | chosen))
    if check:
        _check(ask)
        if ask.horizon_d is not None:
            ask.check(horizon_d=ask.horizon_d)
    return ask


def volume_ask(source: str = "world", *, component: str = "all", **given: Any) -> VolumeAsk:
    """An ask of a volume study; InputError for nonsense. `component`: one, or `all`."""
    if component not in (*VOLUME_COMPONENTS, "all"):
        known = ", ".join(VOLUME_COMPONENTS)
        raise ConfigError(f"--component is {component!r}; expected one of {known}, all")
    if source != "world" and not Path(source).expanduser().is_dir():
        raise InputError(f"--source is {source!r}; expected world or the folder of a home")
    ask = replace(VolumeAsk(), source=source, **given)
    if component != "all":
        ask = replace(ask, components=(component,))
    for name, least in (("seeds", 1), ("days", 3), ("photos", 500)):
        if getattr(ask, name) < least:
            raise ConfigError(f"--{name} is {getattr(ask, name)}; expected {least} or more")
    if not 0 < ask.scale < math.inf:
        raise ConfigError(f"--scale is {ask.scale:g}; expected a number above 0")
    if not 0 < ask.margin < 1:
        raise ConfigError(f"--margin is {ask.margin:g}; expected above 0 and below 1, such as 0.002")
    if len(ask.fractions) < 2:
        raise InputError("one fraction tells no volume from another; expected two or more, such as 0.2,1.0")
    return ask


def _check(ask: IntervalAsk) -> None:
    if ask.component not in (*COMPONENTS, "all"):
        raise ConfigError(f"--component is {ask.component!r}; expected one of {', '.join(COMPONENTS)}, all")
    if ask.source in WORDLESS and ask.component in COMPONENTS[1:]:
        raise InputError(
            f"--component {ask.component} learns from searches, and {ask.source} has none: it says what was "
            "taken, not what was typed; take --component ranker, --source world, or a home with searches"
        )
    if ask.source == "world" and ask.drift not in ("none", "mild", "strong"):
        raise ConfigError(f"--drift is {ask.drift!r}; expected none, mild or strong")
    if ask.start not in ("cold", "warm"):
        raise ConfigError(f"--start is {ask.start!r}; expected cold or warm")
    for name in ("window_d", "horizon_d", "burn_in_d", "scale", "budget_cpu_s"):
        value = getattr(ask, name)
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"--{name.replace('_', '-')} is {value:g}; expected a number above 0")
    if not 0 < ask.margin < 1:
        raise ConfigError(
            f"--margin is {ask.margin:g}; expected an NDCG@10 above 0 and below 1, such as {MARGIN:g}"
        )
    for name, least in (("seeds", 1), ("slices", 2), ("queries", 1), ("workers", 1)):
        value = getattr(ask, name)
        if value is not None and value < least:
            raise ConfigError(f"--{name} is {value}; expected {least} or more")
    if ask.recheck is not None and ask.recheck < 0:
        raise ConfigError(f"--recheck is {ask.recheck}; expected 0 or more")
    for text, (length, fraction) in zip(ask.confirm, ask.confirmed, strict=True):
        if length not in ask.intervals_us or fraction not in ask.fractions:
            raise InputError(
                f"--confirm has {text}, which is none of the study's policies; expected one of its intervals "
                f"({', '.join(ask.intervals)}) and fractions ({_said(ask.fractions)})"
            )
    if not ask.intervals or not ask.fractions:
        raise ConfigError("no interval or no fraction is left; expected at least one of each")


def duration_us(text: str) -> int | None:
    """`30m`, `6h`, `1d`, `2w` in microseconds; None for `never`. InputError for anything else, and for 0."""
    word = text.strip().lower()
    if word == NEVER:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([mhdw])", word)
    if found is None:
        raise InputError(f"interval {text!r} is not understood; expected e.g. 30m, 6h, 1d, 2w or never")
    length = round(float(found[1]) * _UNITS[found[2]])
    if length < _MINUTE_US:
        raise InputError(
            f"interval {text!r} is shorter than a minute; expected e.g. 30m, 6h, 1d, 2w or never"
        )
    return length


def duration_name(length_us: int | None) -> str:
    """The shortest exact name in days, hours or minutes; `never` for None."""
    if length_us is None:
        return NEVER
    for unit in ("d", "h"):
        if length_us % _UNITS[unit] == 0:
            return f"{length_us // _UNITS[unit]}{unit}"
    return f"{length_us / _MINUTE_US:g}m"


def intervals_of(text: str) -> tuple[str, ...]:
    """A comma-separated list of intervals: canonical, each once, shortest first, `never` last."""
    lengths = {duration_us(part) for part in _parts(text, "interval")}
    ordered = sorted(lengths, key=lambda x: math.inf if x is None else x)
    return tuple(duration_name(x) for x in ordered)


def fractions_of(text: str) -> tuple[float, ...]:
    """A comma-separated list of fractions in (0, 1], each once, rising. InputError for others."""
    found = set()
    for part in _parts(text, "fraction"):
        try:
            value = float(part)
        except ValueError:
            raise InputError(f"fraction {part!r} is no number; expected e.g. 0.2,0.6,1.0") from None
        if not 0 < value <= 1:
            raise InputError(f"fraction is {part}; expected more than 0 and at most 1")
        found.add(value)
    return tuple(sorted(found))


def confirm_of(text: str) -> tuple[str, ...]:
    """A list of policies such as `1d:1.0,2d:0.6`: canonical, each once. InputError for others."""
    found = []
    for part in _parts(text, "policy"):
        interval, colon, fraction = part.partition(":")
        if not colon:
            raise InputError(f"policy {part!r} is not understood; expected interval:fraction, e.g. 1d:0.6")
        (share,) = fractions_of(fraction)
        found.append(f"{duration_name(duration_us(interval))}:{share:g}")
    return tuple(dict.fromkeys(found))


def _parts(text: str, what: str) -> list[str]:
    parts = [p.strip() for p in text.split(",") if p.strip()]
    if not parts:
        raise InputError(f"no {what} was given; expected a list separated by commas")
    return parts


def _command(verb: str, ask: Any, first: Any) -> str:
    parts = [verb, f"--source {_quoted(ask.source)}"]
    for f in fields(ask):
        value, usual = getattr(ask, f.name), getattr(first, f.name)
        if f.name in ("source", "dump", "workers") or value is None or value is False or value == ():
            continue
        if value == usual and f.name != "seed":
            continue
        option = f"--{f.name.replace('_', '-')}".replace("--components", "--component")
        parts.append(option if value is True else f"{option} {_said(value)}")
    return " ".join(parts)


def _said(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(_said(v) for v in value)
    return f"{value:g}" if isinstance(value, float) else _quoted(str(value))


def _quoted(text: str) -> str:
    return f'"{text}"' if re.search(r"\s", text) else text
