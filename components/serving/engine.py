"""The service without HTTP and Ray: state, journal, the live release, and what one may ask of them.

An Engine is also a Shop: simulated shoppers can call `respond` in process. It ranks nothing itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from components.search.live import ReleaseView
from components.search.pipeline import Answer, PipelineConfig
from components.search.request import decode_cursor
from components.serving.exposition import gauges_of
from components.serving.feedback import Feedback, Shown
from components.serving.follower import Follower
from components.serving.gate import Gate
from components.serving.incoming import event_columns, item_payload, to_id, upsert_columns
from components.serving.installed import Installed, Shared, install
from components.serving.keys import Acknowledged, RecentKeys
from components.serving.metrics import Metrics
from components.serving.polite import compile_waiting, polite
from components.serving.recent import Recent
from components.serving.refusals import Refusal
from components.serving.shadow import ShadowLimits
from components.serving.swap import Swapper, SwapRecord
from data.journal import JournalWriter
from data.replica import StateReplica
from data.schema import ITEM_DELETE, NONE_ID
from data.shop import Reply, Request
from infra.clock import Clock
from infra.settings import Home
from models.release import Release, champion

__all__ = ["Acknowledged", "Engine", "EngineConfig"]

_LOG = logging.getLogger(__name__)
_TOLD = 50  # swaps that the status file tells of


@dataclass(frozen=True)
class EngineConfig:
    """`future_s`: shop seconds that an event_time may lie ahead; a fast clock adds a second of wall time.

    `follow`: whether the champion pointer is watched; else only `install` changes the release. `summaries`:
    items whose JSON is made at the start, the most popular ones; the others' when they are first shown.
    `settle_s`: rest before and after a flip.

    `commit_ms`: how long an event may wait for its disk; `gather_s`: for how long impressions are gathered,
    `follow_s`: events to apply. Many small commits cost what few large ones do not.
    """

    writer: str = "serve-0"
    future_s: float = 60.0
    poll_s: float = 0.25
    settle_s: float = 0.1
    follow: bool = True
    summaries: int = 100_000
    commit_ms: float = 5.0
    gather_s: float = 0.1
    follow_s: float = 0.05
    pipeline: PipelineConfig = field(default_factory=PipelineConfig)
    limits: ShadowLimits = field(default_factory=ShadowLimits)


class Engine:
    """One replica. `start()` catches up with the journals and begins to watch the champion pointer."""

    def __init__(
        self,
        layout: Home,
        clock: Clock,
        *,
        config: EngineConfig | None = None,
        photos: NDArray[np.uint8] | None = None,
    ) -> None:
        """Nothing is opened yet."""
        self.layout = layout
        self.clock = clock
        self.config = config or EngineConfig()
        self.metrics = Metrics()
        self.photos = photos
        self.gate = Gate()
        self._recent = Recent(self.gate)
        self._keys = RecentKeys()
        self._last_id = 0
        self._tag = secrets.randbits(10)
        self._began_s = time.monotonic()
        self._journal: JournalWriter | None = None
        self._feedback: Feedback | None = None
        self._follower: Follower | None = None
        self.shared: Shared | None = None
        self._swapper: Swapper[Installed] = Swapper(
            champion=lambda: champion(layout),
            changed=self._pointer_mark,
            load=self._install,
            answer=self._recent.answer,
            answered=self._recent.answered,
            recent=self._queries,
            clock=clock,
            dropped=self._drop,
            noted=self.write_status,
            politely=lambda: polite(self.gate.serving),
            limits=self.config.limits,
            settle_s=self.config.settle_s,
            poll_s=self.config.poll_s,
        )

    # ---- its life ----

    def start(self) -> None:
        """Open the journal, load and catch up the state, install the champion, follow both."""
        compile_waiting()
        self._journal = JournalWriter(
            self.layout.journal / self.config.writer, clock=self.clock, commit_ms=self.config.commit_ms
        )
        replica = StateReplica(self.layout, own_writer=self.config.writer)
        self._follower = Follower(
            replica, self.gate, own_writer=self.config.writer, every_s=self.config.follow_s
        )
        self._follower.catch_up()
        self.shared = Shared.of(replica.state, config=self.config.pipeline, photos=self.photos)
        self.shared.summaries.prepare(self.config.summaries)
        self._follower.after.append(self.shared.refresh)
        self._follower.start()
        self._feedback = Feedback(
            self._journal, on_commit=self._follower.committed, every_s=self.config.gather_s
        )
        self._swapper.step()
        if self.config.follow:
            self._swapper.start()
        self.write_status()

    def close(self) -> None:
        """Stop the threads; everything accepted is durable afterwards."""
        self._swapper.close()
        if self._feedback is not None:
            self._feedback.close()
        if self._journal is not None:
            self._journal.close()
        if self._follower is not None:
            self._follower.close()
        with contextlib.suppress(OSError):  # a full disk must not keep the process alive
            self.write_status()

    # ---- asking ----

    def respond(self, request: Request) -> Reply:
        """The page of items for a request. Raises InputError; Refusal 503 while no release is live."""
        return self.answer(request).reply

    def answer(
        self,
        request: Request,
        *,
        image: NDArray[np.uint8] | None = None,
        explain: bool = False,
        arrived_ns: int | None = None,
        deadline_ms: float | None = None,
        journal: bool = True,
    ) -> Answer:
        """The reply with its items' JSON; pinned to one release from entry to reply.

        What was shown is journalled afterwards, off this path. `deadline_ms` from `arrived_ns`: raises
        DeadlinePassed rather than compute what nobody waits for.
        """
        served = self._swapper.live
        if served is None:
            raise Refusal(
                503,
                "no release is live",
                "a promoted release",
                "run `shelflife refresh`, then `shelflife promote`",
            )
        if request.request_id == NONE_ID:
            request = replace(request, request_id=self.next_request_id())
        if request.cursor:
            served = self._swapper.find(decode_cursor(request.cursor).release_id) or served
        with self.gate.serve():
            answer = served.pipeline.answer(
                request, image=image, explain=explain, arrived_ns=arrived_ns, deadline_ms=deadline_ms
            )
        if image is None and not request.cursor and not request.offset:
            self._recent.note(request, answer.ranked)
        if journal:
            self.journal_shown(request, answer)
        return answer

    def journal_shown(self, request: Request, answer: Answer) -> None:
        """Journal what was shown, off the reply path."""
        if self._feedback is not None:
            self._feedback.offer(Shown.of(request, answer))

    def next_request_id(self) -> int:
        """A new id: wall us and ten bits of this replica; increasing."""
        self._last_id = max(self._last_id + 1_024, (time.time_ns() // 1_000) << 10 | self._tag)
        return self._last_id

    # ---- telling ----

    def events(self, events: Any) -> Acknowledged:
        """Check and append client events. Raises Refusal 422/413; nothing of a refused batch is kept.

        Events whose `event_key` was accepted lately count as duplicates and are not appended again.
        """
        follower, journal = self._running()
        rate = float(getattr(self.clock, "rate", 1.0))
        batch = event_columns(
            events,
            now_us=self.clock.now_us(),
            future_us=int(max(self.config.future_s, rate) * 1e6),
            known_item=lambda item_id: follower.state.item_row(item_id) >= 0,
        )
        keep, waits = self._keys.unseen(batch.keyed)
        if not keep:
            return Acknowledged(batch.rows, batch.rows, tuple(waits))
        columns = batch.columns
        if len(keep) < batch.rows:
            columns = {name: [values[i] for i in keep] for name, values in columns.items()}
        future = journal.append(columns, len(keep), on_commit=follower.committed)
        for i in keep:
            key = batch.keyed[i]
            if key is not None:
                self._keys.remember(key, future)
        return Acknowledged(batch.rows, batch.rows - len(keep), (*waits, future))

    def upsert_item(self, key: str, fields: Any) -> Future[int]:
        """Insert or change an item; done once durable and in this replica's state."""
        item_id = to_id(key, "item_id")
        return self._append_applied(upsert_columns(item_id, item_payload(key, fields)))

    def delete_item(self, key: str) -> Future[int]:
        """Delete an item; done once no later reply can hold it. Raises Refusal 404 for an unknown one."""
        follower, _ = self._running()
        item_id = to_id(key, "item_id")
        if follower.state.item_row(item_id) < 0:
            raise Refusal(404, f"item {key!r} is unknown", "an item of the catalogue", "check its id")
        return self._append_applied({"kind": [ITEM_DELETE], "item_id": [item_id]})

    def known_item(self, item_id: int) -> bool:
        """Whether the catalogue ever held the item."""
        follower, _ = self._running()
        return follower.state.item_row(item_id) >= 0

    def _append_applied(self, columns: dict[str, list[Any]]) -> Future[int]:
        follower, journal = self._running()
        applied: Future[int] = Future()

        def durable(done: Future[int]) -> None:
            error = done.exception()
            if error is not None:
                applied.set_exception(error)
            else:
                follower.when_applied(done.result(), applied)

        journal.append(columns, 1, on_commit=follower.committed).add_done_callback(durable)
        return applied

    def _running(self) -> tuple[Follower, JournalWriter]:
        if self._follower is None or self._journal is None or not self._follower.ready:
            raise Refusal(503, "the replica is catching up", "a ready replica", "try again in a second")
        return self._follower, self._journal

    # ---- releases ----

    @property
    def settled(self) -> bool:
        """Whether the state holds all that this engine has journalled."""
        waits = self._feedback.queued if self._feedback is not None else 0
        return not waits and self.applied.get(self.config.writer, 0) >= self._running()[1].last_seq

    @property
    def applied(self) -> dict[str, int]:
        """How far the state is, by writer."""
        return self._running()[0].applied

    @property
    def live(self) -> Installed | None:
        """The release that answers now."""
        return self._swapper.live

    def install(self, release_id: str) -> SwapRecord:
        """Install a release now, in this thread, whatever the pointer says; the record says how it went."""
        return self._swapper.install(release_id)

    def look_now(self) -> None:
        """Look at the champion pointer at once."""
        self._swapper.nudge()

    def _pointer_mark(self) -> object:
        try:
            found = (self.layout.releases / "champion.json").stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_ino

    def _install(self, release_id: str, live: Installed | None) -> Installed:
        assert self.shared is not None, "the engine has not started"
        return install(self.layout, release_id, live, shared=self.shared, make_view=self.make_view)

    def make_view(self, release: Release) -> ReleaseView:
        """A view that misses no event: the follower waits while it is made, requests do not."""
        assert self.shared is not None, "the engine has not started"
        assert self._follower is not None, "the engine has not started"
        with self._follower.paused():
            view = ReleaseView(
                release, self.shared.state, catalogue=self.shared.catalogue, photos=self.photos
            )
            self._follower.after.append(view.refresh)
        return view

    def _drop(self, served: Installed) -> None:
        shared = any(other.view is served.view for other in self._swapper.held)
        if self._follower is not None and not shared:
            self._follower.forget(served.view.refresh)

    def _queries(self) -> Sequence[Request]:
        assert self.shared is not None, "the engine has not started"
        return self._recent.requests(self.shared.state, self.clock.now_us())

    # ---- telling about itself ----

    @property
    def ready(self) -> bool:
        """Whether requests can be answered."""
        return self._swapper.live is not None and self._follower is not None and self._follower.ready

    def health(self) -> dict[str, Any]:
        """Ready or not, and what is wrong."""
        problems = []
        if self._follower is None or not self._follower.ready:
            problems.append("the state is catching up with the journals")
        elif self._follower.last_error:
            problems.append(f"the state does not follow the journals: {self._follower.last_error}")
        if self._swapper.live is None:
            problems.append("no release is live")
        status = self._swapper.now()
        if status["pointer"]:
            problems.append(f"{status['pointer']}; release {status['release_id']} stays")
        if status["refused"] is not None:
            problems.append(
                f"release {status['refused']['release_id']} was refused: {status['refused']['reason']}"
            )
        feedback = self._feedback
        if feedback is not None and feedback.problem:
            problems.append(f"{feedback.lost} replies were not journalled: {feedback.problem}")
        return {"ready": self.ready, "release_id": status["release_id"], "problems": problems}

    def release_info(self, *, most: int | None = None) -> dict[str, Any]:
        """Live and held releases, tries so far (`most`: the last ones), and how far the state is."""
        follower = self._follower
        return {
            **self._swapper.status(most=most),
            "writer": self.config.writer,
            "pid": os.getpid(),
            "shop_us": self.clock.now_us(),
            "state": None if follower is None else follower.status(),
            "ranker_compiled": None if self.live is None else self.live.ranker_compiled,
        }

    def write_status(self) -> None:
        """Write `run/serving-status.json`, whole or not at all (not synced: it is for people)."""
        path = self.layout.serving_status
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        status = {**self.health(), **self.release_info(most=_TOLD)}  # all of 500 would cost 15 ms at a swap
        beside.write_bytes(orjson.dumps(status, option=orjson.OPT_INDENT_2))
        beside.replace(path)

    def metrics_text(self) -> str:
        """Prometheus text."""
        live = self._swapper.live
        gauges = gauges_of(
            ready=self.ready,
            uptime_s=time.monotonic() - self._began_s,
            installing=bool(self._swapper.installing),
            records=list(self._swapper.records),
            live=live,
            age_us=0 if live is None else self.clock.now_us() - live.watermark_us,
            shared=self.shared,
            follower=self._follower,
            feedback=self._feedback,
        )
        return self.metrics.text(gauges)
