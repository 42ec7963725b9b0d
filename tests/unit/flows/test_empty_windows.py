"""A window that teaches nothing is one line and changes nothing; a catalogue without clicks works."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest

from data.schema import ITEM_UPSERT, event_table
from data.segments import write_segments
from data.snapshots import published
from data.sources import fashion_mnist
from data.sources.tables import import_csv
from flows.cli import main
from flows.offline import photos
from flows.offline.gate import judge
from flows.offline.inputs import load_inputs
from flows.offline.refresh import make, opened, refresh
from flows.offline.train import Parts
from infra.clock import DAY_US, open_clock
from infra.errors import DataError, EnvironmentError_
from infra.registry import open_registry
from infra.settings import Settings
from models.release import Artifact, champion, list_releases, load_release
from tests.unit.flows.own_log import KINDS, write_full, write_minimal

pytestmark = pytest.mark.slow  # trains whole releases


def items(settings: Settings, n: int, *, at_us: int, kinds: int = 4, photo: int = -1) -> None:
    """A segment with new items of so many categories, at a shop time."""
    names = list(KINDS)[:kinds]
    fields = [
        {"title": f"{KINDS[names[i % kinds]]} {names[i % kinds]} {i}", "category": names[i % kinds]}
        | ({"photo": photo + i, "department": names[i % kinds]} if photo >= 0 else {})
        for i in range(n)
    ]
    columns = {
        "event_id": np.arange(n) + (1 << 60) + at_us % (1 << 30),
        "kind": ITEM_UPSERT,
        "event_time": at_us,
        "known_time": at_us,
        "item_id": np.arange(n) + 1,
        "payload": [orjson.dumps(f).decode() for f in fields],
    }
    write_segments(event_table(columns), settings.layout.segments, name=f"items-{at_us}")


def a_shop(root: Path, migrated_registry: Path, write: Callable[[Path], Path] | None) -> Settings:
    """A home without a release. `write`: makes the log of clicks; none at all where it is None."""
    settings = Settings(home=root / "home", cache=root / "cache")
    shutil.copytree(migrated_registry, settings.layout.mlflow)
    if write is not None:
        import_csv(write(root / "log"), settings.layout)
    else:
        items(settings, 40, at_us=open_clock(settings.layout.clock).now_us() - 60 * DAY_US)
    return settings


@pytest.fixture
def clicks(
    request: pytest.FixtureRequest, tmp_path: Path, migrated_registry: Path, as_nice_as_before: None
) -> Settings:
    """A shop whose clicks are a month older than its newest item: the newest week has none."""
    write = {"searches": write_full, "clicks alone": write_minimal}[getattr(request, "param", "searches")]
    return a_shop(tmp_path, migrated_registry, write)


def then_quiet(settings: Settings) -> None:
    """A month goes by, then comes an item."""
    newest = 1_700_000_000_000_000 + 33 * DAY_US
    items(settings, 1, at_us=newest)


def nothing_happened(settings: Settings, releases: list[str], live: str | None) -> None:
    """No release beside these, neither published nor in the registry, and the champion stays."""
    assert [m.release_id for m in list_releases(settings.layout)] == releases
    assert sorted(r["release_id"] for r in open_registry(settings.layout.mlflow).releases()) == sorted(
        releases
    )
    assert champion(settings.layout) == live
    assert list(settings.layout.making.glob("*")) == []


@pytest.mark.parametrize("clicks", ["searches", "clicks alone"], indirect=True)
def test_a_first_release_is_not_made_of_an_empty_window(
    clicks: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    then_quiet(clicks)
    asked = ["refresh", "--home", str(clicks.home)]
    assert main(asked) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("shelflife: ")]
    assert "nothing to learn an encoder from in a window of 7 days (0 of the " in line
    assert "widen the window" in line
    nothing_happened(clicks, [], None)
    report = refresh(clicks, window_d=60.0)
    assert report["promoted"]
    assert report["metrics"]["encoder"]["pairs"] > 0


@pytest.mark.parametrize("clicks", ["searches", "clicks alone"], indirect=True)
def test_what_was_learnt_stays_where_the_window_is_empty(clicks: Settings) -> None:
    live = refresh(clicks)["release_id"]
    then_quiet(clicks)
    ranked = load_release(clicks.layout, live).ranker is not None
    said = {"encoder": "nothing to learn an encoder from", "all": "nothing to learn an encoder from"}
    said["ranker"] = "no clicks among" if ranked else ""
    for component, words in said.items():
        if words:
            with pytest.raises(DataError, match=words):
                refresh(clicks, component=component)
            nothing_happened(clicks, [live], live)
    report = refresh(
        clicks, component="text_classifier,index"
    )  # of the catalogue: an empty window is no harm
    assert {"vector_index", "lexical_index", "speller"} <= set(report["made"])
    assert "text_classifier" in report["made"] or not ranked  # ids for titles: no categories
    assert report["promoted"]


def test_all_clicks_gone_do_not_unlearn_an_encoder(clicks: Settings) -> None:
    """As where retention has removed them."""
    refresh(clicks)
    then_quiet(clicks)
    inputs = load_inputs(clicks.layout, window_d=None)
    inputs = replace(inputs, events=inputs.events.slice(0, 0))
    parts = Parts.of(opened(clicks))
    with pytest.raises(DataError, match="the champion's has learnt from clicks; wait for traffic"):
        make("encoder", clicks, inputs, parts, warm=False)
    made = make("encoder", clicks, inputs, Parts(), warm=False)  # of a catalogue without clicks
    assert made.artifacts["encoder"].metrics["pairs"] == 0
    assert make("ranker", clicks, inputs, made, warm=False).made == made.made


def test_a_fraction_that_holds_nothing_is_one_line(clicks: Settings) -> None:
    refresh(clicks)
    inputs = load_inputs(clicks.layout, window_d=None, fraction=1e-6)
    live = Parts.of(opened(clicks))
    for component, parts in (
        ("encoder", Parts()),
        ("encoder", live),
        ("text_classifier", Parts()),
        ("text_classifier", live),
        ("ranker", Parts()),  # beside a ranker it is told by the new one itself
    ):
        what = component.replace("_", " ")
        said = f"nothing to learn an? {what} from in all that is kept, fraction 1e-06"
        with pytest.raises(DataError, match=said):
            make(component, clicks, inputs, parts, warm=False)


def test_clicks_that_count_nothing_are_none(clicks: Settings) -> None:
    then_quiet(clicks)
    with pytest.raises(DataError, match=r"half-life 0\.001 days"):
        refresh(clicks, window_d=60.0, half_life_d=0.001)
    nothing_happened(clicks, [], None)


def test_one_category_makes_no_classifier_and_says_so(
    tmp_path: Path, migrated_registry: Path, as_nice_as_before: None, caplog: pytest.LogCaptureFixture
) -> None:
    settings = a_shop(tmp_path, migrated_registry, None)
    report = refresh(settings)
    assert "text_classifier" in report["made"]
    items(settings, 40, at_us=published(settings.layout).watermark_us + DAY_US, kinds=1)
    assert "text_classifier" not in caplog.text
    report = refresh(settings, component="text_classifier")
    assert report["promoted"]
    assert "goes without text_classifier: the catalogue has fewer than two categories" in caplog.text
    assert load_release(settings.layout, report["release_id"]).text_classifier is None


def test_a_catalogue_without_clicks_works_again_and_again(
    tmp_path: Path, migrated_registry: Path, as_nice_as_before: None
) -> None:
    settings = a_shop(tmp_path, migrated_registry, None)
    first = refresh(settings)
    assert first["promoted"]
    assert set(first["made"]) == {
        "text_classifier", "encoder", "vector_index", "lexical_index", "speller",
    }  # fmt: skip
    again = refresh(settings)
    assert again["release_id"] == first["release_id"]  # the same data, the same release
    items(settings, 41, at_us=published(settings.layout).watermark_us + DAY_US)
    for component in ("encoder", "ranker", "all"):
        report = refresh(settings, component=component)
        assert report["champion"] == report["release_id"], component


def test_photos_that_are_gone_are_one_line(
    tmp_path: Path, migrated_registry: Path, as_nice_as_before: None
) -> None:
    settings = a_shop(tmp_path, migrated_registry, None)
    items(settings, 40, at_us=open_clock(settings.layout.clock).now_us() - 50 * DAY_US, photo=5)
    refresh(settings)  # without the photos at hand it goes without
    inputs = load_inputs(settings.layout, window_d=None)
    parts = Parts.of(opened(settings))
    assert make("image_classifier", settings, inputs, parts, warm=False).made == ()
    had = replace(
        parts,
        artifacts=parts.artifacts
        | {n: Artifact(n, f"{n}-1", {}, 0) for n in ("image_classifier", "image_index")},
    )
    for name in ("image_classifier", "image_index"):
        with pytest.raises(EnvironmentError_, match="fetch them again with `shelflife data fetch"):
            make(name, settings, inputs, had, warm=False)


def test_a_fraction_without_photos_is_one_line_and_a_catalogue_without_goes_without(
    tmp_path: Path,
    migrated_registry: Path,
    as_nice_as_before: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = a_shop(tmp_path, migrated_registry, None)
    items(settings, 40, at_us=open_clock(settings.layout.clock).now_us() - 50 * DAY_US, photo=5)
    refresh(settings)
    monkeypatch.setattr(fashion_mnist, "is_cached", lambda _: True)
    inputs = load_inputs(settings.layout, window_d=None, fraction=1e-6)
    both = {n: Artifact(n, f"{n}-1", {}, 0) for n in ("image_classifier", "image_index")}
    parts = Parts.of(opened(settings))
    had = replace(parts, artifacts=parts.artifacts | both)
    with pytest.raises(DataError, match="nothing to learn an image classifier from"):
        make("image_classifier", settings, inputs, had, warm=False)
    monkeypatch.setattr(photos, "MAX_PHOTOS", 0)
    inputs.state.items.photo[:] = -1
    assert set(make("image_classifier", settings, inputs, had, warm=False).artifacts) == set(parts.artifacts)
    assert "goes without image_classifier and image_index: the catalogue has no photos" in caplog.text


def test_the_gate_refuses_what_has_unlearnt(clicks: Settings) -> None:
    """However it was made: without a ranker there is no ranking to compare."""
    live = load_release(clicks.layout, refresh(clicks)["release_id"])
    inputs = load_inputs(clicks.layout, window_d=1.0)
    encoder = live.manifest.artifacts["encoder"]
    untaught = replace(encoder, metrics={"pairs": 0.0})
    manifest = replace(live.manifest, artifacts=live.manifest.artifacts | {"encoder": untaught})
    verdict = judge(inputs, replace(live, manifest=manifest, ranker=None), replace(live, ranker=None))
    assert not verdict.passed
    assert "its encoder has learnt from no clicks, the champion's from some" in verdict.reasons[0]
    assert judge(inputs, replace(live, ranker=None), replace(live, ranker=None)).passed
    never = replace(live, manifest=manifest, ranker=None)
    assert judge(inputs, never, never).passed  # a catalogue without clicks goes on
