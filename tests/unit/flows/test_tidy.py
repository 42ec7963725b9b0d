"""What a home keeps of its past, and what a kill leaves beside it."""

from __future__ import annotations

import os
import threading
from dataclasses import asdict, replace

import pytest

from flows.cli import main
from flows.commands.releases import describe
from flows.demo.live import Live, ScoredStretch
from flows.demo.record import _swap_marks
from flows.offline.crown import barred, promoting
from flows.offline.refresh import refresh
from flows.offline.tidy import tidy
from infra.errors import DataError
from infra.registry import open_registry
from infra.settings import Settings
from models.release import (
    champion,
    champion_record,
    list_releases,
    load_release,
    make_release,
    publish,
    put_artifact,
    read_manifest,
    set_champion,
)
from models.speller import Speller

pytestmark = pytest.mark.slow  # stands on a trained release


def another(settings: Settings, number: int) -> str:
    """Publish the champion's parts with a speller of its own."""
    layout = settings.layout
    old = read_manifest(layout, str(champion(layout)))
    folder = settings.home / f"speller{number}"
    Speller.fit({f"word{number}": 1}).save(folder)
    speller = put_artifact(layout, "speller", folder, version=str(number), created_us=number)
    made = make_release(
        old.artifacts | {"speller": speller},
        watermark_us=old.watermark_us,
        created_us=old.created_us + number,
        parent=old.release_id,
    )
    publish(layout, made)
    return made.release_id


def bytes_of(settings: Settings) -> int:
    """What all blobs take."""
    return sum(p.stat().st_size for p in settings.layout.blobs.rglob("*") if p.is_file())


def test_the_newest_and_those_one_may_go_back_to_are_kept(shop: Settings) -> None:
    layout = shop.layout
    first = str(champion(layout))
    made = [another(shop, n) for n in range(1, 8)]
    for name in (made[0], made[2]):
        set_champion(layout, name, at_us=1, by="gate")
    (layout.releases / "barred.json").write_text(f'{{"{made[3]}": {{"wall_us": 1, "by": "rollback"}}}}')
    before = bytes_of(shop)
    done = tidy(replace(shop, kept_releases=2))
    left = [m.release_id for m in list_releases(layout)]
    assert left == [made[0], made[2], made[3], made[5], made[6]]
    assert first not in left
    assert (done["releases"], "failed" in done) == (3, False)
    assert done["blobs"] > 0
    assert before - bytes_of(shop) == done["bytes"] > 0
    assert (champion(layout), set(barred(layout))) == (made[2], {made[3]})
    for name in left:
        load_release(layout, name)
    assert tidy(replace(shop, kept_releases=2)) == {"releases": 0, "blobs": 0, "bytes": 0, "leavings": 0}
    record = champion_record(layout)
    assert record is not None
    assert record["previous"] in left


def test_disk_is_bounded_however_often_a_home_is_refreshed(shop: Settings) -> None:
    counts, sizes = [], []
    for number in range(1, shop.kept_releases + 15):
        set_champion(shop.layout, another(shop, number), at_us=number, by="gate")
        tidy(shop)
        counts.append(len(list_releases(shop.layout)))
        sizes.append(bytes_of(shop))
    assert max(counts) == shop.kept_releases == 20
    assert sizes[-1] <= sizes[shop.kept_releases + 1] + 500  # the spellers' words are a few bytes longer


def test_what_a_kill_left_goes_and_nothing_of_who_is_at_work(shop: Settings) -> None:
    layout = shop.layout
    half = layout.releases / f".{champion(layout)}.123.456.tmp"
    making, old, young = layout.making / "tmpdead", layout.run / "tmpold", layout.run / "tmpyoung"
    blob = layout.blobs / "ab" / f".{'ab' * 32}.1.2.tmp"
    for folder in (half, making, old, young, blob.parent):
        folder.mkdir(parents=True, exist_ok=True)
    for file in (half / "manifest.json", making / "ranker.txt", blob):
        file.write_text("half")
    os.utime(old, (1, 1))
    assert tidy(shop)["leavings"] == 3
    assert [p.exists() for p in (half, making, old, blob, young)] == [False, False, False, False, True]
    load_release(layout, str(champion(layout)))


def test_a_home_that_cannot_be_tidied_is_none_the_worse(
    shop: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    made = another(shop, 1)
    (shop.layout.releases / "barred.json").write_text("{")
    assert "barred.json is damaged" in tidy(replace(shop, kept_releases=1))["failed"]
    assert "not all that is old could be removed" in caplog.text
    assert made in [m.release_id for m in list_releases(shop.layout)]


def test_a_promotion_under_way_is_waited_for(shop: Settings) -> None:
    set_champion(shop.layout, another(shop, 1), at_us=1, by="gate")
    another(shop, 2)
    with promoting(shop, "promote"):
        thread = threading.Thread(target=tidy, args=(replace(shop, kept_releases=1),))
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        assert len(list_releases(shop.layout)) == 3
    thread.join()
    assert len(list_releases(shop.layout)) == 3  # the newest, the champion, and the one before it


def test_a_refresh_tidies_and_says_what_it_removed(shop: Settings) -> None:
    for number in (1, 2, 3):
        another(shop, number)
    (shop.layout.making / "tmpdead").mkdir(parents=True)
    report = refresh(replace(shop, kept_releases=1), component="ranker", fraction=0.7, margin=1.0)
    assert report["removed"]["leavings"] == 1
    assert report["removed"]["releases"] == 3  # neither the new champion nor the one before
    assert list(shop.layout.making.iterdir()) == []


def test_a_report_tells_of_releases_that_were_removed(
    shop: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = shop.layout
    made = [another(shop, n) for n in range(1, 7)]
    registry = open_registry(layout.mlflow)
    for name in made:
        registry.register_release(asdict(read_manifest(layout, name)))
    first = str(champion(layout))
    set_champion(layout, made[-1], at_us=1, by="gate")
    set_champion(layout, made[-2], at_us=2, by="gate")
    tidy(replace(shop, kept_releases=1))
    assert [m.release_id for m in list_releases(layout)] == made[-2:]
    live = Live(stretches=[ScoredStretch(0, 0, first, {})], first_release=first)
    swaps = [
        {"previous": a, "release_id": b, "begin_wall_us": 1, "flip_wall_us": 2, "watermark_us": 3}
        for a, b in zip([first, *made], made, strict=False)
    ]
    assert [m.changed for m in _swap_marks(shop, live, swaps)] == [("speller",)] * len(made)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert main(["releases", "diff", first, made[0], "--home", str(shop.home)]) == 0
    assert "the same" in capsys.readouterr().out
    swaps.append(swaps[0] | {"release_id": "r-000000000000"})
    with pytest.raises(DataError, match="no release 'r-000000000000'"):
        _swap_marks(shop, live, swaps)


def test_removed_releases_are_told() -> None:
    row = {
        "release_id": "r-0", "parent": None, "components": {}, "metrics": {}, "verdict": None, "alias": None,
        "created_us": 0,
    }  # fmt: skip
    assert "removed" in describe([row | {"kept": False}])
    assert "removed" not in describe([row | {"kept": True}])
