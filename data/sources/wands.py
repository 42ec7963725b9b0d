"""A catalogue with graded judgements in the published WANDS layout (Chen et al., ECIR 2022).

`product.csv`, `query.csv` and `label.csv`, tab-separated, become item events and, where only `eval`
reads them, labels. Times, users and clicks there are none, and none are made up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from data.labels import GRADES, Labels, write_labels
from data.schema import ITEM_UPSERT, event_table, key_to_id, stable_hash
from data.segments import write_segments
from data.sources.tab_files import TabFile, read_tab_file
from infra.clock import open_clock
from infra.errors import DataError
from infra.settings import Home

__all__ = ["WandsReport", "import_wands"]

_CHUNK = 250_000
_ID_BITS = (1 << 62) - 1
_PRODUCT = (
    "product_id", "product_name", "product_class", "category_hierarchy", "product_description",
    "product_features", "rating_count", "average_rating", "review_count",
)  # fmt: skip
_SPELT = {"category hierarchy": "category_hierarchy"}  # as the published file writes it
_COLOURS = ("color", "colour", "maincolor", "primarycolor")
_MATERIALS = ("material", "primarymaterial", "mainmaterial", "materialtype")


@dataclass(frozen=True)
class WandsReport:
    """What an import did, or would do. `bad_rows`: file → reason → rows; `examples`: one such row of each."""

    dry_run: bool
    items: int
    queries: int
    labels: dict[str, int]
    columns: dict[str, list[str]]
    empty_columns: list[str]
    ignored: dict[str, list[str]]
    bad_rows: dict[str, dict[str, int]] = field(default_factory=dict)
    examples: dict[str, dict[str, str]] = field(default_factory=dict)
    segments: int = 0
    labels_kept: int = 0
    text: str = ""


class _Faults:
    """Rows that were left out, counted by file and reason with the first of each as an example."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self.examples: dict[str, dict[str, str]] = {}

    def add(self, file: str, reason: str, line: int, what: str) -> None:
        self.counts.setdefault(file, Counter())[reason] += 1
        self.examples.setdefault(file, {}).setdefault(reason, f"line {line}: {what[:80]}")

    def take(self, table: TabFile) -> None:
        for line, text in table.malformed:
            self.add(table.file, "more columns than the header", line, text)


def import_wands(
    folder: Path, layout: Home, *, dry_run: bool = False, progress: Callable[..., None] | None = None
) -> WandsReport:
    """Write the folder's products as item events and its judgements as labels (docs/own-catalogue.md).

    Only `product.csv` is required. Nothing is written before all files are read. Importing twice is
    once. Raises DataError where a file or a required column is missing, no product is good, a label is
    unknown, or `label.csv` comes without `query.csv`.
    """
    say = progress or (lambda *_: None)
    faults = _Faults()
    say("reading products")
    products = read_tab_file(folder, "product", required=("product_id", "product_name"), spelt=_SPELT)
    if products is None:
        raise DataError(
            f"{folder} has no product.csv; expected tab-separated product.csv, query.csv and label.csv"
        )
    items = dict(_items(products, faults))
    if not items:
        found = ", ".join(f"{n} {c:,}" for n, c in faults.counts.get(products.file, {}).items())
        raise DataError(
            f"no good row among {len(products.rows):,} in {products.file}: {found or 'it is empty'}"
        )
    say(f"{len(items):,} products; reading judgements")
    labels, judged = _judgements(folder, set(items), faults)
    tables = [products, *judged]
    report = WandsReport(
        dry_run=dry_run,
        items=len(items),
        queries=len(set(labels.query_ids)),
        labels={name: int(np.sum(labels.grades == g)) for g, name in enumerate(GRADES)},
        columns={t.file: list(t.columns) for t in tables},
        empty_columns=[c for c in products.columns if c in _PRODUCT and not any(products.column(c))],
        ignored={t.file: [c for c in t.columns if c not in t.used] for t in tables},
        bad_rows={file: dict(counts) for file, counts in faults.counts.items()},
        examples=faults.examples,
    )
    if not dry_run:
        say("writing")
        segments = _write(items, layout)
        kept = write_labels(layout, labels) if len(labels) else 0
        report = replace(report, segments=segments, labels_kept=kept)
    return replace(report, text=_text(report))


def _items(products: TabFile, faults: _Faults) -> Iterator[tuple[str, dict[str, Any]]]:
    """Key and payload of each product; the first row of a key counts."""
    products.use(*_PRODUCT)
    faults.take(products)
    seen: set[str] = set()
    for line, row in products.rows:
        key = _key(row["product_id"])
        if not key:
            faults.add(products.file, "no product_id", line, row["product_name"])
        elif key in seen:
            faults.add(products.file, "a product_id that an earlier row has", line, key)
        else:
            seen.add(key)
            yield key, _payload(key, row)


def _payload(key: str, row: dict[str, str]) -> dict[str, Any]:
    """The item's fields, those that are there; features and the category's path become tags."""
    features = _features(row["product_features"])
    path = [p.strip() for p in row["category_hierarchy"].split("/") if p.strip()]
    count, mean = _number(row["rating_count"]), _number(row["average_rating"])
    fields: dict[str, Any] = {
        "item_id": key,
        "title": row["product_name"] or key,
        "category": row["product_class"].split("|")[0].strip() or (path[-1] if path else ""),
        "department": path[0] if path else "",
        "description": row["product_description"],
        "colour": _only(features, _COLOURS),
        "material": _only(features, _MATERIALS),
        "brand": _only(features, ("brand", "manufacturer")),
        "tags": [
            *([" / ".join(path)] if path else []),
            *(f"{name}: {value}" for name, values in features.items() for value in values),
        ],
        "rating_count": count,
        "rating_sum": None if count is None or mean is None else round(count * mean, 3),
        "review_count": _number(row["review_count"]),
    }
    return {name: value for name, value in fields.items() if value not in ("", None, [])}


def _features(text: str) -> dict[str, list[str]]:
    """Name → its distinct values, of `name : value|name : value`; a value without a name stands under ""."""
    found: dict[str, list[str]] = {}
    for pair in text.split("|"):
        name, colon, value = pair.partition(":")
        name, value = (name.strip().lower(), value.strip()) if colon else ("", name.strip())
        values = found.setdefault(name, [])
        if value and value not in values:
            values.append(value)
    return {name: values for name, values in found.items() if values}


def _only(features: dict[str, list[str]], names: tuple[str, ...]) -> str:
    """The one value of the first feature of these names; nothing where a shopper has the choice."""
    for name in names:
        if len(values := features.get(name, [])) == 1:
            return values[0]
    return ""


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) and number >= 0 else None


def _key(text: str) -> str:
    """The key as text; a whole number that was written as 12.0 is 12."""
    return text[:-2] if text.endswith(".0") and text[:-2].isdecimal() else text


def _judgements(folder: Path, keys: set[str], faults: _Faults) -> tuple[Labels, list[TabFile]]:
    """The labels whose query and product are there, and the files that were read."""
    queries = read_tab_file(folder, "query", required=("query_id", "query"))
    labels = read_tab_file(folder, "label", required=("query_id", "product_id", "label"))
    texts: dict[str, str] = {}
    if queries is not None:
        faults.take(queries)
        queries.use("query_class")
        for line, row in queries.rows:
            key = _key(row["query_id"])
            if not key or not row["query"]:
                faults.add(queries.file, "no query_id or no query", line, row["query"] or key)
            elif texts.setdefault(key, row["query"]) != row["query"]:
                faults.add(queries.file, "a query_id that an earlier row has", line, key)
    if labels is None:
        return _labels({}, texts), [] if queries is None else [queries]
    if queries is None:
        raise DataError(f"{folder} has {labels.file} but no query.csv; expected query_id and query there")
    faults.take(labels)
    labels.use("id")
    grade_of = {name.lower(): grade for grade, name in enumerate(GRADES)}
    found: dict[tuple[str, str], int] = {}
    for line, row in labels.rows:
        query, product = _key(row["query_id"]), _key(row["product_id"])
        grade = grade_of.get(row["label"].lower())
        if grade is None:
            raise DataError(
                f"{labels.file} line {line} has label {row['label']!r}; expected one of {', '.join(GRADES)}"
            )
        if query not in texts:
            faults.add(labels.file, "a query_id that query.csv lacks", line, query)
        elif product not in keys:
            faults.add(labels.file, "a product_id that product.csv lacks", line, product)
        else:
            found[query, product] = max(grade, found.get((query, product), 0))
    return _labels(found, texts), [queries, labels]


def _labels(found: dict[tuple[str, str], int], texts: dict[str, str]) -> Labels:
    return Labels(
        [query for query, _ in found],
        [texts[query] for query, _ in found],
        np.fromiter((key_to_id(product) for _, product in found), np.int64, len(found)),
        np.fromiter(found.values(), np.int8, len(found)),
    )


def _write(items: dict[str, dict[str, Any]], layout: Home) -> int:
    """Item events, in the file's order, as of now; the number of segments. An id says what it holds."""
    payloads = [orjson.dumps(fields, option=orjson.OPT_SORT_KEYS).decode() for fields in items.values()]
    ids = np.fromiter((key_to_id(key) for key in items), np.int64, len(items))
    event_ids = np.fromiter((stable_hash(f"item {p}") & _ID_BITS for p in payloads), np.int64, len(items))
    known = open_clock(layout.clock).now_us() - len(items) + np.arange(len(items))
    name = f"import-{stable_hash(''.join(payloads)) & _ID_BITS:x}"
    written = 0
    for part, start in enumerate(range(0, len(items), _CHUNK)):
        stop = start + _CHUNK
        table = event_table(
            {
                "event_id": event_ids[start:stop],
                "kind": ITEM_UPSERT,
                "event_time": known[start:stop],
                "known_time": known[start:stop],
                "item_id": ids[start:stop],
                "payload": payloads[start:stop],
            }
        )
        written += len(write_segments(table, layout.segments, name=f"{name}-{part}"))
    return written


def _text(report: WandsReport) -> str:
    lines = [f"{report.items:,} items"]
    if report.empty_columns:
        lines.append(f"  columns without any value: {', '.join(report.empty_columns)}")
    if sum(report.labels.values()):
        graded = ", ".join(f"{n} {name}" for name, n in reversed(report.labels.items()))
        lines.append(f"{report.queries:,} judged queries: {graded}; only `eval search` reads them")
    else:
        lines.append("no judgements: `eval search` has nothing to judge by")
    for file, names in report.ignored.items():
        if names:
            lines.append(f"{file}: ignored {', '.join(names)}")
    for file, counts in report.bad_rows.items():
        lines += [
            f"{file}: {n:,} rows left out: {reason} ({report.examples[file][reason]})"
            for reason, n in counts.items()
        ]
    lines.append("nothing was written (dry run)" if report.dry_run else "now run `shelflife ingest`")
    return "\n".join(lines)
