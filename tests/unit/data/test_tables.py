"""Anybody's log becomes events: what is understood, what is left out, and twice is once."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from data.schema import CART, CLICK, IMPRESSION, ITEM_UPSERT, ORDER, SEARCH, USER_UPSERT, key_to_id
from data.segments import list_segments
from data.snapshots import published, read_events
from data.sources.table_sql import id_sql, key_sql, kind_sql, time_sql
from data.sources.tables import import_csv
from data.store import ingest_segments
from infra.clock import HOUR_US, WallClock
from infra.errors import DataError
from infra.settings import Home

T = 1_569_888_000  # 2019-10-01 00:00 UTC, s

INTERACTIONS = f"""user_id,product_id,timestamp,event,extra
u1,101,{T},view,x
u1,101,{T + 60},addtocart,x
u1,101,{T + 120},transaction,x
u2,shoe-7,{T + 130},click,x
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "log"
    made.mkdir()
    (made / "interactions.csv").write_text(INTERACTIONS)
    return made


def events(folder: Path, tmp_path: Path) -> pa.Table:
    layout = Home(tmp_path / "home")
    import_csv(folder, layout)
    report = ingest_segments(layout, allowed_lateness_us=HOUR_US, clock=WallClock())
    assert report.quarantined == 0
    return read_events(published(layout))


def test_four_columns_are_enough(folder: Path, tmp_path: Path) -> None:
    report = import_csv(folder, Home(tmp_path / "home"))
    assert report.events == {"click": 2, "cart": 1, "order": 1, "item_upsert": 2}
    assert report.tables["interactions"].ignored == ("extra",)
    held = events(folder, tmp_path)
    rows = [r for r in held.to_pylist() if r["kind"] in (CLICK, CART, ORDER)]
    assert [r["kind"] for r in rows] == [CLICK, CART, ORDER, CLICK]
    assert [r["item_id"] for r in rows] == [101, 101, 101, key_to_id("shoe-7")]
    assert rows[0]["user_id"] == key_to_id("u1")
    assert rows[3]["event_time"] == (T + 130) * 1_000_000
    titles = {json.loads(r["payload"])["title"] for r in held.to_pylist() if r["kind"] == ITEM_UPSERT}
    assert titles == {"101", "shoe-7"}


def test_importing_twice_or_in_another_form_is_once(folder: Path, tmp_path: Path) -> None:
    held = events(folder, tmp_path)
    again = events(folder, tmp_path)
    table = pyarrow.csv.read_csv(folder / "interactions.csv")
    (folder / "interactions.csv").unlink()
    pq.write_table(table.take(pa.array([3, 1, 0, 2])), folder / "interactions.parquet")
    parquet = events(folder, tmp_path)
    (folder / "interactions.parquet").unlink()
    tabs = INTERACTIONS.replace(",", "\t").replace(str(T + 60), "2019-10-01 00:01:00 UTC")
    (folder / "interactions.csv.gz").write_bytes(gzip.compress(tabs.encode()))
    zipped = events(folder, tmp_path)
    for other in (again, parquet, zipped):
        assert other["event_id"].to_pylist() == held["event_id"].to_pylist()


def test_rows_that_repeat_are_kept_as_occurrences(folder: Path, tmp_path: Path) -> None:
    with (folder / "interactions.csv").open("a") as f:
        f.write(f"u1,101,{T},view,again\n")
    report = import_csv(folder, Home(tmp_path / "home"))
    assert report.repeated_rows == 1
    assert report.events["click"] == 3
    assert events(folder, tmp_path).num_rows == 7


def test_a_dry_run_says_all_and_writes_nothing(folder: Path, tmp_path: Path) -> None:
    with (folder / "interactions.csv").open("a") as f:
        f.write(
            f"u1,101,{T},remove_from_cart,x\nu1,,{T},view,x\n,5,{T},view,x\nu1,5,soon,view,x\nu1,5,{T},view,x,y,z\n"
        )
    layout = Home(tmp_path / "home")
    report = import_csv(folder, layout, dry_run=True)
    assert list_segments(layout.segments) == []
    assert report.unknown_types == {"remove_from_cart": 1}
    reasons = ("no item", "no user", "no time that can be read", "unknown type", "too many columns")
    assert report.tables["interactions"].bad_rows == dict.fromkeys(reasons, 1)
    for words in (
        "user from user_id", "ignored: extra", "remove_from_cart 1", "2019-10-01 00:00:00",
        "nothing was written", "soon", "no impressions", "2 items are in no catalogue",
    ):  # fmt: skip
        assert words in report.text, words
    assert import_csv(folder, layout).events == report.events


def test_searches_items_and_users_are_taken(folder: Path, tmp_path: Path) -> None:
    (folder / "items.csv").write_text(
        "item_id;name;category;color;price;created_at;odd\n101;Röd sko;shoes;red;9.5;2019-09-01;z\n"
        "102;Hat;hats;;cheap;;z\n"
    )
    (folder / "users.csv").write_text("user_id,gender,age,purchasing_power\nu1,F,31,9\nu2,male,999,3\n")
    (folder / "searches.csv").write_text(
        f'user_id,timestamp,query,items\nu1,{T - 30},röd sko,"102|101"\n'
        f"u2,{T - 7200},hat,\nu2,{T + 125},sock,\"['101', 102]\"\n"
    )
    report = import_csv(folder, Home(tmp_path / "home"))
    assert report.events["impression"] == 4
    assert report.minimal_items == 1
    held = events(folder, tmp_path).to_pylist()
    shown = [r for r in held if r["kind"] == IMPRESSION and r["query"] == "röd sko"]
    search = next(r for r in held if r["kind"] == SEARCH and r["query"] == "röd sko")
    assert [(r["item_id"], r["position"]) for r in sorted(shown, key=lambda r: r["position"])] == [
        (102, 0),
        (101, 1),
    ]
    assert {r["request_id"] for r in shown} == {search["request_id"]}
    acts = {
        r["kind"]: r for r in held if r["user_id"] == key_to_id("u1") and r["kind"] in (CLICK, CART, ORDER)
    }
    assert {r["request_id"] for r in acts.values()} == {search["request_id"]}  # that search showed it
    assert acts[CLICK]["query"] == "röd sko"
    other = next(r for r in held if r["kind"] == CLICK and r["user_id"] == key_to_id("u2"))
    assert other["request_id"] == -1  # its user's newest search showed other items
    assert report.attributed == 3
    payloads = {r["item_id"]: json.loads(r["payload"]) for r in held if r["kind"] == ITEM_UPSERT}
    assert payloads[101] == {
        "item_id": "101", "title": "Röd sko", "category": "shoes", "colour": "red", "price": 9.5,
        "created_at": 1_567_296_000_000_000,
    }  # fmt: skip
    assert payloads[102] == {"item_id": "102", "title": "Hat", "category": "hats"}
    users = {r["user_id"]: json.loads(r["payload"]) for r in held if r["kind"] == USER_UPSERT}
    assert users == {
        key_to_id("u1"): {"gender": 0, "age": 31},
        key_to_id("u2"): {"gender": 1, "purchasing_power": 3},
    }
    known = {r["item_id"]: r["known_time"] for r in held if r["kind"] == ITEM_UPSERT}
    assert all(
        r["known_time"] > known[r["item_id"]] for r in held if r["kind"] in (CLICK, CART, ORDER, IMPRESSION)
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("user,item,time\n1,2,3\n", "no column for 'type'"),
        ("user,item,time,type\n", "it is empty"),
        ("user,item,time,type\n1,2,never,view\n1,2,3,jump\n", "no time that can be read 1"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    with pytest.raises(DataError, match="has no interactions"):
        import_csv(folder, Home(tmp_path / "home"))
    (folder / "interactions.csv").write_text(text)
    with pytest.raises(DataError) as error:
        import_csv(folder, Home(tmp_path / "home"))
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    (folder / "interactions.tsv").write_text(text)
    with pytest.raises(DataError, match="both"):
        import_csv(folder, Home(tmp_path / "home"))


def test_a_file_that_is_no_table_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "interactions.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="cannot be read"):
        import_csv(tmp_path, Home(tmp_path / "home"))


@pytest.mark.parametrize(
    "key",
    ["0", "17", "007", " a b ", "é", str(2**62 - 1), str(2**62), "99999999999999999999", "-4", "12.0", "1.5"],
)
def test_ids_are_those_of_the_schema(key: str) -> None:
    with duckdb.connect(":memory:") as db:
        found, text = db.execute(
            f"SELECT {id_sql('k')}, k FROM (SELECT {key_sql('$key')} AS k)", {"key": key}
        ).fetchall()[0]
    assert found == key_to_id(text)
    assert found == key_to_id("12" if key == "12.0" else key.strip())


@pytest.mark.parametrize(
    "text",
    [str(T), f"{T}.0", f"{T}000", f"{T}000000", f"{T}000000000", "2019-10-01", "2019-10-01 00:00:00",
     "2019-10-01T02:00:00+02:00", "2019-10-01 00:00:00 UTC", "2019-10-01T00:00:00Z"],
)  # fmt: skip
def test_times_in_all_their_forms_are_one(text: str) -> None:
    with duckdb.connect(":memory:") as db:
        db.execute("SET TimeZone = 'UTC'")
        assert db.execute(f"SELECT {time_sql('$t::VARCHAR')}", {"t": text}).fetchall()[0][0] == T * 1_000_000
        assert db.execute(f"SELECT {time_sql('$t::VARCHAR')}", {"t": text + "?"}).fetchall()[0][0] is None


def test_types_do_not_mind_case_or_hyphens() -> None:
    with duckdb.connect(":memory:") as db:
        found = [
            db.execute(f"SELECT {kind_sql('$t::VARCHAR')}", {"t": t}).fetchall()[0][0]
            for t in (" View ", "Add-To-Cart", "add to cart", "PURCHASE", "impression", "like")
        ]
    assert found == [CLICK, CART, CART, ORDER, IMPRESSION, None]
