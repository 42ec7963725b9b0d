"""Fires when the live quality falls below what it was at promotion, by a sequential test.

Outcomes are one a session, so that they may be taken for independent; each is known once its shopper had
time to react. Unless the file says what to expect, the first sessions of a new artifact say it. If quality
does not fall, the probability of ever firing is `false_alarms` at most, for each artifact and firing.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from flows.policies.strict import Strict
from flows.policies.triggers.sequential import Capital, lower_bound
from flows.policies.triggers.trigger import Decision, NewData

__all__ = ["Performance", "PerformanceTrigger"]


class Performance(Strict):
    """When live quality falls."""

    kind: Literal["performance"]
    measure: Literal["click_ndcg", "ctr"] = "click_ndcg"
    """NDCG@10 of a clicked page as it was shown, or whether a page was clicked: of each session's first."""
    false_alarms: float = Field(default=0.05, gt=0.0, le=0.5)
    """Probability of ever firing without a fall, at most; for each artifact and firing."""
    tolerance: float = Field(default=0.01, ge=0.0, lt=1.0)
    """A fall of the measure that does not matter."""
    reference: int = Field(default=1_000, ge=50, le=20_000)
    """Sessions from which the expectation is learned after a promotion."""
    expected: float | None = Field(default=None, gt=0.0, le=1.0)
    """The expectation, if it is not to be learned; above the tolerance."""

    @model_validator(mode="after")
    def _possible(self) -> Performance:
        if self.expected is not None and self.expected <= self.tolerance:
            raise PydanticCustomError(
                "performance",
                "found expected {expected} with a tolerance of {tolerance}; expected more than that, "
                "or it could never fire",
                {"expected": f"{self.expected:g}", "tolerance": f"{self.tolerance:g}"},
            )
        return self

    def trigger(self, memory: dict[str, Any]) -> PerformanceTrigger:
        """The trigger, going on from what it remembers."""
        return PerformanceTrigger(self, memory)

    def words(self) -> str:
        """In a few words."""
        return f"{self.measure} falls by over {self.tolerance:g} (false alarms {self.false_alarms:g})"


class PerformanceTrigger:
    """Remembers the version, the reference, and the capital of the test."""

    def __init__(self, spec: Performance, memory: dict[str, Any]) -> None:
        self.spec, self.memory = spec, memory

    def inform(self, new: NewData) -> Decision:
        """Learn the expectation first, then test against it."""
        spec, memory = self.spec, self.memory
        if memory.get("version") != new.version:  # another artifact is live: expect what it does
            memory.clear()
            memory["version"] = new.version
        outcomes = np.asarray(new.outcomes.get(spec.measure, ()), np.float64)
        if spec.expected is None and "expected" not in memory:
            held = memory.setdefault("reference", [])
            take = min(len(outcomes), spec.reference - len(held))
            held += outcomes[:take].tolist()
            outcomes = outcomes[take:]
            if len(held) < spec.reference:
                return Decision(
                    False, f"{spec.measure}: {len(held)} of {spec.reference} sessions to learn from"
                )
            known = np.asarray(memory.pop("reference"))
            memory["expected"] = float(known.mean())
            memory["bound"] = lower_bound(known, alpha=spec.false_alarms / 2)
        return self._tested(outcomes)

    def fired(self, now_us: int) -> None:
        """Test anew against the same expectation; another version brings another one."""
        for key in ("test", "tested", "sum"):
            self.memory.pop(key, None)

    def next_us(self) -> int | None:
        """Nobody knows."""
        return None

    def _tested(self, outcomes: NDArray[np.float64]) -> Decision:
        spec, memory = self.spec, self.memory
        given = spec.expected or 0.0
        expected, bound = float(memory.get("expected", given)), float(memory.get("bound", given))
        alpha = spec.false_alarms / 2 if "bound" in memory else spec.false_alarms
        test = Capital(max(0.0, bound - spec.tolerance), memory.setdefault("test", {}))
        capital = test.take(outcomes, alpha=alpha)
        memory["tested"] = memory.get("tested", 0) + len(outcomes)
        memory["sum"] = memory.get("sum", 0.0) + float(outcomes.sum())
        fire = capital >= 1 / alpha
        mean = memory["sum"] / memory["tested"] if memory["tested"] else float("nan")
        found = f"{mean:.4f} over {memory['tested']:,} sessions, {expected:.4f} expected"
        if bound <= spec.tolerance:
            return Decision(False, f"{spec.measure} {found}: too low to tell a fall of {spec.tolerance:g}")
        return Decision(fire, f"{spec.measure} {found} (evidence {capital:.3g} of {1 / alpha:g})")
