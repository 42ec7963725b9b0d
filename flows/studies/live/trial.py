"""One policy lived through: the service under load, refreshes by the policy, the arms scored each day.

What happened is kept raw, in files that come last when all is over. It judges nothing.
"""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from components.load.process import DriveProcess
from components.serving.engine import Engine, EngineConfig
from components.serving.evaluation import evaluation_shop
from data.journal import JournalWriter
from data.replica import current_state
from data.schema import ITEM_DELETE, ITEM_UPSERT
from data.shop import Shop
from data.world.shop import World
from flows.evaluation.arms import first_pages, pipeline_of, score
from flows.live.rehearsal import feed
from flows.live.traffic import Crowd, make_reactor
from flows.studies.live.ask import LiveAsk, Trial
from flows.studies.live.keepers import Keeper, Standing, keeper_of
from flows.studies.live.shop_time import ShopTime
from flows.studies.live.traffic import is_live, steady_trace
from infra import cluster
from infra.clock import DAY_US, HOUR_US, open_clock, wall_us
from infra.errors import DataError, ShelflifeError
from infra.files import write_atomic
from infra.settings import Settings
from models.release import champion, load_release

__all__ = ["RAW", "live_through"]

RAW = "raw.json"  # is there once a trial is over
SCORED_US = 12 * HOUR_US  # from one scoring to the next, and whose queries are asked
_GOLDEN = 0.618033988749895
_CROWD_NICE = 5  # between the service (0) and training (19)
_CHANGES = 8  # catalogue changes a day that go over HTTP, timed; the others are journalled
_FASTEST = 3.0  # times the usual pace, where a day has to catch up
_INSTALL_S = 30.0
_FIRE_S = 60.0  # wall seconds within which what is due has to be started


def live_through(
    settings: Settings, ask: LiveAsk, trial: Trial, out: Path, progress: Callable[..., None]
) -> None:
    """Live through the days in the home of `settings`, and write what happened to `out`.

    The home is a copy of the start home. Whatever happens, nothing that was started is left.
    """
    keeper = keeper_of(settings, trial.policy, through=ask.through)
    out.mkdir(parents=True, exist_ok=True)
    slots = () if trial.slots is None else ("--random-slots", str(trial.slots))
    try:
        settings = _started(settings, ask, slots, progress)
        days = _Days(settings, ask, trial, keeper, out, progress)
        try:
            days.live()
        finally:
            days.close()
        days.save()
    finally:
        keeper.close()
        cluster.down(settings)


def _started(
    settings: Settings, ask: LiveAsk, slots: tuple[str, ...], progress: Callable[..., None]
) -> Settings:
    """The service, and Prefect's server where it is asked for; the settings with their ports."""
    progress("starting Ray Serve")
    settings = cluster.start_serve(settings, arguments=slots)
    cluster.wait_serve(settings)
    if ask.through == "prefect":
        progress("starting Prefect")
        settings = cluster.start_prefect(settings)
        cluster.wait_prefect(settings)
    return settings


@dataclass
class _Raw:
    """What is told of a trial. Windows are [begin, end] wall us."""

    began_wall_us: int = 0
    runs: list[tuple[int, int]] = field(default_factory=list)
    measuring: list[tuple[int, int]] = field(default_factory=list)
    shopping: list[tuple[int, int]] = field(default_factory=list)
    put_ms: list[float] = field(default_factory=list)
    put_failed: int = 0
    scored: list[dict[str, Any]] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)  # of each day, behind its stretch of the trace
    notes: list[str] = field(default_factory=list)


class _Days:
    """The days of one trial, and what lives through them."""

    def __init__(
        self,
        settings: Settings,
        ask: LiveAsk,
        trial: Trial,
        keeper: Keeper,
        out: Path,
        progress: Callable[..., None],
    ) -> None:
        self.settings, self.ask, self.trial, self.keeper = settings, ask, trial, keeper
        self.out, self.progress, self.layout = out, progress, settings.layout
        self.raw = _Raw()
        self.world = World.open(self.layout)
        self.walls_s = ask.walls_s(trial)
        self.time = ShopTime(self.layout.clock)
        self.time.go(0.0, at_us=self.world.start_of(ask.first_day))
        first = champion(self.layout)
        if first is None:
            raise DataError(f"no release in {self.layout.root}; `shelflife refresh` makes one")
        self.first = load_release(self.layout, first)
        frozen = pipeline_of(self.first, current_state(self.layout))
        clock = open_clock(self.layout.clock)
        config = EngineConfig(writer="crowd", commit_ms=100.0, gather_s=0.1, follow=False)
        self.engine = Engine(self.layout, clock, config=config)
        self.engine.start()
        self.catalogue = JournalWriter(self.layout.journal / "catalogue", clock=clock)
        self.scores: dict[str, np.ndarray[Any, Any]] = {}
        self.arms: dict[str, Shop] = {
            "frozen": frozen,
            "state_fresh": evaluation_shop(self.engine, self.first),
        }
        steady: dict[str, Any] = {
            "first_day": ask.first_day, "walls_s": ask.trace_s(trial), "qps": ask.qps, "seed": ask.seed
        }  # fmt: skip
        self.crowd = Crowd(self.engine, self.world, live=partial(is_live, **steady))
        trace = steady_trace(self.world, **steady)
        self.driver = DriveProcess(
            trace.trace,
            out / "load.npz",
            host=settings.host,
            port=settings.http_port,
            make_on_reply=partial(make_reactor, self.layout.root, trace.days, trace.rows),
        )
        # Shoppers beside the service, on a thread that gives way to it.
        self.shoppers = ThreadPoolExecutor(1, "shoppers", initializer=_give_way)
        self.open = ExitStack()
        self.served_us = self.time.now_us()
        self.ended: dict[int, dict[str, str]] = {}  # how runs ended, by number

    def live(self) -> None:
        """From the first day's beginning to the last day's end."""
        self.keeper.start()
        self.open.enter_context(self.driver)
        self.raw.began_wall_us = began = wall_us()
        due_us = began
        for k in range(self.ask.days):
            due_us += round(self.walls_s[k] * 1e6)
            self._day(k, due_us)
            left_s = (due_us - wall_us()) / 1e6
            self.raw.late_s.append(round(max(0.0, -left_s), 3))
            # The clock stands at midnight: the load alone, and until its trace is there, too.
            time.sleep(max(left_s, self.ask.quiet_seconds))
        self._settle_last()
        self.driver.stop()
        self.driver.wait()

    def close(self) -> None:
        """Stop sending, and close what this process has open."""
        self.open.close()
        self.shoppers.shutdown(cancel_futures=True)
        self.engine.close()
        self.catalogue.close()

    def save(self) -> None:
        """Write what happened; `RAW` last."""
        from flows.offline.refresh import read_refreshes
        from flows.studies.live.freshness import live_events

        known, wall = live_events(self.layout, since_us=self.world.start_of(self.ask.first_day))
        arrays: dict[str, Any] = {"event_known_us": known, "event_wall_us": wall, **self.scores}
        np.savez(self.out / "arrays.npz", **arrays)
        began = self.raw.began_wall_us
        document: dict[str, Any] = {
            **vars(self.raw),
            "name": self.trial.name,
            "pieces": self.time.to_json(),
            "walls_s": self.walls_s,
            "release": self.release,
            "refreshes": [r for r in read_refreshes(self.layout) if r["end_wall_us"] >= began],
            "ended": list(self.ended.values()),
            "crowd_requests": self.crowd.requests,
            "crowd_lag_s": round(self.crowd.lag_s, 3),
        }
        write_atomic(self.out / RAW, orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY))

    def _day(self, k: int, due_us: int) -> None:
        """One shop day: fast from one event to the next, at the wall's pace while a run is under way."""
        day = self.ask.first_day + k
        # It stands a moment before midnight: what is due then belongs to the day that comes.
        since, end = self.world.start_of(day), self.world.start_of(day + 1) - 1
        first_us = since + int(((k + 0.5) * _GOLDEN % 1.0) * SCORED_US)
        scorings = [first_us, first_us + SCORED_US]
        changes = self.world.catalogue_events(day)
        while True:
            now = self.time.now_us()
            standing = self.keeper.look()
            due = self._due_us(standing)
            if standing.busy or (due is not None and due <= now):
                self._run(standing)
            elif scorings and now >= scorings[0]:
                self._score(day, scorings.pop(0))
            elif now >= end:
                return
            else:
                stops = [end, *scorings, *([] if due is None else [due])]
                self._pass(
                    day, now, min(s for s in stops if s > now), changes, end_us=end, due_wall_us=due_us
                )

    def _due_us(self, standing: Standing) -> int | None:
        """When the keeper will surely have asked its triggers after the time that they wait for."""
        return None if standing.next_us is None else standing.next_us + self.trial.policy.tick

    def _pass(
        self, day: int, now: int, stop: int, changes: pa.Table, *, end_us: int, due_wall_us: int
    ) -> None:
        """Let shop time pass until `stop`, and those shop who are not in the trace."""
        usual = DAY_US / 1e6 / self.ask.day_seconds
        left_s = max((due_wall_us - wall_us()) / 1e6 - self.ask.quiet_seconds, 1e-3)
        rate = float(np.clip((end_us - now) / 1e6 / left_s, usual, _FASTEST * usual))
        at = changes["event_time"].to_numpy()
        self._change(changes.filter(pa.array((at >= now) & (at < stop))))
        piece = self.time.go(rate, until_us=stop)
        begin = piece.wall_start_us
        shopping = self.shoppers.submit(self.crowd.serve_until, piece, day, stop, since_us=self.served_us)
        shopping.result()
        self.served_us = stop
        while self.time.now_us() < stop:
            time.sleep(0.005)
        self.raw.shopping.append((begin, wall_us()))

    def _fires(self, standing: Standing) -> bool:
        """Wait until what is due is started; False where the keeper asked and nothing fired."""
        until = time.monotonic() + _FIRE_S
        due = standing.next_us
        while not standing.busy:
            if standing.next_us != due:
                return False
            if time.monotonic() > until:
                raise ShelflifeError(
                    f"the policy {self.trial.name} was due and started nothing within {_FIRE_S:g} s; "
                    f"see the logs in {self.layout.run}"
                )
            time.sleep(0.05)
            standing = self.keeper.look()
        return True

    def _run(self, standing: Standing) -> None:
        """Wait for what is due to be started, done, and live; shop time goes as the wall does meanwhile."""
        if not self._fires(standing):
            return
        begin = self.time.go(1.0).wall_start_us
        while (standing := self.keeper.look()).busy:
            time.sleep(0.1)
        self.raw.runs.append((begin, wall_us()))
        self.ended |= {e["firing"]["number"]: {k: e[k] for k in ("ended", "said")} for e in standing.ended}
        self._installed()
        if self.trial.policy.needs_data:
            time.sleep(self.keeper.looks_s)  # what came in may make a trigger fire
        name = champion(self.layout)
        self.progress(f"{self.trial.name}: run {len(self.raw.runs)}, release {name} is live")

    def _installed(self) -> None:
        """Wait until the service answers from the champion, or has refused it; our own engine follows."""
        wanted = champion(self.layout)
        until = time.monotonic() + _INSTALL_S
        while time.monotonic() < until:
            status = orjson.loads(self.layout.serving_status.read_bytes())
            refused = (status.get("refused") or {}).get("release_id")
            if status.get("release_id") == wanted or refused == wanted:
                break
            time.sleep(0.05)
        else:
            self.raw.notes.append(f"{wanted} was not live {_INSTALL_S:g} s after its promotion")
        live = self.engine.live
        if wanted is not None and (live is None or live.release.release_id != wanted):
            begin = wall_us()
            self.shoppers.submit(self.engine.install, wanted).result()
            self.raw.measuring.append((begin, wall_us()))

    def _score(self, day: int, at_us: int) -> None:
        """The arms on the same queries of the day, while the shop clock stands."""
        plan = self.world.day(day)
        until = at_us + SCORED_US
        most = self.ask.queries // (DAY_US // SCORED_US)
        rows = first_pages(plan, since_us=at_us, until_us=until, most=most, seed=self.ask.seed)
        begin = wall_us()
        arms = self.arms | {"full": evaluation_shop(self.engine)}
        found = self.shoppers.submit(score, self.world, plan, rows, arms).result()
        self.raw.measuring.append((begin, wall_us()))
        live = self.engine.live
        assert live is not None
        self.raw.scored.append(
            {"day": day, "shop_us": at_us, "wall_us": begin, "release_id": live.release.release_id}
        )
        k = len(self.raw.scored) - 1
        for arm, values in found.items():
            self.scores[f"{arm}.{k}"] = values
        self.scores[f"sessions.{k}"] = plan.session_id[rows]
        means = " ".join(f"{arm} {values.mean():.3f}" for arm, values in found.items())
        number = day - self.ask.first_day + 1
        self.progress(f"{self.trial.name}: day {number} of {self.ask.days}, NDCG@10 {means}")

    def _change(self, events: pa.Table) -> None:
        """Some catalogue changes through the service's own API, timed, the others through a journal."""
        kind = events["kind"].to_numpy()
        some = np.flatnonzero((kind == ITEM_UPSERT) | (kind == ITEM_DELETE))[: _CHANGES // 2]
        for i in some.tolist():
            deletes = kind[i] == ITEM_DELETE
            request = urllib.request.Request(
                f"http://{self.settings.host}:{self.settings.http_port}/items/{events['item_id'][i].as_py()}",
                data=None if deletes else events["payload"][i].as_py().encode(),
                method="DELETE" if deletes else "PUT",
                headers={"Content-Type": "application/json"},
            )
            begin = time.perf_counter()
            try:
                with urllib.request.urlopen(request, timeout=10):
                    self.raw.put_ms.append((time.perf_counter() - begin) * 1e3)
            except OSError as error:
                self.raw.put_failed += 1
                self.raw.notes.append(f"{request.method} of an item failed: {error}")
        rest = np.ones(events.num_rows, bool)
        rest[some] = False
        feed(self.catalogue, events.filter(pa.array(rest)))

    def _settle_last(self) -> None:
        """A run that was started as the last day ended is waited for; what the service did is asked."""
        standing = self.keeper.look()
        if standing.busy:
            self._run(standing)
        with urllib.request.urlopen(
            f"http://{self.settings.host}:{self.settings.http_port}/release", timeout=10
        ) as reply:
            self.release: Mapping[str, Any] = json.loads(reply.read())


def _give_way() -> None:
    """This thread alone is nicer than the service; what the others start is not."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _CROWD_NICE)
