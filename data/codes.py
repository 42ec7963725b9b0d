"""Stable codes and keys of the strings in events: categories, queries, item texts.

Hashes, not dictionaries: a code means the same in every process, replay and release.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from data.schema import stable_hash
from data.text import normalise

__all__ = ["CODES", "TEXT_FIELDS", "code_of", "item_text", "query_key"]

CODES = 1 << 12  # buckets of categorical codes; 0 is "none"
TEXT_FIELDS = ("title", "brand", "colour", "material", "category")


@lru_cache(maxsize=65_536)
def code_of(value: str) -> int:
    """The stable categorical code (1 to 4095) of a string, the same everywhere; 0 for an empty one."""
    text = normalise(value)
    return 1 + (stable_hash(text) & 0x7FFFFFFF) % (CODES - 1) if text else 0


def query_key(query: str) -> int:
    """The int64 key of a normalised query; 0 for one without a word."""
    text = normalise(query)
    return (stable_hash(text) or 1) if text else 0


def item_text(payload: dict[str, Any]) -> str:
    """The searchable text of an item: title, brand, colour, material, category."""
    return " ".join(str(payload[name]) for name in TEXT_FIELDS if payload.get(name))
