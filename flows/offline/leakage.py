"""Proves on a home's own log that no training sees what was not known, and that it sees what serving saw.

Three questions. Times: did every event happen before it was known, was every page ranked by a state older
than itself, and does no state hold reactions to the very page that it ranked? Replay: are the features that
training takes those that the serving code gives on a state which never met anything later? Logged: are the
scores that the service wrote beside its impressions those that the same release gives again? It judges no
model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.search.given import GivenItems
from data.schema import CART, CLICK, IMPRESSION, NONE_ID, ORDER, SURFACES
from data.shop import Request
from data.snapshots import read_events
from flows.offline.ingest import ALLOWED_LATENESS_US
from flows.offline.inputs import Inputs, all_vectors, load_inputs
from infra.errors import DataError
from infra.settings import Settings
from models.candidate_features import FEATURES
from models.release import Release, champion, list_releases, load_release
from models.training_rows import Requests, requests_between, training_rows

__all__ = ["EXIT_LEAK", "Check", "Leak", "Leakage", "check_leakage"]

EXIT_LEAK = 4  # of `shelflife data check-leakage`
MOST_TOLD = 20  # leaks of a check that are told one by one
TOLERANCE = 2e-3  # of scores of neural nets: one query at a time rounds otherwise than many
_NETS = ("vector_score", "user_score", "category_prob")
_BY_TEXT = ("vector_score", "user_score")
_SERVED = tuple(SURFACES.index(s) for s in ("search", "recommend"))  # what the log tells whole


@dataclass(frozen=True)
class Leak:
    """One row that is wrong: of which request and item (-1: none), what, and the two values. Times in us."""

    request_id: int
    item_id: int
    what: str
    found: float
    expected: float


@dataclass(frozen=True)
class Check:
    """One question: how many values were compared, how many were wrong, and the first of those."""

    name: str
    compared: int
    wrong: int
    leaks: tuple[Leak, ...] = ()


@dataclass(frozen=True)
class Leakage:
    """The verdict: `clean` where no check found anything. `releases`: those whose scores were made again."""

    clean: bool
    sample: int
    events: int
    checks: tuple[Check, ...]
    releases: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def text(self) -> str:
        """A line a check, a line a leak, the verdict."""
        lines = [f"{c.name}: {c.wrong} of {c.compared} wrong" for c in self.checks]
        for check in self.checks:
            lines += [
                f"  {check.name}: {k.what} is {k.found:.6g}, expected {k.expected:.6g}"
                f" (request {k.request_id}, item {k.item_id})"
                for k in check.leaks
            ]
        lines += self.notes
        return "\n".join(
            [*lines, "no leak found" if self.clean else "LEAK: training sees what was not known"]
        )


def check_leakage(settings: Settings, *, sample: int = 200) -> Leakage:
    """All checks on what is published; `sample`: requests whose features are made again, the newest half.

    Raises DataError where nothing is published, nothing was ever shown, or there is no release.
    """
    layout = settings.layout
    inputs = load_inputs(layout, window_d=None)
    assert inputs.held is not None
    ranked_by = read_events(inputs.held, columns=["release_id"])["release_id"]  # now: parts may go later
    name = champion(layout)
    if name is None:
        raise DataError(f"no release in {layout.root} yet, so no features; run `shelflife refresh` first")
    shown = requests_between(inputs.events, since_us=0, until_us=inputs.watermark_us + 1)
    if not len(shown):
        raise DataError(
            f"no impressions in {layout.root}; there is nothing that features could be checked on"
        )
    picked = _sampled(inputs.events, shown, sample, seed=settings.seed)
    release = load_release(layout, name)
    replayed, edited = _replayed(inputs, picked, release)
    checks = [*_times(inputs.events, shown), replayed]
    logged, releases = _logged(settings, inputs, picked, ranked_by)
    checks.append(logged)
    notes: tuple[str, ...] = (
        () if logged.compared else ("no impression of a release that is still here: no logged scores",)
    )
    fast = _fast_clocks(inputs.events)
    if fast:
        notes += (f"{fast} events happened after they were known, by fast clocks; within what ingest allows",)
    if edited:
        notes += (
            f"{edited} vector scores rest on texts of items that were edited after the page (docs/data.md)",
        )
    return Leakage(
        not any(c.wrong for c in checks), len(picked), inputs.events.num_rows, tuple(checks), releases, notes
    )


# ---- times


def _times(events: pa.Table, shown: Requests) -> Iterator[Check]:
    known, happened = events["known_time"].to_numpy(), events["event_time"].to_numpy()
    request, item = events["request_id"].to_numpy(), events["item_id"].to_numpy()
    kind, ranked_by = events["kind"].to_numpy(), events["state_time"].to_numpy()

    def check(name: str, what: str, at: NDArray[np.int64], found: Any, limit: Any, of: int) -> Check:
        told = zip(
            at[:MOST_TOLD].tolist(), found[:MOST_TOLD].tolist(), limit[:MOST_TOLD].tolist(), strict=True
        )
        leaks = (Leak(int(request[i]), int(item[i]), what, a, b) for i, a, b in told)
        return Check(name, of, len(at), tuple(leaks))

    latest = known + ALLOWED_LATENESS_US
    early = np.flatnonzero(happened > latest)
    yield check("known after it happened", "event_time", early, happened[early], latest[early], len(known))
    page = kind == IMPRESSION
    ahead = np.flatnonzero(page & (ranked_by > known))
    yield check(
        "ranked by an older state", "state_time", ahead, ranked_by[ahead], known[ahead], int(page.sum())
    )
    reacted = np.flatnonzero(np.isin(kind, (CLICK, CART, ORDER)) & (request != NONE_ID))
    order = np.argsort(request[shown.rows[shown.starts[:-1]]], kind="stable")
    ids = request[shown.rows[shown.starts[:-1]]][order]
    place = np.minimum(np.searchsorted(ids, request[reacted]), len(ids) - 1)
    of_page = ids[place] == request[reacted]
    reacted, state_us = reacted[of_page], shown.state_us[order[place[of_page]]]
    own = known[reacted] <= state_us
    at = reacted[own]
    yield check(
        "no state holds its own page's reactions", "known_time", at, known[at], state_us[own], len(reacted)
    )


def _fast_clocks(events: pa.Table) -> int:
    """How many events happened after they were known, but not further than ingest allows."""
    ahead = events["event_time"].to_numpy() - events["known_time"].to_numpy()
    return int(np.count_nonzero((ahead > 0) & (ahead <= ALLOWED_LATENESS_US)))


# ---- features


def _sampled(events: pa.Table, shown: Requests, most: int, *, seed: int) -> Requests:
    """Requests of the surfaces whose requests the log tells whole, drawn evenly, half of them the newest."""
    surface = events["surface"].to_numpy()[shown.rows[shown.starts[:-1]]]
    good = np.flatnonzero(np.isin(surface, _SERVED))
    if len(good) > most:
        newest, older = good[len(good) - most // 2 :], good[: len(good) - most // 2]
        drawn = np.random.default_rng(seed).choice(older, most - most // 2, replace=False)
        good = np.concatenate([drawn, newest])
    keep = np.zeros(len(shown), bool)
    keep[good] = True
    return shown.take(keep)


def _replayed(inputs: Inputs, picked: Requests, release: Release) -> tuple[Check, int]:
    """Training's features against those of the serving code on a state that ends where each page's did.

    Also how many values differ only because training embeds an item by its present text, which somebody
    has edited since the page: known, small, and told apart.
    """
    vectors = None
    if release.encoder is not None:
        vectors = all_vectors(release.encoder, inputs.state, release.vector_index)
    trained = training_rows(
        inputs.events,
        picked,
        encoder=release.encoder,
        classifier=release.text_classifier,
        speller=release.speller,
        vectors=vectors,
        state=inputs.opened(),
    )
    items = inputs.events["item_id"].to_numpy()[picked.rows]
    leaks: list[Leak] = []
    wrong = compared = edited = 0
    for g, (_, expected, by_present) in enumerate(_served(inputs, picked, release, present=vectors)):
        a, b = picked.starts[g], picked.starts[g + 1]
        found = trained.features[a:b]
        bad = ~_alike(found, expected)
        told = bad & _alike(found, by_present) & np.isin(FEATURES, _BY_TEXT)
        bad &= ~told
        edited += int(told.sum())
        compared += bad.size
        wrong += int(bad.sum())
        for i, f in np.argwhere(bad)[: MOST_TOLD - len(leaks)].tolist():
            values = float(found[i, f]), float(expected[i, f])
            leaks.append(Leak(int(trained.request_ids[g]), int(items[a + i]), FEATURES[f], *values))
    return Check("training's features are the service's", compared, wrong, tuple(leaks)), edited


def _logged(
    settings: Settings, inputs: Inputs, picked: Requests, ranked_by: pa.ChunkedArray
) -> tuple[Check, tuple[str, ...]]:
    """Scores that the service logged against those of their release; `ranked_by`: its name, of each event."""
    events = inputs.events
    names = ranked_by.take(pa.array(picked.rows[picked.starts[:-1]])).to_pylist()
    there = {m.release_id for m in list_releases(settings.layout)}
    leaks: list[Leak] = []
    wrong = compared = 0
    made = tuple(sorted(set(names) & there))
    columns = {n: events[n].to_numpy() for n in ("vector_score", "category_prob", "item_id", "request_id")}
    for name in made:  # one release in memory at a time
        release = load_release(settings.layout, name)
        mine = picked.take(np.array([n == name for n in names], bool))
        for rows, served, _ in _served(inputs, mine, release):
            for column in ("vector_score", "category_prob"):
                logged = columns[column][rows]
                told = np.flatnonzero(~np.isnan(logged))
                again = served[told, FEATURES.index(column)]
                bad = told[~np.isclose(again, logged[told], atol=TOLERANCE, rtol=TOLERANCE, equal_nan=True)]
                compared += len(told)
                wrong += len(bad)
                for i in bad[: MOST_TOLD - len(leaks)].tolist():
                    values = float(logged[i]), float(served[i, FEATURES.index(column)])
                    who = int(columns["request_id"][rows[i]]), int(columns["item_id"][rows[i]])
                    leaks.append(Leak(*who, f"logged {column}", *values))
    return Check("logged scores are the release's", compared, wrong, tuple(leaks)), made


def _served(
    inputs: Inputs,
    picked: Requests,
    release: Release,
    *,
    present: tuple[NDArray[np.int64], NDArray[np.float32]] | None = None,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]]:
    """Each page's event positions, and what the serving code gives its items, float32 [n, F].

    Once by the items' texts of then, once by `present` vectors (those of `inputs.state`'s rows), if any.

    The state is folded up to the page's own state time, of events that end there: nothing later is in
    any of the tables that it meets.
    """
    events = inputs.events
    known = events["known_time"].to_numpy()
    until = np.searchsorted(known, picked.state_us, side="right")
    state, done = inputs.opened(), 0
    view: GivenItems | None = None
    columns = {n: events[n].to_numpy() for n in ("event_time", "user_id", "session_id", "surface", "item_id")}
    heads = picked.rows[picked.starts[:-1]]
    queries = events["query"].take(pa.array(heads)).to_pylist()
    for g, head in enumerate(heads.tolist()):
        if until[g] > done:
            state.apply(events.slice(done, int(until[g]) - done))
            done = int(until[g])
        if view is None:
            view = GivenItems(release, state)
        request = Request(
            SURFACES[int(columns["surface"][head])],
            int(columns["event_time"][head]),
            query=str(queries[g]),
            user_id=int(columns["user_id"][head]),
            session_id=int(columns["session_id"][head]),
        )
        rows = picked.rows[picked.starts[g] : picked.starts[g + 1]]
        features, _ = view.features(request, columns["item_id"][rows])
        other = features
        if present is not None:
            now = present[1][inputs.state.item_rows(state.item_ids)]
            other, _ = view.features(request, columns["item_id"][rows], vectors=now)
        yield rows, features, other


def _alike(found: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Bit for bit, but for what neural nets give: bool [n, F]."""
    same: NDArray[np.bool_] = (found == expected) | (np.isnan(found) & np.isnan(expected))
    for name in _NETS:
        f = FEATURES.index(name)
        same[:, f] = np.isclose(found[:, f], expected[:, f], atol=TOLERANCE, rtol=TOLERANCE, equal_nan=True)
    return same
