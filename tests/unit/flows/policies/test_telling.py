"""What is told of policies: the schema and the docs, the week ahead, estimates from recorded runs, status."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from jsonschema import Draft202012Validator

from data.segments import write_segments
from data.store import ingest_segments
from flows import cli
from flows.offline import gate, inputs
from flows.policies import policy as policies
from flows.policies.costs import NEWEST, Recorded
from flows.policies.estimate import estimate
from flows.policies.home import DEFAULT, default_policy, set_policy
from flows.policies.live import Live
from flows.policies.policy import Gate, parse_policy, policy_schema, policy_text
from flows.policies.show import STRIP, foretold, shown
from flows.policies.triggers.trigger import shop_time
from infra.clock import DAY_US, HOUR_US, ManualClock
from infra.settings import REPOSITORY, Home, Settings
from tests.registry_fake import FakeRegistry
from tests.unit.flows.policies.made_log import START_US, made_log
from tests.unit.flows.policies.test_live import Shop
from tests.unit.flows.policies.test_replay import DAILY, policy

DOCS = REPOSITORY / "docs"


def test_the_schema_in_the_docs_is_current() -> None:
    held = json.loads((DOCS / "policy.schema.json").read_text())
    assert held == policy_schema(), "run `shelflife policy schema > docs/policy.schema.json`"


def with_default(schema: Any) -> Iterator[dict[str, Any]]:
    """The parts of a schema that have a default."""
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        if isinstance(part, dict) and "default" in part and "properties" not in part:
            yield part
        yield from with_default(part)


def test_the_schema_takes_its_own_defaults_and_what_is_read_and_nothing_else() -> None:
    schema = policy_schema()
    found = list(with_default(schema))
    assert len(found) > 15
    for part in found:
        Draft202012Validator({**part, "$defs": schema["$defs"]}).validate(part["default"])
    assert schema["properties"]["tick"]["default"] == "1m"
    assert schema["$defs"]["ComponentPolicy"]["properties"]["window"]["default"] == "7d"
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", (DOCS / "policies.md").read_text(), flags=re.M | re.S)
    whole = Draft202012Validator(schema)
    for text in (example, DEFAULT, policy_text(parse_policy(example))):
        whole.validate(yaml.safe_load(text))
    assert not whole.is_valid(yaml.safe_load(DEFAULT) | {"tick": 60_000_000})
    tick = default_policy().model_copy(update={"tick": 1}).model_dump(mode="json")["tick"]
    assert (default_policy().tick, tick) == (60_000_000, "0.000001s")


def test_the_example_of_the_docs_is_a_policy_and_every_key_stands_there() -> None:
    text = (DOCS / "policies.md").read_text()
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", text, flags=re.M | re.S)
    assert parse_policy(example).name == "by-need"
    models = policy_schema()["$defs"]
    keys = {key for model in models.values() for key in model.get("properties", {})}
    missing = sorted(k for k in keys - {"kind"} if f"`{k}`" not in text)
    assert missing == []


def test_limits_and_delays_are_those_of_the_gate_and_the_inputs() -> None:
    assert gate.GateLimits(**Gate().model_dump()) == gate.GateLimits()
    assert policies.LABEL_DELAY_US == inputs.LABEL_DELAY_US


def test_the_week_ahead_is_what_will_fire(home: Home) -> None:
    document = shown(parse_policy(DEFAULT), now_us=START_US)
    assert document["components"]["indexes"]["runs_in_a_week"] == 7 * 24
    ranker = document["components"]["ranker"]
    assert ranker["next_us"] == [START_US + d * DAY_US for d in range(1, 8)]
    assert len(ranker["strip"]) == STRIP
    assert [i for i, mark in enumerate(ranker["strip"]) if mark == "█"] == list(range(8, STRIP, 8))
    waits = shown(policy(ranker={"kind": "amount", "rows": 9}), now_us=START_US)["components"]["ranker"]
    assert (waits["next_us"], waits["runs_in_a_week"]) == ([], None)


def test_what_is_next_is_a_row_for_each_component(home: Home) -> None:
    set_policy(home, policy(ranker=DAILY, indexes={"kind": "amount", "rows": 9}))
    shop = Shop(home)
    live = Live(home, shop, clock=shop.clock)
    live.tick()
    ranker, indexes = live.upcoming()
    tomorrow = shop_time(START_US + DAY_US)
    assert ranker["next, shop time"] == tomorrow
    assert ranker["the trigger says"] == f"every 1d: next at {tomorrow}"
    assert (indexes["is made anew"], indexes["next, shop time"]) == ("9 new rows", "when it fires")


def test_what_is_foretold_goes_on_from_what_the_triggers_remember(home: Home) -> None:
    p = policy(None, ranker=DAILY)
    set_policy(home, p)
    shop = Shop(home)
    Live(home, shop, clock=shop.clock).tick()
    later = START_US + 7 * HOUR_US
    assert foretold(p, now_us=later, layout=home)["ranker"][0] == START_US + DAY_US
    assert foretold(p, now_us=later)["ranker"][0] == later + DAY_US


def recorded(
    *cpu: float,
    artifact: str = "ranker",
    warm: str = "",
    half_life_d: float | None = None,
    to: FakeRegistry | None = None,
    **params: Any,
) -> FakeRegistry:
    registry = to or FakeRegistry()
    for seconds in cpu:
        snapshot = {"recipe": {"warm": warm}, "half_life_d": half_life_d}
        record: dict[str, Any] = {"resources": {"cpu_s": seconds}, "metrics": {}, "snapshot": snapshot}
        params = {"window_d": 7.0, "fraction": 1.0} | params
        registry.log_training(artifact, params=params, lineage={}, artifact={}, **record)
    return registry


def test_an_estimate_rests_on_recorded_runs(home: Home) -> None:
    settings = Settings(home=home.root)
    p = policy(None, ranker={"kind": "interval", "every": "6h"})
    found = estimate(p, settings, registry=recorded(10.0, 12.0, 14.0))
    assert found["runs_per_day"] == pytest.approx(4.0, abs=0.1)
    assert found["cpu_s_per_day"] == pytest.approx(48.0, rel=0.03)
    assert found["low"] < 48.0 < found["high"]
    assert found["recorded_runs"] == 3
    more = estimate(p, settings, registry=recorded(*[10.0, 12.0, 14.0] * 10))
    assert more["high"] - more["low"] < found["high"] - found["low"]
    assert any("no recorded refresh" in note for note in found["notes"])


def test_an_estimate_says_what_it_does_not_know(home: Home) -> None:
    settings = Settings(home=home.root)
    none = estimate(policy(None, ranker=DAILY), settings, registry=FakeRegistry())
    assert none["cpu_s_per_day"] is None
    assert any("no recorded run of ranker" in note for note in none["notes"])
    one = estimate(policy(None, ranker=DAILY), settings, registry=recorded(10.0))
    assert any("single recorded run" in note for note in one["notes"])
    assert (one["low"], one["high"]) == (None, None)
    assert one["cpu_s_per_day"] == pytest.approx(10.0)
    waits = policy(ranker={"kind": "amount", "rows": 9})
    unfired = estimate(waits, settings, registry=recorded(10.0))
    assert unfired["runs_per_day"] is None
    assert any("nothing is ingested" in note for note in unfired["notes"])
    third = policy(None, ranker={"trigger": DAILY, "fraction": 0.5})
    scaled = estimate(third, settings, registry=recorded(10.0, 12.0))
    assert scaled["components"]["ranker"]["cpu_s_per_run"] == pytest.approx(5.5)
    assert any("scaled" in note for note in scaled["notes"])


def test_what_fires_more_rarely_than_a_month_is_not_nothing(home: Home) -> None:
    settings = Settings(home=home.root)
    for every, a_day in (("60d", 1 / 60), ("400d", 1 / 400)):
        p = policy(None, ranker={"kind": "interval", "every": every})
        found = estimate(p, settings, registry=recorded(10.0, 12.0, 14.0))
        assert found["runs_per_day"] == pytest.approx(a_day, rel=0.1)
        assert found["cpu_s_per_day"] == pytest.approx(12.0 * a_day, rel=0.1)
    registry = recorded(10.0, 12.0)
    recorded(30.0, 31.0, artifact="text_classifier", to=registry)
    p = policy(None, ranker=DAILY, text_classifier={"kind": "interval", "every": "9999w"})
    found = estimate(p, settings, registry=registry)
    assert found["components"]["text_classifier"]["runs_per_day"] is None
    assert any("text_classifier: not fired" in note for note in found["notes"])
    assert (found["low"], found["high"]) == (None, None)
    assert found["cpu_s_per_day"] == pytest.approx(11.0, rel=0.01)
    never = estimate(policy(None, ranker={"kind": "never"}), settings, registry=FakeRegistry())
    assert (never["cpu_s_per_day"], never["low"], never["high"]) == (0.0, 0.0, 0.0)


def test_what_a_run_makes_for_several_components_is_counted_once(home: Home) -> None:
    settings, registry = Settings(home=home.root), FakeRegistry()
    cost = {"encoder": 100.0, "vector_index": 20.0, "ranker": 10.0, "lexical_index": 5.0, "image_index": 2.0,
            "speller": 1.0}  # fmt: skip
    for artifact, seconds in cost.items():
        recorded(seconds, seconds, artifact=artifact, to=registry)
    p = policy(None, encoder=DAILY, ranker=DAILY, indexes=DAILY)
    found = estimate(p, settings, registry=registry)
    assert found["cpu_s_per_day"] == pytest.approx(sum(cost.values()))
    by_component = [part["cpu_s_per_day"] for part in found["components"].values()]
    assert sum(by_component) == pytest.approx(sum(cost.values()))
    assert found["components"]["indexes"]["cpu_s_per_run"] == pytest.approx(28.0)
    apart = policy(None, encoder=DAILY, ranker={"trigger": DAILY, "gate": {"margin": 0.1}}, indexes=DAILY)
    twice = estimate(apart, settings, registry=registry)
    assert twice["cpu_s_per_day"] == pytest.approx(sum(cost.values()) + cost["ranker"])


def test_an_estimate_names_every_artifact_that_it_lacks_and_gives_no_range_then(home: Home) -> None:
    settings = Settings(home=home.root)
    p = policy(None, image_classifier=DAILY, ranker=DAILY)
    registry = recorded(10.0, 12.0)
    recorded(3.0, 4.0, artifact="image_classifier", to=registry)
    found = estimate(p, settings, registry=registry)
    assert any("no recorded run of image_index:" in note for note in found["notes"])
    assert (found["low"], found["high"]) == (None, None)
    assert found["cpu_s_per_day"] == pytest.approx(14.5)
    home.run.mkdir(parents=True, exist_ok=True)
    made = {"ranker": "ranker-1", "text_classifier": "text_classifier-1"}  # a shop without photos
    line = {"component": "all", "made": made, "process_cpu_s": 5.0, "train_cpu_s": {"ranker": 4.0}}
    (home.run / "refreshes.jsonl").write_text(json.dumps(line) + "\n" + json.dumps(line) + "\n")
    found = estimate(p, settings, registry=recorded(10.0, 12.0))
    assert any("image_classifier, image_index: this home has nothing" in note for note in found["notes"])
    assert found["cpu_s_per_day"] == pytest.approx(12.0)
    assert found["low"] < 12.0 < found["high"]


def test_an_estimate_tells_warm_starts_from_cold_ones(home: Home) -> None:
    settings, registry = Settings(home=home.root), recorded(10.0, 12.0)
    warm = policy(None, ranker={"trigger": DAILY, "start": "warm"})
    found = estimate(warm, settings, registry=registry)
    assert found["cpu_s_per_day"] == pytest.approx(11.0)
    assert any("no recorded run that began warm" in note for note in found["notes"])
    recorded(2.0, 4.0, warm="ab12", to=registry)
    found = estimate(warm, settings, registry=registry)
    assert found["cpu_s_per_day"] == pytest.approx(3.0)
    assert not any("began" in note for note in found["notes"])
    assert estimate(policy(None, ranker=DAILY), settings, registry=registry)["cpu_s_per_day"] == 11.0


def test_an_estimate_takes_trainings_of_the_same_half_life_first(home: Home) -> None:
    settings, registry = Settings(home=home.root), recorded(10.0, 12.0)
    fading = policy(None, ranker={"trigger": DAILY, "half_life": "36h"})
    assert estimate(fading, settings, registry=registry)["cpu_s_per_day"] == pytest.approx(11.0)
    recorded(20.0, 24.0, half_life_d=1.5, to=registry)
    assert estimate(fading, settings, registry=registry)["cpu_s_per_day"] == pytest.approx(22.0)
    assert estimate(policy(None, ranker=DAILY), settings, registry=registry)["cpu_s_per_day"] == 11.0


def test_the_newest_trainings_count_however_many_there_are(home: Home) -> None:
    class Long(FakeRegistry):
        """Lists no more than the newest thousand, as the real one."""

        def recorded(self, name: str, *, most: int = 1_000) -> list[dict[str, Any]]:
            return super().recorded(name, most=min(most, 1_000))

    registry = recorded(*[100.0] * 1_500, *[10.0] * NEWEST, to=Long())
    found = estimate(policy(None, ranker=DAILY), Settings(home=home.root), registry=registry)
    assert (found["cpu_s_per_day"], found["recorded_runs"]) == (10.0, NEWEST)


def test_an_estimate_of_a_trigger_that_waits_for_data_replays_the_log(home: Home) -> None:
    write_segments(made_log(days=3, sessions_per_day=200), home.segments, name="a", durable=False)
    ingest_segments(home, allowed_lateness_us=HOUR_US, clock=ManualClock(START_US + 4 * DAY_US))
    p = policy(ranker={"kind": "amount", "events": 60})
    found = estimate(p, Settings(home=home.root), registry=recorded(10.0, 11.0))
    assert "replay of the last 3.0 days" in found["basis"]
    assert 1.0 < found["runs_per_day"] < 3.0


def test_the_spread_of_a_day_grows_with_what_is_not_known() -> None:
    few, many = Recorded.of([9.0, 10.0, 11.0]), Recorded.of([9.0, 10.0, 11.0] * 20)
    assert few is not None
    assert many is not None
    assert few.of_a_day(4)[0] == many.of_a_day(4)[0] == 40.0
    assert few.of_a_day(4)[1] > many.of_a_day(4)[1]
    rng = np.random.default_rng(1)
    days = rng.normal(many.mean, many.sd or 0.0, (20_000, 4)).sum(axis=1)
    assert np.var(days) == pytest.approx(many.of_a_day(4)[1], rel=0.1)


def run(capsys: Any, home: Home, *arguments: str) -> tuple[int, str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("signal.signal", lambda *_: None)
        code = cli.main([*arguments, "--home", str(home.root)])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_validate_show_and_schema_on_the_command_line(
    capsys: pytest.CaptureFixture[str], home: Home, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(DEFAULT)
    code, out, _ = run(capsys, home, "policy", "validate", str(path))
    assert (code, out) == (
        0,
        f"{path} is a policy: default, for " + ", ".join(default_policy().components) + "\n",
    )
    code, out, _ = run(capsys, home, "policy", "show", str(path))
    assert code == 0
    assert "every 1h" in out
    assert out.count("█") > 50
    code, out, _ = run(capsys, home, "policy", "show", "--json")
    assert json.loads(out.splitlines()[-1])["policy"] == "default"
    code, out, _ = run(capsys, home, "policy", "schema")
    assert json.loads(out) == policy_schema()
    path.write_text(DEFAULT.replace("every", "evry"))
    code, out, err = run(capsys, home, "policy", "validate", str(path))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "did you mean 'every'?" in err


def test_estimate_on_the_command_line(
    capsys: pytest.CaptureFixture[str], home: Home, registry_folder: Path
) -> None:
    code, out, _ = run(capsys, home, "policy", "estimate")
    assert code == 0
    assert "what it costs is not known" in out
    assert "no recorded run of encoder, image_classifier" in out


def test_up_refuses_a_wrong_policy_before_anything_is_done(
    capsys: pytest.CaptureFixture[str], home: Home, tmp_path: Path
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("name: x\n")
    code, _, err = run(capsys, home, "up", "--policy", str(path))
    assert code == 2
    assert "components: found nothing" in err
    assert list(home.root.iterdir()) == []
