"""A control: never fires. What it costs to do nothing is what every policy is measured against."""

from __future__ import annotations

from typing import Any, Literal

from flows.policies.strict import Strict
from flows.policies.triggers.trigger import Decision, NewData

__all__ = ["Never", "NeverTrigger"]


class Never(Strict):
    """Not at all."""

    kind: Literal["never"]

    def trigger(self, memory: dict[str, Any]) -> NeverTrigger:
        """The trigger."""
        return NeverTrigger(memory)

    def words(self) -> str:
        """In a few words."""
        return "never"


class NeverTrigger:
    """Remembers nothing."""

    def __init__(self, memory: dict[str, Any]) -> None:
        self.memory = memory

    def inform(self, new: NewData) -> Decision:
        """Never."""
        return Decision(False, "never")

    def fired(self, now_us: int) -> None:
        """Nothing to wait for."""

    def next_us(self) -> int | None:
        """There is none."""
        return None
