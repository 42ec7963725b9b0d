"""Questions from a log, each asked as of its time: what was typed, who asked, and what was clicked then.

Only held-out sessions of the newest slice are asked, which no training of these watermarks saw. The
state is folded up to just before each question, so that no answer knows the click it is judged by.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.schema import CART, CLICK, IMPRESSION, NONE_ID, ORDER, SEARCH
from data.shop import Request
from flows.evaluation.ablation import ABLATIONS
from flows.evaluation.judgements import Judged
from flows.evaluation.retrievers import Retrievers
from flows.offline.inputs import GATE_SLICE_US, Inputs, asked_at, group_keys, held_out
from models.ranker import GAINS
from models.release import Release

__all__ = ["Question", "ask", "questions"]

_GRADE = {CLICK: 1, CART: 2, ORDER: 3}


@dataclass(frozen=True)
class Question:
    """A request and what came of it.

    `before`: events of the log that were known before; ids int64 [m] the items that were shown or
    clicked; grades int8 [m]: 0 shown only, 1 click, 2 cart, 3 order; `group`: its session (else user).
    """

    request: Request
    before: int
    ids: NDArray[np.int64]
    grades: NDArray[np.int8]
    group: int


def questions(inputs: Inputs, *, most: int, seed: int) -> list[Question]:
    """Searches that led to a click, by time; where nobody types, users' next clicks.

    At most `most`, a sample of the held-out sessions of the newest slice.
    """
    events = inputs.events
    kind, known = events["kind"].to_numpy(), events["known_time"].to_numpy()
    at = np.flatnonzero(np.isin(kind, tuple(_GRADE)) & (known >= inputs.watermark_us - GATE_SLICE_US))
    at = at[held_out(group_keys(events, at))]
    asked = asked_at(events, at)
    typed = asked >= 0
    found = list(_searches(events, at[typed], asked[typed]) if typed.any() else _next_clicks(events, at))
    if len(found) > most:
        pick = np.sort(np.random.default_rng(seed).choice(len(found), most, replace=False))
        found = [found[i] for i in pick.tolist()]
    return sorted(found, key=lambda q: q.before)


def ask(release: Release, inputs: Inputs, asked: list[Question], *, ablate: bool = False) -> list[Judged]:
    """The retrievers' answers to each question with the state as of it."""
    state, done = inputs.opened(), 0
    judged: list[Judged] = []
    retrievers: Retrievers | None = None
    for number, question in enumerate(asked, 1):
        if question.before > done:
            state.apply(inputs.events.slice(done, question.before - done))
            done = question.before
            if retrievers is not None:
                retrievers.refresh()
        if retrievers is None:
            retrievers = Retrievers.of(release, state, without=ABLATIONS if ablate else ())
        judged.append(
            Judged(
                query_id=f"q{number}",
                cluster=question.group,
                ids=question.ids,
                gains=np.take(np.array(GAINS, float), question.grades),
                grades=question.grades,
                lists=retrievers.lists(question.request),
            )
        )
    return judged


def _searches(events: pa.Table, at: NDArray[np.int64], asked: NDArray[np.int64]) -> Iterator[Question]:
    """One question a request (a reaction without one is its own): all that it led to, all that it showed."""
    kind, known, item, request_ids = (
        events[n].to_numpy() for n in ("kind", "known_time", "item_id", "request_id")
    )
    shown_by: dict[int, list[int]] = {}
    begun: dict[int, int] = {}
    wanted = set(request_ids[at].tolist()) - {NONE_ID}
    for i in np.flatnonzero(np.isin(kind, (SEARCH, IMPRESSION))).tolist():
        r = int(request_ids[i])
        if r in wanted:
            begun.setdefault(r, i)
            if kind[i] == IMPRESSION:
                shown_by.setdefault(r, []).append(int(item[i]))
    groups: dict[tuple[int, int], list[int]] = {}
    says: dict[tuple[int, int], int] = {}
    for i, a in zip(at.tolist(), asked.tolist(), strict=True):
        r = int(request_ids[i])
        key = (r, 0) if r != NONE_ID else (NONE_ID, i)
        groups.setdefault(key, []).append(i)
        says.setdefault(key, a)
    for key, members in groups.items():
        start = min(begun.get(key[0], members[0]), members[0])
        grades = dict.fromkeys(shown_by.get(key[0], []), 0)
        for i in members:
            grades[int(item[i])] = max(grades.get(int(item[i]), 0), _GRADE[int(kind[i])])
        yield _question(
            events, start, known, grades, surface="search", query=str(events["query"][says[key]].as_py())
        )


def _next_clicks(events: pa.Table, at: NDArray[np.int64]) -> Iterator[Question]:
    """A user's first reaction to an item, to be foreseen from what he did before."""
    kind, known, item, user = (events[n].to_numpy() for n in ("kind", "known_time", "item_id", "user_id"))
    reactions = np.flatnonzero(np.isin(kind, tuple(_GRADE)) & (user != NONE_ID))
    pairs = np.stack([user[reactions], item[reactions]])
    first = set(reactions[np.unique(pairs, axis=1, return_index=True)[1]].tolist())
    for i in at.tolist():
        if i in first:
            grades = {int(item[i]): _GRADE[int(kind[i])]}
            yield _question(events, i, known, grades, surface="recommend", query="")


def _question(
    events: pa.Table,
    start: int,
    known: NDArray[np.int64],
    grades: dict[int, int],
    *,
    surface: str,
    query: str,
) -> Question:
    return Question(
        Request(
            surface=surface,
            time_us=int(events["event_time"][start].as_py()),
            query=query,
            user_id=int(events["user_id"][start].as_py()),
            session_id=int(events["session_id"][start].as_py()),
            request_id=start,
        ),
        int(np.searchsorted(known, known[start], side="left")),
        np.fromiter(grades, np.int64, len(grades)),
        np.fromiter(grades.values(), np.int8, len(grades)),
        int(group_keys(events, np.array([start]))[0]),
    )
