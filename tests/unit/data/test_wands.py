"""The published layout in all the ways that it is written: whole, sparse, quoted or not, and wrong."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from data.labels import labels_path, read_labels
from data.schema import EVENT_SCHEMA, key_to_id
from data.segments import list_segments, read_segment
from data.sources.wands import import_wands
from infra.errors import DataError
from infra.settings import Home

PRODUCT = (
    "product_id\tproduct_name\tproduct_class\tcategory hierarchy\tproduct_description\tproduct_features\t"
    "rating_count\taverage_rating\treview_count\n"
    "0\tsolid wood platform bed\tBeds\tFurniture / Bedroom / Beds\tgood , deep sleep\t"
    "overallwidth : 64.7|color : gray|woodspecies : pine|color : gray\t15.0\t4.5\t15.0\n"
    '1\t"fawkes 36"" blue vanity"\tVanities|Bath\t\t"two\nlines"\t\t\t\t\n'
    "2\tplain chair\n"
)
QUERY = "query_id\tquery\tquery_class\n0\tplatform bed\tBeds\n1\tvanity\tVanities\n"
LABEL = (
    "id\tquery_id\tproduct_id\tlabel\n0\t0\t0\tExact\n1\t0\t2\tPartial\n2\t1\t1\texact\n3\t1\t0\tIrrelevant\n"
)


def write(
    folder: Path, *, product: str = PRODUCT, query: str | None = QUERY, label: str | None = LABEL
) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in (("product", product), ("query", query), ("label", label)):
        if text is not None:
            (folder / f"{name}.csv").write_text(text)
    return folder


def payloads(layout: Home) -> dict[int, dict[str, object]]:
    events = [row for path in list_segments(layout.segments) for row in read_segment(path).to_pylist()]
    return {e["item_id"]: orjson.loads(e["payload"]) for e in events}


def test_products_become_items_with_what_is_known_of_them(tmp_path: Path) -> None:
    layout = Home(tmp_path / "home")
    report = import_wands(write(tmp_path / "in"), layout)
    assert (report.items, report.queries, report.labels_kept) == (3, 2, 4)
    assert report.labels == {"Irrelevant": 1, "Partial": 1, "Exact": 2}
    found = payloads(layout)
    assert found[0] == {
        "item_id": "0",
        "title": "solid wood platform bed",
        "category": "Beds",
        "department": "Furniture",
        "description": "good , deep sleep",
        "colour": "gray",
        "tags": ["Furniture / Bedroom / Beds", "overallwidth: 64.7", "color: gray", "woodspecies: pine"],
        "rating_count": 15.0,
        "rating_sum": 67.5,
        "review_count": 15.0,
    }
    assert found[1] == {
        "item_id": "1", "title": 'fawkes 36" blue vanity', "category": "Vanities", "description": "two\nlines"
    }  # fmt: skip
    assert found[2] == {"item_id": "2", "title": "plain chair"}
    assert read_segment(list_segments(layout.segments)[0]).schema.names == EVENT_SCHEMA.names


def test_labels_lie_with_the_truth_and_nowhere_else(tmp_path: Path) -> None:
    layout = Home(tmp_path / "home")
    import_wands(write(tmp_path / "in"), layout)
    assert labels_path(layout).is_relative_to(layout.truth)
    labels = read_labels(layout)
    assert [(q, t, i.tolist(), g.tolist()) for q, t, i, g in labels.by_query()] == [
        ("0", "platform bed", [0, 2], [2, 1]),
        ("1", "vanity", [1, 0], [2, 0]),
    ]
    events = [r for p in list_segments(layout.segments) for r in read_segment(p).to_pylist()]
    assert events
    assert not any("platform bed" in str(r["query"]) or "Exact" in str(r["payload"]) for r in events)
    files = {p for p in layout.root.rglob("*") if p.is_file()}
    assert files == {labels_path(layout), *list_segments(layout.segments)}


def test_importing_twice_is_once_and_later_labels_join_earlier_ones(tmp_path: Path) -> None:
    layout = Home(tmp_path / "home")
    import_wands(write(tmp_path / "in"), layout)
    ids = {r["event_id"] for p in list_segments(layout.segments) for r in read_segment(p).to_pylist()}
    again = import_wands(tmp_path / "in", layout)
    assert again.labels_kept == 4
    assert {r["event_id"] for p in list_segments(layout.segments) for r in read_segment(p).to_pylist()} == ids
    more = "query_id\tproduct_id\tlabel\n0\t1\tIrrelevant\n0\t2\tExact\n"
    assert import_wands(write(tmp_path / "in", label=more), layout).labels_kept == 5
    assert read_labels(layout).by_query()[0][3].tolist() == [2, 2, 0]


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    layout = Home(tmp_path / "home")
    report = import_wands(write(tmp_path / "in"), layout, dry_run=True)
    assert report.items == 3
    assert "nothing was written" in report.text
    assert not layout.root.exists()


def test_products_alone_are_a_catalogue(tmp_path: Path) -> None:
    layout = Home(tmp_path / "home")
    only = write(
        tmp_path / "in", product="product_id\tproduct_name\nab-1\tred lamp\n7.0\t\n", query=None, label=None
    )
    report = import_wands(only, layout)
    assert report.items == 2
    assert set(payloads(layout)) == {key_to_id("ab-1"), 7}
    assert payloads(layout)[7]["title"] == "7"
    assert not labels_path(layout).exists()


def test_unquoted_inch_marks_lose_no_row(tmp_path: Path) -> None:
    text = 'product_id\tproduct_name\n1\t"48 sliding door\n2\t24" stool\n3\tlamp\n4\t"oak" desk\n'
    layout = Home(tmp_path / "home")
    assert import_wands(write(tmp_path / "in", product=text, query=None, label=None), layout).items == 4
    assert payloads(layout)[2]["title"] == '24" stool'


def test_rows_that_cannot_be_used_are_counted_with_an_example(tmp_path: Path) -> None:
    product = PRODUCT + "0\tagain\n\tno key\n9\ta\tb\tc\td\te\tf\tg\th\ttoo\tmany\n"
    label = LABEL + "4\t77\t0\tExact\n5\t0\t88\tExact\n"
    report = import_wands(
        write(tmp_path / "in", product=product, label=label), Home(tmp_path / "h"), dry_run=True
    )
    assert report.items == 3
    assert sum(report.bad_rows["product.csv"].values()) == 3
    assert report.bad_rows["label.csv"] == {
        "a query_id that query.csv lacks": 1,
        "a product_id that product.csv lacks": 1,
    }
    assert "line 7: 88" in report.text


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"product": ""}, "empty"),
        ({"product": "product_id,product_name\n1,x\n"}, "tab-separated"),
        ({"product": "product_id\tproduct_name\n\tx\n"}, "no good row"),
        ({"product": "product_id\tname\n1\tx\n"}, "no column 'product_name'"),
        ({"label": LABEL.replace("Partial", "Perhaps")}, "line 3 has label 'Perhaps'"),
        ({"query": None}, "no query.csv"),
        ({"query": "id\tquery\n"}, "no column 'query_id'"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_written(tmp_path: Path, files: dict[str, str], words: str) -> None:
    layout = Home(tmp_path / "home")
    with pytest.raises(DataError, match=words) as error:
        import_wands(write(tmp_path / "in", **files), layout)
    assert "\n" not in str(error.value)
    assert not layout.root.exists()
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"no product\.csv"):
        import_wands(tmp_path / "none", layout)


def test_bytes_that_are_no_text_are_said(tmp_path: Path) -> None:
    (write(tmp_path / "in") / "product.csv").write_bytes(b"product_id\tproduct_name\n1\t\xff\xfe\n")
    with pytest.raises(DataError, match="UTF-8"):
        import_wands(tmp_path / "in", Home(tmp_path / "home"))
