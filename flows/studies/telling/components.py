"""What a study says of each component by itself: whose staleness hurts, and what stayed fresh meanwhile.

It knows results only, and claims no loss whose interval includes zero.
"""

from __future__ import annotations

from collections.abc import Sequence

from flows.report.words import finding, num
from flows.studies.cells.asks import NEVER
from flows.studies.telling.record import ComponentResult
from models.metrics import Interval

__all__ = ["COMPONENT_NAMES", "each_words", "one_at_a_time"]

COMPONENT_NAMES = {
    "ranker": "ranker",
    "text_classifier": "text classifier",
    "encoder": "encoder",
    "all": "models",
}
_KINDS = {
    "decay": "decay with age",
    "flat": "no decay that can be told",
    "shift": "an abrupt shift",
    "weekly": "weekly recurrence",
    "growth": "growth of the data",
}


def each_words(found: Sequence[ComponentResult]) -> tuple[str, ...]:
    """Where there are several: whose staleness hurts most, then a sentence of each. Nothing of one alone."""
    if len(found) < 2:
        return ()
    ordered = sorted(found, key=lambda c: -c.full_minus_state_fresh.mean)
    told = [c for c in ordered if finding(c.full_minus_state_fresh) == "gain"]
    first = (
        f"Of {_list([_name(c) for c in found])}, each stale alone, the {_name(told[0])}’s staleness "
        f"hurts most: {_gap(told[0].full_minus_state_fresh)} NDCG@10 is lost if it is never retrained."
        if told
        else f"Of {_list([_name(c) for c in found])}, each stale alone, none is surely missed if it is not "
        "retrained."
    )
    return (first, *(_each(c) for c in ordered))


def _each(c: ComponentResult) -> str:
    weights, advice = c.full_minus_state_fresh, c.recommendation
    kind = finding(weights)
    if kind == "gain":
        worth = f"never retraining it loses {_gap(weights)}"
    elif kind == "loss":
        worth = f"retraining it loses {_gap(Interval(-weights.mean, -weights.high, -weights.low))}"
    else:
        worth = f"retraining it is not told from never doing so ({_gap(weights)})"
    how = "never" if advice.interval == NEVER else f"each {advice.interval}"
    share = "" if advice.interval == NEVER else f" on {num(100 * advice.fraction, 0)} % of the data"
    return (
        f"The {_name(c)} alone: {worth}; the effect is {_KINDS.get(c.finding, c.finding)}; "
        f"recommended is {how}{share}, at {num(advice.cpu_s_per_day, 1)} CPU-seconds a shop day."
    )


def one_at_a_time(found: Sequence[ComponentResult]) -> list[tuple[str, str]]:
    """The paragraph on what was held fresh while text classifier or encoder aged; none without these."""
    scorers = [c for c in found if c.component != "ranker"]
    if not scorers:
        return []
    names = _list([_name(c) for c in scorers])
    held = (
        f"Of {names}: only the columns of features that the model of that age makes are its own. The other "
        "scorer’s are by one retrained at every step of a grid of times, and one ranker, trained as the "
        "slice begins on rows as fresh scorers saw them, orders for every age; so a difference is the "
        "component’s alone. That ranker is used to a fresh component: one that had learned from a stale one "
        "would trust it less, and lose less. Candidates stay the same; what a fresher encoder would find "
        "besides is not counted. In the arms the ranker is the same throughout: `frozen` and `state fresh` "
        "differ in the state, `state fresh` and `full` in this component. A service that publishes an "
        "encoder brings index and ranker along; that cost is not in its CPU-seconds."
    )
    if len(found) > len(scorers):
        held += " Of the ranker: the scorers are those of the burn-in at every age, old for all alike."
    cost = max(c.beside_cpu_s for c in scorers)  # they share them
    held += f" The fresh models took {num(cost, 1)} CPU-seconds, which no policy is charged for."
    return [("One component at a time.", held)]


def _name(c: ComponentResult) -> str:
    return COMPONENT_NAMES.get(c.component, c.component)


def _gap(i: Interval) -> str:
    return f"{num(i.mean, 4)} [{num(i.low, 4)}, {num(i.high, 4)}]"


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
