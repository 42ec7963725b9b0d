"""Fires at the times of a cron expression, in UTC of the shop's clock. Missed times are caught up once."""

from __future__ import annotations

import datetime
from typing import Any, Literal

from cronsim import CronSim, CronSimError
from pydantic import field_validator
from pydantic_core import PydanticCustomError

from flows.policies.strict import Strict
from flows.policies.triggers.trigger import Decision, NewData, shop_time

__all__ = ["Cron", "CronTrigger"]


class Cron(Strict):
    """At the times of a cron expression."""

    kind: Literal["cron"]
    at: str
    """Minute, hour, day of the month, month, day of the week: `0 3 * * *` is 03:00 each day (UTC)."""

    @field_validator("at")
    @classmethod
    def _parsed(cls, at: str) -> str:
        try:
            next(CronSim(at, datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)))
        except (CronSimError, StopIteration) as error:
            raise PydanticCustomError(
                "cron",
                "found {found} ({why}); expected minute, hour, day, month and weekday, such as '0 3 * * *'",
                {"found": repr(at), "why": str(error) or "no such time comes"},
            ) from None
        return at

    def trigger(self, memory: dict[str, Any]) -> CronTrigger:
        """The trigger, going on from what it remembers."""
        return CronTrigger(self, memory)

    def words(self) -> str:
        """In a few words."""
        return f"cron {self.at!r}"


class CronTrigger:
    """Remembers when it is due next."""

    def __init__(self, spec: Cron, memory: dict[str, Any]) -> None:
        self.spec, self.memory = spec, memory

    def inform(self, new: NewData) -> Decision:
        """Fire once the time has come."""
        if "due_us" not in self.memory:
            self.memory["due_us"] = self._after(new.now_us)
        due = self.memory["due_us"]
        if new.now_us < due:
            return Decision(False, f"{self.spec.words()}: next at {shop_time(due)}")
        return Decision(True, f"{self.spec.words()}: due at {shop_time(due)}")

    def fired(self, now_us: int) -> None:
        """On to the first time that is still to come."""
        self.memory["due_us"] = self._after(now_us)

    def next_us(self) -> int | None:
        """When it is due."""
        return self.memory.get("due_us")

    def _after(self, now_us: int) -> int:
        now = datetime.datetime.fromtimestamp(now_us // 1_000_000, datetime.UTC)
        return int(next(CronSim(self.spec.at, now)).timestamp()) * 1_000_000
