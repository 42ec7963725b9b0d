"""A control: fires at random times, exactly so many in each span, so that only *when* differs from a policy.

Whichever ticks ask, `count` firings come of each span, one a tick at most; what a machine that was stopped
for longer than a span missed lapses. Times depend on the seed and the start of the policy alone.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field

from flows.policies.strict import Duration, Strict, duration_text
from flows.policies.triggers.trigger import Decision, NewData, shop_time

__all__ = ["Random", "RandomTrigger"]


class Random(Strict):
    """So many times in a span, at random."""

    kind: Literal["random"]
    count: int = Field(ge=1)
    """Firings in each span."""
    span: Duration
    """Shop time in which they come."""
    seed: int = Field(default=1, ge=0)
    """Of the times."""

    def trigger(self, memory: dict[str, Any]) -> RandomTrigger:
        """The trigger, going on from what it remembers."""
        return RandomTrigger(self, memory)

    def words(self) -> str:
        """In a few words."""
        return f"{self.count} times in {duration_text(self.span)} at random"


class RandomTrigger:
    """Remembers its start, and how many of the drawn times are used."""

    def __init__(self, spec: Random, memory: dict[str, Any]) -> None:
        self.spec, self.memory = spec, memory

    def inform(self, new: NewData) -> Decision:
        """Fire while more of the drawn times have passed than were used."""
        start = self.memory.setdefault("start_us", new.now_us)
        lapsed = ((new.now_us - start) // self.spec.span - 1) * self.spec.count
        used = self.memory["used"] = max(self.memory.get("used", 0), lapsed)
        due = self._time(used)
        is_due = due <= new.now_us
        words = f"drawn for {shop_time(due)}" if is_due else f"next at {shop_time(due)}"
        return Decision(is_due, f"{self.spec.words()}: {words}")

    def fired(self, now_us: int) -> None:
        """One of the times is used, if it had come."""
        due = self.next_us()
        if due is not None and due <= now_us:
            self.memory["used"] += 1

    def next_us(self) -> int | None:
        """The next drawn time."""
        return self._time(self.memory["used"]) if "used" in self.memory else None

    def _time(self, n: int) -> int:
        """The n-th drawn time, from 0: those of a span are sorted."""
        span, place = divmod(n, self.spec.count)
        drawn = np.sort(np.random.default_rng([self.spec.seed, span]).random(self.spec.count))
        return int(self.memory["start_us"] + span * self.spec.span + int(drawn[place] * self.spec.span))
