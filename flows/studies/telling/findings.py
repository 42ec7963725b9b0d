"""What a reader of a study should know besides its figures: slices left out, trainings that learned nothing.

It computes no quality and decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from flows.studies.cells.age_runs import AgeRun
from flows.studies.cells.asks import NEVER, IntervalAsk
from flows.studies.telling.told import Told

__all__ = ["findings"]


def findings(
    ask: IntervalAsk, runs: Mapping[str, Sequence[AgeRun]], advised: str, told: Sequence[Told]
) -> tuple[str, ...]:
    """Sentences about slices without old models and trainings without result. `advised`: the interval."""
    found = []
    lacking = min(int(np.isnan(t.by_slice).sum()) for t in told)
    if lacking:
        found.append(
            f"{lacking} of {len(told[0].by_slice)} slices are left out: they are too early in the log for "
            "models as old as the longest interval asks for."
        )
    found += [
        f"Of {t.name} only {int(np.isfinite(t.by_slice).sum())} slices tell anything."
        for t in told
        if np.isnan(t.by_slice).sum() > lacking and t.fraction == max(ask.fractions)
    ]
    scores = [s for own in runs.values() for r in own for s in r.found.values()]
    empty = sum(bool(s.why) for s in scores)
    if empty:
        found.append(f"{empty} trainings found nothing to learn from; the model before stayed live there.")
    found += _blank(runs)
    if advised == NEVER:
        found.append("Not retraining at all was as good as retraining most often, within the margin.")
    return tuple(dict.fromkeys(found))


def _blank(runs: Mapping[str, Sequence[AgeRun]]) -> list[str]:
    """Rankers without trees, by fraction: held-out sessions did not show that any tree was worth having."""
    count: dict[float, list[bool]] = {}
    for own in runs.values():
        for run in own:
            for cell, scores in run.found.items():
                if "trees" in scores.metrics:
                    count.setdefault(cell.fraction, []).append(scores.metrics["trees"] == 0)
    return [
        f"{sum(blank)} of {len(blank)} trainings on {fraction:.0%} of the data ended without a tree, as "
        "held-out sessions did not show that any was worth having: such a ranker leaves the order as it was "
        "retrieved."
        for fraction, blank in sorted(count.items())
        if any(blank)
    ]
