"""From what happened in a trial, as it was kept, to what a record says of it. It starts nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from components.load.result import LoadResult
from components.load.verdict import judge
from flows.evaluation.arms import ARMS
from flows.studies.live.ask import CONTROL, LiveAsk, Trial
from flows.studies.live.freshness import freshness
from flows.studies.live.predict import Predicted, read_hindcast
from flows.studies.live.record import Band, ClosedLoop, Lived, Over
from flows.studies.live.tail import conditions_of, tail_of
from flows.studies.live.trial import RAW
from flows.studies.live.verdict import Scored, judged, mean_of_days
from flows.studies.statistics.attribution import arms
from flows.studies.telling.record import Arms
from infra.clock import ScaledClock
from models.metrics import Interval

__all__ = ["closed_loop", "lived", "over_control", "scored_of"]

_BINS = 200  # of the latency picture, at most


def lived(ask: LiveAsk, trial: Trial, out: Path, predicted: Predicted | None) -> Lived:
    """What is told of a finished trial, whose files are in `out`."""
    raw: dict[str, Any] = orjson.loads((out / RAW).read_bytes())
    load = LoadResult.load(out / "load.npz")
    scored = scored_of(ask, raw, out)
    counted = [s for s in scored if s.fresh] if any(s.fresh for s in scored) else scored
    began = int(raw["began_wall_us"])
    swaps = [s for s in raw["release"]["swaps"] if s["flipped"] and s["flip_wall_us"] >= began]
    stretches = conditions_of(
        [tuple(r) for r in raw["runs"]],
        swaps,
        [tuple(m) for m in raw["measuring"]],
        [tuple(x) for x in raw["shopping"]],
    )
    ends = began + np.cumsum(np.round(np.array(raw["walls_s"]) * 1e6)).astype(np.int64)
    refreshes = raw["refreshes"]
    with np.load(out / "arrays.npz") as arrays:
        known, wall = arrays["event_known_us"], arrays["event_wall_us"]
    stages = freshness(
        known,
        wall,
        refreshes=refreshes,
        swaps=swaps,
        load=load,
        pieces=[ScaledClock(**p) for p in raw["pieces"]],
        journalled_ms=raw["put_ms"],
    )
    afterwards = read_hindcast(out, trial.policy.name)
    cpu_s = [float(r["process_cpu_s"]) for r in refreshes]
    runs_s = [(end - begin) / 1e6 for begin, end in raw["runs"]]
    judgement = judge(load, intervals=stretches)
    means = np.array([[q.queries[:, k].mean() for k in range(3)] for q in counted])
    found = arms(
        *means.T,
        queries=[q.queries for q in counted],
        clusters=[q.sessions for q in counted],
        seed=ask.seed,
    )
    by_day = np.array([s.queries.mean(0) for s in scored]).reshape(-1, 3)
    days = np.array([s.day for s in scored], float)
    return Lived(
        name=trial.name,
        triggers={str(n): c.trigger.words() for n, c in trial.policy.components.items()},
        control=trial.policy.name == CONTROL,
        without_slots=trial.slots == 0,
        requests=len(load),
        failed=load.failed,
        load=judgement.word,
        load_reasons=judgement.reasons,
        runs=len(raw["runs"]),
        refreshes=len(refreshes),
        refused=sum(not r["promoted"] for r in refreshes),
        failed_runs=sum(e["ended"] != "done" for e in raw["ended"]),
        swaps=len(swaps),
        releases_served=sum(1 for n in judgement.figures["labels"].values() if n),
        arms=Arms(found.frozen, found.state_fresh, found.full),
        full_minus_state_fresh=found.weights,
        state_fresh_minus_frozen=found.state,
        weights_share=found.weights_share,
        state_share=found.state_share,
        cpu_s_per_day=sum(cpu_s) / ask.days,
        cpu_s_per_refresh=float(np.mean(cpu_s)) if cpu_s else 0.0,
        run_s=float(np.mean(runs_s)) if runs_s else 0.0,
        tail=tail_of(load, stretches, days=ask.days, day_ends_us=ends, seed=ask.seed),
        freshness=stages,
        verdict=judged(predicted, scored, margin=ask.margin, seed=ask.seed),
        afterwards=None
        if afterwards is None
        else judged(afterwards, scored, margin=ask.margin, seed=ask.seed),
        days=days,
        frozen=by_day[:, 0],
        state_fresh=by_day[:, 1],
        full=by_day[:, 2],
        predicted=_on(days, predicted),
        hindcast=_on(days, afterwards),
        over=_over(load, began, stretches),
        catalogue_failed=int(raw["put_failed"]),
        crowd_requests=int(raw["crowd_requests"]),
        late_s=max(raw["late_s"], default=0.0),
        notes=tuple(_notes(raw)),
    )


def scored_of(ask: LiveAsk, raw: Mapping[str, Any], out: Path) -> list[Scored]:
    """The scored days of a trial, in order; the scorings of a day are one."""
    made = {r["release_id"] for r in raw["refreshes"]}
    found: list[Scored] = []
    with np.load(out / "arrays.npz") as arrays:
        for k, about in enumerate(raw["scored"]):
            queries = np.column_stack([arrays[f"{arm}.{k}"] for arm in ARMS])
            if not len(queries):
                continue
            scored = Scored(
                day=int(about["day"]) - ask.first_day,
                queries=queries,
                sessions=arrays[f"sessions.{k}"],
                fresh=about["release_id"] in made,
            )
            if found and found[-1].day == scored.day:
                scored = found.pop().joined(scored)
            found.append(scored)
    return found


def closed_loop(
    policy: str, using: Sequence[Scored], without: Sequence[Scored], *, seed: int
) -> ClosedLoop | None:
    """What randomised slots change: the same days and queries, the log made with and without them."""
    pairs = _pairs(using, [s for s in without if s.fresh])
    if not pairs:
        return None
    sessions = [a.sessions for a, _ in pairs]
    return ClosedLoop(
        policy=policy,
        without_minus_with=mean_of_days(
            [b.queries[:, 2] - a.queries[:, 2] for a, b in pairs], sessions, seed
        ),
        weights_with=mean_of_days([a.weights for a, _ in pairs], sessions, seed),
        weights_without=mean_of_days([b.weights for _, b in pairs], sessions, seed),
        days=len(pairs),
    )


def over_control(own: Sequence[Scored], control: Sequence[Scored], *, seed: int) -> Interval | None:
    """What a policy's `full` arm has over the control's, on the same queries; None where none are shared."""
    pairs = _pairs(own, control)
    if not pairs:
        return None
    return mean_of_days(
        [a.queries[:, 2] - b.queries[:, 2] for a, b in pairs], [a.sessions for a, _ in pairs], seed
    )


def _pairs(own: Sequence[Scored], other: Sequence[Scored]) -> list[tuple[Scored, Scored]]:
    """Days on which a release of the policy was live, each with the other's, where queries are the same."""
    days = {s.day: s for s in other}
    pairs = [(s, days[s.day]) for s in own if s.fresh and s.day in days]
    return [(a, b) for a, b in pairs if np.array_equal(a.sessions, b.sessions)]


def _on(days: NDArray[np.float64], predicted: Predicted | None) -> NDArray[np.float64]:
    """What was predicted for these days."""
    found = np.full(len(days), np.nan)
    if predicted is not None:
        there = days < len(predicted.weights)
        found[there] = predicted.weights[days[there].astype(int)]
    return found


def _over(load: LoadResult, began: int, stretches: Sequence[Any]) -> Over:
    """Percentiles of bins of whole seconds, and when what was under way."""
    due = (load.due_us - began) / 1e6
    width = float(max(1, np.ceil((due.max(initial=0.0) + 1e-9) / _BINS)))
    which = (due // width).astype(int)
    starts = np.unique(which)
    ms = np.where(load.ok, load.latency_us / 1e3, np.inf)
    split = [ms[which == b] for b in starts.tolist()]
    p50, p99 = (
        np.array([np.percentile(x, q, method="inverted_cdf") for x in split], float) for q in (50, 99)
    )
    bands = [Band(s.condition, (s.begin_us - began) / 1e6, (s.end_us - began) / 1e6) for s in stretches]
    return Over(width, starts * width, p50, p99, tuple(bands))


def _notes(raw: Mapping[str, Any]) -> list[str]:
    found = list(raw["notes"])
    late = max(raw["late_s"], default=0.0)
    if late > 1.0:
        found.append(
            f"runs took longer than was set aside: a day ended up to {late:.0f} s of wall time behind the "
            "load, which then asks a little ahead of the shop's day; give --run-seconds more"
        )
    found += [f"a run failed: {e['said']}" for e in raw["ended"] if e["ended"] != "done"]
    return found
