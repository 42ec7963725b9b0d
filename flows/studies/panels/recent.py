"""Which items a shopper clicked lately, as a state remembers it: what a user's vector is made of.

The session's clicks first, then the user's, newest first, as `models.candidate_kernel.user_scores_into`
weighs them. It knows no vectors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data.event_batch import Batch
from data.state import State
from data.state_arrays import IN_SESSION, RECENT, newest_first

__all__ = ["REMEMBERED", "clicked_before", "clicked_lately"]

REMEMBERED = IN_SESSION + RECENT


def clicked_lately(state: State, user_id: int, session_id: int) -> NDArray[np.int32]:
    """The item rows that a state remembers of a shopper: int32 [REMEMBERED], -1 behind the last."""
    rows: list[int] = []
    slot = state.session_slot(session_id)
    if slot >= 0:
        rows += newest_first(state.sessions.recent[slot], int(state.sessions.recent_n[slot]))
    user = state.user_row(user_id)
    if user >= 0:
        rows += newest_first(state.users.recent[user], int(state.users.recent_n[user]))
    return np.array(rows + [-1] * (REMEMBERED - len(rows)), np.int32)


def clicked_before(
    batch: Batch, state_us: NDArray[np.int64], user_ids: NDArray[np.int64], session_ids: NDArray[np.int64]
) -> NDArray[np.int32]:
    """The same by the state as of each request, in order of time: int32 [g, REMEMBERED].

    `state_us` int64 [g], rising: known_time of the newest event in that state.
    """
    state, at = State(), 0
    found = np.full((len(state_us), REMEMBERED), -1, np.int32)
    until = np.searchsorted(batch.known_us, state_us, side="right").tolist()
    for g, (upto, user, session) in enumerate(
        zip(until, user_ids.tolist(), session_ids.tolist(), strict=True)
    ):
        if upto > at:
            state.fold(batch, at, upto)
            at = upto
        found[g] = clicked_lately(state, user, session)
    return found
