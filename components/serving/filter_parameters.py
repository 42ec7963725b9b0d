"""The filters among a request's parameters: category, price_min, price_max, in_stock. Parsing only."""

from __future__ import annotations

from collections.abc import Mapping

from components.serving.refusals import Refusal
from data.shop import Filters

__all__ = ["FILTERS", "filters_of"]

FILTERS = frozenset({"category", "price_min", "price_max", "in_stock"})
_YES, _NO = ("1", "true"), ("", "0", "false")


def filters_of(values: Mapping[str, str]) -> Filters | None:
    """The filters that a request names; None where it names none, or none that narrows.

    Raises Refusal 400 for what is not a price or a flag. That prices are in order is checked later.
    """
    if FILTERS.isdisjoint(values):
        return None
    in_stock = values.get("in_stock", "").lower()
    if in_stock not in _YES + _NO:
        raise Refusal(400, f"in_stock is {in_stock[:40]!r}", "1 or 0", "correct in_stock")
    found = Filters(
        values.get("category", "").strip(),
        _price(values, "price_min"),
        _price(values, "price_max"),
        in_stock in _YES,
    )
    return None if found == Filters() else found


def _price(values: Mapping[str, str], name: str) -> float | None:
    text = values.get(name, "").strip()
    if not text:
        return None
    try:
        return float(text if text.isascii() and "_" not in text else "no")
    except ValueError:
        raise Refusal(400, f"{name} is {text[:40]!r}", "a number from 0 up", f"correct {name}") from None
