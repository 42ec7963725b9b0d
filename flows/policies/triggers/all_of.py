"""Fires once all of several triggers are due; each stays due until then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from flows.policies.strict import Strict
from flows.policies.triggers.trigger import Decision, NewData, Trigger

if TYPE_CHECKING:
    from flows.policies.triggers.kinds import AnyTrigger

__all__ = ["AllOf", "AllOfTrigger"]


class AllOf(Strict):
    """Once all of them are due."""

    kind: Literal["all"]
    of: list[AnyTrigger] = Field(min_length=2)
    """Two triggers or more."""

    @model_validator(mode="after")
    def _sensible(self) -> AllOf:
        if any(t.kind == "never" for t in self.of):
            raise PydanticCustomError(
                "all_of", "found never within all; expected never alone: it cannot fire"
            )
        return self

    def trigger(self, memory: dict[str, Any]) -> AllOfTrigger:
        """The trigger, going on from what it remembers."""
        return AllOfTrigger(self, memory)

    def words(self) -> str:
        """In a few words."""
        return " and ".join(f"({t.words()})" if t.kind == "any" else t.words() for t in self.of)


class AllOfTrigger:
    """Remembers what each of them does."""

    def __init__(self, spec: AllOf, memory: dict[str, Any]) -> None:
        self.memory = memory
        held = memory.setdefault("of", [{} for _ in spec.of])
        self.of: list[Trigger] = [t.trigger(m) for t, m in zip(spec.of, held, strict=True)]

    def inform(self, new: NewData) -> Decision:
        """Each is informed; the reasons are those of the ones that are waited for, or all."""
        found = [t.inform(new) for t in self.of]
        fire = all(d.fire for d in found)
        return Decision(fire, "; ".join(d.why for d in found if fire or not d.fire))

    def fired(self, now_us: int) -> None:
        """All begin anew."""
        for trigger in self.of:
            trigger.fired(now_us)

    def next_us(self) -> int | None:
        """The last of them, where all are known."""
        times = [trigger.next_us() for trigger in self.of]
        known = [t for t in times if t is not None]
        return max(known) if len(known) == len(times) else None
