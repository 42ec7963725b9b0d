"""What a study's figures say, in words: the verdict, the answer in three sentences, how to read it.

It knows the record only. It claims no gain, loss or decay whose interval includes zero.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping

from flows.report.words import answer as demo_answer
from flows.report.words import finding, num, signed, span
from flows.studies.cells.asks import NEVER
from flows.studies.telling.components import COMPONENT_NAMES, one_at_a_time
from flows.studies.telling.record import PolicyResult, Recommendation, StudyRecord
from models.metrics import Interval

__all__ = [
    "FINDINGS",
    "age_name",
    "answer",
    "half_life_words",
    "how_measured",
    "interval_words",
    "is_advice",
    "policy_name",
    "question",
    "summary",
    "verdict",
]

FINDINGS: Mapping[str, str] = {
    "decay": "The effect is decay: the older a model, the worse it is",
    "flat": "No decay can be shown: old models rank as well as young ones, within the intervals",
    "shift": "The effect is an abrupt shift: models trained before one moment lose, whatever their age, "
    "and one retraining after it is worth more than any regular interval",
    "weekly": "The effect is weekly recurrence: a model of about seven days ago does better than a younger "
    "one of another weekday, so that a longer window helps more than a shorter interval",
    "growth": "The effect is growth of the data: newer models are better for having learnt from more data "
    "rather than from fresher, and a longer window or a larger fraction buys the same",
}
"""What kind of effect it is, by `StudyRecord.finding`; any other text is taken for a sentence itself."""


def question(component: str) -> str:
    """The question of a study of update intervals."""
    who = COMPONENT_NAMES.get(component, component)
    verb = "do" if component == "all" else "does"
    return f"How often {verb} the {who} have to be retrained, and on how much data?"


def verdict(record: StudyRecord) -> str:
    """The recommendation, short enough for a heading."""
    found = record.recommendation
    if found is None:
        return "No policy can be recommended."
    if _contradicted(record, found):
        do = "never" if found.interval == NEVER else interval_words(found.interval)
        return f"Not settled: half of the slices say that {do} is soon enough, the other half that it is not."
    if _rarely(record, found):
        return "Retrain rarely." if found.interval != NEVER else "Retrain rarely: never was soon enough here."
    do = f"etrain {interval_words(found.interval)}, on {_share(found.fraction)}"
    if _undecided(record, found):
        return f"Too little is known to tell: r{do}, until more is."
    return f"R{do}."


def answer(record: StudyRecord) -> tuple[str, str, str]:
    """What to do and what it costs; how much is fresh state and how much fresh weights; what the "
    "effect is."""
    return _advice(record), _attribution(record), _effect(record)


def _rarely(record: StudyRecord, found: Recommendation) -> bool:
    asked = [p.interval for p in record.policies if p.component == found.component or not found.component]
    longest = [i for i in dict.fromkeys(asked) if i != NEVER][-1:]
    return found.interval == NEVER or (bool(longest) and found.interval == longest[0] and len(set(asked)) > 2)


def _contradicted(record: StudyRecord, found: Recommendation) -> bool:
    """On the slices that it was not chosen on the policy loses more than the margin."""
    gap = found.difference
    return record.budget_cpu_s is None and gap is not None and not found.holds and gap.mean > record.margin


def _undecided(record: StudyRecord, found: Recommendation) -> bool:
    """The reference was kept for want of evidence, though no gain of fresh weights is shown either."""
    return _is_reference(found) and finding(record.full_minus_state_fresh) != "gain"


def _is_reference(found: Recommendation) -> bool:
    gap = found.difference
    return gap is not None and gap.mean == gap.low == gap.high == 0


def _advice(record: StudyRecord) -> str:
    found = record.recommendation
    if found is None:
        return "No policy can be recommended: too little was measured to compare them."
    who = COMPONENT_NAMES.get(found.component, "model")
    head = "Retrain rarely: " if _rarely(record, found) and not _contradicted(record, found) else ""
    do = (
        f"the {who} of the horizon’s start, never retrained,"
        if found.interval == NEVER
        else f"{_a(who)} retrained {interval_words(found.interval)} on {_share(found.fraction)}"
    )
    if found.difference is None or math.isnan(found.difference.mean):
        text = f"{head}{do} is recommended ({found.why.rstrip('.')})"
    else:
        text = f"{head}{do} {_against(record, found, found.difference)}"
    return f"{text[0].upper()}{text[1:]}, and {_costs(record, found)}."


def _a(who: str) -> str:
    return f"an {who}" if who[0] in "aeiou" else f"a {who}"


def _against(record: StudyRecord, found: Recommendation, gap: Interval) -> str:
    """What it loses on the slices that it was not chosen on; `gap`: the reference less it."""
    on = f" on {found.reported_on} slices that it was not chosen on" if found.reported_on else ""
    if _is_reference(found):
        return f"is itself {found.reference}, no other was shown to be as good"
    loses = "loses" if gap.mean >= 0 else "gains"
    bounds = (gap.low, gap.high) if gap.mean >= 0 else (-gap.high, -gap.low)
    by = f"{num(abs(gap.mean), 4)} [{num(bounds[0], 4)}, {num(bounds[1], 4)}] NDCG@10"
    beyond = "more than" if _contradicted(record, found) else "not surely within"
    told = "within the margin of" if found.holds else f"{beyond} the margin of"
    margin = "" if record.budget_cpu_s is not None else f", {told} {num(record.margin)}"
    return f"{loses} {by} against {found.reference}{on}{margin}"


def _costs(record: StudyRecord, found: Recommendation) -> str:
    mine = [p for p in record.policies if p.component == found.component or not found.component]
    dearest = max((p.cpu_s_per_day for p in mine if math.isfinite(p.cpu_s_per_day)), default=math.nan)
    if math.isnan(found.cpu_s_per_day):
        return "what it costs was not measured"
    cost = f"costs {num(found.cpu_s_per_day, 1)} CPU-seconds a shop day"
    if math.isnan(dearest) or not found.cpu_s_per_day < dearest:
        return cost
    return f"{cost} where the dearest policy takes {num(dearest, 1)}"


def _attribution(record: StudyRecord) -> str:
    return demo_answer(
        {
            "full_minus_state_fresh": record.full_minus_state_fresh,
            "state_fresh_minus_frozen": record.state_fresh_minus_frozen,
        }
    )[0]


def _effect(record: StudyRecord) -> str:
    known = FINDINGS.get(record.finding, record.finding.strip().rstrip("."))
    if not known:
        return "What kind of effect it is was not told."
    found = record.half_life_d
    if record.finding != "decay" or found is None or math.isnan(found.mean):
        return f"{known}."
    after = half_life_words(found).removeprefix("half-life ").replace(" d", " days", 1)
    return f"{known}; half of what its freshness is worth is lost after {after}."


def is_advice(policy: PolicyResult, advice: Recommendation | None) -> bool:
    """Whether this is the recommended policy."""
    if advice is None or advice.component not in ("", policy.component):
        return False
    return (policy.interval, policy.fraction, policy.start) == (
        advice.interval,
        advice.fraction,
        advice.start,
    )


def half_life_words(found: Interval | None) -> str:
    """`half-life 4.1 d [3.0, 5.6]`; an unknown upper bound is `or more`."""
    if found is None or math.isnan(found.mean):
        return "no half-life"
    digits = 1 if found.mean >= 0.95 else 2
    if math.isnan(found.low):
        return f"half-life {num(found.mean, digits)} d"
    if not math.isfinite(found.high):
        return f"half-life {num(found.mean, digits)} d [{num(found.low, digits)} or more]"
    return f"half-life {num(found.mean, digits)} d [{num(found.low, digits)}, {num(found.high, digits)}]"


def age_name(days: float) -> str:
    """`45 min`, `6 h`, `1.5 d`: short, for axes."""
    if not math.isfinite(days):
        return num(days)
    for unit, name in ((1.0, "d"), (1 / 24, "h"), (1 / 1440, "min")):
        if days >= unit * 0.995 or name == "min":
            value = days / unit
            return f"{num(value, 0 if abs(value - round(value)) < 0.05 or value >= 19.95 else 1)} {name}"
    return num(days)


def interval_words(interval: str) -> str:
    """`each 6 hours`, `each day`, `never`."""
    if interval == NEVER:
        return "never"
    number, unit = interval[:-1], {"m": "minute", "h": "hour", "d": "day", "w": "week"}[interval[-1]]
    return f"each {unit}" if number == "1" else f"each {number} {unit}s"


def policy_name(policy: PolicyResult) -> str:
    """`ranker each 6 hours, 40 % of the data, warm`."""
    who = COMPONENT_NAMES.get(policy.component, policy.component)
    start = ", warm" if policy.start == "warm" else ""
    return f"{who} {interval_words(policy.interval)}, {_share(policy.fraction)}{start}"


def _share(fraction: float) -> str:
    return "all of the data" if fraction == 1 else f"{num(100 * fraction, 0)} % of the data"


def how_measured(record: StudyRecord) -> list[tuple[str, str]]:
    """Paragraphs with their headings: pairing, cost, intervals, choice, and what it cannot show."""
    exact = record.method.get("mode") == "exact"
    way = (
        "Every policy’s own training times were trained once, shared where they fall together, and each "
        "schedule is composed slice by slice from those models."
        if exact
        else "On each slice of the horizon, models of a ladder of ages, trained that long before it, "
        "answered the "
        "same queries with the same candidates. An interval’s quality is the mean over the ages that "
        "its live "
        f"model goes through: evenly from the publish delay ({num(record.publish_delay_s, 1)} s, "
        f"measured from the end "
        "of the training data to the swap) to the delay plus the interval. `never` is the model of "
        "the horizon’s "
        "start."
    )
    made, alone, grid = record.train_cpu_s, record.each_policy_alone_cpu_s, record.exact_grid_cpu_s
    return [
        ("What is compared.", way),
        (
            "Cells.",
            f"{num(record.cells)} cells (a training, scored on slices) took {num(made, 1)} "
            f"CPU-seconds of training; "
            f"{num(record.cells_reused)} of them were there already. Each policy run alone on its "
            f"own schedule would "
            f"have taken {num(alone, 1)}, a grid of all training times {num(grid, 1)}.",
        ),
        *one_at_a_time(record.components),
        *_checks(record),
        (
            "Intervals of confidence.",
            "95 %, from moving blocks of neighbouring slices, resampled together, and from the "
            "training seeds where "
            "there are several. Policies are compared on the same queries, hence by their differences.",
        ),
        (
            "The choice.",
            f"The longest interval whose loss against the shortest is surely less than "
            f"{num(record.margin)} NDCG@10"
            + (
                f", within {num(record.budget_cpu_s, 1)} CPU-seconds a shop day"
                if record.budget_cpu_s is not None
                else ""
            )
            + "; chosen on one half of the slices and reported on the other, so that luck in "
            "choosing does not count "
            "as quality.",
        ),
        (
            "Arms.",
            "`frozen`: weights and state as at the horizon’s start; `state fresh`: current state, "
            "weights of the "
            "start; `full`: both current, by the shortest interval on all data.",
        ),
        (
            "What it cannot show.",
            "How fresh models have to be in a real shop: this world’s drift was chosen. It shows that the "
            "instrument finds known answers, and what the systems cost."
            if record.source == "world"
            else "More than this log holds: its shoppers saw what another ranking showed them, "
            "intervals finer than "
            "its time stamps mean nothing, and another shop may drift otherwise.",
        ),
    ]


def _checks(record: StudyRecord) -> list[tuple[str, str]]:
    """What the study held against itself: nothing where it did not."""
    found = record.recheck
    said = []
    if found is not None:
        equal = "all" if found.equal == found.cells else f"only {num(found.equal)}"
        said.append(
            f"{num(found.cells)} random cells were trained again from their rows, {equal} with the same "
            f"scores, bit for bit (largest difference {found.largest_difference:.2g})."
            if found.cells != 1
            else "A random cell was trained again from its rows, "
            + ("with the same scores, bit for bit." if found.equal else "with other scores.")
        )
    for c in record.confirmed:
        same = "equal to" if c.equal else f"up to {c.composed_difference:.2g} from"
        said.append(
            f"The {COMPONENT_NAMES.get(c.component, c.component)} {interval_words(c.interval)} on "
            f"{_share(c.fraction)} was also run alone: {num(c.trainings)} trainings took {num(c.cpu_s, 1)} "
            f"CPU-seconds where {num(c.computed_cpu_s, 1)} were computed; NDCG@10 {num(c.ndcg10, 4)}, {same} "
            f"what its cells compose to"
            + ("." if c.told is None else f", where the study says {span(c.told)}.")
        )
    return [("Checks.", " ".join(said))] if said else []


def summary(record: StudyRecord, report: str = "") -> str:
    """The text that the command prints at its end: plain, short."""
    lines = [verdict(record)]
    lines += [line for sentence in answer(record) for line in textwrap.wrap(sentence, 110)]
    lines += ["", *_rows(record)]
    if report:
        lines.append(f"  report          {report}")
    return "\n".join(lines)


def _rows(record: StudyRecord) -> list[str]:
    gains = finding(record.full_minus_state_fresh)
    return [
        f"  fresh state     {span(record.state_fresh_minus_frozen)}",
        f"  fresh weights   {span(record.full_minus_state_fresh)}"
        + (" (not told from zero)" if gains == "none" else ""),
        f"  staleness       {half_life_words(record.half_life_d)}"
        + "".join(
            f"; {signed(float(c.mean[-1]))} at {age_name(float(c.ages_d[-1]))}"
            for c in record.curves[:1]
            if len(c.mean)
        ),
        f"  cells           {num(record.cells)} ({num(record.cells_reused)} reused), "
        f"{num(record.train_cpu_s, 1)} CPU-seconds of training; "
        f"each policy alone {num(record.each_policy_alone_cpu_s, 1)}",
    ]
