"""Items' JSON by row, merged lazily: a fold that never asks for it never pays for it."""

from __future__ import annotations

from typing import Any

import orjson

__all__ = ["Payloads", "number_of"]


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


def number_of(fields: dict[str, Any], name: str) -> float | None:
    """The field as a number; None where it is absent, empty or no number."""
    value = fields.get(name)
    try:
        return float(value) if value is not None and value != "" else None
    except (TypeError, ValueError):
        return None
