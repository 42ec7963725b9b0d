"""What a study of update intervals found: one record that is its JSON document and its report's source.

Every figure that a report shows stands here. It draws nothing and decides nothing; what could not be
measured is NaN or None, and null in JSON.
"""

from __future__ import annotations

import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from flows.studies.cells.asks import IntervalAsk
from flows.studies.cells.checks import Confirmed, Rechecked
from infra.errors import DataError
from infra.files import write_atomic
from models.metrics import Interval

__all__ = [
    "DOCUMENT",
    "Arms",
    "Baseline",
    "ComponentResult",
    "Confirmed",
    "Curve",
    "Floats",
    "Heat",
    "IntervalAsk",
    "PolicyResult",
    "Rechecked",
    "Recommendation",
    "StudyRecord",
    "Timeline",
    "from_plain",
    "load_document",
    "plain",
    "save_document",
]

Floats = NDArray[np.float64]
DOCUMENT = "study.json"  # its name in a report's folder


@dataclass(frozen=True)
class PolicyResult:
    """One policy: retrain `component` each `interval` on `fraction` of the window, cold or warm.

    `ndcg10`: over all slices; `over_never`: paired gain over the model of the horizon's start;
    `minus_shortest`: paired difference from the shortest interval with all data (at most 0 where
    freshness helps); `cpu_s_per_day`: of training, per shop day, 0 for `never`; `by_slice` [s]: NDCG@10 of
    each slice, by which another study of the same panel is compared.
    """

    component: str
    interval: str
    fraction: float
    start: str
    ndcg10: Interval
    cpu_s_per_day: float
    over_never: Interval | None = None
    minus_shortest: Interval | None = None
    on_front: bool = False
    by_slice: Floats | None = None


@dataclass(frozen=True)
class Arms:
    """NDCG@10 of the three arms on the same queries; `full` is the policy named beside it."""

    frozen: Interval
    state_fresh: Interval
    full: Interval


@dataclass(frozen=True)
class Curve:
    """How one component loses with its age, paired within slices.

    `ages_d` [a]: of the model at the slice's start, since the end of its training data; `mean`, `low`,
    `high` [a]: NDCG@10 less that of the youngest age on the same queries, 0 or below where it decays;
    `half_life_d`: None where there is no decay, `edge` "short" or "long" where the ages cannot tell it
    well; `truth` [a]: the true curve, where a world tells it.
    """

    component: str
    ages_d: Floats
    mean: Floats
    low: Floats
    high: Floats
    half_life_d: Interval | None = None
    truth: Floats | None = None
    edge: str = ""
    fraction: float = 1.0
    start: str = "cold"

    @classmethod
    def of_loss(
        cls, component: str, ages_d: Floats, loss: Floats, low: Floats, high: Floats, **more: Any
    ) -> Curve:
        """The curve of a loss (above 0 where the older model is worse) with its bounds."""
        mean, lower, upper = (0.0 - np.asarray(x, np.float64) for x in (loss, high, low))
        return cls(component, ages_d, mean, lower, upper, **more)


@dataclass(frozen=True)
class Heat:
    """NDCG@10 of a component by slice and age: `ndcg` [s, a], NaN where no such model can be.

    `slice_days` [s]: the slice's start in days since the horizon's start; `ages_d` [a].
    """

    component: str
    slice_days: Floats
    ages_d: Floats
    ndcg: Floats


@dataclass(frozen=True)
class Timeline:
    """Age in days of the live model under one policy: `days` [t] of the horizon, `age_d` [t]; a saw."""

    policy: str
    days: Floats
    age_d: Floats


@dataclass(frozen=True)
class Recommendation:
    """What to do: the interval and fraction chosen on half of the slices, judged on the other half.

    `difference`: the reference (the shortest interval on all data, or with a budget the best policy) less
    the recommended one, on the half it was not chosen on: above 0 the reference is better; `holds`:
    whether the claim passed there too; `why`: one sentence or two; `chosen_on`, `reported_on`: slices.
    """

    interval: str
    fraction: float
    why: str
    component: str = ""
    start: str = "cold"
    cpu_s_per_day: float = math.nan
    difference: Interval | None = None
    reference: str = "the shortest interval"
    holds: bool = True
    chosen_on: int = 0
    reported_on: int = 0


@dataclass(frozen=True)
class ComponentResult:
    """One component, the others as fresh as they can be.

    `full_minus_state_fresh`: what retraining it by the shortest interval on all data is worth over the model
    of the horizon's start; `state_fresh_minus_frozen`: what fresh state is worth beneath that model;
    `finding`, `half_life_d`, `recommendation`: as of the study; `beside_cpu_s`: CPU-seconds of the fresh
    models that it was seen through, which no policy pays for.
    """

    component: str
    full_minus_state_fresh: Interval
    state_fresh_minus_frozen: Interval
    finding: str
    half_life_d: Interval | None
    recommendation: Recommendation
    beside_cpu_s: float = 0.0


@dataclass(frozen=True)
class Baseline:
    """A ranking that is not retrained by the study: popularity, a known method; on the same queries."""

    name: str
    ndcg10: Interval
    ours_minus: Interval | None = None
    note: str = ""


class Document:
    """What a study's record has in common with any other: it goes to JSON and comes back."""

    study: str

    def document(self) -> dict[str, Any]:
        """The JSON document: every field, intervals as {mean, low, high}, arrays as lists, NaN as null."""
        found: dict[str, Any] = plain(self)
        return found

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """The record of a document. DataError where a field is missing or of another kind."""
        record: Self = from_plain(cls, document)
        return record

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a document, or the one in a report's folder."""
        return cls.from_document(load_document(path, study=cls.study))


@dataclass(frozen=True)
class StudyRecord(Document):
    """One finished study. `policies` to `seed` are promised to readers of the document; the rest may grow.

    `finding`: what kind of effect it is, a key of `words.FINDINGS` (decay, flat, shift, weekly, growth) or a
    sentence; `findings`: further sentences, nulls and surprises too; `method`: what a reader needs to judge
    it (slices, queries, window_d, horizon_d, burn_in_d, seeds, ...); `about`: the source in its own words;
    `arguments`: of the ask; `publish_delay_s`: from the end of a training's data to its model being live,
    measured; `recheck`, `confirmed`: the study's own checks, where they were made.
    """

    question: str
    source: str
    policies: tuple[PolicyResult, ...]
    recommendation: Recommendation | None
    arms: Arms | None
    full_minus_state_fresh: Interval | None
    state_fresh_minus_frozen: Interval | None
    half_life_d: Interval | None
    cells: int
    train_cpu_s: float
    each_policy_alone_cpu_s: float
    exact_grid_cpu_s: float
    seed: int
    margin: float
    publish_delay_s: float
    finding: str
    curves: tuple[Curve, ...] = ()
    heats: tuple[Heat, ...] = ()
    timelines: tuple[Timeline, ...] = ()
    baselines: tuple[Baseline, ...] = ()
    weights_share: Interval | None = None
    findings: tuple[str, ...] = ()
    components: tuple[ComponentResult, ...] = ()
    drift: str = ""
    budget_cpu_s: float | None = None
    wall_s: float = math.nan
    cells_reused: int = 0
    panel_key: str = ""
    command: str = ""
    commit: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    method: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    recheck: Rechecked | None = None
    confirmed: tuple[Confirmed, ...] = ()
    study: str = "interval"
    version: int = 1

    @property
    def broken(self) -> tuple[str, ...]:
        """What the study's own checks found that must not be."""
        found = []
        if self.recheck is not None and self.recheck.equal < self.recheck.cells:
            found.append(
                f"{self.recheck.cells - self.recheck.equal} of {self.recheck.cells} cells trained again "
                f"score otherwise, by up to {self.recheck.largest_difference:.2g} NDCG@10"
            )
        found += [
            f"{c.component} {c.interval} on {c.fraction:g} run alone differs from its composition by up to "
            f"{c.composed_difference:.2g} NDCG@10"
            for c in self.confirmed
            if not c.equal
        ]
        return tuple(found)

    def save(self, folder: Path) -> Path:
        """Write the document to `folder`/study.json, whole."""
        return save_document(self.document(), folder)


def plain(value: Any) -> Any:
    """Dataclasses, arrays and paths as what JSON knows; NaN and infinity become None."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value if value is None else str(value)


def from_plain(kind: Any, found: Any, where: str = "document") -> Any:
    """The inverse of `plain` for a type made of dataclasses, tuples, arrays, mappings and scalars.

    Names it does not know are left out, so that a newer document can be read.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if found is None:
            return None
        return from_plain(next(a for a in inner if a is not type(None)), found, where)
    if is_dataclass(kind):
        return _dataclass(kind, found, where)
    if origin is tuple:
        return tuple(from_plain(inner[0], v, f"{where}[{i}]") for i, v in enumerate(found or ()))
    if origin is np.ndarray:
        return np.array(_nans(found), np.float64)
    if kind is float:
        return math.nan if found is None else float(found)
    return dict(found) if isinstance(found, Mapping) else found


def _dataclass(kind: Any, found: Any, where: str) -> Any:
    if not isinstance(found, Mapping):
        raise DataError(f"{where} is {type(found).__name__}, expected a {kind.__name__}; run the study again")
    hints = typing.get_type_hints(kind)
    values = {}
    for f in fields(kind):
        if f.name in found:
            try:
                values[f.name] = from_plain(hints[f.name], found[f.name], f"{where}.{f.name}")
            except (TypeError, ValueError) as e:
                raise DataError(f"{where}.{f.name} is wrong ({e}); run the study again") from e
        elif f.default is MISSING and f.default_factory is MISSING:
            raise DataError(f"{where} has no {f.name!r}, expected a {kind.__name__}; run the study again")
    return kind(**values)


def _nans(found: Any) -> Any:
    if isinstance(found, list):
        return [_nans(v) for v in found]
    return math.nan if found is None else found


def save_document(document: Mapping[str, Any], folder: Path) -> Path:
    """Write a study's document to `folder`/study.json, whole; returns its path."""
    text = json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False)
    write_atomic(folder / DOCUMENT, text.encode())
    return folder / DOCUMENT


def load_document(path: Path, *, study: str = "") -> dict[str, Any]:
    """A study's document from its file or its report's folder. DataError where there is none."""
    file = path / DOCUMENT if path.is_dir() else path
    expected = f"expected the {DOCUMENT} of a {study or 'finished'} study, or the folder of its report"
    if not file.is_file():
        raise DataError(f"{file} is not there; {expected}")
    try:
        document = json.loads(file.read_text())
    except (ValueError, UnicodeDecodeError) as e:
        raise DataError(f"{file} is not JSON ({e}); {expected}") from e
    if not isinstance(document, dict) or "study" not in document:
        raise DataError(f"{file} is no study; {expected}")
    if study and document["study"] != study:
        raise DataError(f"{file} is of a {document['study']} study; {expected}")
    return document
