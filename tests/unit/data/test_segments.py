"""Segments are whole, by hour, deterministic; broken ones are told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.schema import CLICK, EVENT_SCHEMA, canonical, event_table
from data.segments import list_segments, read_segment, write_segments
from infra.clock import HOUR_US
from infra.errors import DataError
from infra.files import sha256_file

START = 1_700_000_000_000_000


def events(n: int = 500, *, seed: int = 1) -> pa.Table:
    rng = np.random.default_rng(seed)
    known = START + rng.integers(0, 5 * HOUR_US, n)
    return event_table(
        {
            "event_id": rng.permutation(n),
            "kind": CLICK,
            "event_time": known - 5,
            "known_time": known,
            "item_id": rng.integers(0, 50, n),
            "query": np.array(["Ärmel", "red shoe", ""])[rng.integers(0, 3, n)],
        },
        rows=n,
    )


def test_every_row_comes_back_once_in_the_folder_of_its_hour(tmp_path: Path) -> None:
    table = events()
    paths = write_segments(table, tmp_path, name="a")
    assert len(paths) == 6
    assert list_segments(tmp_path) == sorted(paths)
    for path in paths:
        hour = np.datetime64(f"{path.parent.parent.name}T{path.parent.name}", "h").astype(int)
        assert set(read_segment(path)["known_time"].to_numpy() // HOUR_US) == {hour}
    whole = pa.concat_tables([read_segment(p) for p in paths])
    for column in ("event_id", "event_time", "known_time", "item_id", "query"):
        assert canonical(whole)[column].to_pylist() == canonical(table)[column].to_pylist()


def test_same_events_give_same_bytes_in_any_order(tmp_path: Path) -> None:
    table = events()
    shuffled = table.take(pa.array(np.random.default_rng(3).permutation(table.num_rows)))
    first = [sha256_file(p) for p in write_segments(table, tmp_path / "x", name="a")]
    second = [sha256_file(p) for p in write_segments(shuffled, tmp_path / "y", name="a", durable=False)]
    assert first == second
    assert not list(tmp_path.rglob("*.tmp"))


def test_no_rows_no_files(tmp_path: Path) -> None:
    assert write_segments(EVENT_SCHEMA.empty_table(), tmp_path, name="a") == []
    assert list_segments(tmp_path) == []


def test_missing_columns_and_nulls_get_their_none(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    columns = {"event_id": [1, 2], "kind": [2, 2], "event_time": [5, 6], "known_time": [5, 6]}
    pq.write_table(
        pa.table({**columns, "item_id": pa.array([7, None], pa.int32()), "other": ["x", "y"]}), path
    )
    table = read_segment(path)
    assert table.schema.equals(EVENT_SCHEMA)
    assert table["item_id"].to_pylist() == [7, -1]
    assert table["query"].to_pylist() == ["", ""]
    assert np.isnan(table["propensity"].to_numpy()).all()


def test_truncated_damaged_and_foreign_files_are_data_errors(tmp_path: Path) -> None:
    (path,) = write_segments(events(20).slice(0, 1), tmp_path, name="a")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="no whole Parquet"):
        read_segment(path)
    (path,) = write_segments(event_table({"event_id": range(3000), "kind": 2, "event_time": START,
                                          "known_time": START}), tmp_path, name="b")  # fmt: skip
    whole = path.read_bytes()
    path.write_bytes(whole[:60] + bytes([whole[60] ^ 255]) + whole[61:])
    with pytest.raises(DataError):
        read_segment(path)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(DataError, match="event_id"):
        read_segment(path)
    columns = {"event_id": ["one"], "kind": [2], "event_time": [5], "known_time": [5]}
    pq.write_table(pa.table(columns), path)
    with pytest.raises(DataError, match="wrong type"):
        read_segment(path)
    with pytest.raises(DataError, match="does not exist"):
        read_segment(tmp_path / "none.parquet")
