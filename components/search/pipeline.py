"""The online path in one place: plan → understand → retrieve → rank → summarise.

After the published e-commerce search scenario (REFERENCE.md: search planner, query planner,
searcher, ranker, summary). A pipeline belongs to one release and one state; a swap makes a new one.
Plain Python: it knows neither HTTP nor Ray, and no time but that of the request.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import MethodType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.measure.spans import NOT_RUN, Span, SpanLog
from components.search import rank as ranking
from components.search.filters import notes_of
from components.search.live import ReleaseView
from components.search.pages import PageCache
from components.search.queries import QueryMemory, class_codes, normalised
from components.search.rank import ExploreConfig, Ranked
from components.search.request import (
    Cursor,
    decode_cursor,
    encode_cursor,
    request_id_of,
    to_photo,
    validate,
)
from components.search.retrieve import RetrieveConfig, retrieve
from components.search.summarise import Summaries, live_positions
from components.search.understand import told, understand
from components.search.work import Stage, Work, done, still_waited_for
from data.schema import NONE_ID, stable_hash
from data.shop import Reply, Request
from data.state import State
from infra.errors import InputError
from infra.give_way import give_way
from models.release import Release

__all__ = ["MAKES_LIST", "Answer", "PipelineConfig", "SearchPipeline"]

MAKES_LIST = frozenset({"understand", "retrieve", "rank"})
"""The stages that a turned page passes over."""


@dataclass(frozen=True)
class PipelineConfig:
    """What a deployment may choose.

    `deadline_ms`: of a request from its arrival, where it states none; None holds none. Parts are left out
    in this order, each where its share of the deadline is already spent when its turn comes: `vectors` (at
    `vectors_by`), all but `hurried_candidates` of the `candidates` (at `candidates_by`), `ranker` (at
    `ranker_by`). Past a deadline that the request states, nothing is computed any more.
    """

    retrieve: RetrieveConfig = field(default_factory=RetrieveConfig)
    explore: ExploreConfig = field(default_factory=ExploreConfig)
    deadline_ms: float | None = 250.0
    vectors_by: float = 0.2
    candidates_by: float = 0.25
    ranker_by: float = 0.3
    hurried_candidates: int = 50
    page_lists: int = 4_096

    @classmethod
    def for_evaluation(cls) -> PipelineConfig:
        """Without exploration and deadline: the same request and state give the same reply."""
        return cls(explore=ExploreConfig(slots=0), deadline_ms=None)


@dataclass(frozen=True)
class Answer:
    """A reply with what a serving layer wants beside it.

    `ranked`: the whole list; `positions` int [n]: the page's places in it; `hits`: the page's items as
    a JSON array; where it was asked for, `explanation`: one entry a hit, `asked`: how it was understood.
    """

    reply: Reply
    ranked: Ranked
    positions: NDArray[np.intp]
    hits: bytes
    spans: tuple[Span, ...]
    explanation: list[dict[str, Any]] | None = None
    asked: dict[str, Any] | None = None


class SearchPipeline:
    """Answers every surface from one release and the live state; safe to call from several threads.

    `photos`: uint8 [m, 28, 28] (may be memory-mapped), what `Request.photo` points into; `pages`,
    `summaries`: shared with the pipeline of the release before, so that page turns outlive a swap and
    items' JSON is not made twice; `times`: where stage times are recorded; `queries`: what is known of
    queries, of a release with the same words, vectors and indexes; `timer_ns`: a monotonic clock, for spans
    and the deadline only.
    """

    def __init__(
        self,
        release: Release,
        view: ReleaseView,
        state: State,
        *,
        config: PipelineConfig | None = None,
        photos: NDArray[np.uint8] | None = None,
        pages: PageCache | None = None,
        summaries: Summaries | None = None,
        times: SpanLog | None = None,
        queries: QueryMemory | None = None,
        timer_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self.release = release
        self.view = view
        self.state = state
        self.config = config or PipelineConfig()
        whole = self.config.retrieve
        self._hurried = replace(whole, candidates=min(whole.candidates, self.config.hurried_candidates))
        self.pages = PageCache(self.config.page_lists) if pages is None else pages
        self.summaries = Summaries(state) if summaries is None else summaries
        self.times = (
            SpanLog([name for name, _, _ in _STEPS], [kind for _, kind, _ in _STEPS])
            if times is None
            else times
        )
        self._photos = photos
        self._timer_ns = timer_ns
        text, image = release.text_classifier, release.image_classifier
        self._text_codes = class_codes(text.classes if text else ())
        self._image_codes = class_codes(image.classes if image else ())
        self.queries = QueryMemory(release) if queries is None else queries

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The path, step by step. Made anew: kept here they would be a circle, and a dropped release would
        fill memory until garbage is collected."""
        return tuple(Stage(name, kind, MethodType(call, self)) for name, kind, call in _STEPS)

    # ---- asking ----

    def respond(self, request: Request) -> Reply:
        """The page of items for a request. Raises InputError for one that cannot be answered."""
        return self.answer(request).reply

    def respond_image(self, image: NDArray[np.uint8], request: Request) -> Reply:
        """As `respond`, for an uploaded image of any size: uint8 [height, width] or with channels."""
        return self.answer(request, image=image).reply

    def ranked(self, request: Request) -> Ranked:
        """The full ranked list with features; nothing is kept for page turns."""
        work = self.begin(request, want_features=True)
        for _, _, call in _STEPS[:-1]:
            if work.ranked is None:
                give_way()
                call(self, work)
        return done(work.ranked)

    def answer(
        self,
        request: Request,
        *,
        image: NDArray[np.uint8] | None = None,
        explain: bool = False,
        arrived_ns: int | None = None,
        deadline_ms: float | None = None,
    ) -> Answer:
        """The reply, the list it is a page of, and the page's items as JSON.

        `arrived_ns`: when the request came in, by `timer_ns`; the deadline counts from then. `deadline_ms`:
        its own; raises DeadlinePassed where there is still something to compute after it.
        """
        work = self.begin(
            request, image=image, arrived_ns=arrived_ns, want_features=explain, deadline_ms=deadline_ms
        )
        last = self._timer_ns()
        spans: list[Span] = []
        durations: list[int] = []
        begun = last
        for name, kind, call in _STEPS:
            if work.ranked is not None and name in MAKES_LIST:
                durations.append(NOT_RUN)  # a page turn: the list is there
                continue
            if work.stated:
                still_waited_for(work, last)
            call(self, work)
            now = self._timer_ns()
            spans.append(Span(name, kind, (last - begun) // 1_000, (now - last) // 1_000))
            durations.append((now - last) // 1_000)
            last = now
        self.times.record(durations)
        return self.finish(work, spans, total_us=(last - begun) // 1_000, explain=explain)

    def begin(
        self,
        request: Request,
        *,
        image: NDArray[np.uint8] | None = None,
        arrived_ns: int | None = None,
        want_features: bool = False,
        deadline_ms: float | None = None,
    ) -> Work:
        """The request as work for the stages, which see the release's view of the state as it is now."""
        upload = None if image is None else to_photo(image)
        arrived = self._timer_ns() if arrived_ns is None else arrived_ns
        stated = deadline_ms is not None
        held = deadline_ms if stated else self.config.deadline_ms
        return Work(request, arrived, self.view.live, held, stated, upload, want_features)

    def finish(self, work: Work, spans: Sequence[Span], *, total_us: int, explain: bool = False) -> Answer:
        """The answer of work that went through all stages, wherever they ran."""
        ranked = done(work.ranked)
        stop, filters = work.offset + work.request.size, work.request.filters
        more = stop < len(ranked.rows)
        timings = {span.name: span.duration_us for span in spans}
        timings["total"] = total_us
        reply = Reply(
            request_id=work.request_id,
            release_id=ranked.release_id,
            item_ids=ranked.item_ids[work.positions],
            propensity=ranked.propensity[work.positions],
            offset=work.offset,
            total=len(ranked.rows),
            cursor=encode_cursor(Cursor(ranked.release_id, ranked.request_id, stop, filters)) if more else "",
            degraded=work.degraded,
            timings_us=timings,
            notes=() if filters is None else notes_of(filters, self.view.catalogue, len(ranked.rows)),
        )
        explanation = ranking.explain(ranked, work.positions, self.release) if explain else None
        asked = told(work.meaning, self.release) if explain and work.meaning is not None else None
        return Answer(reply, ranked, work.positions, work.hits, tuple(spans), explanation, asked)

    # ---- the stages ----

    def _plan(self, work: Work) -> None:
        """Refuse nonsense, name the request, find the list that a page turn goes on with."""
        request = work.request
        photos = 0 if self._photos is None else len(self._photos)
        validate(request, photos=photos)
        cursor = decode_cursor(request.cursor) if request.cursor else None
        if cursor is not None and request.filters != cursor.filters:
            if request.filters is not None:
                raise InputError("filters other than those of the cursor's list; expected the same: drop one")
            request = work.request = replace(request, filters=cursor.filters)
        work.request_id = work.list_id = request_id_of(request)
        work.offset = request.offset
        if work.upload is not None:
            work.photo = work.upload
        elif request.photo >= 0 and self._photos is not None:
            work.photo = self._photos[request.photo]
        asked_by_photo = work.upload is not None or request.photo >= 0
        if asked_by_photo and (work.photo is None or self.release.image_classifier is None):
            work.degraded += ("image_classifier",)
            work.photo = None
        if request.surface == "image" and not (asked_by_photo or request.cursor):
            raise InputError("an image search without an image; give a photo")
        if request.surface == "similar" and self.state.item_row(request.item_id) < 0:
            raise InputError(f"item {request.item_id} is unknown; give the item_id of a reply")
        upload_key = 0 if work.upload is None else stable_hash(work.upload.tobytes().hex())
        work.key = (
            request.session_id,
            request.user_id,
            request.surface,
            normalised(request.query),
            request.photo,
            request.item_id,
            upload_key,
            request.filters,
        )
        if cursor is not None:
            self._turn(work, cursor)
        elif request.offset > 0 and request.session_id != NONE_ID:
            work.ranked = self.pages.by_key(work.key)
        if work.ranked is not None:
            work.degraded = work.ranked.degraded

    def _turn(self, work: Work, cursor: Cursor) -> None:
        """Go on where the cursor points; where its list is gone, make it again, or say that it is another."""
        work.offset = cursor.offset
        kept = self.pages.by_request(cursor.request_id)
        if kept is not None and kept.release_id == cursor.release_id:
            work.ranked = kept
            return
        request = work.request
        asked = request.surface in ("recommend", "similar") or work.photo is not None or work.key[3]
        if asked and cursor.release_id == self.release.release_id:
            work.list_id = cursor.request_id
        else:
            work.degraded += ("cursor_expired",)

    def _understand(self, work: Work) -> None:
        work.meaning = understand(
            work.request,
            release=self.release,
            live=work.live,
            lists=self.view.catalogue.lists,
            state=self.state,
            text_codes=self._text_codes,
            image_codes=self._image_codes,
            photo=work.photo,
            memory=self.queries,
        )

    def _retrieve(self, work: Work) -> None:
        config = self.config
        in_time = self._in_time(work, config.vectors_by, "vectors")
        whole = self._in_time(work, config.candidates_by, "candidates")
        work.candidates = retrieve(
            work.request,
            done(work.meaning),
            release=self.release,
            live=work.live,
            state=self.state,
            catalogue=self.view.catalogue,
            config=config.retrieve if whole else self._hurried,
            image_codes=self._image_codes,
            with_vectors=in_time,
        )

    def _rank(self, work: Work) -> None:
        in_time = self._in_time(work, self.config.ranker_by, "ranker")
        work.ranked = ranking.rank(
            done(work.candidates),
            done(work.meaning),
            request_id=work.list_id,
            key=work.key,
            release=self.release,
            live=work.live,
            state=self.state,
            explore_config=self.config.explore,
            with_ranker=in_time,
            degraded=work.degraded,
            keep_features=work.want_features,
        )

    def _summarise(self, work: Work) -> None:
        ranked = done(work.ranked)
        work.positions = live_positions(ranked, self.state, work.offset, work.request.size)
        work.hits = self.summaries.page(ranked.rows[work.positions])
        if work.candidates is not None:  # made now, not a turned page
            self.pages.put(ranked)

    def _in_time(self, work: Work, share: float, part: str) -> bool:
        """Whether a part may still be done; if not, it is named in `degraded`."""
        if work.deadline_ms is None:
            return True
        spent_ms = (self._timer_ns() - work.arrived_ns) / 1e6
        if spent_ms <= share * work.deadline_ms:
            return True
        work.degraded += (part,)
        return False


_STEPS: tuple[tuple[str, str, Callable[[SearchPipeline, Work], None]], ...] = (
    ("plan", "non_ai", SearchPipeline._plan),
    ("understand", "ai", SearchPipeline._understand),
    ("retrieve", "non_ai", SearchPipeline._retrieve),
    ("rank", "ai", SearchPipeline._rank),
    ("summarise", "non_ai", SearchPipeline._summarise),
)
