"""What a live study says in words: the claim with its figures, the answer, the terminal's summary.

It claims no gain whose interval holds zero, no share of what is not shown, and nothing confirmed that is not
settled. It knows the record only.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import Any

from flows.report.words import finding, num, signed, span
from flows.studies.live.freshness import STAGES
from flows.studies.live.record import Lived, LiveRecord
from flows.studies.live.verdict import AGREES, DISAGREES, FEWEST_DAYS, NOT_PREDICTED
from models.metrics import Interval

__all__ = ["QUESTION", "answer", "method", "sentence", "summary", "verdict"]

QUESTION = "Does a live service do what the study predicted, and what does retraining do to its tail?"
_INSTRUMENT = "by an instrument that recovers known half-lives (docs/studies/calibration.md)"


def sentence(p: Lived) -> str:
    """The claim about one policy: shares, cost, tail, predicted and confirmed or not."""
    return f"{_shares(p)} {_cost(p)} {_confirmed(p)}"


def _shares(p: Lived) -> str:
    weights, state = p.full_minus_state_fresh, p.state_fresh_minus_frozen
    gains = finding(weights) == finding(state) == "gain"
    if gains and p.weights_share is not None and p.state_share is not None:
        x, y = 100 * p.state_share.mean, 100 * p.weights_share.mean
        return (
            f"Of the gain that is credited to retraining {_often(p)}, {num(x, 0)} % comes from fresh state "
            f"and {num(y, 0)} % from fresh weights ({num(100 * p.weights_share.low, 0)} to "
            f"{num(100 * p.weights_share.high, 0)} %);"
        )
    return (
        f"Of the gain that is credited to retraining {_often(p)}, no shares can be told: fresh state adds "
        f"{span(state)} NDCG@10, fresh weights {span(weights)}{_zero(weights)};"
    )


def _zero(found: Interval) -> str:
    return {"none": ", which is not told from zero", "loss": ", a loss"}.get(finding(found), "")


def _often(p: Lived) -> str:
    return p.triggers.get("ranker", "") or "; ".join(f"{n} {t}" for n, t in p.triggers.items())


def _cost(p: Lived) -> str:
    tail = p.tail
    moved = "by what too few requests tell" if tail.p99_moved is None else f"by {_ms(tail.p99_moved)}"
    while_it = (
        ""
        if tail.p99_training_moved is None
        else f" ({_ms(tail.p99_training_moved)} while a run is under way, "
        f"{num(100 * tail.share['training'], 3)} % of a day)"
    )
    return (
        f"the weights cost {num(p.cpu_s_per_day, 1)} CPU-seconds a day and move p99 {moved}{while_it} on a "
        "live stack."
    )


def _ms(i: Interval) -> str:
    known = math.isfinite(i.low) and math.isfinite(i.high)
    return f"{signed(i.mean, 2)} ms" + (f" [{num(i.low, 2)}, {num(i.high, 2)}]" if known else "")


def _confirmed(p: Lived) -> str:
    v = p.verdict
    if v.word == NOT_PREDICTED:
        return f"Not predicted: {v.note or 'this policy has no prediction'}."
    told = (
        f"Predicted offline ({span(v.predicted)}) within a declared margin of {num(v.margin)} NDCG@10, "
        f"{_INSTRUMENT};"
    )
    apart = f"live less predicted is {span(v.difference)}, over {v.days} days"
    if v.word == AGREES:
        return f"{told} confirmed live: {apart}."
    if v.word == DISAGREES:
        return f"{told} not confirmed live: {apart}, all of it beyond the margin."
    why = "an interval too wide for the margin" if v.days >= FEWEST_DAYS else "too few to tell"
    return f"{told} not settled live: {apart}, {why}."


def _afterwards(p: Lived) -> str:
    """What is left between live and predicted once the log is the live one."""
    v, before = p.afterwards, p.verdict.predicted
    assert v is not None, "no hindcast"
    if v.predicted is None or before is None or v.difference is None:
        return f"Told afterwards of {p.name}: nothing, there are too few days."
    return (
        f"Told afterwards, from the log that {p.name} itself wrote, the same instrument says "
        f"{span(v.predicted)}, {signed(v.predicted.mean - before.mean)} to what it said beforehand: what "
        f"pages change that the policy's own models filled. Live less that is {span(v.difference)}"
        + {AGREES: ", within the margin.", DISAGREES: ", all of it beyond the margin."}.get(
            v.word, ", which is not settled."
        )
    )


def verdict(record: LiveRecord) -> str:
    """The finding, short enough for a heading."""
    word = record.main.verdict.word
    return {
        AGREES: "The live service did what the study predicted.",
        DISAGREES: "The live service did not do what the study predicted.",
        NOT_PREDICTED: "Nothing was predicted of this policy.",
    }.get(word, "Whether the live service does what the study predicted is not settled.")


def answer(record: LiveRecord) -> list[str]:
    """The claim of each policy, failures, and the closed loop where it was measured."""
    found = list(record.sentences)
    failed = f"{num(record.failed)} of" if record.failed else "None of"
    swaps = sum(p.swaps for p in record.policies)
    found.append(f"{failed} {num(record.requests)} requests failed, over {num(swaps)} hot swaps.")
    found += [_afterwards(p) for p in record.policies if p.afterwards is not None]
    found += [
        f"Closed loop: without randomised slots, {c.policy} reaches {span(c.without_minus_with)} NDCG@10 "
        f"against with them, on the same queries of {c.days} days"
        + (", which is not told from zero." if finding(c.without_minus_with) == "none" else ".")
        for c in record.closed_loop
    ]
    return found


def method(record: LiveRecord) -> list[tuple[str, str]]:
    """How it was measured: headings and texts."""
    asked: Mapping[str, Any] = record.arguments
    through = (
        "through Prefect, by the flow runner of `shelflife up`"
        if record.through == "prefect"
        else "by the same policy engine without Prefect, each run a process of its own"
    )
    return [
        (
            "What runs.",
            "For each policy a fresh copy of one home (a world with its history and a first release), Ray "
            f"Serve with HAProxy, and the policy's own runs, started {through}: ingest, training, gate, "
            "promotion, hot swap. All on this one machine.",
        ),
        (
            "The load.",
            f"{num(float(asked['qps']), 0)} requests a second, open loop (Poisson), from a process of its "
            "own; latency counts from when a request was due. The day's other shoppers act in process. What "
            "shoppers do is told to the service and is what it trains on. Part of each day is quiet: nothing "
            "but the load.",
        ),
        (
            "The shop clock.",
            "Days go by in seconds; while a run is under way, until its release is live, shop time goes at "
            "the wall's own pace. So models are as old as they would be, and stages of freshness are in real "
            "seconds. Percentiles are told by condition; the recombined ones weigh each condition by its "
            "share of a real day.",
        ),
        (
            "The arms.",
            "Twice a day, at other hours each day, the same queries are answered by the first release on the "
            "first state (frozen), the first release on the live state (state fresh) and what is live "
            "(full), judged by the world's hidden relevance, which training cannot read. The shop clock "
            "stands meanwhile, and requests of those moments are left out.",
        ),
        (
            "Predicted.",
            "By the study of intervals on the same world and days, from the log of its documented logging "
            "policy, with the encoder, classifier and indexes that the live shop begins with, by age: what "
            "retraining the ranker adds over never retraining it (full − state fresh). "
            "Prediction and margin were written to the study's folder before any policy ran. Compared by "
            "day; agrees where the whole 95 % interval of the difference lies within the margin. The live "
            "log is made by the models themselves: what that changes is told afterwards, by the same "
            "instrument on that log.",
        ),
        (
            "Freshness.",
            "Of each click, cart and order that a release served in the end had learned from, weighed by the "
            "shop time that it stands for. Journalled: catalogue changes over HTTP, until they were "
            "acknowledged.",
        ),
    ]


def summary(record: LiveRecord, report: str = "") -> str:
    """The text that the command prints at its end."""
    lines = [verdict(record)]
    for said in answer(record):
        lines += textwrap.wrap(said, 110, break_on_hyphens=False)
    lines.append("")
    for p in record.policies:
        c = p.tail.by_condition
        quiet, training = (c[k].get("p99") for k in ("quiet", "training"))
        lines += [
            f"  {p.name}",
            f"    NDCG@10       frozen {num(p.arms.frozen.mean)}   state fresh "
            f"{num(p.arms.state_fresh.mean)}   full {num(p.arms.full.mean)}",
            f"    fresh weights {span(p.full_minus_state_fresh)}",
            f"    fresh state   {span(p.state_fresh_minus_frozen)}",
            *([f"    over never    {span(p.over_control)}"] if p.over_control else []),
            f"    live          {num(p.requests)} requests, {num(p.failed)} failed; {p.refreshes} refreshes, "
            f"{p.refused} refused, {p.swaps} swaps; {num(p.cpu_s_per_day, 1)} CPU-s a day",
            f"    p99, ms       quiet {num(quiet, 1)}   training {num(training, 1)}   installing "
            f"{num(c['installing'].get('p99'), 1)}   recombined {num(p.tail.recombined['p99'], 1)}",
        ]
        if p.freshness and p.freshness[-1].name == STAGES[-1]:
            last = p.freshness[-1]
            lines.append(
                f"    freshness     event to first served, median {num(last.whole_p50_s, 0)} s, "
                f"p95 {num(last.whole_p95_s, 0)} s"
            )
        if not p.control:
            v = p.verdict
            lines.append(
                f"    verdict       {v.word}: live {span(v.live)}, predicted {span(v.predicted)}, "
                f"apart {span(v.difference)} (margin {num(v.margin)})"
            )
        lines += [f"    note          {n}" for n in p.notes]
    if report:
        lines.append(f"  report          {report}")
    return "\n".join(lines)
