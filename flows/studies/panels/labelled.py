"""Labelled rows of a whole log in one replay: features as of each request, labels as of soon after it.

A training at any time takes the rows whose labels were known by then, and sees exactly what it would
have seen. It knows no slices and no truth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.event_batch import Batch
from data.schema import NONE_ID
from data.state import State
from flows.offline.inputs import LABEL_DELAY_US, all_vectors, group_keys
from flows.studies.panels.recent import clicked_before
from infra.errors import DataError
from models.release import Release
from models.training_rows import LABELS, Requests, TrainingRows, requests_between, training_rows

__all__ = ["Labelled", "grades_known", "labelled_rows"]


@dataclass(frozen=True)
class Labelled:
    """Clicked requests [g] in order of their state, with their impressions [n].

    `rows.session_ids`: a request's session, else its user, else itself; `sessions` int64 [g]: as logged;
    `label_us` int64 [g]; `surface` int64 [g]; `queries` [g] as typed; `item_ids` int64 [n]; `recent` int32
    [g, REMEMBERED]: item rows that the shopper clicked lately, as of the request's state.
    """

    rows: TrainingRows
    label_us: NDArray[np.int64]
    sessions: NDArray[np.int64]
    surface: NDArray[np.int64]
    queries: list[str]
    item_ids: NDArray[np.int64]
    recent: NDArray[np.int32]

    def take(self, keep: NDArray[np.bool_]) -> Labelled:
        """The groups for which `keep` bool [g] holds."""
        return self.at(np.flatnonzero(keep))

    def at(self, groups: NDArray[np.int64]) -> Labelled:
        """Groups by number, in that order."""
        sizes = self.rows.groups[groups].astype(np.int64)
        starts = np.cumsum(self.rows.groups) - self.rows.groups
        n = np.repeat(starts[groups] - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())
        r = self.rows
        return Labelled(
            TrainingRows(
                r.features[n], r.labels[n], r.positions[n], r.groups[groups], r.request_ids[groups],
                r.user_ids[groups], r.session_ids[groups], r.time_us[groups], r.propensity[n],
            ),
            self.label_us[groups],
            self.sessions[groups],
            self.surface[groups],
            [self.queries[g] for g in groups.tolist()],
            self.item_ids[n],
            self.recent[groups],
        )  # fmt: skip


def labelled_rows(
    events: pa.Table, release: Release, state: State, *, since_us: int, until_us: int
) -> Labelled:
    """All clicked requests known from `since_us` on whose labels were known before `until_us`.

    `events`: canonical, from the first; `state`: as of the last, for the items' vectors. A reaction
    later than LABEL_DELAY_US after the impressions is no label. Raises DataError where nothing was clicked.
    """
    requests = requests_between(events, since_us=since_us, until_us=until_us - LABEL_DELAY_US)
    if not len(requests):
        raise DataError("nothing was shown after the scorers' part of the log: no ranker can learn from it")
    heads = requests.rows[requests.starts[:-1]]
    label_us = events["known_time"].to_numpy()[heads] + LABEL_DELAY_US
    sessions = group_keys(events, heads)
    labels = grades_known(events, requests, label_us)
    keep = np.maximum.reduceat(labels, requests.starts[:-1]) > 0
    if not keep.any():
        raise DataError(f"no click within half an hour of any of {len(requests):,} requests; expected some")
    labels = labels[np.repeat(keep, np.diff(requests.starts))]
    requests, sessions, label_us = requests.take(keep), sessions[keep], label_us[keep]
    rows = training_rows(
        events,
        requests,
        encoder=release.encoder,
        classifier=release.text_classifier,
        speller=release.speller,
        vectors=all_vectors(release.encoder, state, release.vector_index),
    )
    heads = requests.rows[requests.starts[:-1]]
    return Labelled(
        replace(rows, labels=labels, session_ids=sessions),
        label_us,
        sessions=rows.session_ids,
        surface=events["surface"].to_numpy()[heads].astype(np.int64),
        queries=events["query"].take(pa.array(heads)).to_pylist(),
        item_ids=events["item_id"].to_numpy()[requests.rows],
        recent=clicked_before(Batch(events), requests.state_us, rows.user_ids, rows.session_ids),
    )


def grades_known(events: pa.Table, requests: Requests, by_us: NDArray[np.int64]) -> NDArray[np.int8]:
    """The strongest reaction to each impression [n] that was known by its request's time `by_us` [g]."""
    kind, request, item, known = (
        events[name].to_numpy() for name in ("kind", "request_id", "item_id", "known_time")
    )
    asked, of_request = np.unique(request[requests.rows], return_inverse=True)
    shown, of_item = np.unique(item[requests.rows], return_inverse=True)
    cells, cell = np.unique(of_request * len(shown) + of_item, return_inverse=True)
    by = np.zeros(len(cells), np.int64)
    np.maximum.at(by, cell, np.repeat(by_us, np.diff(requests.starts)))
    at = np.flatnonzero(np.isin(kind, tuple(LABELS)) & (request != NONE_ID))
    r, i = _place(asked, request[at]), _place(shown, item[at])
    place = np.where((r >= 0) & (i >= 0), _place(cells, r * len(shown) + i), -1)
    at, place = at[place >= 0], place[place >= 0]
    soon = known[at] <= by[place]
    at, place = at[soon], place[soon]
    grade = np.zeros(max(LABELS) + 1, np.int8)
    grade[list(LABELS)] = list(LABELS.values())
    best = np.zeros(len(cells), np.int8)
    np.maximum.at(best, place, grade[kind[at]])
    return np.asarray(best[cell], np.int8)


def _place(among: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each value is in a sorted array; -1 where it is not."""
    at = np.minimum(np.searchsorted(among, values), len(among) - 1)
    return np.where(among[at] == values, at, -1).astype(np.int64)
