"""The shadow check: a new release and the live one answer recent real queries, and are compared.

What is clearly wrong is refused with a reason: failing, empty, slow, not finite, or far from the words that
were asked for. It judges no ranking finely: that is the gate's, on logged clicks. It knows no swap.

A release is data: what one may cost more than another is processor time, and that is what is compared. By the
clock on the wall a busy service would refuse good releases: the check waits for requests.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from data.shop import Request
from infra.errors import ShelflifeError
from infra.give_way import give_way

__all__ = ["TOP", "Answer", "ShadowLimits", "ShadowRefused", "shadow_check"]

TOP = 10
_FEWEST_MATCHED = 8  # queries with words, below which the match says nothing
_WARMING = 8  # answers of a release whose times do not count: they fill its caches
_TIMED = 4  # the live release is asked each fourth query again, for the time that it takes

S = TypeVar("S")


@dataclass(frozen=True)
class Answer:
    """What a shadow check sees of a reply: item_ids int64 [n], scores float64 [n].

    `match`: mean share in [0, 1] of the query's words that the first `TOP` items have; NaN without words.
    """

    item_ids: NDArray[np.int64]
    scores: NDArray[np.float64]
    match: float = math.nan


class ShadowRefused(ShelflifeError):
    """A release did not hold up beside the live one."""


@dataclass(frozen=True)
class ShadowLimits:
    """What a new release may do on recent real queries, beside the live one.

    `max_empty_share`: how many more of the queries may come back empty. `min_match_share`: what its first
    items have to match of the queries' words, as a share of what the live one's match. The latency ratio is
    of medians of CPU-ms; below `free_ms` it does not count. Between two queries lie at least `pause_s` and
    `rest` times the CPU-time of the last one, at most `longest_s`, so that requests get the processor, and
    who waits then goes first; none without a live release, where nobody asks.
    """

    queries: int = 24
    max_errors: int = 0
    max_empty_share: float = 0.10
    min_match_share: float = 0.5
    max_latency_ratio: float = 5.0
    free_ms: float = 5.0
    pause_s: float = 0.005
    rest: float = 15.0
    longest_s: float = 0.1


@dataclass
class _Seen:
    """What was found."""

    errors: list[str] = field(default_factory=list)
    ours_ms: list[float] = field(default_factory=list)
    theirs_ms: list[float] = field(default_factory=list)
    overlaps: list[float] = field(default_factory=list)
    matches: list[tuple[float, float]] = field(default_factory=list)  # the new one's, the live one's
    empty: int = 0
    empty_live: int = 0
    broken: int = 0

    @property
    def match(self) -> tuple[float, float]:
        """Mean matches of the new and of the live release; NaN of nothing."""
        if not self.matches:
            return math.nan, math.nan
        ours, theirs = np.mean(self.matches, axis=0).tolist()
        return ours, theirs


def shadow_check(
    answer: Callable[[S, Request], Answer],
    served: S,
    live: S | None,
    requests: Sequence[Request],
    limits: ShadowLimits,
    *,
    answered: Callable[[S, Request], Answer | None] = lambda *_: None,
) -> dict[str, Any]:
    """Ask the new release, and the live one, recent queries; ShadowRefused over a limit.

    `answered`: what the live one did answer, None where that is not known any more and it has to be asked.
    """
    seen = _Seen()
    last_ms = 0.0
    for i, request in enumerate(requests):
        if live is not None:
            _rest(limits, last_ms)
        began = time.thread_time()
        try:
            ours = answer(served, request)
        except Exception as error:  # counted, and judged below
            seen.errors.append(f"{type(error).__name__}: {error}")
            continue
        last_ms = (time.thread_time() - began) * 1e3
        if i >= min(_WARMING, len(requests) // 2):
            seen.ours_ms.append(last_ms)
        seen.empty += not len(ours.item_ids)
        seen.broken += not bool(np.isfinite(ours.scores).all())
        if live is not None:
            theirs = None
            with suppress(Exception):  # the live release's own fault is no reason to keep it
                theirs = None if i % _TIMED == 0 else answered(live, request)
                if theirs is None:
                    _rest(limits, last_ms)
                    theirs = _asked(seen, answer, live, request)
            if theirs is not None:
                _compare(seen, ours, theirs)
    _judge(seen, len(requests), live is not None, limits)
    match, match_live = seen.match
    return {
        "queries": len(requests),
        "errors": len(seen.errors),
        "empty": seen.empty,
        "empty_live": seen.empty_live,
        "not_finite": seen.broken,
        "match": _rounded(match),
        "match_live": _rounded(match_live),
        "cpu_ms": round(float(np.median(seen.ours_ms)), 3) if seen.ours_ms else None,
        "cpu_live_ms": round(float(np.median(seen.theirs_ms)), 3) if seen.theirs_ms else None,
        "overlap10": round(float(np.mean(seen.overlaps)), 3) if seen.overlaps else None,
    }


def _asked(seen: _Seen, answer: Callable[[S, Request], Answer], live: S, request: Request) -> Answer:
    began = time.thread_time()
    theirs = answer(live, request)
    seen.theirs_ms.append((time.thread_time() - began) * 1e3)
    return theirs


def _compare(seen: _Seen, ours: Answer, theirs: Answer) -> None:
    seen.empty_live += not len(theirs.item_ids)
    top = set(theirs.item_ids[:TOP].tolist())
    if top:
        seen.overlaps.append(len(top & set(ours.item_ids[:TOP].tolist())) / len(top))
    if not math.isnan(theirs.match):
        seen.matches.append((0.0 if math.isnan(ours.match) else ours.match, theirs.match))


def _judge(seen: _Seen, asked: int, has_live: bool, limits: ShadowLimits) -> None:
    """Raise ShadowRefused with the first reason there is."""
    if len(seen.errors) > limits.max_errors:
        raise ShadowRefused(
            f"{len(seen.errors)} of {asked} recent queries failed on it, first: {seen.errors[0]}"
        )
    if seen.broken:
        raise ShadowRefused(f"{seen.broken} of {asked} recent queries got scores that are not finite")
    # Without a live release to compare with, a query may be empty for good reasons; all of them may not.
    allowed = seen.empty_live + math.floor(limits.max_empty_share * asked)
    if asked and seen.empty > allowed and (has_live or seen.empty == asked):
        raise ShadowRefused(
            f"{seen.empty} of {asked} recent queries came back empty, {seen.empty_live} on the live release"
        )
    match, match_live = seen.match
    if len(seen.matches) >= _FEWEST_MATCHED and match < limits.min_match_share * match_live:
        raise ShadowRefused(
            f"its first {TOP} items match {match:.0%} of the words of recent queries, "
            f"{match_live:.0%} on the live release"
        )
    if seen.ours_ms and seen.theirs_ms:
        median, median_live = float(np.median(seen.ours_ms)), float(np.median(seen.theirs_ms))
        if median > limits.free_ms and median > limits.max_latency_ratio * median_live:
            raise ShadowRefused(
                f"it is slow: an answer to a recent query takes {median:.1f} ms of a processor, "
                f"{median_live:.1f} ms on the live release"
            )


def _rest(limits: ShadowLimits, last_ms: float) -> None:
    time.sleep(max(limits.pause_s, min(limits.longest_s, limits.rest * last_ms / 1e3)))
    give_way(until_idle=True)


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 3)
