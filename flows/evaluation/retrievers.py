"""What is compared in an evaluation of search: the service's answer and the parts that it is made of.

Each is a ranked list for a request against one release and one state, made by the service's own
pipeline with parts of it left out. It knows no judgements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from components.search.live import ReleaseView
from components.search.pipeline import PipelineConfig, SearchPipeline
from components.search.rank import ExploreConfig, Ranked
from components.search.retrieve import FOUND_BY, RetrieveConfig
from data.schema import NONE_ID
from data.shop import Request, Shop
from data.state import State
from flows.evaluation.ablation import WHOLE
from models.encoder import Encoder
from models.release import Release

__all__ = ["DEPTH", "NAMES", "Retrievers"]

DEPTH = 100
NAMES = ("served", "ranked", "hybrid", "vector", "lexical", "popular")

_STILL = ExploreConfig(slots=0)
_NEVER = -1.0  # a share of the deadline that is spent before it begins: the part is always left out
_DEFAULT = PipelineConfig(deadline_ms=None)
_RANKED = PipelineConfig.for_evaluation()
_HYBRID = PipelineConfig(explore=_STILL, deadline_ms=1e9, ranker_by=_NEVER)
_EVERY = replace(_HYBRID, retrieve=RetrieveConfig(candidates=1_000))  # no source's hits are cut off
_LEXICAL = replace(_HYBRID, vectors_by=_NEVER)
_NO_VECTORS = replace(_RANKED, deadline_ms=1e9, vectors_by=_NEVER)


@dataclass(frozen=True)
class Retrievers:
    """The retrievers of a release over a state; `refresh()` after the state has changed.

    `served`: what the service answers by default, its randomised slot included; `ranked`: the ranker's
    order without it; `hybrid`: the fused candidates; `vector`, `lexical`: each source alone; `popular`:
    what a stranger is recommended. `without`: parts to leave out of the ranked answer, beside which that
    answer stands once more as the whole.
    """

    release: Release
    view: ReleaseView
    pipelines: dict[str, SearchPipeline]
    without: Sequence[str] = ()

    @classmethod
    def of(cls, release: Release, state: State, *, without: Sequence[str] = ()) -> Retrievers:
        """All of them, over one view of the state. `without`: some of `ABLATIONS`."""
        view = ReleaseView(release, state)
        configs = {
            "served": _DEFAULT,
            "ranked": _RANKED,
            "hybrid": _HYBRID,
            "every": _EVERY,
            "lexical": _LEXICAL,
        }
        pipelines = {n: SearchPipeline(release, view, state, config=c) for n, c in configs.items()}
        if without:
            blind = replace(release, encoder=_without_queries(release.encoder))
            pipelines["without_vector"] = SearchPipeline(blind, view, state, config=_NO_VECTORS)
            dumb = replace(release, text_classifier=None)
            pipelines["without_category"] = SearchPipeline(dumb, view, state, config=_RANKED)
            pipelines["without_user"] = pipelines["ranked"]
        return cls(release, view, pipelines, tuple(without))

    @property
    def shop(self) -> Shop:
        """The service as it answers by default."""
        return self.pipelines["served"]

    def refresh(self) -> None:
        """Take up what changed in the state."""
        self.view.refresh()

    def lists(self, request: Request) -> dict[str, NDArray[np.int64]]:
        """Name → item ids int64 [≤ 100], best first. One that cannot run is absent.

        `lexical` and `popular` are for what they can answer: words, and a recommendation.
        """
        request = replace(request, offset=0, size=DEPTH)
        found = {"served": self.pipelines["served"].respond(request).item_ids}
        if self.release.ranker is not None or self.without:
            ranked = self._list("ranked", request).item_ids
        if self.release.ranker is not None:
            found["ranked"] = ranked
        if self.without:
            found[WHOLE] = ranked
            stranger = replace(request, user_id=NONE_ID, session_id=NONE_ID)
            for name in self.without:
                found[name] = self._list(name, stranger if name == "without_user" else request).item_ids
        every = self._list("every", request)
        if request.surface == "search":
            found["hybrid"] = _of(
                self._list("hybrid", request), "text", "text_delta", "vector", "vector_delta"
            )
            by_vector = _order(every, every.vector_scores)
            found["vector"] = _of(by_vector, "vector", "vector_delta")
            found["lexical"] = _of(self._list("lexical", request), "text", "text_delta")
        else:
            found["vector"] = _of(_order(every, every.user_scores), "user")
            stranger = replace(request, user_id=NONE_ID, session_id=NONE_ID)
            found["popular"] = self._list("hybrid", stranger).item_ids
        return {name: ids[:DEPTH] for name, ids in found.items()}

    def _list(self, name: str, request: Request) -> Ranked:
        return self.pipelines[name].ranked(request)


def _without_queries(encoder: Encoder) -> Encoder:
    """The encoder to which every query is nothing: its vectors are near no item."""
    return replace(encoder, query_tower=np.zeros_like(encoder.query_tower))


def _of(ranked: Ranked, *sources: str) -> NDArray[np.int64]:
    """Those that one of the sources found; what stands in where nothing was found is no answer of theirs."""
    wanted = sum(1 << FOUND_BY.index(s) for s in sources)
    return ranked.item_ids[(ranked.found & wanted) > 0]


def _order(ranked: Ranked, scores: NDArray[np.float32]) -> Ranked:
    order = np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")
    return replace(ranked, item_ids=ranked.item_ids[order], found=ranked.found[order])
