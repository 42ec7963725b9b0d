"""Policy files: what is right is read and written again, what is wrong is one line that says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.policies.policy import COMPONENTS, Policy, load_policy, parse_policy, policy_text, triggers_of
from flows.policies.strict import duration_text, parse_duration
from infra.clock import DAY_US, HOUR_US
from infra.errors import ConfigError

BASE: dict[str, Any] = {
    "name": "mine",
    "components": {"ranker": {"trigger": {"kind": "interval", "every": "1d"}}},
}


def changed(**more: Any) -> dict[str, Any]:
    """BASE with other values of the ranker, or of the policy where the key is one of its own."""
    top = {k: v for k, v in more.items() if k in ("name", "tick", "ingest", "components", "nonsense")}
    ranker = BASE["components"]["ranker"] | {k: v for k, v in more.items() if k not in top}
    return {**BASE, "components": {"ranker": ranker}, **top}


FULL = changed(
    window="all",
    fraction=0.6,
    half_life="36h",
    start="warm",
    gate={"margin": 0.02},
    tick="30s",
    ingest="15m",
    trigger={
        "kind": "any",
        "of": [
            {"kind": "interval", "every": "1w", "after": "36h"},
            {
                "kind": "all",
                "of": [
                    {"kind": "cron", "at": "0 3 * * 1-5"},
                    {"kind": "amount", "events": 1000},
                    {"kind": "performance", "measure": "ctr", "false_alarms": 0.1, "expected": 0.4},
                ],
            },
        ],
    },
)


@pytest.mark.parametrize("data", [BASE, FULL], ids=["least", "full"])
def test_what_is_written_is_read_again(data: dict[str, Any]) -> None:
    policy = parse_policy(yaml.safe_dump(data))
    assert parse_policy(policy_text(policy)) == policy
    assert set(triggers_of(policy)) == {"ranker"}


def test_a_policy_has_what_the_file_says(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(FULL))
    ranker = load_policy(path).components["ranker"]
    assert (ranker.window_d, ranker.fraction, ranker.start, ranker.gate.margin) == (None, 0.6, "warm", 0.02)
    assert ranker.half_life_d == 1.5
    least = Policy.model_validate(BASE).components["ranker"]
    assert (least.window_d, least.half_life_d) == (7.0, None)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (changed(nonsense=1), "found the unknown key 'nonsense'; expected some of name, components"),
        (changed(windo="7d"), "components.ranker: found the unknown key 'windo'; did you mean 'window'?"),
        (changed(gate={"marge": 0.1}), "components.ranker.gate: found the unknown key 'marge'"),
        (
            changed(trigger={"kind": "intervall"}),
            "found 'intervall'; expected a trigger of the kind interval, ",
        ),
        (changed(trigger={"kind": "interval"}), "interval.every: found nothing; expected a value"),
        (
            changed(trigger={"kind": "interval", "every": "soon"}),
            "found 'soon'; expected a number with a unit",
        ),
        (changed(trigger={"kind": "interval", "every": 10}), "found 10; expected a number with a unit"),
        (
            changed(trigger={"kind": "interval", "every": 86_400_000}),
            "found 86400000; expected a number with a unit",
        ),
        (changed(window=604_800_000_000), "found 604800000000; expected a number with a unit"),
        (changed(window=None), "components.ranker.window: found None; expected"),
        (changed(tick=60_000_000), "tick: found 60000000; expected a number with a unit"),
        (changed(trigger={"kind": "interval", "every": "5s"}), "found 5s for ranker with a tick of 1m"),
        (changed(trigger={"kind": "random", "count": 99, "span": "1h"}), "with a tick of 1m"),
        (changed(trigger={"kind": "cron", "at": "61 * * * *"}), "found '61 * * * *'"),
        (changed(trigger={"kind": "cron", "at": "0 0 30 2 *"}), "expected minute, hour, day, month"),
        (changed(trigger={"kind": "amount", "rows": 5}), "without ingest; expected `ingest: 15m`"),
        (changed(trigger={"kind": "amount"}, ingest="1h"), "found no amount; expected exactly one of"),
        (changed(trigger={"kind": "amount", "rows": 1, "bytes": 2}, ingest="1h"), "found rows and bytes"),
        (changed(trigger={"kind": "amount", "rows": 0}, ingest="1h"), "found 0; expected greater than"),
        (changed(trigger={"kind": "any", "of": [{"kind": "never"}]}), "found"),
        (changed(trigger={"kind": "all", "of": [{"kind": "never"}] * 2}), "found never within all"),
        (
            changed(trigger={"kind": "any", "of": [{"kind": "always"}] * 2}, ingest="1h"),
            "found always within",
        ),
        (changed(trigger={"kind": "performance", "false_alarms": 0}, ingest="1h"), "found 0; expected"),
        (
            changed(trigger={"kind": "performance", "expected": 0.01, "tolerance": 0.02}, ingest="1h"),
            "found expected 0.01 with a tolerance of 0.02; expected more than that",
        ),
        (changed(fraction=1.5), "components.ranker.fraction: found 1.5; expected less than or equal to 1"),
        (changed(fraction=float("nan")), "components.ranker.fraction: found nan"),
        (changed(half_life="0d"), "components.ranker.half_life: found '0d'; expected a number with a unit"),
        (
            changed(components={"indexes": BASE["components"]["ranker"] | {"half_life": "2d"}}),
            "found half_life 2d for indexes; expected none: only encoder and ranker",
        ),
        (changed(start="tepid"), "found 'tepid'; expected 'cold' or 'warm'"),
        (changed(window="10m"), "found a window of 10m; expected more than 30m"),
        (changed(ingest="1s"), "found ingest 1s with a tick of 1m"),
        (changed(name="Mine!"), "name: found 'Mine!'"),
        (changed(components={}), "components: found {}"),
        (changed(components={"rankr": BASE["components"]["ranker"]}), "found 'rankr'; expected 'text_class"),
        (
            changed(components={"indexes": BASE["components"]["ranker"] | {"start": "warm"}}),
            "found a warm start for indexes",
        ),
        (
            changed(components={"indexes": BASE["components"]["ranker"] | {"fraction": 0.5}}),
            "found fraction 0.5 for indexes",
        ),
        ([1], "found a list; expected a name and components"),
        (None, "found nothing; expected a name and components"),
    ],
)
def test_what_is_wrong_is_one_line(data: Any, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_policy(yaml.safe_dump(data), source="p.yaml")
    text = str(error.value)
    assert said in text
    assert text.startswith("p.yaml: ")
    assert "\n" not in text
    assert "docs/policies.md" in text


@pytest.mark.parametrize(
    "text",
    [
        "name: [", "a: 1\na: 2\n", "name: !!python/object:os.system x", "\t",
        "? [a]\n: 1\n", "components: {{a: b}: 1}", "name: 2024-13-45", "a: " + "[" * 5_000,
    ],
)  # fmt: skip
def test_what_is_no_plain_yaml_is_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match="is no YAML") as error:
        parse_policy(text)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the policy"):
        load_policy(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot read the policy"):
        load_policy(tmp_path / "bytes.yaml")


def test_durations_are_written_as_they_are_read() -> None:
    for text in ("90s", "15m", "6h", "1d", "36h", "14d"):
        assert duration_text(parse_duration(text)) == text
    for us in (1, 1_234_567_500_001, 90 * DAY_US + 1_500_000):
        assert parse_duration(duration_text(us)) == us
    assert parse_duration("1.5d") == 36 * HOUR_US
    assert parse_duration("2w") == 14 * DAY_US


def test_components_are_those_that_can_be_refreshed() -> None:
    from flows.offline.refresh import COMPONENTS as REFRESHED

    assert {"index" if c == "indexes" else c for c in COMPONENTS} == set(REFRESHED) - {"all"}
