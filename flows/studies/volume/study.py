"""What more training data costs and brings: ranker, text and image classifier, by nested fractions.

Each fraction is trained once a seed and scored on the same held-out cases; drift is off, so that volume
is not taken for freshness. The ranker is the studies' own, the classifiers those that `refresh` trains.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from flows.studies.cells.asks import VolumeAsk
from flows.studies.telling.record import Floats, plain
from flows.studies.volume.fit import diminishing, drawn_means, fit_power_law, gain_of_more, of_rounds
from flows.studies.volume.record import PUBLISHED, VolumeCurve, VolumePoint, VolumeRecord, VolumeStep
from infra.clock import DAY_US, ManualClock
from infra.errors import DataError
from infra.machine import describe_machine, source_commit
from infra.settings import Settings
from models.metrics import Interval

__all__ = ["Measured", "curve_of", "study_volume"]

Progress = Callable[..., None]
QUESTION = "What does more training data cost, and what does it bring?"
TEST_D = 2.0  # days at the end of the log that are tested on
SLICES, QUERIES = 8, 200  # of the ranker's test
MOST_CASES = 5_000  # test queries of the text classifier, test photos
LEAST_CASES = 30


@dataclass(frozen=True)
class Measured:
    """One component: `scores` float64 [f, k, n] by fraction, seed and test case; `clusters` int64 [n].

    `cpu_s` float64 [f, k]; `rows` int64 [f]; `metric`: what the scores' mean is.
    """

    metric: str
    scores: Floats
    clusters: NDArray[np.int64]
    cpu_s: Floats
    rows: NDArray[np.int64]
    note: str = ""


def study_volume(
    settings: Settings, ask: VolumeAsk | None = None, *, progress: Progress = lambda *_: None
) -> VolumeRecord:
    """Run the study. A component without data is left out, with the reason in the record.

    Raises DataError where nothing is left to study.
    """
    ask = ask or VolumeAsk(seed=settings.seed)
    began = time.monotonic()
    makers: dict[str, Callable[[Settings, VolumeAsk, Progress], Measured]] = {
        "ranker": _ranker,
        "text_classifier": _text,
        "image_classifier": _image,
    }
    curves, cpu_s, left_out = [], 0.0, {}
    for name in ask.components:
        try:
            found = makers[name](settings, ask, lambda *said, name=name: progress(f"{name}:", *said))
        except DataError as e:
            left_out[name] = str(e)
            progress(f"{name} is left out: {e}")
            continue
        cpu_s += float(found.cpu_s.sum())
        curves.append(curve_of(name, found, ask.fractions, margin=ask.margin, seed=ask.seed))
    if not curves:
        raise DataError("; ".join(f"{name}: {why}" for name, why in left_out.items()))
    return VolumeRecord(
        question=QUESTION,
        source=ask.source,
        curves=tuple(curves),
        seed=ask.seed,
        seeds=ask.seeds,
        margin=ask.margin,
        left_out=left_out,
        train_cpu_s=cpu_s,
        wall_s=time.monotonic() - began,
        command=ask.command(),
        commit=source_commit(),
        arguments=plain(ask),
        about={"test_d": TEST_D, "drift": "none"} if ask.source == "world" else {"test_d": TEST_D},
        machine=describe_machine(),
    )


def curve_of(
    name: str, found: Measured, fractions: tuple[float, ...], *, margin: float, seed: int
) -> VolumeCurve:
    """Points, steps to all of the data, the fitted law and the point of diminishing return."""
    mean, draws = drawn_means(found.scores, found.clusters, seed=seed)
    last = len(fractions) - 1
    cpu = found.cpu_s.mean(1)
    points = tuple(
        VolumePoint(
            f,
            int(found.rows[i]),
            Interval(float(cpu[i]), float(found.cpu_s[i].min()), float(found.cpu_s[i].max())),
            of_rounds(mean[i], draws[:, i]),
        )
        for i, f in enumerate(fractions)
    )
    steps = []
    for i, f in enumerate(fractions[:-1]):
        told = PUBLISHED.get((name, f)) if fractions[last] == 1 else None
        steps.append(
            VolumeStep(
                f,
                100 * float(cpu[last] / cpu[i] - 1) if cpu[i] > 0 else float("nan"),
                of_rounds(100 * (mean[last] - mean[i]), 100 * (draws[:, last] - draws[:, i])),
                100 * float(mean[last] / mean[i] - 1) if mean[i] > 0 else float("nan"),
                *(told or (None, None)),
            )
        )
    # Of the rows really trained on: a fraction of sessions is not just that fraction of rows.
    shares = found.rows / found.rows[last]
    law = None
    if steps and steps[0].quality_points.low > 0:  # a law of no gain would be a law of chance
        law = fit_power_law(shares, 1 - mean, draws=1 - draws)
    return VolumeCurve(
        name,
        found.metric,
        found.scores.shape[2],
        points,
        tuple(steps),
        law,
        None if law is None else diminishing(law, least=float(shares[0]), margin=margin),
        float("nan") if law is None else float(gain_of_more(law, 1.0)),
        found.note,
    )


def _ranker(settings: Settings, ask: VolumeAsk, say: Progress) -> Measured:
    from flows.studies.cells.learner import Fit
    from flows.studies.cells.ranker import RankerLearner
    from flows.studies.panels.sources import open_panel

    panel, _ = open_panel(
        settings,
        ask.source,
        drift="none",
        scale=ask.scale,
        seed=ask.seed,
        burn_in_d=ask.days - TEST_D if ask.source == "world" else None,
        horizon_d=TEST_D,
        window_d=None,
        slices=SLICES,
        queries=QUERIES,
        progress=say,
    )
    learner = RankerLearner()
    scores: list[list[Floats]] = []
    cpu_s, rows = np.zeros((len(ask.fractions), ask.seeds)), np.zeros(len(ask.fractions), np.int64)
    shared = 0.0
    for i, fraction in enumerate(ask.fractions):
        scores.append([])
        for k in range(ask.seeds):
            say(f"{fraction:.0%} of the data, training {k + 1} of {ask.seeds}")
            fitted = learner.fit(panel, Fit(panel.horizon_us, fraction, None, ask.seed + k))
            shared += fitted.metrics.get("shared_cpu_s", 0.0)
            cpu_s[i, k], rows[i] = fitted.cpu_s, fitted.rows
            parts = [learner.score(panel, fitted.model, s) for s in range(len(panel.slices))]
            scores[i].append(np.concatenate(parts))
    # Binning is done once for all trainings; one alone would have binned its own rows.
    whole = max(1, int(panel.rows.groups.sum()))
    cpu_s += shared * (rows / whole)[:, None]
    clusters = np.concatenate([s.clusters for s in panel.slices])
    return Measured("NDCG@10", np.array(scores), clusters, cpu_s, rows, _NESTED)


_NESTED = (
    "Fractions are nested by session; which sessions a fraction holds is the same for all seeds, and "
    "that chance is "
    "not in the intervals."
)


def _text(settings: Settings, ask: VolumeAsk, say: Progress) -> Measured:
    from data.event_batch import Batch
    from data.state import State
    from flows.offline.inputs import Inputs, clicked_queries
    from flows.offline.train import QUERY_LIMIT, Parts, train_component
    from flows.studies.panels.scorers import state_at

    events = _events(settings, ask, say)
    known = events["known_time"].to_numpy()
    if not len(known):
        raise DataError("the log is empty; expected clicks on items that have a category")
    end_us = int(known[-1])
    at_us = end_us - int(min(TEST_D * DAY_US, (end_us - int(known[0])) / 4))
    batch = Batch(events)
    last = State()
    last.fold(batch, 0, len(batch.kind))
    queries, truth, clusters = _asked_after(events, last, at_us)
    past = events.slice(0, int(np.searchsorted(known, at_us)))
    inputs = Inputs(past, state_at(batch, at_us), at_us, 0, 1.0, {"watermark_us": at_us, "since_us": 0})
    scores = np.zeros((len(ask.fractions), ask.seeds, len(queries)))
    cpu_s, rows = np.zeros(scores.shape[:2]), np.zeros(len(ask.fractions), np.int64)
    with tempfile.TemporaryDirectory(prefix="shelflife-study-") as folder:
        own = Settings(home=Path(folder), cache=Path(folder) / "cache", seed=ask.seed)
        for i, fraction in enumerate(ask.fractions):
            part = replace(inputs, fraction=fraction, cache={})
            titles = part.state.alive & part.kept(part.state.item_ids, salt="item")
            typed = len(clicked_queries(part, for_scorers=True)[0])
            rows[i] = int(titles.sum()) + min(typed, QUERY_LIMIT)
            for k in range(ask.seeds):
                say(f"{fraction:.0%} of the data, training {k + 1} of {ask.seeds}")
                made = train_component(
                    "text_classifier",
                    part,
                    Parts(),
                    settings=own,
                    clock=ManualClock(at_us),
                    warm=False,
                    seed=ask.seed + k,
                )
                model = made.get("text_classifier")
                if model is None:
                    raise DataError(f"fewer than two categories in {fraction:.0%} of the log")
                best = np.asarray(model.classes)[model.predict(queries).argmax(1)]
                scores[i, k] = best == truth
                cpu_s[i, k] = made.costs["text_classifier"].cpu_s
    note = f"A query's category is taken to be that of the item clicked after it. {_NESTED}"
    return Measured("accuracy", scores, clusters, cpu_s, rows, note)


def _events(settings: Settings, ask: VolumeAsk, say: Progress) -> pa.Table:
    """The whole log, canonical: of a world made now, or of the user's home."""
    from flows.offline.inputs import COLUMNS

    if ask.source != "world":
        from data.snapshots import published, read_events
        from infra.settings import Home

        return read_events(
            published(Home(Path(ask.source).expanduser().resolve())), columns=list(COLUMNS)
        ).combine_chunks()
    from data.world.config import world_config
    from data.world.history import history_days
    from data.world.shop import build_world
    from flows.studies.panels.world import ACTIVITY

    config = world_config("none", scale=ask.scale, days=ask.days, seed=ask.seed, activity=ACTIVITY)
    days = []
    for plan, _, events in history_days(build_world(config)):
        say(f"world: day {plan.day + 1} of {ask.days}")
        days.append(events.select(list(COLUMNS)))
    return pa.concat_tables(days).combine_chunks()


def _asked_after(
    events: pa.Table, state: Any, since_us: int
) -> tuple[list[str], NDArray[np.str_], NDArray[np.int64]]:
    """Queries clicked after a moment: as typed [n], the clicked item's category [n], the session [n]."""
    from data.schema import CLICK
    from flows.offline.inputs import asked_at, group_keys

    known = events["known_time"].to_numpy()
    at = np.flatnonzero((events["kind"].to_numpy() == CLICK) & (known >= since_us))
    asked = asked_at(events, at)
    at, asked = at[asked >= 0], asked[asked >= 0]
    typed = events["query"].take(pa.array(asked)).to_pylist()
    items = state.item_rows(events["item_id"].to_numpy()[at]).tolist()
    category = [str(orjson.loads(state.payload(r)).get("category") or "") if r >= 0 else "" for r in items]
    good = [n for n, (q, c) in enumerate(zip(typed, category, strict=True)) if (q or "").strip() and c]
    if len(good) < LEAST_CASES:
        raise DataError(
            f"{len(good)} queries with a click on an item of a known category in the last days of the log; "
            f"expected {LEAST_CASES} or more"
        )
    pick = np.linspace(0, len(good) - 1, min(len(good), MOST_CASES)).astype(int)
    kept = [good[n] for n in pick.tolist()]
    return (
        [typed[n] for n in kept],
        np.array([category[n] for n in kept]),
        group_keys(events, at)[kept].astype(np.int64),
    )


def _image(settings: Settings, ask: VolumeAsk, say: Progress) -> Measured:
    from data.sources import fashion_mnist
    from infra.resources import measured
    from models.image_classifier import ImageClassifier

    if not fashion_mnist.is_cached(settings.cache):
        raise DataError("the photos are not here; `shelflife data fetch fashion-mnist` gets them")
    images, labels = fashion_mnist.load(settings.cache)
    classes = [str(c) for c in range(10)]
    tested = np.arange(60_000, 60_000 + 2 * MOST_CASES, 2)
    photos = min(ask.photos, 60_000)
    scores = np.zeros((len(ask.fractions), ask.seeds, len(tested)))
    cpu_s = np.zeros(scores.shape[:2])
    rows = np.array([round(f * photos) for f in ask.fractions], np.int64)
    for k in range(ask.seeds):
        # Nested within a seed; other seeds draw other photos, so that this chance is in the intervals.
        order = np.random.default_rng((ask.seed, k)).permutation(60_000)[:photos]
        for i, fraction in enumerate(ask.fractions):
            say(f"{fraction:.0%} of the data, training {k + 1} of {ask.seeds}")
            take = np.sort(order[: rows[i]])
            with measured() as cost:
                model = ImageClassifier.fit(
                    np.asarray(images[take]),
                    np.asarray(labels[take], np.int64),
                    classes=classes,
                    seed=ask.seed + k,
                )
            cpu_s[i, k] = cost.cpu_s
            best = model.predict(np.asarray(images[tested])).argmax(1)
            scores[i, k] = best == np.asarray(labels[tested], np.int64)
    note = (
        f"All of the data is {photos:,} photos of Fashion-MNIST, drawn anew for each seed; three epochs each."
    )
    return Measured("accuracy", scores, np.arange(len(tested), dtype=np.int64), cpu_s, rows, note)
