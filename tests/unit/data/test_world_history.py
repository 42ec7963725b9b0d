"""The generated history: determinism, completeness, propensities, nothing hidden in it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pytest

from data.schema import (
    CART,
    CLICK,
    EVENT_SCHEMA,
    IMPRESSION,
    ITEM_DELETE,
    ITEM_FIELDS,
    ITEM_UPSERT,
    KINDS,
    ORDER,
    SEARCH,
    USER_UPSERT,
)  # fmt: skip
from data.segments import read_segment
from data.world.config import START_US, WorldConfig, world_config
from data.world.history import generate, history_days
from data.world.logging_policy import random_places
from data.world.shop import World, build_world
from infra.clock import DAY_US
from infra.errors import ConfigError, DataError
from infra.settings import Home

TINY = world_config("strong", scale=0.02, days=3, seed=3, activity=0.2)
SMALL = world_config("strong", scale=0.1, days=3, seed=5, activity=0.1)
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def small() -> pa.Table:
    return pa.concat_tables([events for _, _, events in history_days(build_world(SMALL))])


def column(events: pa.Table, name: str) -> np.ndarray:
    return events[name].to_numpy()


def read_all(layout: Home) -> pa.Table:
    return pa.concat_tables([read_segment(p) for p in sorted(layout.segments.glob("*/*/*.parquet"))])


def test_two_processes_make_the_same_world(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from infra.settings import Home\n"
        "from data.world.config import WorldConfig; from data.world.history import generate\n"
        "import json; c = WorldConfig.from_json(json.loads(sys.argv[2]))\n"
        "sys.stdout.write(generate(c, Home(Path(sys.argv[1]))).content_hash)"
    )
    config = orjson.dumps(TINY.to_json()).decode()
    hashes = [
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / name), config],
            env={**os.environ, "PYTHONHASHSEED": name, "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for name in ("1", "2")
    ]
    assert hashes[0] == hashes[1] != ""
    assert generate(replace(TINY, seed=4), Home(tmp_path / "3")).content_hash != hashes[0]


def test_more_days_leave_the_first_days_as_they_are() -> None:
    short = [e for _, _, e in history_days(build_world(TINY))]
    long_world = build_world(replace(TINY, days=9))
    for before, (_, _, after) in zip(short, history_days(long_world, days=3), strict=True):
        # NaN is not equal to NaN: compare as text
        for name in EVENT_SCHEMA.names:
            assert before[name].cast(pa.string()).equals(after[name].cast(pa.string())), name


def test_segments_hold_the_whole_history_and_the_world_reopens(tmp_path: Path) -> None:
    layout, seen = Home(tmp_path), []
    summary = generate(TINY, layout, progress=lambda done, days: seen.append((done, days)))
    events = read_all(layout)
    assert events.num_rows == summary.events > 1_000
    assert seen == [(1, 3), (2, 3), (3, 3)]
    counts = np.bincount(column(events, "kind"), minlength=len(KINDS))
    assert dict(zip(KINDS, counts.tolist(), strict=True)) == summary.rows
    assert len(np.unique(column(events, "event_id"))) == events.num_rows
    opened, built = World.open(layout), build_world(TINY)
    plan = opened.day(2)
    assert plan.query == built.day(2).query
    ids = np.arange(1, 60)
    assert np.array_equal(opened.relevance(plan, 3, ids), built.relevance(plan, 3, ids))
    assert not list(tmp_path.glob(".world*"))


def test_the_same_world_is_kept_and_another_refused_unless_forced(tmp_path: Path) -> None:
    layout = Home(tmp_path)
    first = generate(TINY, layout)
    assert generate(TINY, layout) == first
    other = replace(TINY, days=2)
    with pytest.raises(DataError, match=r"another world .*days.*--force"):
        generate(other, layout)
    assert read_all(layout).num_rows == first.events
    second = generate(other, layout, force=True)
    assert read_all(layout).num_rows == second.events < first.events


def test_a_killed_generation_leaves_no_world_and_the_next_one_is_clean(tmp_path: Path) -> None:
    layout = Home(tmp_path)

    def stop(done: int, days: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(TINY, layout, progress=stop)
    assert not list(tmp_path.rglob("*.parquet"))
    with pytest.raises(DataError, match="world generate"):
        World.open(layout)
    (tmp_path / ".world.999999999.tmp").mkdir()  # as a kill -9 leaves it
    stray = layout.segments / "2026-01-05" / "03" / "world-0007.parquet"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"half")
    summary = generate(TINY, layout)
    assert read_all(layout).num_rows == summary.events
    assert not list(tmp_path.glob(".world*"))


def test_history_needs_no_truth_but_opening_the_world_does(tmp_path: Path) -> None:
    layout = Home(tmp_path)
    generate(TINY, layout)
    whole = (layout.truth / "truth.npz").read_bytes()
    for part in (b"", whole[:1000], whole[:-1000]):
        (layout.truth / "truth.npz").write_bytes(part)
        with pytest.raises(DataError, match="truth"):
            World.open(layout)
    (layout.truth / "truth.npz").unlink()
    assert read_all(layout).num_rows > 0
    with pytest.raises(DataError, match="truth"):
        World.open(layout)


def test_nothing_hidden_is_in_the_events(small: pa.Table) -> None:
    assert small.schema.equals(EVENT_SCHEMA)
    kinds = column(small, "kind")
    payloads = small["payload"].to_pylist()
    for i in np.flatnonzero(kinds == ITEM_UPSERT):
        payload = orjson.loads(payloads[i])
        assert set(payload) <= set(ITEM_FIELDS)
        assert payload["item_id"] == column(small, "item_id")[i]
    born = [orjson.loads(p) for p in payloads if '"created_at"' in p]
    assert len(born) >= SMALL.n_items
    assert all(tuple(b) == ITEM_FIELDS for b in born)
    users = [orjson.loads(payloads[i]) for i in np.flatnonzero(kinds == USER_UPSERT)]
    assert len(users) == SMALL.n_users
    assert all(set(u) == {"gender", "age", "purchasing_power"} for u in users)
    assert {u["gender"] for u in users} == {0, 1}
    assert all(0 <= u["age"] <= 149 and 0 <= u["purchasing_power"] <= 6 for u in users)
    assert set(small["payload"].filter(pa.array(kinds < ITEM_UPSERT)).to_pylist()) == {""}


def test_events_are_consistent(small: pa.Table) -> None:
    kind, item, at = (column(small, n) for n in ("kind", "item_id", "event_time"))
    request, position = column(small, "request_id"), column(small, "position")
    assert np.all(
        np.diff(column(small, "known_time")) >= -30 * 60 * 1_000_000
    )  # days overlap by late reactions
    assert np.all(column(small, "known_time") >= at)
    shown = {(r, i): p for r, i, p in zip(
        *(x[kind == IMPRESSION] for x in (request, item, position)), strict=True)}  # fmt: skip
    assert len(shown) == int((kind == IMPRESSION).sum())  # no item twice on a page
    times: dict[tuple[int, int, int], int] = {}
    for k, r, i, p, t in zip(kind, request, item, position, at, strict=True):
        if k in (CLICK, CART, ORDER):
            assert shown[(r, i)] == p
            times[(k, r, i)] = t
            if k != CLICK:
                assert times[(k - 1, r, i)] < t
    searches = kind == SEARCH
    surface = column(small, "surface")
    assert set(surface[searches].tolist()) <= {1, 2}
    assert set(surface[kind == IMPRESSION].tolist()) >= {1, 3}
    born, dead = {}, {}
    for k, i, t in zip(kind, item, at, strict=True):
        if k == ITEM_UPSERT:
            born.setdefault(i, t)
        elif k == ITEM_DELETE:
            dead[i] = t
    assert dead
    for i, t in zip(item[kind == IMPRESSION], at[kind == IMPRESSION], strict=True):
        assert born[i] <= t < dead.get(i, t + 1)


def test_propensities_are_those_of_the_randomised_slots() -> None:
    config = replace(SMALL, days=1, random_slots=3, explore_pool=12, activity=0.3)
    world = build_world(config)
    plan, shown, _ = next(history_days(world))
    random = ~np.isnan(shown.propensity)
    full = np.bincount(shown.request, minlength=len(plan)) == 10
    on_full = random & full[shown.request]
    assert set((shown.position[on_full] % 10).tolist()) == set(random_places(3).tolist())
    assert np.all((shown.propensity[random] >= 1 / 12 - 1e-6) & (shown.propensity[random] <= 1 / 3))
    # Each draw is even over its pool: over many requests the frequency of a rank is its propensity.
    policy = world.logging_policy()
    many = 3_000
    first = int(np.flatnonzero((plan.page == 0) & (plan.surface == 1))[-1])
    ask = plan.request(first)
    drawn = np.array(
        [
            reply.item_ids[~np.isnan(reply.propensity)]
            for k in range(many)
            for reply in [policy.respond(replace(ask, request_id=10**9 + k))]
        ]
    )
    assert drawn.shape == (many, 3)
    assert all(len(set(row)) == 3 for row in drawn.tolist())
    for slot in drawn.T:
        _, counts = np.unique(slot, return_counts=True)
        assert len(counts) == 12
        chi2 = float(((counts - many / 12) ** 2 / (many / 12)).sum())
        assert chi2 < 36.0  # 11 degrees of freedom; beyond is of probability 2e-4


def test_the_policy_answers_as_it_ranked_the_history() -> None:
    world = build_world(TINY)
    plan, shown, _ = next(history_days(world))
    policy = world.logging_policy()
    for i in (0, len(plan) // 2, len(plan) - 1):
        reply = policy.respond(plan.request(i))
        assert reply.item_ids.tolist() == (shown.row[shown.request == i] + 1).tolist()
        assert reply.offset == plan.page[i] * 10


def test_the_future_goes_on_and_ends() -> None:
    world = build_world(TINY)
    plan = world.day(TINY.days + 100)
    assert len(plan) > 0
    assert np.all((plan.time_us - START_US) // DAY_US == TINY.days + 100)
    assert world.catalogue_events(TINY.days + 100).num_rows > 0
    with pytest.raises(DataError, match="more days"):
        world.day(TINY.days + 120)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"drift": "wild"}, "none, mild, strong"),
        ({"churn_per_day": 0.9}, "churn_per_day is 0.9"),
        ({"days": 1.5}, "whole number"),
        ({"scale": float("nan")}, "scale is nan"),
        ({"shuffle_clicks": 1}, "true or false"),
        ({"chrun": 0.1}, "unknown world knob 'chrun'"),
    ],
)
def test_impossible_knobs_are_refused(knobs: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        world_config(**knobs)  # type: ignore[arg-type]


def test_a_config_survives_json() -> None:
    assert WorldConfig.from_json(orjson.loads(orjson.dumps(SMALL.to_json()))) == SMALL
    assert world_config("strong", scale=None, churn_per_day=0.0).churn_per_day == 0.0


def test_wrong_labels_are_refused() -> None:
    with pytest.raises(DataError, match=r"uint8 \[70000\]"):
        build_world(TINY, np.zeros(10, np.uint8))
    with pytest.raises(DataError, match="0 to 9"):
        build_world(TINY, np.zeros(70_000, np.uint8))


def test_the_document_names_every_knob_with_its_default() -> None:
    rows = {
        cells[0].strip(" `"): [c.strip() for c in cells[1:4]]
        for line in (ROOT / "docs" / "world.md").read_text().splitlines()
        if line.startswith("| `") and len(cells := line.strip("|").split("|")) == 5
    }
    defaults = WorldConfig().to_json()
    assert set(rows) == set(defaults)
    for name, (none, mild, strong) in rows.items():
        for drift, text in (("none", none), ("mild", mild), ("strong", strong)):
            value = world_config(drift).to_json()[name]
            if text:
                assert orjson.loads(text.replace("−", "-")) == value, name
            else:
                assert value == defaults[name], name
