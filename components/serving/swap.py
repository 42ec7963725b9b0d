"""Installs the champion beside the live release, checks it, and swaps one reference.

A background thread watches the pointer. Requests take `live` once and keep it to their end; the last
two releases are held for paging cursors. Whatever goes wrong keeps the old one and says why.
It knows no HTTP and no format of a release: how to load one is a callback.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

from components.serving.shadow import Answer, ShadowLimits, shadow_check
from data.shop import Request
from infra.clock import Clock, wall_us
from infra.errors import ShelflifeError
from infra.give_way import give_way

__all__ = ["SwapRecord", "Swapper"]

_LOG = logging.getLogger(__name__)


class Served(Protocol):
    """A loaded release that can answer."""

    @property
    def release_id(self) -> str:
        """Its id."""
        ...

    @property
    def watermark_us(self) -> int:
        """Training saw events up to here."""
        ...


S = TypeVar("S", bound=Served)


@dataclass(frozen=True)
class SwapRecord:
    """One try to install a release. Times are wall us (`flip_shop_us`: shop time); 0 if not reached."""

    release_id: str
    previous: str
    watermark_us: int = 0
    begin_wall_us: int = 0
    loaded_wall_us: int = 0
    flip_wall_us: int = 0
    end_wall_us: int = 0
    flip_shop_us: int = 0
    flipped: bool = False
    reason: str = ""
    shadow: dict[str, Any] = field(default_factory=dict)


class Swapper(Generic[S]):
    """Keeps `live` at the champion. `start()` runs the watching thread; `step()` is one look.

    `champion()`: id of the release to serve, or None. `changed()`: a value that changes when the
    pointer may have (its mtime). `load(id, live)`: a release made ready beside the live one.
    `answer(served, request)`: its reply, for warming and for the shadow check; `answered(served, request)`:
    the one that it gave to one of the `recent()` requests, None where that is not known. `dropped(served)`:
    is called when a release is no longer held. `noted()`: is called after each try. `politely()`: what
    loading and checking are done within, so that requests go first. `settle_s`: rest before and after the
    flip, with a release live.
    """

    def __init__(
        self,
        *,
        champion: Callable[[], str | None],
        changed: Callable[[], object],
        load: Callable[[str, S | None], S],
        answer: Callable[[S, Request], Answer],
        recent: Callable[[], Sequence[Request]],
        clock: Clock,
        answered: Callable[[S, Request], Answer | None] = lambda *_: None,
        dropped: Callable[[S], None] = lambda _: None,
        noted: Callable[[], None] = lambda: None,
        politely: Callable[[], AbstractContextManager[None]] = nullcontext,
        limits: ShadowLimits | None = None,
        settle_s: float = 0.0,
        poll_s: float = 0.25,
        retry_s: float = 5.0,
        keep_records: int = 500,
    ) -> None:
        self._champion, self._changed = champion, changed
        self._load, self._answer, self._recent = load, answer, recent
        self._answered = answered
        self._dropped, self._noted, self._politely = dropped, noted, politely
        self._clock = clock
        self._limits = limits or ShadowLimits()
        self._settle_s = settle_s
        self._poll_s, self._retry_s, self._keep = poll_s, retry_s, keep_records
        self._live: S | None = None
        self._held: tuple[S, ...] = ()
        self.records: list[SwapRecord] = []
        self.installing = ""  # id of the release being installed
        self.pointer_problem = ""  # why the pointer tells nothing; the live release stays meanwhile
        self._seen: object = object()
        self._retry_at = 0.0
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    @property
    def live(self) -> S | None:
        """The release that answers now. Take it once a request."""
        return self._live

    @property
    def held(self) -> tuple[S, ...]:
        """The live release and the one before it."""
        return self._held

    def find(self, release_id: str) -> S | None:
        """A held release by id."""
        for served in self._held:
            if served.release_id == release_id:
                return served
        return None

    def start(self) -> None:
        """Watch the pointer from a background thread."""
        self._thread = threading.Thread(target=self._run, name="swap", daemon=True)
        self._thread.start()

    def nudge(self) -> None:
        """Look at the pointer now, even if it seems unchanged."""
        self._seen = object()
        self._wake.set()

    def close(self) -> None:
        """Stop watching; an installation under way is finished first."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._closing:
            try:
                self.step()
            except Exception:  # a defect here must not end the watching for ever
                _LOG.exception("looking at the champion pointer failed")
            self._wake.wait(self._poll_s)
            self._wake.clear()

    def step(self) -> SwapRecord | None:
        """One look at the pointer; installs the champion if it is not live. None: nothing to do."""
        again = self._retry_at and time.monotonic() >= self._retry_at
        previous = self._live.release_id if self._live is not None else ""
        try:
            mark = self._changed()
            if mark == self._seen and not again:
                return None
            self._seen, self._retry_at = mark, 0.0
            wanted = self._champion()
        except (ShelflifeError, OSError) as error:
            return self._lost_pointer(previous, f"the champion pointer cannot be read: {error}")
        if wanted is None and previous:
            return self._lost_pointer(previous, "there is no champion pointer any more")
        if self.pointer_problem:
            self.pointer_problem = ""
            _LOG.info("the champion pointer can be read again")
            self._tell()
        if wanted is None or wanted == previous:
            return None
        return self.install(wanted)

    def _lost_pointer(self, previous: str, problem: str) -> SwapRecord | None:
        self._retry_at = time.monotonic() + self._retry_s
        if problem == self.pointer_problem:
            return None
        self.pointer_problem = problem
        return self._note(SwapRecord("", previous, begin_wall_us=wall_us(), reason=problem))

    def install(self, release_id: str) -> SwapRecord:
        """Load, warm, check and flip to a release; the record says how it went."""
        live = self._live
        record = SwapRecord(release_id, live.release_id if live is not None else "", begin_wall_us=wall_us())
        self.installing = release_id
        served: S | None = None
        try:
            # With nothing live nobody waits, and what the first answers compile on a fresh machine would
            # take three times as long.
            with self._politely() if live is not None else nullcontext():
                # The one before is at hand: going back to it needs no loading, only the check.
                served = self.find(release_id) or self._load(release_id, live)
                record = replace(record, watermark_us=served.watermark_us, loaded_wall_us=wall_us())
                requests = list(self._recent())[-self._limits.queries :]
                shadow = shadow_check(
                    self._answer, served, live, requests, self._limits, answered=self._answered
                )
                record = replace(record, shadow=shadow)
                self._settle(live)
                give_way(until_idle=True)
        except Exception as error:  # any failure at all keeps the live release
            if not isinstance(error, ShelflifeError):
                _LOG.exception("release %s cannot be installed", release_id)
            if served is not None and served not in self._held:
                self._dropped(served)
            if live is None:
                self._retry_at = time.monotonic() + self._retry_s
            reason = str(error) if isinstance(error, ShelflifeError) else f"{type(error).__name__}: {error}"
            return self._note(replace(record, reason=reason, end_wall_us=wall_us()))
        finally:
            self.installing = ""
        others = tuple(s for s in self._held if s is not served and s is not live)
        self._held = (served,) if live is None else (served, live)
        self._live = served  # the swap
        record = replace(record, flip_wall_us=wall_us(), flip_shop_us=self._clock.now_us(), flipped=True)
        self._keep_record(record)
        self._settle(live)
        for old in others:
            self._dropped(old)
        self.records[-1] = record = replace(record, end_wall_us=wall_us())
        self._tell()
        return record

    def _settle(self, live: S | None) -> None:
        """Let requests pass that our work held up, before the next thing that they may feel."""
        if live is not None:
            time.sleep(self._settle_s)

    def _note(self, record: SwapRecord) -> SwapRecord:
        self._keep_record(record)
        self._tell()
        return record

    def _keep_record(self, record: SwapRecord) -> None:
        if record.flipped:
            _LOG.info(
                "release %s is live after %.0f ms (before: %s)",
                record.release_id,
                (record.flip_wall_us - record.begin_wall_us) / 1e3,
                record.previous or "none",
            )
        else:
            _LOG.error(
                "release %s is not installed, %s stays: %s",
                record.release_id or "?",
                record.previous or "none",
                record.reason,
            )
        self.records.append(record)
        del self.records[: -self._keep]

    def _tell(self) -> None:
        try:
            self._noted()
        except OSError as error:
            _LOG.warning("the status cannot be written: %s", error)

    def status(self, *, most: int | None = None) -> dict[str, Any]:
        """What is live, held, being installed, and every try so far.

        `most`: only so many, the last ones, and what was refused before and not tried again.
        """
        records = list(self.records)
        if most is not None and most < len(records):
            last = {r.release_id: r for r in records}
            refused = (r for r in records[:-most] if not r.flipped and last[r.release_id] is r)
            records = [*refused, *records[-most:]]
        return {**self.now(), "swaps": [asdict(r) for r in records]}

    def now(self) -> dict[str, Any]:
        """What is live, held, being installed, and the last refusal."""
        live = self._live
        last = next((r for r in reversed(self.records) if r.release_id), None)
        return {
            "release_id": live.release_id if live is not None else None,
            "watermark_us": live.watermark_us if live is not None else None,
            "held": [s.release_id for s in self._held],
            "installing": self.installing or None,
            "pointer": self.pointer_problem or None,
            "refused": None
            if last is None or last.flipped
            else {"release_id": last.release_id, "reason": last.reason, "wall_us": last.begin_wall_us},
        }
