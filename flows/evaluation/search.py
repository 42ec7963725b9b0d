"""How good is search: by the hidden relevance of a simulated shop, by people's labels, else by clicks.

The one place outside the simulated shoppers that reads the truth. docs/evaluation.md says what every
number means.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from data.labels import labels_path
from data.replica import current_state
from data.snapshots import published
from data.state import State
from data.world.shop import World, public_path
from flows.evaluation.ablation import ABLATIONS, ablation
from flows.evaluation.arms import gain
from flows.evaluation.judgements import Judged, measure, write_trec
from flows.evaluation.labels import baseline, judge_labels
from flows.evaluation.log import ask, questions
from flows.evaluation.retrievers import Retrievers
from flows.evaluation.shopping import days, shopping
from flows.offline.inputs import Inputs, gate_rows, load_inputs
from flows.offline.train import Parts
from infra.clock import DAY_US
from infra.errors import DataError
from infra.settings import Settings
from models.metrics import bootstrap_mean
from models.release import Release, champion, load_release

__all__ = ["describe", "evaluate_search", "judge_world", "opened_release"]

Progress = Callable[..., None]


def evaluate_search(
    settings: Settings,
    *,
    release_id: str | None = None,
    queries: int = 1_000,
    ablate: bool = False,
    dump: Path | None = None,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """NDCG@10, precision@10, recall, MRR of the service and its parts, with 95 % intervals.

    Returns {"retrievers": {name: {metric: {"mean", "low", "high"}}}, "queries", "items", "release_id",
    "source": "truth", "labels" or "log", ...}. `ablate`: also what vectors, user and category add; `dump`:
    also write TREC run and qrels files. Raises DataError where there is no release, or nothing to ask.
    """
    release = opened_release(settings, release_id)
    state = current_state(settings.layout)
    items = int(np.count_nonzero(state.alive))
    more: dict[str, Any] = {}
    if public_path(settings.layout).is_file():
        source, surface = "truth", "search"
        judged = judge_world(
            World.open(settings.layout),
            release,
            state,
            since_us=published(settings.layout).watermark_us,
            queries=queries,
            seed=settings.seed,
            ablate=ablate,
            progress=progress,
        )
    elif labels_path(settings.layout).is_file():
        source, surface = "labels", "search"
        judged = judge_labels(
            settings.layout,
            release,
            state,
            queries=queries,
            seed=settings.seed,
            ablate=ablate,
            progress=progress,
        )
        judged, more["baseline"] = baseline(judged, seed=settings.seed)
    else:
        source = "log"
        inputs = load_inputs(settings.layout, window_d=None)
        asked = questions(inputs, most=queries, seed=settings.seed)
        if not asked:
            raise DataError(
                "no click to judge by among the held-out sessions of the newest day of the log; a longer "
                "log, or one with more sessions, has some, and a catalogue without clicks needs labels"
            )
        surface = asked[0].request.surface
        progress(f"{len(asked)} questions of the log")
        judged = ask(release, inputs, asked, ablate=ablate)
        more = _logged(release, inputs, settings.seed)
    if ablate:
        judged, more["ablation"] = ablation(judged, seed=settings.seed)
    document = {
        "source": source,
        "surface": surface,
        "release_id": release.release_id,
        "queries": len(judged),
        "items": items,
        "retrievers": {
            name: {metric: interval.as_dict() for metric, interval in metrics.items()}
            for name, metrics in measure(judged, seed=settings.seed).items()
        },
        **more,
    }
    if dump is not None:
        document["files"] = [str(p) for p in write_trec(judged, dump, key_of=_keys(state))]
    return document


def opened_release(settings: Settings, release_id: str | None) -> Release:
    """The release of that id, or the champion. DataError where there is none."""
    name = release_id or champion(settings.layout)
    if name is None:
        raise DataError(f"no release in {settings.layout.root}; `shelflife refresh` makes one")
    return load_release(settings.layout, name)


def judge_world(
    world: World,
    release: Release,
    state: State,
    *,
    since_us: int,
    queries: int,
    seed: int,
    ablate: bool = False,
    progress: Progress = lambda *_: None,
) -> list[Judged]:
    """The next day's text queries, judged by the true relevance of every item that the shop has then.

    The day is lived through: the release serves, shoppers react, and the state, which is changed, knows
    it before the next query. Gain 2^(4r) − 1 of a relevance r, grade ⌊4r⌋: an item is relevant if a
    shopper who looks at it clicks in one case of four or more.
    """
    retrievers = Retrievers.of(release, state, without=ABLATIONS if ablate else ())
    lived = days(world, since_us=since_us, until_us=since_us + DAY_US, most=queries, seed=seed)
    total = sum(len(day.judged) for day in lived)
    judged: list[Judged] = []
    ids, version = state.item_ids[state.alive], state.catalogue_version
    for plan, i in shopping(world, lived, retrievers.shop, state, refresh=retrievers.refresh):
        if version != state.catalogue_version:
            ids, version = state.item_ids[state.alive], state.catalogue_version
        relevance = world.relevance(plan, i, ids)
        judged.append(
            Judged(
                query_id=f"q{len(judged) + 1}",
                cluster=int(plan.session_id[i]),
                ids=ids,
                gains=gain(relevance),
                grades=np.floor(4 * relevance).astype(np.int8),
                lists=retrievers.lists(plan.request(i)),
            )
        )
        if len(judged) % 100 == 0:
            progress(f"{len(judged)} of {total} queries")
    return judged


def _logged(release: Release, inputs: Inputs, seed: int) -> dict[str, Any]:
    """NDCG@10 of the order that the ranker gives to what was shown in the gate's slice, by clicks."""
    if release.ranker is None:
        return {"logged_ndcg10": None, "logged_requests": 0}
    rows = gate_rows(inputs, Parts.of(release).scorers())
    scores = release.ranker.logged_ndcg10(rows)[1] if len(rows.groups) else np.empty(0)
    interval = bootstrap_mean(scores, clusters=rows.session_ids, seed=seed)
    return {
        "logged_ndcg10": interval.as_dict() if len(scores) else None,
        "logged_requests": len(scores),
    }


def _keys(state: State) -> Callable[[int], str]:
    """An item's own key, as its shop knows it."""

    def key(item_id: int) -> str:
        row = state.item_row(item_id)
        fields = orjson.loads(state.payload(row)) if row >= 0 else {}
        return str(fields.get("item_id", item_id))

    return key


def describe(document: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The retrievers as a table: columns, and a row each with means and intervals."""
    metrics = list(dict.fromkeys(m for found in document["retrievers"].values() for m in found))
    rows = []
    for name, found in document["retrievers"].items():
        cells = (found.get(m) for m in metrics)
        rows.append(
            (
                name,
                *("-" if c is None else f"{c['mean']:.3f} [{c['low']:.3f}, {c['high']:.3f}]" for c in cells),
            )
        )
    return ("retriever", *metrics), rows
