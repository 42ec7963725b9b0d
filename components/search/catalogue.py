"""What the path needs to know of the catalogue beyond the state's columns, kept up by increments.

Department, text hash and update time of each item, and lists of popular and new items. It
follows one state and belongs to no release, so several releases can share it. `refresh` is
called by the one thread that applies events; readers take published references.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from data.codes import code_of, item_text
from data.schema import stable_hash
from data.state import State
from data.text import normalise
from infra.clock import HOUR_US

__all__ = ["Catalogue", "Lists"]

_cached_code = lru_cache(maxsize=4_096)(code_of)
_normalised = lru_cache(maxsize=4_096)(normalise)
_COLUMNS = ("_department", "_text_hash", "_updated_us", "_category_label", "_department_label")


@dataclass(frozen=True)
class Lists:
    """Rows of alive items, best first: int32 [≤ `long`] popular, [≤ `short`] new.

    By code of a department or a category: a photo's classes may be either. `popularity` float32 [n] by
    row, as of when the lists were sorted.
    """

    popular: NDArray[np.int32]
    popular_in: dict[int, NDArray[np.int32]]
    newest_in: dict[int, NDArray[np.int32]]
    category_codes: NDArray[np.int32]  # [c] every category code seen, ascending
    category_departments: NDArray[np.int32]  # [c] the department of each
    popularity: NDArray[np.float32]


class Catalogue:
    """Live facts of items by state row.

    `lists_every_us`: shop time after which popularity is sorted anew (new facts of single items
    are taken up at every refresh). An item without a department has its category as one.
    """

    def __init__(
        self, state: State, *, long: int = 400, short: int = 50, lists_every_us: int = HOUR_US
    ) -> None:
        self._state = state
        self._long, self._short, self._every_us = long, short, lists_every_us
        self._version = -1
        self._lists_at = -1
        self._n = 0
        self._department = np.zeros(0, np.int32)
        self._text_hash = np.zeros(0, np.int64)
        self._updated_us = np.zeros(0, np.int64)
        self._category_label = np.zeros(0, np.int32)
        self._department_label = np.zeros(0, np.int32)
        self._labels: dict[str, int] = {}
        self._department_of: dict[int, int] = {}
        self.lists = Lists(_no_rows(), {}, {}, _no_rows(), _no_rows(), np.zeros(0, np.float32))
        self.refresh()

    @property
    def n(self) -> int:
        """Rows known."""
        return self._n

    @property
    def department(self) -> NDArray[np.int32]:
        """int32 [n] department codes."""
        return self._department[: self._n]

    @property
    def text_hash(self) -> NDArray[np.int64]:
        """int64 [n] stable hashes of the items' searchable texts."""
        return self._text_hash[: self._n]

    @property
    def updated_us(self) -> NDArray[np.int64]:
        """int64 [n] when the item says it was created or updated last; 0 where it does not."""
        return self._updated_us[: self._n]

    @property
    def category_label(self) -> NDArray[np.int32]:
        """int32 [≥ n]: `label` of the item's category; unlike a code, no two categories share one."""
        return self._category_label

    @property
    def department_label(self) -> NDArray[np.int32]:
        """int32 [≥ n]: `label` of the item's department."""
        return self._department_label

    def label(self, name: str) -> int:
        """The number of a category or department ever seen, by its words; -1 for any other."""
        return self._labels.get(_normalised(name), -1)

    def payload(self, row: int) -> dict[str, Any]:
        """The item's fields as of its last upsert."""
        fields: dict[str, Any] = orjson.loads(self._state.payload(row))
        return fields

    def refresh(self) -> None:
        """Take up what changed in the state since the last call."""
        state = self._state
        version = state.catalogue_version
        if version != self._version:
            n = state.n_items
            rows = (
                np.arange(n, dtype=np.int32)
                if self._version < 0
                else np.unique(state.changed_since(self._version))
            )
            self._reserve(n)
            for row in rows.tolist():
                self._take(row)
            self._n = n
            self._version = version
        due = state.as_of_us // self._every_us
        if due != self._lists_at:
            self._lists_at = due
            self.lists = self._sorted()

    def _reserve(self, n: int) -> None:
        if n <= len(self._department):
            return
        capacity = max(1_024, n + n // 2)
        for name in _COLUMNS:
            old = getattr(self, name)
            grown = np.zeros(capacity, old.dtype)
            grown[: len(old)] = old
            setattr(self, name, grown)

    def _take(self, row: int) -> None:
        payload = self.payload(row)
        category = int(self._state.category[row])
        department = _cached_code(str(payload.get("department") or "")) or category
        self._department[row] = department
        self._department_of[category] = department
        self._category_label[row] = self._labelled(payload.get("category"))
        self._department_label[row] = self._labelled(payload.get("department"))
        self._text_hash[row] = stable_hash(item_text(payload))
        self._updated_us[row] = max(_time(payload, "updated_at"), _time(payload, "created_at"))

    def _labelled(self, name: Any) -> int:
        """The label of a name, a new one where it is new; -2 for none."""
        text = _normalised(str(name or ""))
        return self._labels.setdefault(text, len(self._labels)) if text else -2

    def _sorted(self) -> Lists:
        state, n = self._state, self._n
        popularity = state.popularity(state.as_of_us)[:n]
        created = state.created_us[:n]
        alive = np.flatnonzero(state.alive[:n])
        popular = alive[np.lexsort((-created[alive], -popularity[alive]))].astype(np.int32)
        newest = alive[np.argsort(-created[alive], kind="stable")].astype(np.int32)
        categories = np.array(sorted(self._department_of), np.int32)
        return Lists(
            popular[: self._long],
            self._grouped(popular, self._long),
            self._grouped(newest, self._short),
            categories,
            np.array([self._department_of[c] for c in categories.tolist()], np.int32),
            popularity.astype(np.float32),
        )

    def _grouped(self, rows: NDArray[np.int32], keep: int) -> dict[int, NDArray[np.int32]]:
        """The first `keep` of the rows in each category and in each department, by code."""
        groups: dict[int, NDArray[np.int32]] = {}
        for codes in (self._state.category, self._department):
            of_row = codes[rows]
            order = np.argsort(of_row, kind="stable")
            found, starts = np.unique(of_row[order], return_index=True)
            for code, group in zip(found.tolist(), np.split(rows[order], starts[1:]), strict=True):
                groups[code] = group[:keep]
        return groups


def _no_rows() -> NDArray[np.int32]:
    return np.empty(0, np.int32)


def _time(payload: dict[str, Any], name: str) -> int:
    value = payload.get(name)
    return int(value) if isinstance(value, int | float) else 0
