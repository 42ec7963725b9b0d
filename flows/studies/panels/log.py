"""A panel of a home's own log with impressions, judged by the clicks of sessions that no model learns from.

A query is a logged request, its pool what was shown; a click counts by how likely its place was looked
at. What a ranker would have shown besides, a log cannot tell. It reads published events, never a truth.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.event_batch import Batch
from data.fractions import in_fraction
from data.schema import CLICK, IMPRESSION, ITEM_UPSERT, ORDER, SURFACES
from data.shop import Request
from data.snapshots import Published, published, read_events
from data.sources.interactions import resolution
from data.state import State
from flows.offline.inputs import COLUMNS
from flows.studies.panels.key import panel_key
from flows.studies.panels.labelled import Labelled, labelled_rows
from flows.studies.panels.panel import DEPTH, Panel, Slice
from flows.studies.panels.pools import Still
from flows.studies.panels.scorers import Progress, burn_in_release, state_at, taught_until
from flows.studies.panels.stretches import Stretch, stretches
from flows.studies.panels.texts import HELD_SALT, with_texts
from infra.clock import DAY_US
from infra.errors import DataError
from infra.settings import Home, Settings
from models.boosting import GAINS
from models.candidate_features import CATEGORICAL, FEATURES
from models.examination import Examination, places
from models.metrics import grouped_dcg

__all__ = ["BURN_IN", "HELD_SHARE", "LEAST_DAYS", "has_impressions", "log_key", "log_panel"]

HELD_SHARE = 0.2  # of the sessions: asked, never trained on
BURN_IN = 0.4  # of a log, where nobody says how much
LEAST_DAYS = 2.0
_SIMILAR, _IMAGE = SURFACES.index("similar"), SURFACES.index("image")


def has_impressions(layout: Home) -> bool:
    """Whether a home's published events say what was shown. DataError where nothing is ingested."""
    return published(layout).kinds.get("impression", 0) > 0


def log_key(
    settings: Settings, *, burn_in_d: float | None, horizon_d: float | None, slices: int, queries: int
) -> str:
    """The key of the panel that `log_panel` makes of the same arguments and the events as published."""
    return panel_key(
        "log",
        content=published(settings.layout).content_hash,
        burn_in_d=burn_in_d,
        horizon_d=horizon_d,
        slices=slices,
        queries=queries,
        seed=settings.seed,
    )


def log_panel(
    settings: Settings,
    *,
    burn_in_d: float | None = None,
    horizon_d: float | None = None,
    slices: int,
    queries: int,
    progress: Progress = lambda *_: None,
) -> Panel:
    """The panel of the home's published events; the horizon ends where they do.

    What is not given of burn-in and horizon is the rest of the log, without either `BURN_IN` of it is
    burn-in. Raises DataError for a log without items or impressions, of less than `LEAST_DAYS`, too short for
    what is asked, or with a slice in which no held-out session clicked.
    """
    began = time.perf_counter()
    held = published(settings.layout)
    if held.floor_us:
        raise DataError(
            f"{settings.layout.root} no longer has its first events (SHELFLIFE_RETENTION_D); a study needs a "
            "log from its beginning: import it into a home that keeps all"
        )
    events = _checked(settings.layout, held)
    batch = Batch(events)
    acts = batch.known_us[(batch.kind >= IMPRESSION) & (batch.kind <= ORDER)]
    first_us, end_us = int(acts.min()), int(acts.max()) + 1
    horizon_us, end_us = _horizon(settings.layout, first_us, end_us, burn_in_d, horizon_d)
    known = int(np.searchsorted(batch.known_us, end_us, side="left"))
    events = events.slice(0, known)  # nothing later than the horizon is ever seen
    batch = Batch(events)
    taught_us = taught_until(first_us, horizon_us)
    with burn_in_release(
        events,
        batch,
        taught_us=taught_us,
        horizon_us=horizon_us,
        seed=settings.seed,
        progress=progress,
    ) as release:
        progress("labelled rows")
        last = State()
        last.fold(batch, 0, len(batch.kind))
        labelled = labelled_rows(events, release, last, since_us=taught_us, until_us=end_us)
        if np.isnan(labelled.rows.features).all(axis=1).any():
            raise DataError(f"the log of {settings.layout.root} shows items that it never describes")
        asked = in_fraction(labelled.rows.session_ids, HELD_SHARE, salt=HELD_SALT)
        taught, asked_of = labelled.take(~asked), _askable(labelled.take(asked), horizon_us)
        if not len(taught.rows.groups):
            raise DataError("all sessions with clicks are held out; a study needs a log of more sessions")
        examination = _examination(taught, horizon_us)
        slots = stretches(
            asked_of.rows.time_us,
            since_us=horizon_us,
            until_us=end_us,
            slices=slices,
            queries=queries,
            seed=settings.seed,
        )
        still = Still(release, state_at(batch, horizon_us))
        found, typed = [], []
        for number, slot in enumerate(slots, 1):
            progress(f"slice {number} of {slices}")
            found.append(_slice(asked_of, slot, still, examination))
            typed.append(asked_of.at(slot.at).queries)
        speller = release.speller
    about: dict[str, Any] = {
        "home": str(settings.layout.root),
        "content_hash": held.content_hash,
        "burn_in_d": (horizon_us - first_us) / DAY_US,
        "judged_by": "clicks of held-out sessions, by how likely their place was looked at",
        "held_share": HELD_SHARE,
        "examination_rate": examination.rate,
        "events": events.num_rows,
        "requests": len(taught.rows.groups),
        "rows": len(taught.rows.labels),
        "rows_per_day": len(taught.rows.labels) / ((end_us - taught_us) / DAY_US),
        "scorers_learned_d": (taught_us - first_us) / DAY_US,
        "queries": sum(len(s.groups) for s in found),
        "seconds": round(time.perf_counter() - began, 1),
    }
    panel = Panel(
        source=str(settings.layout.root),
        key=log_key(settings, burn_in_d=burn_in_d, horizon_d=horizon_d, slices=slices, queries=queries),
        names=FEATURES,
        categorical=CATEGORICAL,
        rows=taught.rows,
        label_us=taught.label_us,
        slices=tuple(found),
        first_us=taught_us,
        horizon_us=horizon_us,
        end_us=end_us,
        resolution_us=resolution(acts),
        about=about,
    )
    return with_texts(
        panel,
        events,
        last,
        speller,
        row_queries=taught.queries,
        row_items=taught.item_ids,
        row_recent=taught.recent,
        held_share=HELD_SHARE,
        slice_queries=typed,
    )


def _checked(layout: Home, held: Published) -> pa.Table:
    """All published events; DataError where they are no log that a ranker can be judged by."""
    if not held.rows:
        raise DataError(f"no events in {layout.root}; import a log and run `shelflife ingest`")
    events = read_events(held, columns=list(COLUMNS))
    kinds = np.bincount(events["kind"].to_numpy(), minlength=ITEM_UPSERT + 1)
    if not kinds[ITEM_UPSERT]:
        raise DataError(f"the log of {layout.root} has no items; import a table of them beside what happened")
    if not kinds[IMPRESSION]:
        raise DataError(f"the log of {layout.root} does not say what was shown; expected impressions")
    if not kinds[CLICK : ORDER + 1].any():
        raise DataError(f"the log of {layout.root} has no click, cart or order; expected some to judge by")
    return events


def _horizon(
    layout: Home, first_us: int, end_us: int, burn_in_d: float | None, horizon_d: float | None
) -> tuple[int, int]:
    """[start, end) of the horizon; what is left out follows from the rest."""
    span_d = (end_us - first_us) / DAY_US
    if span_d < LEAST_DAYS:
        raise DataError(
            f"the log of {layout.root} spans {span_d:.1f} days; expected {LEAST_DAYS:g} or more: a study "
            "needs days to learn from and days to compare on"
        )
    if burn_in_d is None:
        burn_in_d = BURN_IN * span_d if horizon_d is None else span_d - horizon_d
    horizon_us = first_us + round(burn_in_d * DAY_US)
    until_us = end_us if horizon_d is None else min(end_us, horizon_us + round(horizon_d * DAY_US))
    asked_d = burn_in_d + (horizon_d or 0.0)
    if not first_us < horizon_us < end_us or asked_d > span_d + 0.05:
        raise DataError(
            f"the log of {layout.root} spans {span_d:.1f} days; {max(burn_in_d, 0):g} days of burn-in and a "
            f"horizon of {horizon_d or span_d - burn_in_d:g} days do not fit: shorten one of them"
        )
    return horizon_us, until_us


def _askable(labelled: Labelled, horizon_us: int) -> Labelled:
    """Requests of the horizon that can be asked again (by words, or for recommendations), by time."""
    surface = labelled.surface
    keep = (labelled.rows.time_us >= horizon_us) & (surface != _SIMILAR) & (surface != _IMAGE)
    keep &= labelled.rows.groups > 1  # a page of one item has one order
    found = labelled.take(keep)
    return found.at(np.argsort(found.rows.time_us, kind="stable"))


def _examination(labelled: Labelled, horizon_us: int) -> Examination:
    """How attention falls down a page, by the burn-in's rows."""
    rows = labelled.rows.take(labelled.label_us <= horizon_us)
    return Examination.fit(places(rows.positions, rows.groups), rows.labels > 0, rows.propensity)


def _slice(labelled: Labelled, slot: Stretch, still: Still, examination: Examination) -> Slice:
    """The slot's requests: gains are grades over the chance of a look, the ideal is the slice's mean one.

    Divided by a request's own ideal, the correction of its one click would cancel (`Ranker.logged_ndcg10`).
    """
    part = labelled.at(slot.at)
    rows = part.rows
    look = np.exp(examination.log_odds(places(rows.positions, rows.groups)))
    gains = np.take(np.array(GAINS, float), rows.labels) / look
    ideal = grouped_dcg(gains, gains, rows.groups, DEPTH)
    frozen, recent = [], []
    known: list[NDArray[np.bool_]] = []
    starts = np.concatenate([[0], np.cumsum(rows.groups)])
    for g in range(len(rows.groups)):
        request = Request(
            surface=SURFACES[part.surface[g]],
            time_us=int(rows.time_us[g]),
            query=part.queries[g],
            user_id=int(rows.user_ids[g]),
            session_id=int(part.sessions[g]),
            request_id=int(rows.request_ids[g]),
        )
        features, there = still.features(request, part.item_ids[starts[g] : starts[g + 1]])
        frozen.append(features)
        known.append(there)
        recent.append(still.recent(request))
    return Slice(
        slot.start_us,
        slot.end_us,
        groups=rows.groups,
        item_ids=part.item_ids,
        gains=gains,
        ideal=np.full(len(ideal), ideal.mean()),
        fresh=rows.features,
        frozen=np.concatenate(frozen),
        known=np.concatenate(known),
        query_ids=rows.request_ids,
        clusters=rows.session_ids,
        extra={"recent": part.recent, "frozen_recent": np.stack(recent)},
    )
