"""What a demo's figures say, in words: the answer in three sentences, and the terminal's summary.

It knows the demo's document only. It claims no gain whose interval includes zero.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from flows.report.record import as_interval, mean_of
from models.metrics import Interval

__all__ = ["answer", "finding", "num", "signed", "span", "summary", "verdict"]

NONE = "–"


def num(x: Any, digits: int | None = None) -> str:
    """A number with thousands separators (3 decimals unless told, none for an int); a dash for nothing."""
    if isinstance(x, bool) or not isinstance(x, Real) or math.isnan(x):
        return NONE
    if math.isinf(x):
        return "∞" if float(x) > 0 else "−∞"
    places = digits if digits is not None else 0 if isinstance(x, Integral) else 3
    text = f"{x:,.{places}f}"
    return text.replace("-", "−") if any(c in "123456789" for c in text) else text.lstrip("-")


def signed(x: Any, digits: int = 3) -> str:
    """A number with its sign, none for zero."""
    text = num(x, digits)
    return text if text[0] in "−–" or not any(c in "123456789∞" for c in text) else f"+{text}"


def span(found: Any, digits: int = 3) -> str:
    """`+0.039 [0.031, 0.047]`."""
    i = as_interval(found)
    if math.isnan(i.mean):
        return "not measured"
    if math.isnan(i.low) or math.isnan(i.high):
        return f"{signed(i.mean, digits)} [no interval]"
    return f"{signed(i.mean, digits)} [{num(i.low, digits)}, {num(i.high, digits)}]"


def _range(i: Interval, digits: int = 3) -> str:
    return f"{num(i.low, digits)} to {num(i.high, digits)}"


def finding(found: Any) -> str:
    """`gain` or `loss` where the whole interval is on one side of zero, `none` where not, or `unknown`."""
    i = as_interval(found)
    if any(math.isnan(x) for x in (i.mean, i.low, i.high)):
        return "unknown"
    return "gain" if i.low > 0 else "loss" if i.high < 0 else "none"


def verdict(document: Mapping[str, Any]) -> str:
    """The finding about fresh weights, short enough for a heading."""
    return {
        "gain": "Fresh weights gain, beyond what fresh state gives.",
        "none": "No gain of fresh weights can be shown.",
        "loss": "Fresh weights made it worse.",
        "unknown": "The gain of fresh weights was not measured.",
    }[finding(document.get("full_minus_state_fresh"))]


def answer(document: Mapping[str, Any]) -> tuple[str, str, str]:
    """What freshness was worth, what the weights cost, and what they did to the tail."""
    return _worth(document), _cost(document), _tail(document)


def _worth(document: Mapping[str, Any]) -> str:
    state = as_interval(document.get("state_fresh_minus_frozen"))
    weights = as_interval(document.get("full_minus_state_fresh"))
    of_state, of_weights = finding(state), finding(weights)
    if of_weights == "unknown":
        alone = f"; fresh state alone changed NDCG@10 by {span(state)}" if of_state != "unknown" else ""
        return f"What fresh weights were worth was not measured: too few queries were scored{alone}."
    if of_weights == "none":
        return (
            f"Fresh weights changed NDCG@10 by {signed(weights.mean)}, with an interval ({_range(weights)}) "
            f"that includes zero, so that no gain of theirs can be shown; {_state_words(state, of_state)}."
        )
    if of_weights == "loss":
        return (
            f"Fresh weights made it worse: full − state_fresh is {signed(weights.mean)} NDCG@10 "
            f"({_range(weights)}), all of it below zero; {_state_words(state, of_state)}."
        )
    if of_state != "gain":
        return (
            f"Fresh weights gained {num(weights.mean)} NDCG@10 ({_range(weights)}) "
            f"over fresh state; {_state_words(state, of_state).replace(' either', '')}."
        )
    whole = state.mean + weights.mean
    share = 100 * weights.mean / whole
    return (
        f"Of the gain of {num(whole)} NDCG@10 that freshness brought, {num(100 - share, 0)} % comes from "
        f"fresh state ({signed(state.mean)}, {_range(state)}) and {num(share, 0)} % from fresh weights "
        f"({signed(weights.mean)}, {_range(weights)})."
    )


def _state_words(state: Interval, found: str) -> str:
    if found == "unknown":
        return "what fresh state was worth was not measured"
    if found == "none":
        return f"no gain of fresh state can be shown either ({signed(state.mean)}, {_range(state)})"
    does = "gained" if found == "gain" else "lost"
    return f"fresh state alone {does} {num(abs(state.mean))} ({_range(state)})"


def _cost(document: Mapping[str, Any]) -> str:
    cpu, days = mean_of(document.get("train_cpu_s")), mean_of(document.get("shop_days"))
    if math.isnan(cpu):
        return "What the retraining cost was not measured."
    a_day = mean_of(document.get("train_cpu_s_per_shop_day"))
    if math.isnan(a_day):
        return f"The retraining cost {num(cpu, 1)} CPU-seconds in all."
    return (
        f"Those weights cost {num(a_day, 1)} CPU-seconds a shop day "
        f"({num(cpu, 1)} in all, over {num(days, 1)} shop days)."
    )


def _tail(document: Mapping[str, Any]) -> str:
    latency = document.get("latency_ms") or {}
    during, other = mean_of(latency.get("p99_installing")), mean_of(latency.get("p99_otherwise"))
    failed = _failed(document)
    if math.isnan(during):
        overall = other if not math.isnan(other) else mean_of(latency.get("p99"))
        said = "" if math.isnan(overall) else f" (p99 was {num(overall, 1)} ms)"
        return f"No request met an installation, so nothing can be said of its tail{said}; {failed}."
    against = "" if math.isnan(other) else f" against {num(other, 1)} ms otherwise"
    return f"The tail was p99 {num(during, 1)} ms while a release was being installed{against}; {failed}."


def _failed(document: Mapping[str, Any]) -> str:
    requests, failed = document.get("requests", 0), document.get("failed", 0)
    if not requests:
        return "no request was sent"
    return f"{num(failed) if failed else 'none'} of {num(requests)} requests failed"


def summary(document: Mapping[str, Any]) -> str:
    """The text that the demo prints at its end: 8 to 14 lines of plain text."""
    arms = document.get("ndcg10") or {}
    latency = document.get("latency_ms") or {}
    fresh = document.get("freshness_s") or {}
    served = document.get("releases_served", 0)
    served = len(served) if isinstance(served, (list, tuple)) else served
    lines = [
        verdict(document),
        *(line for sentence in answer(document) for line in textwrap.wrap(sentence, 110)),
        "",
        "  NDCG@10         "
        + "   ".join(
            f"{k.replace('_', ' ')} {num(mean_of(arms.get(k)))}" for k in ("frozen", "state_fresh", "full")
        ),
        f"  fresh state     {span(document.get('state_fresh_minus_frozen'))}",
        f"  fresh weights   {span(document.get('full_minus_state_fresh'))}",
        f"  live            {num(document.get('requests'))} requests, {num(document.get('failed'))} failed, "
        f"{num(document.get('swaps'))} hot swaps, {num(served)} releases served",
        "  latency         "
        f"p50 {num(mean_of(latency.get('p50')), 1)} ms, p99 {num(mean_of(latency.get('p99')), 1)} ms",
        "  freshness       event to fresh weights "
        f"p50 {num(mean_of(fresh.get('p50')), 1)} s, p99 {num(mean_of(fresh.get('p99')), 1)} s",
    ]
    if document.get("report"):
        lines.append(f"  report          {document['report']}")
    return "\n".join(lines)
