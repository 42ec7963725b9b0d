"""What all parts of a policy file share: unknown keys are refused, durations are texts like `15m` or `7d`.

A duration is held as microseconds of shop time. It knows no trigger and no component.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from infra.clock import DAY_US, HOUR_US, SECOND_US

__all__ = ["Duration", "Strict", "by_default", "duration_text", "parse_duration"]

_UNITS = {"s": SECOND_US, "m": 60 * SECOND_US, "h": HOUR_US, "d": DAY_US, "w": 7 * DAY_US}
_PATTERN = r"^\d+(\.\d+)?[smhdw]$"
_EXPECTED = "a number with a unit of s, m, h, d or w, above 0, such as 90s, 15m, 6h, 1d or 2w"


class Strict(BaseModel):
    """A frozen part of a policy that names the key it does not know, and those that it expects."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        for key in data:
            if key not in cls.model_fields:
                close = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                raise PydanticCustomError(
                    "unknown_key",
                    "found the unknown key {key}; {hint}expected some of {known}",
                    {"key": repr(key), "hint": hint, "known": ", ".join(cls.model_fields)},
                )
        return data


def parse_duration(value: Any) -> int:
    """Microseconds of `15m`, `1.5d`; PydanticCustomError for anything else, numbers without a unit too."""
    if isinstance(value, str) and re.match(_PATTERN, value.strip()):
        found = round(float(value.strip()[:-1]) * _UNITS[value.strip()[-1]])
        if found > 0:
            return found
    raise PydanticCustomError("duration", "found {found}; expected " + _EXPECTED, {"found": repr(value)})


def duration_text(us: int) -> str:
    """The shortest text of a duration: `1d`, `36h`, `0.5s`."""
    for unit, size in reversed(_UNITS.items()):
        if unit != "w" and us % size == 0:
            return f"{us // size}{unit}"
    return f"{us // SECOND_US}.{us % SECOND_US:06d}".rstrip("0") + "s"


def by_default(text: str) -> Any:
    """A field's default: microseconds in Python, the text in the schema."""
    return Field(default=parse_duration(text), json_schema_extra={"default": text})


Duration = Annotated[
    int,
    BeforeValidator(parse_duration),
    PlainSerializer(duration_text, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _PATTERN, "examples": ["15m", "6h", "1d"]}),
]
"""Microseconds of shop time, written as a number with a unit."""
