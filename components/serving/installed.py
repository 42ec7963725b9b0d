"""One loaded release with its view of the state and its pipeline: what a request is pinned to."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import orjson
from numpy.typing import NDArray

from components.measure.spans import SpanLog
from components.search.catalogue import Catalogue
from components.search.live import ReleaseView
from components.search.pages import PageCache
from components.search.pipeline import PipelineConfig, SearchPipeline
from components.search.queries import QueryMemory
from components.search.summarise import Summaries, item_json
from components.serving.shadow import TOP, Answer
from data.shop import Filters, Request
from data.state import State
from infra.settings import Home
from models.candidate_features import text_match
from models.release import Release, load_release

_SCORE = frozenset({"ranker", "image_classifier"})
"""Artifacts that neither item vectors nor the understanding of words depend on."""

HASHED_FROM = 1 << 62
"""Ids from here on are hashes of string keys (`data.schema.key_to_id`)."""

__all__ = [
    "HASHED_FROM",
    "Installed",
    "KeyedSummaries",
    "Shared",
    "install",
    "shadow_answer",
    "warming_requests",
]


class KeyedSummaries(Summaries):
    """Items' JSON with the key that the client gave wherever our id is only a hash of it."""

    def make(self, row: int) -> bytes:
        """The item's JSON object; `item_id` is the number or the string that it is known by outside."""
        item_id = int(self._state.item_ids[row])
        fields = orjson.loads(self._state.payload(row))
        return item_json(fields.get("item_id", item_id) if item_id >= HASHED_FROM else item_id, fields)


@dataclass(frozen=True)
class Installed:
    """A release that can answer."""

    release: Release
    view: ReleaseView
    pipeline: SearchPipeline

    @property
    def release_id(self) -> str:
        """The release's id."""
        return self.release.release_id

    @property
    def watermark_us(self) -> int:
        """Training saw events up to here."""
        return self.release.manifest.watermark_us

    @property
    def ranker_compiled(self) -> bool | None:
        """Whether its ranker is walked by compiled code; None without a ranker."""
        return None if self.release.ranker is None else self.release.ranker.is_compiled


@dataclass
class Shared:
    """What the pipelines of one replica share, whatever release they are of."""

    state: State
    catalogue: Catalogue
    summaries: Summaries
    config: PipelineConfig
    pages: PageCache
    times: SpanLog | None = None
    photos: NDArray[np.uint8] | None = None

    @classmethod
    def of(
        cls, state: State, *, config: PipelineConfig | None = None, photos: NDArray[np.uint8] | None = None
    ) -> Shared:
        """The shared parts for a state."""
        config = config or PipelineConfig()
        return cls(
            state,
            Catalogue(state),
            KeyedSummaries(state),
            config,
            PageCache(config.page_lists),
            photos=photos,
        )

    def refresh(self) -> None:
        """Take up catalogue changes; called by the thread that applies events."""
        self.catalogue.refresh()
        self.summaries.refresh()


def install(
    layout: Home,
    release_id: str,
    live: Installed | None,
    *,
    shared: Shared,
    make_view: Callable[[Release], ReleaseView],
) -> Installed:
    """Load a release beside the live one (unchanged artifacts are reused) and make its pipeline."""
    release = load_release(layout, release_id, previous=live.release if live is not None else None)
    # Where nothing else is new than what scores, the view and what is known of queries stay as they are.
    same = live is not None and _same_but(release, live.release, _SCORE)
    view = live.view if same and live is not None else make_view(release)
    queries = None if live is None else live.pipeline.queries
    if not same:
        queries = QueryMemory(release, before=queries)
    pipeline = SearchPipeline(
        release,
        view,
        shared.state,
        config=shared.config,
        photos=shared.photos,
        pages=shared.pages,
        summaries=shared.summaries,
        times=shared.times,
        queries=queries,
    )
    if shared.times is None:
        shared.times = pipeline.times
    return Installed(release, view, pipeline)


def _same_but(a: Release, b: Release, names: frozenset[str]) -> bool:
    """Whether two releases have the very same objects, those of `names` left aside."""
    held = (set(a.manifest.artifacts) | set(b.manifest.artifacts)) - names
    return all(getattr(a, name, None) is getattr(b, name, None) for name in held)


def shadow_answer(served: Installed, request: Request) -> Answer:
    """The ranked list for warming and for the shadow check; nothing is kept for page turns."""
    pipeline = served.pipeline
    ranked = pipeline.ranked(request)
    # The words as the release understands them, typing errors put right: what it should have found.
    tokens = pipeline.queries.of(request.query).tokens
    match = math.nan
    if len(tokens) and request.surface == "search":
        matches = text_match(pipeline.state, tokens, ranked.rows[:TOP])
        match = float(matches.mean()) if len(matches) else 0.0
    return Answer(ranked.item_ids, ranked.scores, match)


def warming_requests(state: State, now_us: int) -> list[Request]:
    """Requests to warm with before there was traffic: words of titles, and the other surfaces."""
    requests = [Request("search", now_us), Request("recommend", now_us)]
    alive = np.flatnonzero(state.alive)
    for row in alive[:: max(1, len(alive) // 24)].tolist():
        words = str(orjson.loads(state.payload(row)).get("title", "")).split()
        item_id = int(state.item_ids[row])
        requests.append(Request("search", now_us, query=" ".join(words[:3]), user_id=item_id))
        requests.append(Request("similar", now_us, item_id=item_id))
    requests.append(Request("recommend", now_us, filters=Filters(in_stock=True)))
    return [replace(request, request_id=i) for i, request in enumerate(requests)]
