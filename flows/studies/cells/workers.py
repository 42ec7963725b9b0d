"""Run a study's cells: in this process, or as Ray tasks at niceness 19 on one machine or a cluster.

Cells come in any order; parents are trained before the cells that start from them. What is finished is on
disk at once, so that an interrupted run goes on where it was. Workers find the panel and the store by
their folders: on a cluster these have to be on a disk that all machines share. It knows no policy.
"""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from flows.studies.cells.cell import Cell, CellStore, Job, Scores, cell_key, work
from flows.studies.cells.learner import Learner
from flows.studies.panels.panel import Panel
from infra.errors import EnvironmentError_, InputError

__all__ = ["FEW", "Progress", "kept_workers", "run_cells"]

Progress = Callable[[int, int, float | None], None]  # cells done, of how many, seconds left where known
FEW = 12  # trainings that do not repay the seconds in which Ray starts
_BATCH = 8  # cells a task at most: below, its overhead; above, an idle worker at the end
_SCORING = 0.02  # a scoring's cost in trainings on all data, for the estimate of what is left
_REACH_S = 10
_OBJECT_STORE_BYTES = 80 << 20  # Ray's least; tasks pass names only

_PANELS: dict[Path, Panel] = {}  # of this worker process: read once
_LEARNERS: dict[str, Learner] = {}  # of this worker process: rows are binned once
_KEPT: list[ExitStack] = []  # the block at whose end Ray ends; none: with each run


def run_cells(
    panel_folder: Path,
    learner: Learner,
    wanted: Mapping[Cell, Sequence[tuple[int, bool]]],
    store: CellStore,
    *,
    workers: int = 1,
    progress: Progress | None = None,
    panel: Panel | None = None,
) -> dict[Cell, Scores]:
    """Train and score what `store` does not have yet; give what is known of the wanted cells and parents.

    `wanted`: (slice, frozen) that a cell is scored on; parents need not be named. `workers` 1, or fewer
    than `FEW` trainings, need no Ray; else Ray starts here and ends with the run (`kept_workers`: later),
    unless `RAY_ADDRESS` names a cluster. `panel`: if it is loaded already. EnvironmentError_ where Ray does
    not start.
    """
    panel = panel or Panel.load(panel_folder)
    plan = _Plan.of(panel, learner, wanted, store)
    watch = _Watch(plan, progress)
    if workers > 1 and plan.trainings >= FEW:
        _with_ray(plan, watch, panel_folder, learner, store, workers)
    else:
        for batch in plan.batches(1):
            work(panel, learner, store, batch[0])
            plan.finish(batch)
            watch.tell(batch)
    found: dict[Cell, Scores] = {}
    for cell in plan.cells:
        scores = store.get(cell_key(panel, learner, cell))
        if scores is None:
            raise EnvironmentError_(
                f"a finished cell is not in {store.folder}; if the study runs on a cluster, put the cache on "
                "a disk that all its machines share, else see who removes files there; then run it again"
            )
        found[cell] = scores
    return found


@contextmanager
def kept_workers() -> Iterator[None]:
    """Ray, once a run in this block has started it, serves the block's other runs, and ends with it."""
    with ExitStack() as stack:
        _KEPT.append(stack)
        stack.callback(_KEPT.remove, stack)
        yield


@dataclass
class _Plan:
    """Jobs that are ready, and those that wait for a parent."""

    cells: tuple[Cell, ...]
    jobs: int
    trainings: int
    cost: float
    ready: deque[Job] = field(default_factory=deque)
    waiting: dict[str, list[Job]] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        panel: Panel,
        learner: Learner,
        wanted: Mapping[Cell, Sequence[tuple[int, bool]]],
        store: CellStore,
    ) -> _Plan:
        keys: dict[Cell, str] = {}
        held: dict[str, Scores | None] = {}
        needed: dict[Cell, Sequence[tuple[int, bool]]] = dict(wanted)
        for first in wanted:
            cell: Cell | None = first
            while cell is not None and cell not in keys:
                key = keys[cell] = cell_key(panel, learner, cell)
                held[key] = store.get(key)
                needed.setdefault(cell, ())
                cell = cell.parent
        plan = cls(tuple(needed), 0, 0, 0.0)
        for cell in sorted(needed, key=lambda c: (c.trained_us, c.fraction)):
            known, key = held[keys[cell]], keys[cell]
            lacks = (known or Scores()).lacks(needed[cell])
            if known is not None and not lacks:
                continue
            parent = keys.get(cell.parent) if cell.parent is not None and known is None else None
            plan.add(Job(key, cell.fit, parent, tuple(lacks)), trains=known is None)
            if parent is not None and held[parent] is None:
                plan.waiting.setdefault(parent, []).append(plan.ready.pop())
        return plan

    def add(self, job: Job, *, trains: bool) -> None:
        self.costs[job.key] = (job.fit.fraction if trains else 0.0) + _SCORING * (1 + len(job.slices))
        self.cost += self.costs[job.key]
        self.jobs += 1
        self.trainings += trains
        self.ready.append(job)

    def batches(self, size: int) -> Iterator[list[Job]]:
        """What is ready, up to `size` jobs at once; more may be ready after `finish`."""
        while self.ready:
            yield [self.ready.popleft() for _ in range(min(size, len(self.ready)))]

    def finish(self, batch: Sequence[Job]) -> None:
        for job in batch:
            self.ready.extendleft(reversed(self.waiting.pop(job.key, [])))


class _Watch:
    """How far the run is, and how long the rest may take: at the pace so far, by cost.

    The first to finish only starts the watch: before it, Ray starts, and workers bin their rows.
    """

    def __init__(self, plan: _Plan, progress: Progress | None) -> None:
        self._plan, self._progress = plan, progress
        self._done, self._cost, self._left = len(plan.cells) - plan.jobs, 0.0, plan.cost
        self._began: float | None = None
        self._say(None if plan.jobs else 0.0)

    def tell(self, batch: Sequence[Job]) -> None:
        cost = sum(self._plan.costs[job.key] for job in batch)
        self._done += len(batch)
        self._left -= cost
        if self._began is None:
            self._began = time.monotonic()
        else:
            self._cost += cost
        pace = (time.monotonic() - self._began) / self._cost if self._cost else None
        last = self._done == len(self._plan.cells)
        self._say(0.0 if last else None if pace is None else max(0.0, self._left * pace))

    def _say(self, left_s: float | None) -> None:
        if self._progress is not None:
            self._progress(self._done, len(self._plan.cells), left_s)


def _with_ray(
    plan: _Plan, watch: _Watch, panel_folder: Path, learner: Learner, store: CellStore, workers: int
) -> None:
    with _ray(workers) as ray:
        run = ray.remote(num_cpus=1, max_retries=2)(_run_batch)
        shared = ray.put(learner)
        folders = str(panel_folder.resolve()), str(store.folder.resolve())
        size = max(1, min(_BATCH, plan.jobs // (4 * workers)))
        running: dict[Any, list[Job]] = {}
        try:
            while plan.ready or running:
                while plan.ready and len(running) < 2 * workers:
                    batch = next(plan.batches(size))
                    running[run.remote(*folders, shared, batch)] = batch
                ended, _ = ray.wait(list(running), num_returns=1)
                for task in ended:
                    batch = running.pop(task)
                    _result(ray, task)
                    plan.finish(batch)
                    watch.tell(batch)
        finally:
            for task in running:
                ray.cancel(task, force=True)


def _run_batch(panel_folder: str, store_folder: str, learner: Learner, batch: list[Job]) -> int:
    os.nice(max(0, 19 - os.nice(0)))
    folder = Path(panel_folder)
    if folder not in _PANELS:
        _PANELS[folder] = Panel.load(folder)
    own = _LEARNERS.setdefault(learner.key, learner)
    for job in batch:
        work(_PANELS[folder], own, CellStore(Path(store_folder)), job)
    return len(batch)


def _result(ray: Any, task: Any) -> None:
    try:
        ray.get(task)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise error.cause from None
        raise
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
        raise EnvironmentError_(
            f"a worker of the study was killed ({error}); there may be too little memory: run it again with "
            "fewer workers, it goes on from the cells that are finished"
        ) from error


@contextmanager
def _ray(workers: int) -> Iterator[Any]:
    """Ray, started for this run and ended with it or its block; a running one is used and left running."""
    address = os.environ.get("RAY_ADDRESS")  # empty: never somebody else's
    with ExitStack() as own_stack:
        stack = _KEPT[-1] if _KEPT else own_stack
        stack.enter_context(_environment({} if address else _local_environment()))
        try:
            _reach(address)
            import ray

            if not ray.is_initialized():
                own = "" if address else stack.enter_context(_folder())
                ray.init(
                    address=address or "local",
                    num_cpus=None if address else workers,
                    object_store_memory=None if address else _OBJECT_STORE_BYTES,
                    include_dashboard=None if address else False,
                    log_to_driver=False,
                    configure_logging=False,
                    _node_ip_address=None if address else "127.0.0.1",
                    _temp_dir=own or None,
                )
                stack.callback(ray.shutdown)
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            raise EnvironmentError_(
                f"Ray does not start ({error}); expected its processes to run here, or RAY_ADDRESS to name a "
                "cluster; run with one worker, which needs no Ray"
            ) from error
        yield ray


def _reach(address: str | None) -> None:
    """Ask whether a cluster named by host and port is there: Ray itself waits for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_REACH_S).close()


def _local_environment() -> dict[str, str]:
    """What a Ray of our own reads when it starts; what the user set stays. Its token is for this run."""
    given = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "19", "RAY_AUTH_MODE": "token"}
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        given["RAY_AUTH_TOKEN"] = _token()
    return {name: os.environ.get(name, value) for name, value in given.items()}


@lru_cache(maxsize=1)
def _token() -> str:
    """This process's: Ray reads its token once, and would not know the next run's."""
    return secrets.token_hex(32)


@contextmanager
def _environment(given: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _folder() -> tempfile.TemporaryDirectory[str]:
    """For Ray's sockets, whose paths have to be short, and logs."""
    return tempfile.TemporaryDirectory(prefix="shelflife-", ignore_cleanup_errors=True)
