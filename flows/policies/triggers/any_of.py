"""Fires as soon as any of several triggers does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from flows.policies.strict import Strict
from flows.policies.triggers.trigger import Decision, NewData, Trigger

if TYPE_CHECKING:
    from flows.policies.triggers.kinds import AnyTrigger

__all__ = ["AnyOf", "AnyOfTrigger"]


class AnyOf(Strict):
    """As soon as one of them fires."""

    kind: Literal["any"]
    of: list[AnyTrigger] = Field(min_length=2)
    """Two triggers or more."""

    @model_validator(mode="after")
    def _sensible(self) -> AnyOf:
        for kind, instead in (("always", "always alone"), ("never", "the other triggers alone")):
            if any(t.kind == kind for t in self.of):
                raise PydanticCustomError(
                    "any_of",
                    "found {kind} within any; expected {instead}",
                    {"kind": kind, "instead": instead},
                )
        return self

    def trigger(self, memory: dict[str, Any]) -> AnyOfTrigger:
        """The trigger, going on from what it remembers."""
        return AnyOfTrigger(self, memory)

    def words(self) -> str:
        """In a few words."""
        return " or ".join(t.words() for t in self.of)


class AnyOfTrigger:
    """Remembers what each of them does."""

    def __init__(self, spec: AnyOf, memory: dict[str, Any]) -> None:
        self.memory = memory
        held = memory.setdefault("of", [{} for _ in spec.of])
        self.of: list[Trigger] = [t.trigger(m) for t, m in zip(spec.of, held, strict=True)]

    def inform(self, new: NewData) -> Decision:
        """Each is informed; the reasons are those of the ones that fire."""
        found = [t.inform(new) for t in self.of]
        fire = any(d.fire for d in found)
        return Decision(fire, "; ".join(d.why for d in found if d.fire or not fire))

    def fired(self, now_us: int) -> None:
        """All begin anew."""
        for trigger in self.of:
            trigger.fired(now_us)

    def next_us(self) -> int | None:
        """The first of those that are known: at the latest then."""
        return min((t for trigger in self.of if (t := trigger.next_us()) is not None), default=None)
