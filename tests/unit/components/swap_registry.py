"""A registry whose releases answer by a function, and a swapper that follows it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np

from components.serving.shadow import Answer, ShadowLimits
from components.serving.swap import Swapper
from data.shop import Request
from infra.clock import ManualClock
from infra.errors import DataError

GOOD = Answer(np.arange(10), np.linspace(1, 0, 10), match=0.8)
REQUESTS = [Request("search", 0, query=f"q{i}") for i in range(20)]


@dataclass(eq=False)
class FakeRelease:
    """A release whose answers are a function."""

    release_id: str
    watermark_us: int = 5
    reply: Callable[[Request], Answer] = lambda _: GOOD


@dataclass
class FakeRegistry:
    """A pointer and what it may point to."""

    releases: dict[str, FakeRelease] = field(default_factory=dict)
    pointer: str | None = None
    version: int = 0
    dropped: list[str] = field(default_factory=list)
    noted: int = 0

    def point(self, release_id: str, **about: object) -> None:
        """Make it the champion; `about`: of the release."""
        self.releases.setdefault(release_id, FakeRelease(release_id, **about))  # type: ignore[arg-type]
        self.pointer = release_id
        self.version += 1

    def load(self, release_id: str, live: FakeRelease | None) -> FakeRelease:
        """The release; those whose id begins with `corrupt` fail."""
        if release_id.startswith("corrupt"):
            raise DataError(f"{release_id}/encoder/weights has another hash; publish it again")
        return self.releases[release_id]

    def note(self) -> None:
        """A try was noted."""
        self.noted += 1


def swapper(
    registry: FakeRegistry,
    *,
    politely: Callable[[], AbstractContextManager[None]] = nullcontext,
    settle_s: float = 0.0,
    **limits: object,
) -> Swapper[FakeRelease]:
    """A swapper of the registry, whose shadow check does not rest."""
    return Swapper(
        politely=politely,
        champion=lambda: registry.pointer,
        changed=lambda: registry.version,
        load=registry.load,
        answer=lambda served, request: served.reply(request),
        recent=lambda: REQUESTS,
        clock=ManualClock(77),
        dropped=lambda served: registry.dropped.append(served.release_id),
        noted=registry.note,
        limits=ShadowLimits(pause_s=0.0, rest=0.0, **limits),  # type: ignore[arg-type]
        settle_s=settle_s,
        poll_s=0.01,
        retry_s=0.0,
    )
