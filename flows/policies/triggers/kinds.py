"""Every kind of trigger under one name, told apart by its `kind`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from flows.policies.triggers.all_of import AllOf
from flows.policies.triggers.always import Always
from flows.policies.triggers.amount import Amount
from flows.policies.triggers.any_of import AnyOf
from flows.policies.triggers.at_random import Random
from flows.policies.triggers.cron import Cron
from flows.policies.triggers.interval import Interval
from flows.policies.triggers.never import Never
from flows.policies.triggers.performance import Performance

__all__ = ["KINDS", "AnyTrigger", "kinds_of"]

AnyTrigger = Annotated[
    Interval | Cron | Amount | Performance | AnyOf | AllOf | Never | Always | Random,
    Field(discriminator="kind"),
]

for _model in (AnyOf, AllOf):
    _model.model_rebuild(_types_namespace={"AnyTrigger": AnyTrigger, "AnyOf": AnyOf, "AllOf": AllOf})

KINDS = ("interval", "cron", "amount", "performance", "any", "all", "never", "always", "random")


def kinds_of(spec: AnyTrigger) -> Iterator[str]:
    """The kinds of a trigger and of those within it."""
    yield spec.kind
    for inner in getattr(spec, "of", ()):
        yield from kinds_of(inner)
