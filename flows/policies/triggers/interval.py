"""Fires at a fixed interval of shop time. What was missed meanwhile is caught up once.

A firing that was due moves on along the grid; one before its time (another trigger's) starts it anew.
"""

from __future__ import annotations

from typing import Any, Literal

from flows.policies.strict import Duration, Strict, duration_text
from flows.policies.triggers.trigger import Decision, NewData, shop_time

__all__ = ["Interval", "IntervalTrigger"]


class Interval(Strict):
    """Every so often."""

    kind: Literal["interval"]
    every: Duration
    """Shop time from one firing to the next."""
    after: Duration | None = None
    """Shop time from the start of the policy to the first firing; by default one interval."""

    def trigger(self, memory: dict[str, Any]) -> IntervalTrigger:
        """The trigger, going on from what it remembers."""
        return IntervalTrigger(self, memory)

    def words(self) -> str:
        """In a few words."""
        return f"every {duration_text(self.every)}"


class IntervalTrigger:
    """Remembers when it is due next."""

    def __init__(self, spec: Interval, memory: dict[str, Any]) -> None:
        self.spec, self.memory = spec, memory

    def inform(self, new: NewData) -> Decision:
        """Fire once the time has come."""
        first = self.spec.every if self.spec.after is None else self.spec.after
        due = self.memory.setdefault("due_us", new.now_us + first)
        if new.now_us < due:
            return Decision(False, f"{self.spec.words()}: next at {shop_time(due)}")
        missed = (new.now_us - due) // self.spec.every
        more = f", with {missed} missed since" if missed else ""
        return Decision(True, f"{self.spec.words()}: due at {shop_time(due)}{more}")

    def fired(self, now_us: int) -> None:
        """On to the next time of the grid that is still to come."""
        due = self.memory.get("due_us", now_us)
        steps = (now_us - due) // self.spec.every + 1
        self.memory["due_us"] = due + steps * self.spec.every if now_us >= due else now_us + self.spec.every

    def next_us(self) -> int | None:
        """When it is due."""
        return self.memory.get("due_us")
