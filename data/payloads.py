"""Items' JSON by row, merged lazily: a fold that never asks for it never pays for it.

What writers put into it is read without ever failing: one bad value must not stop a fold for good.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
from numpy.typing import DTypeLike

__all__ = ["Payloads", "number_of", "object_of"]


class Payloads:
    """The fields of each row as of its last upsert, merged over earlier ones."""

    def __init__(self, merged: list[str] | None = None) -> None:
        """`merged`: JSON objects by row, as `all` gives them."""
        self._merged: list[str] = merged or []
        self._changes: dict[int, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._merged)

    def append(self) -> None:
        """Add a row without fields."""
        self._merged.append("{}")

    def change(self, row: int, fields: dict[str, Any], time_us: int) -> None:
        """Lay fields over the row's; `created_at` is the time of the first change where none is given."""
        known = self._changes.get(row)
        if known is None:
            known = self._changes[row] = {}
        if self._merged[row] == "{}" and "created_at" not in known:
            known["created_at"] = time_us
        known.update(fields)

    def get(self, row: int) -> str:
        """The row's JSON object, keys sorted."""
        change = self._changes.pop(row, None)
        if change is not None:
            fields = {**orjson.loads(self._merged[row]), **change}
            self._merged[row] = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS).decode()
        return self._merged[row]

    def all(self) -> list[str]:
        """Every row's JSON object."""
        for row in list(self._changes):
            self.get(row)
        return self._merged


def object_of(text: str) -> dict[str, Any] | None:
    """The JSON object of an upsert; None where it is none (with a NaN, say), or too deep to be written."""
    try:
        found = orjson.loads(text)
        orjson.dumps(found)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    return found if isinstance(found, dict) else None


def number_of(fields: dict[str, Any], name: str, dtype: DTypeLike = np.float64) -> float | None:
    """The field as a number; None where it is none, not finite, or too large for a column of `dtype`."""
    value = fields.get(name)
    try:
        number = float(value) if value is not None and value != "" else np.nan
    except (TypeError, ValueError, OverflowError):
        return None
    column: np.dtype[Any] = np.dtype(dtype)
    most = int(np.iinfo(column).max) if column.kind == "i" else float(np.finfo(column).max)
    return number if abs(number) <= most else None  # Python compares a float with a whole number exactly
