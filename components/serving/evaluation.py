"""Other eyes on an engine's live state: a release answers without exploration, deadline or journal.

For evaluation beside the traffic: what the live release would answer, and what an old one would.
"""

from __future__ import annotations

from dataclasses import dataclass

from components.search.pipeline import PipelineConfig, SearchPipeline
from components.serving.engine import Engine
from components.serving.gate import Gate
from data.shop import Reply, Request
from infra.errors import DataError
from models.release import Release

__all__ = ["EvaluationShop", "evaluation_shop"]


@dataclass(frozen=True)
class EvaluationShop:
    """A Shop that answers between two changes of the state."""

    pipeline: SearchPipeline
    gate: Gate

    def respond(self, request: Request) -> Reply:
        """The page of items for a request."""
        with self.gate.read():
            return self.pipeline.respond(request)


def evaluation_shop(engine: Engine, release: Release | None = None) -> EvaluationShop:
    """The live release of a started engine, or another one, which follows the state from now on.

    Raises DataError while no release is live.
    """
    shared = engine.shared
    live = engine.live
    if shared is None or (release is None and live is None):
        raise DataError("no release is live; run `shelflife refresh` first")
    if release is not None:
        view = engine.make_view(release)
    else:
        assert live is not None
        release, view = live.release, live.view
    pipeline = SearchPipeline(
        release,
        view,
        shared.state,
        config=PipelineConfig.for_evaluation(),
        photos=engine.photos,
        summaries=shared.summaries,
    )
    return EvaluationShop(pipeline, engine.gate)
