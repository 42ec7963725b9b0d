"""What a part of the service adds: the same service with the part left out, on the same queries.

The difference is of `whole`, which is what is served less its randomised slot, to each pipeline that
lacks a part. The ranker is the release's own: it learned with the part, and does without it as it would
if the part were down. It knows no judgements but their scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flows.evaluation.judgements import METRICS, Judged, measure, paired

__all__ = ["ABLATIONS", "WHOLE", "ablation"]

ABLATIONS = ("without_vector", "without_user", "without_category")
WHOLE = "whole"


def ablation(judged: Sequence[Judged], *, seed: int) -> tuple[list[Judged], dict[str, Any]]:
    """The judgements less the ablated lists; by part {"difference": interval, "metric", "ndcg10": …}.

    The metric is NDCG@10 with unjudged items as not relevant, for the lists differ in what they find.
    """
    metric = "ndcg10_all"
    assert metric in METRICS
    found = measure(judged, seed=seed)
    document: dict[str, Any] = {
        name: {
            "metric": metric,
            "ndcg10": found[name][metric].as_dict(),
            "difference": paired(judged, WHOLE, name, metric, seed=seed).as_dict(),
        }
        for name in ABLATIONS
        if metric in found.get(name, {})
    }
    extra = {*ABLATIONS, WHOLE}
    rest = [replace(j, lists={n: ids for n, ids in j.lists.items() if n not in extra}) for j in judged]
    return rest, document
