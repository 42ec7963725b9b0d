"""Graded judgements of items for queries, in the folder that only `eval` reads.

They come of people, not of clicks, and no training, gate or service ever sees them: like a simulated
world's hidden relevance, they lie in the home's `truth` folder. It knows no metric.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from infra.errors import DataError
from infra.files import write_atomic
from infra.settings import Home

__all__ = ["GRADES", "Labels", "labels_path", "read_labels", "write_labels"]

GRADES = ("Irrelevant", "Partial", "Exact")  # grades 0, 1, 2, as the published WANDS set names them

_SCHEMA = pa.schema(
    [("query_id", pa.string()), ("query", pa.string()), ("item_id", pa.int64()), ("grade", pa.int8())]
)


@dataclass(frozen=True)
class Labels:
    """One row a judgement, [n] each: query id and text, item_id int64, grade int8 (index of GRADES)."""

    query_ids: list[str]
    queries: list[str]
    item_ids: NDArray[np.int64]
    grades: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.query_ids)

    def by_query(self) -> list[tuple[str, str, NDArray[np.int64], NDArray[np.int8]]]:
        """(query id, text, item ids, grades) of each query, in order of first appearance."""
        rows: dict[tuple[str, str], list[int]] = {}
        for i, key in enumerate(zip(self.query_ids, self.queries, strict=True)):
            rows.setdefault(key, []).append(i)
        return [(*key, self.item_ids[at], self.grades[at]) for key, at in rows.items()]


def labels_path(layout: Home) -> Path:
    """Where a home keeps its judgements."""
    return layout.truth / "labels.parquet"


def write_labels(layout: Home, labels: Labels) -> int:
    """Add judgements to a home's, a newer one of a query and item in place of the older; how many it has."""
    known: dict[tuple[str, str, int], int] = {}
    path = labels_path(layout)
    for part in ([read_labels(layout)] if path.is_file() else []) + [labels]:
        keys = zip(part.query_ids, part.queries, part.item_ids.tolist(), strict=True)
        known.update(zip(keys, part.grades.tolist(), strict=True))
    columns = [list(c) for c in zip(*known, strict=True)] or [[], [], []]
    table = pa.table([*columns, list(known.values())], schema=_SCHEMA)
    beside = io.BytesIO()
    pq.write_table(table, beside, compression="zstd")
    write_atomic(path, beside.getvalue())
    return len(known)


def read_labels(layout: Home) -> Labels:
    """A home's judgements. DataError where there are none, or the file is damaged."""
    path = labels_path(layout)
    try:
        table = pq.read_table(path, schema=_SCHEMA)
    except FileNotFoundError:
        raise DataError(
            f"no judgements in {layout.root}; `shelflife data import wands DIR` brings some"
        ) from None
    except (pa.ArrowException, OSError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path} cannot be read ({line}); import the judgements again") from error
    return Labels(
        table["query_id"].to_pylist(),
        table["query"].to_pylist(),
        table["item_id"].to_numpy(),
        table["grade"].to_numpy().astype(np.int8),
    )
