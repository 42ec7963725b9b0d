"""What a study of the training data's volume found: one record that is its JSON document.

Beside each of our rows stands the published one, where there is one. It draws and decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flows.studies.telling.record import Document
from flows.studies.volume.fit import PowerLaw
from models.metrics import Interval

__all__ = ["PUBLISHED", "VolumeCurve", "VolumePoint", "VolumeRecord", "VolumeStep"]

# AIBench Scenario, "Offline training": (component, from fraction) → time %, quality %; to 100 % of the data.
PUBLISHED: Mapping[tuple[str, float], tuple[float, float]] = {
    ("image_classifier", 0.6): (51.0, 4.96),
    ("image_classifier", 0.8): (35.0, 1.9),
    ("ranker", 0.6): (70.0, 1.36),
    ("ranker", 0.8): (17.0, 0.12),
}


@dataclass(frozen=True)
class VolumePoint:
    """One fraction: rows (or photos) trained on, CPU-seconds (mean, least, most of the seeds), quality."""

    fraction: float
    rows: int
    cpu_s: Interval
    quality: Interval


@dataclass(frozen=True)
class VolumeStep:
    """From one fraction to all of the data, in the published form.

    `time_pct`: more CPU-seconds, in per cent; `quality_points`: more quality, absolute, times 100, paired;
    `quality_pct`: the same relative to the fraction's; `published_*`: None where nothing was published.
    """

    fraction: float
    time_pct: float
    quality_points: Interval
    quality_pct: float
    published_time_pct: float | None = None
    published_quality_pct: float | None = None


@dataclass(frozen=True)
class VolumeCurve:
    """One component over the fractions. `quality` is `metric`, on `cases` held-out test cases.

    `law`: of the error, with all of the data as 1, None where no gain of more data can be shown;
    `diminishing`: the first share of the data from which ten per cent more brings less than the margin, None
    if there is none; `more_now`: what ten per cent more than all would bring by the law; `note`: what a
    reader has to know of it.
    """

    component: str
    metric: str
    cases: int
    points: tuple[VolumePoint, ...]
    steps: tuple[VolumeStep, ...]
    law: PowerLaw | None
    diminishing: float | None
    more_now: float = math.nan
    note: str = ""


@dataclass(frozen=True)
class VolumeRecord(Document):
    """One finished study of volume; `left_out`: components without data, and why."""

    question: str
    source: str
    curves: tuple[VolumeCurve, ...]
    seed: int
    seeds: int
    margin: float
    left_out: Mapping[str, str] = field(default_factory=dict)
    train_cpu_s: float = math.nan
    wall_s: float = math.nan
    command: str = ""
    commit: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    study: str = "volume"
    version: int = 1
