"""One loaded release with its view of the state and its pipeline: what a request is pinned to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
from data.state import State
from infra.settings import Home
from models.release import Release, load_release

_SCORE = frozenset({"ranker", "image_classifier"})
"""Artifacts that neither item vectors nor the understanding of words depend on."""

HASHED_FROM = 1 << 62
"""Ids from here on are hashes of string keys (`data.schema.key_to_id`)."""

__all__ = ["HASHED_FROM", "Installed", "KeyedSummaries", "Shared", "install"]


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
