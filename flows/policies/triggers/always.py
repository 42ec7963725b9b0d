"""A control: fires whenever there is any new data; the upper end of what retraining can cost and bring."""

from __future__ import annotations

from typing import Any, Literal

from flows.policies.strict import Strict
from flows.policies.triggers.trigger import Decision, NewData

__all__ = ["Always", "AlwaysTrigger"]


class Always(Strict):
    """As soon as there is new data and the last run is over."""

    kind: Literal["always"]

    def trigger(self, memory: dict[str, Any]) -> AlwaysTrigger:
        """The trigger, going on from what it remembers."""
        return AlwaysTrigger(memory)

    def words(self) -> str:
        """In a few words."""
        return "always"


class AlwaysTrigger:
    """Remembers whether anything came in."""

    def __init__(self, memory: dict[str, Any]) -> None:
        self.memory = memory

    def inform(self, new: NewData) -> Decision:
        """Fire on the first new row."""
        have = self.memory["have"] = self.memory.get("have", 0) + new.rows
        return Decision(have > 0, f"always: {have:,} new rows")

    def fired(self, now_us: int) -> None:
        """Wait for the next row."""
        self.memory["have"] = 0

    def next_us(self) -> int | None:
        """Nobody knows."""
        return None
