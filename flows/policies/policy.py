"""A policy: for each component when it is made anew, from which data, from what start, within which limits.

It is a YAML file, read strictly: an unknown key or an impossible combination is one line that says what was
found and what is expected. It decides nothing; `triggers_of` makes of it what does.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from flows.policies.strict import Duration, Strict, by_default, duration_text, parse_duration
from flows.policies.triggers.kinds import KINDS, AnyTrigger, kinds_of
from flows.policies.triggers.trigger import Trigger
from infra.clock import DAY_US, HOUR_US
from infra.errors import ConfigError

__all__ = [
    "BRINGS",
    "COMPONENTS",
    "LABEL_DELAY_US",
    "NEEDS_DATA",
    "WEIGH_BY_AGE",
    "ComponentPolicy",
    "Gate",
    "Policy",
    "load_policy",
    "parse_policy",
    "policy_schema",
    "policy_text",
    "triggers_of",
]

Component = Literal["text_classifier", "image_classifier", "encoder", "ranker", "indexes"]
COMPONENTS: tuple[Component, ...] = ("text_classifier", "image_classifier", "encoder", "ranker", "indexes")
BRINGS: Mapping[str, tuple[str, ...]] = {"encoder": ("ranker",)}
"""What a component's run makes anew besides: a ranker means nothing in another embedding space."""
LABEL_DELAY_US = HOUR_US // 2  # of `flows/offline/inputs.py`, which takes seconds to import
NEEDS_DATA = frozenset({"amount", "performance", "always"})
"""Kinds of triggers that look at data rather than at the clock alone."""
WEIGH_BY_AGE = ("encoder", "ranker")
"""Components whose training lets older data count less, where a half-life is given."""


def _window(value: Any) -> Any:
    return None if value == "all" else parse_duration(value)


Window = Annotated[
    int | None,
    BeforeValidator(_window),
    PlainSerializer(lambda us: "all" if us is None else duration_text(us), return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^(all|\d+(\.\d+)?[smhdw])$", "examples": ["7d", "all"]}),
]


class Gate(Strict):
    """Limits of the gate; the defaults are those of `flows/offline/gate.py`."""

    margin: float = Field(default=0.01, ge=0.0, lt=1.0)
    """NDCG@10 by which the new release may be worse."""
    undecided: Literal["mean", "refuse"] = "mean"
    """Where the slice is too small to tell: whether the mean is enough, or it is refused."""
    fewest: int = Field(default=30, ge=1)
    """Clicked requests below which a slice or a segment says nothing."""
    segment_margin: float = Field(default=0.03, ge=0.0, lt=1.0)
    """NDCG@10 by which it may be worse for new users, new items and tail queries each."""
    latency_ratio: float = Field(default=3.0, gt=0.0)
    """How many times the champion's time its ranker may take."""
    latency_us: float = Field(default=2_000.0, gt=0.0)
    """The time in microseconds that it may take in any case."""
    size_ratio: float = Field(default=3.0, gt=0.0)
    """How many times as large as the champion it may be."""
    size_mb: float = Field(default=200.0, gt=0.0)
    """The size in megabytes that it may have in any case."""


class ComponentPolicy(Strict):
    """How one component is kept fresh."""

    trigger: AnyTrigger
    """When it is made anew."""
    window: Window = by_default("7d")
    """Shop time before the watermark that it learns from, or `all`."""
    fraction: float = Field(default=1.0, gt=0.0, le=1.0)
    """Share of that data; shares are nested."""
    half_life: Duration | None = None
    """Age at which data counts half (exponential forgetting); by default all counts alike. Of encoder and
    ranker only."""
    start: Literal["cold", "warm"] = "cold"
    """Trained anew, or on from the champion."""
    gate: Gate = Gate()
    """What the new release has to keep to become champion."""

    @model_validator(mode="after")
    def _possible(self) -> ComponentPolicy:
        if self.window is not None and self.window <= LABEL_DELAY_US:
            raise PydanticCustomError(
                "window",
                "found a window of {window}; expected more than {least}, the time that labels take",
                {"window": duration_text(self.window), "least": duration_text(LABEL_DELAY_US)},
            )
        return self

    @property
    def window_d(self) -> float | None:
        """The window in days; None for all."""
        return None if self.window is None else self.window / DAY_US

    @property
    def half_life_d(self) -> float | None:
        """The half-life in days; None where all data counts alike."""
        return None if self.half_life is None else self.half_life / DAY_US

    @property
    def reading(self) -> tuple[object, ...]:
        """What components must have in common to be made in one run, beside the half-life."""
        return (self.window, self.fraction, self.start, self.gate)


class Policy(Strict):
    """When which component is made anew."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")
    """Of small letters, digits, - and _."""
    components: Annotated[dict[Component, ComponentPolicy], Field(min_length=1)]
    """Those that are not named stay as they are."""
    tick: Duration = by_default("1m")
    """How often triggers are asked."""
    ingest: Duration | None = None
    """How often new events are taken in; by default with each run only."""

    @model_validator(mode="after")
    def _possible(self) -> Policy:
        for name, component in self.components.items():
            kinds = set(kinds_of(component.trigger))
            if self.ingest is None and (needs := sorted(kinds & NEEDS_DATA)):
                raise PydanticCustomError(
                    "needs_ingest",
                    "found a trigger of {kind} for {name} without ingest; expected `ingest: 15m` or so in "
                    "the policy, or it would never see new data",
                    {"kind": needs[0], "name": name},
                )
            if name == "indexes" and (component.fraction != 1.0 or component.start != "cold"):
                raise PydanticCustomError(
                    "indexes",
                    "found {found} for indexes; expected fraction 1 and a cold start: they hold every item",
                    {
                        "found": "a warm start"
                        if component.start == "warm"
                        else f"fraction {component.fraction:g}"
                    },
                )
            if component.half_life is not None and name not in WEIGH_BY_AGE:
                raise PydanticCustomError(
                    "half_life",
                    "found half_life {found} for {name}; expected none: only {weigh} weigh data by its age",
                    {
                        "found": duration_text(component.half_life),
                        "name": name,
                        "weigh": " and ".join(WEIGH_BY_AGE),
                    },
                )
            for every in _periods(component.trigger):
                if every < self.tick:
                    raise PydanticCustomError(
                        "tick",
                        "found {every} for {name} with a tick of {tick}; expected a tick that is no longer",
                        {"every": duration_text(every), "name": name, "tick": duration_text(self.tick)},
                    )
        if self.ingest is not None and self.ingest < self.tick:
            raise PydanticCustomError(
                "tick",
                "found ingest {every} with a tick of {tick}; expected a tick that is no longer",
                {"every": duration_text(self.ingest), "tick": duration_text(self.tick)},
            )
        return self

    @property
    def needs_data(self) -> bool:
        """Whether any trigger looks at data rather than at the clock alone."""
        return any(NEEDS_DATA & set(kinds_of(c.trigger)) for c in self.components.values())


def triggers_of(policy: Policy, memory: dict[str, dict[str, Any]] | None = None) -> dict[str, Trigger]:
    """The trigger of each component, going on from what they remember: {component: plain JSON}."""
    held = {} if memory is None else memory
    return {name: c.trigger.trigger(held.setdefault(name, {})) for name, c in policy.components.items()}


def load_policy(path: Path) -> Policy:
    """The policy in a YAML file. ConfigError, one line, for a file that is none."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read the policy {path} ({getattr(error, 'strerror', None) or error}); expected a YAML "
            "file; docs/policies.md shows one"
        ) from None
    return parse_policy(text, source=str(path))


def parse_policy(text: str, *, source: str = "policy") -> Policy:
    """The policy that a YAML text describes; `source` names it in errors."""
    try:
        data = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: of a day that is none
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{source} is no YAML{where}: {problem}; docs/policies.md shows one") from None
    if not isinstance(data, Mapping):
        found = "nothing" if data is None else f"a {type(data).__name__}"
        raise ConfigError(
            f"{source}: found {found}; expected a name and components; docs/policies.md shows one"
        )
    try:
        return Policy.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_line(error)}; docs/policies.md lists all keys") from None


def policy_text(policy: Policy) -> str:
    """The YAML of a policy; `parse_policy` makes the same of it again."""
    data = policy.model_dump(mode="json", exclude_defaults=True)
    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True))


def policy_schema() -> dict[str, Any]:
    """The JSON schema of policy files."""
    schema = Policy.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _periods(trigger: Any) -> list[int]:
    periods = [trigger.every] if trigger.kind == "interval" else []
    if trigger.kind == "random":
        periods = [trigger.span // trigger.count]
    return periods + [p for inner in getattr(trigger, "of", ()) for p in _periods(inner)]


def _line(error: ValidationError) -> str:
    """The first error as `where: found …; expected …`."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"] if part != "[key]")
    said = first["msg"]
    if not said.startswith("found"):
        given = first["input"]
        found = "nothing" if first["type"] == "missing" else repr(given)[:60]
        expected = "a value" if first["type"] == "missing" else said.removeprefix("Input should be ")
        if first["type"].startswith("union_tag"):
            found = repr(given.get("kind", given))[:60] if isinstance(given, Mapping) else found
            expected = f"a trigger of the kind {', '.join(KINDS)}"
        said = f"found {found}; expected {expected}"
    more = error.error_count() - 1
    return (f"{where}: " if where else "") + said + (f" (and {more} more)" if more else "")


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Plain YAML that refuses a key that stands twice: the later one would silently win."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """As of SafeLoader."""
        seen = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if not isinstance(name, Hashable):
                raise yaml.constructor.ConstructorError(
                    None, None, "found a list or mapping as a key; expected a text", key.start_mark
                )
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"found the key {name!r} twice; expected it once", key.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep)
