"""The page as the shopper sees it: which positions, and their items as JSON made beforehand.

An item's JSON is made once and kept until the item changes. It knows no ranking.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from components.search.rank import Ranked
from data.state import State

__all__ = ["SHOWN_FIELDS", "Summaries", "item_json", "live_positions"]

SHOWN_FIELDS = (
    "title", "description", "category", "department", "brand", "colour", "material",
    "price", "list_price", "currency", "stock", "photo",
)  # fmt: skip


class Summaries:
    """The items' fields as JSON objects by state row; safe to read from several threads."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._json: dict[int, bytes] = {}
        self._version = state.catalogue_version
        self._lock = threading.Lock()
        self._asked = self.misses = 0  # items shown, and those whose JSON had to be made

    def __len__(self) -> int:
        return len(self._json)

    @property
    def hits(self) -> int:
        """Items shown whose JSON was there."""
        return max(0, self._asked - self.misses)

    def refresh(self) -> None:
        """Forget the items that changed; called by the thread that applies events."""
        version = self._state.catalogue_version
        if version == self._version:
            return
        changed = self._state.changed_since(self._version).tolist()
        with self._lock:
            self._version = version
            for row in changed:
                self._json.pop(row, None)

    def of(self, row: int) -> bytes:
        """The item's JSON object: item_id, the SHOWN_FIELDS that it has, and `rating` (1 to 5)."""
        found = self._json.get(row)
        if found is not None:
            return found
        version = self._version
        made = _exact(self.make(row))
        self.misses += 1
        with self._lock:
            if version == self._version:  # else the item may have changed while it was read
                self._json[row] = made
        return made

    def prepare(self, most: int) -> None:
        """Make the JSON of the `most` most popular items beforehand."""
        state = self._state
        alive = np.flatnonzero(state.alive)
        if len(alive) > most:
            popularity = state.popularity(state.as_of_us)[alive]
            alive = alive[np.argpartition(-popularity, most)[:most]]
        for row in alive.tolist():
            self._json[row] = _exact(self.make(row))

    def make(self, row: int) -> bytes:
        """The item's JSON object, made anew."""
        return item_json(int(self._state.item_ids[row]), orjson.loads(self._state.payload(row)))

    def page(self, rows: NDArray[np.int32]) -> bytes:
        """A JSON array of the items."""
        held = self._json.get
        self._asked += len(rows)
        return b"[%b]" % b",".join([held(row) or self.of(row) for row in rows.tolist()])


def live_positions(ranked: Ranked, state: State, offset: int, size: int) -> NDArray[np.intp]:
    """The positions [offset, offset + size) of the list, without items deleted since it was ranked.

    A page may so be shorter than `size`; the next one starts at offset + size all the same, and no item
    comes twice.
    """
    alive = state.items.alive.take(ranked.rows[offset : offset + size])
    return offset + alive.nonzero()[0]


def item_json(item_id: int | str, payload: dict[str, Any]) -> bytes:
    """The object shown of an item that is known outside as `item_id`."""
    shown: dict[str, Any] = {"item_id": item_id} | {
        name: payload[name] for name in SHOWN_FIELDS if payload.get(name) is not None
    }
    total, count = payload.get("rating_sum"), payload.get("rating_count")
    if isinstance(total, int | float) and isinstance(count, int | float) and count > 0:
        shown["rating"] = round(total / count, 2)
    return orjson.dumps(shown)


def _exact(made: bytes) -> bytes:
    """The same bytes in as much memory as they need: orjson's own lie in a block of 4 kB."""
    return bytes(bytearray(made))
