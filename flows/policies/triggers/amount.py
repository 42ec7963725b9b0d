"""Fires when enough new data has come in since the last firing: rows, events or bytes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from flows.policies.strict import Strict
from flows.policies.triggers.trigger import Decision, NewData

__all__ = ["Amount", "AmountTrigger"]

_UNITS = ("rows", "events", "bytes")


class Amount(Strict):
    """After so much new data; one of rows, events and bytes."""

    kind: Literal["amount"]
    rows: int | None = Field(default=None, ge=1)
    """Rows of the log, impressions and catalogue changes too."""
    events: int | None = Field(default=None, ge=1)
    """Clicks, carts and orders."""
    bytes: int | None = Field(default=None, ge=1)
    """Bytes of the rows, uncompressed."""

    @model_validator(mode="after")
    def _one(self) -> Amount:
        given = [u for u in _UNITS if getattr(self, u) is not None]
        if len(given) != 1:
            raise PydanticCustomError(
                "one_amount",
                "found {found}; expected exactly one of rows, events and bytes",
                {"found": " and ".join(given) or "no amount"},
            )
        return self

    @property
    def unit(self) -> str:
        """Which of the three."""
        return next(u for u in _UNITS if getattr(self, u) is not None)

    @property
    def threshold(self) -> int:
        """How many."""
        return int(getattr(self, self.unit))

    def trigger(self, memory: dict[str, Any]) -> AmountTrigger:
        """The trigger, going on from what it remembers."""
        return AmountTrigger(self, memory)

    def words(self) -> str:
        """In a few words."""
        return f"{self.threshold:,} new {self.unit}"


class AmountTrigger:
    """Remembers how much came in."""

    def __init__(self, spec: Amount, memory: dict[str, Any]) -> None:
        self.spec, self.memory = spec, memory

    def inform(self, new: NewData) -> Decision:
        """Fire once enough is there."""
        unit = self.spec.unit
        have = self.memory.get("have", 0) + int(getattr(new, unit))
        self.memory["have"] = have
        return Decision(have >= self.spec.threshold, f"{have:,} new {unit} of {self.spec.threshold:,}")

    def fired(self, now_us: int) -> None:
        """Count anew."""
        self.memory["have"] = 0

    def next_us(self) -> int | None:
        """Nobody knows."""
        return None
