"""The baskets of a log: which of them are asked about in slices, and which are learnt from.

Both are drawn from ids, times and a seed alone, so that they are the same whatever else is done. It
knows no candidates and no features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.fractions import BUCKETS, bucket_of
from data.sources.interactions import InteractionLog
from flows.studies.panels.next_item.fold import Keys
from infra.clock import DAY_US
from infra.errors import DataError

__all__ = ["Baskets", "baskets_of", "chosen_baskets", "sampled_baskets"]


@dataclass(frozen=True)
class Baskets:
    """Baskets [b] by the time of their first interaction.

    `user` int64: row numbers; `event` int64 [n]: those of basket k from `starts[k]`
    on; `held`: how many distinct positive items.
    """

    ids: NDArray[np.int64]
    user: NDArray[np.int64]
    begin_us: NDArray[np.int64]
    end_us: NDArray[np.int64]
    event: NDArray[np.int64]
    starts: NDArray[np.int64]
    held: NDArray[np.int64]

    def items(self, keys: Keys, k: int) -> NDArray[np.int64]:
        """The distinct positive items of a basket: rows int64."""
        events = self.event[self.starts[k] : self.starts[k + 1]]
        return np.unique(keys.item[events[keys.positive[events]]])


def baskets_of(log: InteractionLog, keys: Keys) -> Baskets:
    """The log's baskets."""
    ids, first = np.unique(log.basket_ids, return_index=True)
    by_begin = np.argsort(first, kind="stable")
    place = np.empty(len(ids), np.int64)
    place[by_begin] = np.arange(len(ids))
    number = place[keys.basket]
    event = np.argsort(number, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(number, minlength=len(ids)))]).astype(np.int64)
    taken = np.unique(np.stack([number[log.positive], keys.item[log.positive]], axis=1), axis=0)[:, 0]
    return Baskets(
        ids=ids[by_begin],
        user=keys.user[first[by_begin]],
        begin_us=log.time_us[first[by_begin]],
        end_us=log.time_us[event[starts[1:] - 1]],
        event=event.astype(np.int64),
        starts=starts,
        held=np.bincount(taken, minlength=len(ids)).astype(np.int64),
    )


def chosen_baskets(
    baskets: Baskets, horizon_us: int, end_us: int, slices: int, queries: int, seed: int, name: str
) -> tuple[list[tuple[int, int]], list[NDArray[np.int64]]]:
    """Where the slices lie, [since, until) in us, and which baskets are their queries.

    The horizon is cut into stretches of one length; a slice is a window of whole days somewhere in its
    stretch, long enough for about `queries` baskets, of which at most that many are drawn. Raises
    DataError where a window has none.
    """
    rng = np.random.default_rng((seed, 0))
    asked = np.flatnonzero(
        (baskets.held > 0) & (baskets.begin_us >= horizon_us) & (baskets.begin_us < end_us)
    )
    stretch = (end_us - horizon_us) // slices
    needed = 1.25 * queries * slices * stretch / max(len(asked), 1)
    length = min(stretch, max(1, int(np.ceil(needed / DAY_US))) * DAY_US)
    windows, chosen = [], []
    for s in range(slices):
        since = horizon_us + s * stretch
        since += int(rng.integers(0, (stretch - length) // DAY_US + 1)) * DAY_US
        begin = baskets.begin_us[asked]
        rows = asked[(begin >= since) & (begin < since + length)]
        if not len(rows):
            raise DataError(
                f"{name} has no basket in {length / DAY_US:.1f} days from day "
                f"{(since - horizon_us) / DAY_US:.1f} of the horizon; ask for fewer slices"
            )
        windows.append((since, since + length))
        chosen.append(np.sort(rng.choice(rows, min(queries, len(rows)), replace=False)))
    return windows, chosen


def sampled_baskets(baskets: Baskets, end_us: int, most: int, seed: int) -> NDArray[np.bool_]:
    """About `most` baskets before the end; fewer are some of more: bool [b]."""
    can = (baskets.held > 0) & (baskets.begin_us < end_us)
    share = min(1.0, most / max(int(can.sum()), 1))
    return can & (bucket_of(baskets.ids, salt=f"next-item-{seed}") < round(share * BUCKETS))
