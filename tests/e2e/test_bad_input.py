"""What is wrong gets one clear line from the real command line, and leaves nothing half-done."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data.segments import list_segments
from data.snapshots import published
from data.world.history import read_summary
from infra.settings import REPOSITORY, Home
from models.release import champion, list_releases, load_release
from tests.e2e.shop_process import environment, interrupted, set_clock, shelflife

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SMALL = ("world", "generate", "--scale", "0.02", "--days", "2")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["refrsh"], ["refrsh", "refresh"]),
        (["ingest", "--fast"], ["--fast", "--help"]),
        (["--fast", "ingest"], ["--fast", "--help"]),
        (["data", "fetch", "imagenet"], ["imagenet", "fashion-mnist"]),
        (["data", "import", "csv", "nowhere"], ["nowhere", "items.csv"]),
        (["refresh", "--component", "rankr"], ["rankr", "ranker"]),
        (["refresh", "--fraction", "1.5"], ["1.5", "at most 1"]),
        (["refresh", "--fraction", "most"], ["--fraction", "number"]),
        (["world", "generate", "--drift", "wild"], ["wild", "strong"]),
        (["world", "generate", "--scale", "-1"], ["scale", "-1"]),
        (["ingest", "--home", "pyproject.toml"], ["pyproject.toml", "--home"]),
        (["refresh"], ["shelflife"]),
        (["up"], ["no release", "shelflife refresh"]),
        (["promote"], ["shelflife refresh"]),
        (["promote", "r-none"], ["r-none"]),
        (["rollback"], ["shelflife refresh"]),
        (["eval", "search"], ["shelflife"]),
    ],
    ids=" ".join,
)
def test_wrong_input_is_one_line_that_says_what_to_do(
    home: Home, arguments: list[str], words: list[str]
) -> None:
    done = shelflife(home.root, *arguments)
    assert done.code == 2, done.err
    for word in words:
        assert word in done.line


def test_an_unknown_setting_is_named(home: Home) -> None:
    done = shelflife(home.root, "releases", SHELFLIFE_COLOUR="red")
    assert done.code == 2
    assert "SHELFLIFE_COLOUR" in done.line
    assert "SHELFLIFE_HTTP_PORT" in done.line
    done = shelflife(home.root, "up", SHELFLIFE_HTTP_PORT="eighty")
    assert done.code == 2
    assert "eighty" in done.line


def test_a_damaged_cache_file_is_named_and_never_used(home: Home, tmp_path: Path) -> None:
    entry = home.root / "cache" / "fashion-mnist"
    entry.mkdir(parents=True)
    (entry / "images.npy").write_bytes(b"half a file")
    (entry / "manifest.json").write_text('{"files": {"images.npy": "' + "0" * 64 + '"}}')
    made = shelflife(home.root, *SMALL)
    assert made.code == 0, made.err
    assert "shelflife data fetch" in made.err  # goes on with synthetic photos, and says so
    empty = tmp_path / "bin"
    empty.mkdir()
    fetched = shelflife(home.root, "data", "fetch", "fashion-mnist", PATH=str(empty))
    assert fetched.code == 2
    assert "apt-get" in fetched.line
    assert (entry / "images.npy").read_bytes() == b"half a file"


def test_a_truncated_segment_is_named_and_the_rest_goes_in(home: Home) -> None:
    assert shelflife(home.root, *SMALL).code == 0
    whole = shelflife(home.root, "ingest", "--json").document
    shutil.rmtree(home.store.parent)
    shutil.rmtree(home.snapshots)
    shutil.rmtree(home.states)
    broken = max(list_segments(home.segments), key=lambda p: p.stat().st_size)
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    alien = broken.with_name("alien.parquet")
    alien.write_bytes(b"PAR1 no parquet at all PAR1")
    done = shelflife(home.root, "ingest", "--json")
    assert done.code == 0, done.err
    assert len(done.document["corrupt"]) == 2
    assert {str(broken) in line or str(alien) in line for line in done.document["corrupt"]} == {True}
    assert 0 < done.document["rows"] < whole["rows"]
    broken.write_bytes(content)  # mended, it is taken in
    alien.unlink()
    mended = shelflife(home.root, "ingest", "--json").document
    assert (mended["corrupt"], mended["content_hash"]) == ([], whole["content_hash"])


def test_ctrl_c_in_the_middle_of_a_world_leaves_none(home: Home) -> None:
    large = ("world", "generate", "--scale", "1", "--days", "30", "--activity", "0.2")
    done = interrupted(home.root, large, after="day ")
    assert done.code == 130
    assert "interrupted" in done.line
    assert read_summary(home) is None
    assert list_segments(home.segments) == []
    assert [p for p in home.root.rglob("*") if ".tmp" in p.name] == []
    again = shelflife(home.root, *SMALL, "--json")
    assert again.code == 0, again.err
    assert shelflife(home.root, "ingest", "--json").document["rows"] == again.document["events"]


@pytest.mark.parametrize("after", ["ingest", "publish"])
def test_ctrl_c_in_the_middle_of_a_refresh_keeps_the_champion(shop: Home, after: str) -> None:
    set_clock(shop, end_us=published(shop).watermark_us)
    was = champion(shop)
    done = interrupted(
        shop.root, ("refresh", "--component", "ranker,index", "--margin", "1"), after=f"refresh: {after}"
    )
    assert done.code == 130
    assert "interrupted" in done.line
    now = champion(shop)
    assert now is not None
    assert now == was or after == "publish"
    for manifest in list_releases(shop):
        load_release(shop, manifest.release_id)
    assert not [p for p in (shop.run / "refresh").iterdir() if p.name != "lock"]
    assert (shop.run / "refresh" / "lock").read_text() == ""


def on_a_small_disk(folder: Path, kilobytes: int, *commands: str) -> subprocess.CompletedProcess[str]:
    """Run shell commands where `folder` is a disk of this size; `shelflife` is the command line."""
    own = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    script = [
        f"mount -t tmpfs -o size={kilobytes}k tmpfs {folder} || exit 77",
        f'shelflife() {{ "{sys.executable}" -m flows.cli "$@"; }}',
        *commands,
    ]
    done = subprocess.run(
        ["unshare", *own, "--mount", "sh", "-c", "\n".join(script)],
        cwd=REPOSITORY, env=environment(folder / "home"), capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip("this machine lets nobody mount a small disk")
    return done


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_a_full_disk_is_one_line_and_the_next_run_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    done = on_a_small_disk(
        folder, 400,
        "shelflife world generate --scale 0.1 --days 3; echo world $?",
        f"mount -o remount,size=2000k {folder}",
        "shelflife world generate --scale 0.1 --days 3 --json; echo world $?",
        "shelflife ingest; echo ingest $?",
        f"mount -o remount,size=4000k {folder}",
        "shelflife ingest; echo ingest $?",
        f"mount -o remount,size=200m {folder}",
        "shelflife ingest --json; echo ingest $?",
    )  # fmt: skip
    codes = [row for row in done.stdout.splitlines() if row.startswith(("world ", "ingest "))]
    assert codes == ["world 2", "world 0", "ingest 2", "ingest 2", "ingest 0"], done.stdout + done.stderr
    said = [row for row in done.stderr.splitlines() if row.startswith("shelflife: ")]
    assert len(said) == 3, done.stderr
    assert all("space" in row for row in said)
    assert "Traceback" not in done.stderr
