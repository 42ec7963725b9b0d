"""The gate: is the challenger worse than the champion on the newest logged slice, or else unfit to serve?

Both score the same held-out sessions' requests, each with its own encoder and classifier. Logs
only: the gate never sees the world's truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flows.offline.gate_checks import latencies_us, segments, unsound
from flows.offline.inputs import Inputs, Scorers, gate_rows
from flows.offline.train import learned_us, scorers_key
from infra.errors import ConfigError
from models.examination import Examination
from models.metrics import Interval, bootstrap_mean
from models.release import Release
from models.training_rows import TrainingRows

__all__ = ["MARGIN", "GateLimits", "Unloadable", "Verdict", "judge", "refused"]

MARGIN = 0.01  # NDCG@10 by which a challenger may be worse


@dataclass(frozen=True)
class GateLimits:
    """What a challenger has to keep to. Raises ConfigError for what is impossible.

    `margin`: NDCG@10 by which it may be worse. It passes where the whole 95 % interval of the difference
    is above `-margin` (non-inferiority), and is refused where the mean is below. Between the two the slice
    is too small to tell: `undecided` says whether the mean is then enough or it is refused.
    `fewest`: clicked requests below which a slice or a segment says nothing.
    `segment_margin`: NDCG@10 by which it may be worse for new users, new items and tail queries each;
    refused where the mean is below and the interval is below zero.
    `latency_ratio`, `latency_us`: its ranker may take so many times the champion's time, or that time.
    `size_ratio`, `size_mb`: the release may be so many times as large as the champion's, or that large.
    Of a champion that cannot be loaded only `latency_us` and the sizes are left.
    """

    margin: float = MARGIN
    undecided: Literal["mean", "refuse"] = "mean"
    fewest: int = 30
    segment_margin: float = 0.03
    latency_ratio: float = 3.0
    latency_us: float = 2_000.0
    size_ratio: float = 3.0
    size_mb: float = 200.0

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if limit.name == "undecided":
                if value not in ("mean", "refuse"):
                    raise ConfigError(f"undecided is {value!r}; expected mean or refuse")
            elif not value >= 0:
                raise ConfigError(f"the gate's {limit.name} is {value}; expected 0 or more")


@dataclass(frozen=True)
class Unloadable:
    """A champion that cannot be loaded, why, and its size in bytes where a record tells it."""

    release_id: str
    why: str
    size: int | None = None


@dataclass(frozen=True)
class Verdict:
    """What the gate found. `difference` is challenger less champion, NDCG@10 on logged clicks.

    `champion`: who was it; `compared_with`: the same, None where nothing was compared.
    `segments`: the same by segment, with the number of requests; `latency_us` and `size_mb`: of the
    challenger, of the champion where it is known, and what is allowed.
    """

    passed: bool
    reasons: tuple[str, ...]
    champion: str | None
    challenger: str
    requests: int
    ndcg10_champion: float | None = None
    ndcg10_challenger: float | None = None
    difference: dict[str, float] | None = None
    margin: float = MARGIN
    segments: dict[str, dict[str, float]] = field(default_factory=dict)
    latency_us: dict[str, float] = field(default_factory=dict)
    size_mb: dict[str, float] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    compared_with: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON and the registry."""
        return {**self.__dict__, "reasons": list(self.reasons), "limits": dict(self.limits)}

    def figures(self) -> dict[str, float]:
        """Its numbers by name, for a registry's metrics."""
        found = {"passed": float(self.passed), "requests": float(self.requests)}
        found |= {f"difference/{k}": v for k, v in (self.difference or {}).items()}
        for name, numbers in (("latency_us", self.latency_us), ("size_mb", self.size_mb)):
            found |= {f"{name}/{k}": v for k, v in numbers.items()}
        for segment, numbers in self.segments.items():
            found |= {f"{segment}/{k}": v for k, v in numbers.items()}
        return found


def refused(challenger: str, champion: str | None, reason: str, limits: GateLimits) -> Verdict:
    """The verdict on what cannot even be judged."""
    return Verdict(False, (reason,), champion, challenger, 0, margin=limits.margin, limits=asdict(limits))


def judge(
    inputs: Inputs,
    challenger: Release,
    champion: Release | Unloadable | None,
    *,
    margin: float | None = None,
    limits: GateLimits | None = None,
) -> Verdict:
    """Hold a challenger against the champion and the limits; `margin` alone: the default limits with it.

    Without a champion (None: the first release) its numbers have to be sound; in place of one that cannot be
    loaded it has to keep the absolute limits, too.
    """
    limits = limits or (GateLimits() if margin is None else GateLimits(margin=margin))
    name, old_name = challenger.release_id, None if champion is None else champion.release_id
    examination = Examination() if challenger.ranker is None else challenger.ranker.examination
    rows = gate_rows(inputs, _scorers(challenger))
    bad = unsound(inputs, challenger, rows)
    if bad is not None:
        return refused(name, old_name, bad, limits)
    if champion is None:
        reason = "the first release: there is no champion to compare with"
        return Verdict(True, (reason,), None, name, 0, margin=limits.margin, limits=asdict(limits))
    if isinstance(champion, Unloadable):
        return _alone(challenger, champion, rows, limits)
    if champion.ranker is not None and challenger.ranker is None:
        return refused(name, old_name, "the challenger has no ranker, the champion has one", limits)
    if champion.learnt_from_clicks and not challenger.learnt_from_clicks:
        return refused(
            name, old_name, "its encoder has learnt from no clicks, the champion's from some", limits
        )

    against: list[str] = []
    told: list[str] = []
    figures: dict[str, Any] = {"requests": 0}
    if champion.ranker is None or challenger.ranker is None:
        told.append("neither or only the challenger has a ranker")
    else:
        # One model of examination for both: theirs differ by chance.
        new, sessions = _scores(challenger, rows, examination)
        figures["requests"] = len(new)
        if len(new) < limits.fewest:
            told.append(
                f"only {len(new)} clicked requests in the newest slice, {limits.fewest} are needed to refuse"
            )
        else:
            old = new if _same(challenger, champion) else _champion_scores(inputs, champion, examination)
            passed, reason, more = _compared(new, old, sessions, limits)
            (told if passed else against).append(reason)
            parts = _by_segment(segments(inputs, rows), new - old, sessions)
            figures |= {**more, "segments": parts}
            against += _guards(parts, limits)
        new_us, old_us = latencies_us((challenger.ranker, champion.ranker), rows.features)
        figures["latency_us"] = _beside(new_us, old_us, limits.latency_us, limits.latency_ratio)
        against += _too_slow(figures["latency_us"])
    figures["size_mb"] = _sizes(challenger, champion.manifest.size, limits)
    against += _too_large(figures["size_mb"])
    return Verdict(
        not against,
        tuple(against or told),
        old_name,
        name,
        margin=limits.margin,
        limits=asdict(limits),
        compared_with=old_name,
        **figures,
    )


def _alone(challenger: Release, champion: Unloadable, rows: TrainingRows, limits: GateLimits) -> Verdict:
    """The verdict where there is a champion and nothing to compare with."""
    against: list[str] = []
    figures: dict[str, Any] = {}
    if challenger.ranker is not None:
        (took,) = latencies_us((challenger.ranker,), rows.features)
        figures["latency_us"] = _beside(took, None, limits.latency_us, limits.latency_ratio)
        against += _too_slow(figures["latency_us"])
    figures["size_mb"] = _sizes(challenger, champion.size, limits)
    against += _too_large(figures["size_mb"])
    told = f"the champion {champion.release_id} cannot be loaded ({champion.why}): compared with nothing"
    return Verdict(
        not against,
        (told, *against) if against else (f"{told}; the absolute limits are kept",),
        champion.release_id,
        challenger.release_id,
        0,
        margin=limits.margin,
        limits=asdict(limits),
        **figures,
    )


def _compared(
    new: NDArray[np.float64], old: NDArray[np.float64], sessions: NDArray[np.int64], limits: GateLimits
) -> tuple[bool, str, dict[str, Any]]:
    """Whether it is not inferior, the reason, and the figures."""
    difference = bootstrap_mean(new - old, clusters=sessions, seed=1)
    figures = {
        "ndcg10_champion": float(np.nanmean(old)),
        "ndcg10_challenger": float(np.nanmean(new)),
        "difference": difference.as_dict(),
    }
    by = f"than the champion's by more than {limits.margin:g}: {difference}"
    if difference.mean < -limits.margin:
        return False, f"NDCG@10 worse {by}", figures
    if difference.low >= -limits.margin:
        return True, f"NDCG@10 not worse {by}", figures
    if limits.undecided == "refuse":
        return False, f"too few requests to tell that NDCG@10 is not worse {by}", figures
    return True, f"NDCG@10 not worse {by} (by its mean: the slice is too small for more)", figures


def _by_segment(
    found: dict[str, NDArray[np.bool_]], difference: NDArray[np.float64], sessions: NDArray[np.int64]
) -> dict[str, dict[str, float]]:
    parts = {}
    for name, part in found.items():
        part = part & ~np.isnan(difference)
        parts[name] = {"requests": float(part.sum())}
        if part.any():
            parts[name] |= bootstrap_mean(difference[part], clusters=sessions[part], seed=1).as_dict()
    return parts


def _guards(parts: Mapping[str, Mapping[str, float]], limits: GateLimits) -> list[str]:
    reasons = []
    for name, found in parts.items():
        if found["requests"] < limits.fewest:
            continue
        interval = Interval(found["mean"], found["low"], found["high"])
        if interval.mean < -limits.segment_margin and interval.high < 0:
            who = name.replace("_", " ")
            reasons.append(f"NDCG@10 of {who} worse by more than {limits.segment_margin:g}: {interval}")
    return reasons


def _beside(new: float, old: float | None, least: float, ratio: float) -> dict[str, float]:
    """The challenger's figure, the champion's where it is known, and what is allowed."""
    known = {} if old is None else {"champion": old}
    return {"challenger": new, **known, "allowed": max(least, ratio * (old or 0.0))}


def _sizes(challenger: Release, old: int | None, limits: GateLimits) -> dict[str, float]:
    held = None if old is None else old / 1e6
    return _beside(challenger.manifest.size / 1e6, held, limits.size_mb, limits.size_ratio)


def _too_slow(us: Mapping[str, float]) -> list[str]:
    if us["challenger"] <= us["allowed"]:
        return []
    other = f", the champion's {us['champion']:,.0f}" if "champion" in us else ""
    return [f"the ranker takes {us['challenger']:,.0f} us a request{other}; allowed are {us['allowed']:,.0f}"]


def _too_large(mb: Mapping[str, float]) -> list[str]:
    if mb["challenger"] <= mb["allowed"]:
        return []
    other = f", the champion {mb['champion']:,.1f}" if "champion" in mb else ""
    return [f"the release has {mb['challenger']:,.1f} MB{other}; allowed: {mb['allowed']:,.1f}"]


def _scores(
    release: Release, rows: TrainingRows, examination: Examination
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    if not len(rows.groups) or release.ranker is None:
        return np.empty(0), np.empty(0, np.int64)
    return release.ranker.logged_ndcg10(rows, examination=examination, ties=1)[1], rows.session_ids


def _champion_scores(inputs: Inputs, champion: Release, examination: Examination) -> NDArray[np.float64]:
    return _scores(champion, gate_rows(inputs, _scorers(champion)), examination)[0]


def _scorers(release: Release) -> Scorers:
    return Scorers(
        release.encoder,
        release.text_classifier,
        release.speller,
        release.vector_index,
        scorers_key(release.manifest.artifacts),
        learned_us(release.manifest.artifacts),
    )


def _same(a: Release, b: Release) -> bool:
    wanted = ("ranker", "encoder", "text_classifier", "speller", "vector_index")
    return all(
        getattr(a.manifest.artifacts.get(n), "content", None)
        == getattr(b.manifest.artifacts.get(n), "content", None)
        for n in wanted
    )
