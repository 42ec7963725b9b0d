"""What a policy does when: the next runs that the clock alone decides, as a table and a strip of a week.

Runs that hang on data cannot be foretold; what makes them fire is said in words.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from flows.policies.home import read_state
from flows.policies.policy import Policy
from flows.policies.replay import EMPTY, replay
from flows.policies.strict import duration_text
from flows.policies.triggers.kinds import kinds_of
from flows.policies.triggers.trigger import shop_time
from infra.clock import DAY_US
from infra.settings import Home

__all__ = ["STRIP", "foretold", "scheduled", "shown"]

STRIP = 56  # places of the strip, three hours each
_WEEK_US = 7 * DAY_US
_FORETOLD = {"interval", "cron", "random", "never", "any", "all"}


def shown(policy: Policy, *, now_us: int, layout: Home | None = None) -> dict[str, Any]:
    """The policy as a plain document: for each component its settings, what it fires on, and the week ahead.

    `layout`: of the home whose triggers remember when they began; without it the policy begins now.
    """
    times = foretold(policy, now_us=now_us, layout=layout)
    components = {}
    for name, part in policy.components.items():
        kinds = set(kinds_of(part.trigger))
        next_us = times[name]
        components[name] = {
            "trigger": part.trigger.words(),
            "window": "all" if part.window is None else duration_text(part.window),
            "fraction": part.fraction,
            "half_life": None if part.half_life is None else duration_text(part.half_life),
            "start": part.start,
            "gate": part.gate.model_dump(),
            "next_us": next_us[:20],
            "runs_in_a_week": len(next_us) if kinds <= _FORETOLD else None,
            "strip": _strip(next_us, now_us),
        }
    ingest = None if policy.ingest is None else duration_text(policy.ingest)
    return {
        "policy": policy.name,
        "now_us": now_us,
        "tick": duration_text(policy.tick),
        "ingest": ingest,
        "components": components,
    }


def foretold(policy: Policy, *, now_us: int, layout: Home | None = None) -> dict[str, list[int]]:
    """Shop times within a week at which the clock makes each component be made anew."""
    state: Mapping[str, Any] = (read_state(layout) if layout is not None else None) or {}
    memory = copy.deepcopy(dict(state.get("engine", {})))
    fired = replay(policy, EMPTY, since_us=now_us, until_us=now_us + _WEEK_US + policy.tick, memory=memory)
    return {n: [f.at_us for f in fired if n in f.components] for n in policy.components}


def scheduled(
    policy: Policy, next_us: Mapping[str, int | None], why: Mapping[str, str]
) -> list[dict[str, str]]:
    """Rows of a table: each component, what makes it anew, its next time (UTC), what its trigger said."""
    return [
        {
            "component": name,
            "is made anew": part.trigger.words(),
            "next, shop time": "when it fires" if (at := next_us.get(name)) is None else shop_time(at),
            "the trigger says": why.get(name, ""),
        }
        for name, part in policy.components.items()
    ]


def _strip(times: list[int], now_us: int) -> str:
    places = ["·"] * STRIP
    for at in times:
        if at < now_us + _WEEK_US:
            places[(at - now_us) * STRIP // _WEEK_US] = "█"
    return "".join(places)
