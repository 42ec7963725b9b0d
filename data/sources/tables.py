"""Your own log: items, users, searches and interactions as tables become events in segments.

Only interactions are required, with user, item, time and type. Only what happened is written, under
ids made from the rows' content, so that importing twice is once. It knows no particular shop.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from data.content import content_hash
from data.frames import none_row
from data.schema import EVENT_SCHEMA, KINDS
from data.segments import write_segments
from data.sources.table_events import FAULT, GOOD, make_events
from data.sources.table_sql import ALIASES, TYPES, id_sql
from infra.errors import DataError, EnvironmentError_
from infra.settings import Home

__all__ = ["ImportReport", "TableReport", "import_csv"]

REQUIRED = {
    "interactions": ("user", "item", "time", "type"),
    "searches": ("time", "query"),
    "items": ("item",),
    "users": ("user",),
}
ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
CHUNK_ROWS = 1_000_000


@dataclass(frozen=True)
class TableReport:
    """What was understood of one file."""

    file: str
    rows: int
    understood: dict[str, str]  # meaning → column
    ignored: tuple[str, ...]
    bad_rows: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)  # reason → one such row


@dataclass(frozen=True)
class ImportReport:
    """What an import did, or would do. `events`: kind → rows; times in us since 1970 UTC."""

    dry_run: bool
    tables: dict[str, TableReport]
    events: dict[str, int]
    unknown_types: dict[str, int]
    first_us: int
    last_us: int
    id_kinds: dict[str, str]
    minimal_items: int
    attributed: int
    repeated_rows: int
    segments: int = 0
    content_hash: str = ""
    text: str = ""


def import_csv(
    folder: Path, layout: Home, *, dry_run: bool = False, progress: Callable[..., None] | None = None
) -> ImportReport:
    """Write the tables in `folder` as segments (docs/own-log.md); with `dry_run` only say what they hold.

    Raises DataError where interactions or one of their required columns is missing, a file cannot
    be read, or no row of it is good.
    """
    say = progress or (lambda *_: None)
    files = {name: _find(folder, name) for name in ALIASES}
    if files["interactions"] is None:
        expected = " or ".join(f"interactions{e}" for e in ENDINGS)
        raise DataError(f"{folder} has no interactions; expected {expected} with user, item, time and type")
    layout.root.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=".import-", dir=layout.root) as spill,
        duckdb.connect(":memory:") as db,
    ):
        db.execute("SET TimeZone = 'UTC'")
        db.execute(f"SET temp_directory = '{_quoted(spill)}'")
        try:
            tables = {}
            for name, path in files.items():
                if path is not None:
                    say(f"reading {path.name}")
                    tables[name] = _read(db, name, path)
            if not make_events(db, {name: t.understood for name, t in tables.items()}):
                faults = _counts(
                    dict(db.execute(f"SELECT {FAULT}, count(*) FROM acts GROUP BY 1").fetchall())
                )
                table = tables["interactions"]
                raise DataError(
                    f"no good row among {table.rows} in {table.file}: {faults or 'it is empty'}; "
                    "--dry-run says what was understood"
                )
            report = _report(db, tables, dry_run)
            if dry_run:
                return report
            return _write(db, report, layout, say)
        except duckdb.OutOfMemoryException as error:
            raise EnvironmentError_(f"the import ran out of memory or disk: {_line(error)}") from error


def _find(folder: Path, name: str) -> Path | None:
    found = [p for e in ENDINGS if (p := folder / f"{name}{e}").is_file()]
    if len(found) > 1:
        raise DataError(f"{folder} has both {found[0].name} and {found[1].name}; expected one of them")
    return found[0] if found else None


def _quoted(text: object) -> str:
    return str(text).replace("'", "''")


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


# ---- reading


def _read(db: Any, name: str, path: Path) -> TableReport:
    """Load one file as text into `raw_<name>`, one column a meaning that was understood."""
    source = f"'{_quoted(path)}'"
    if path.suffix == ".parquet":
        reader = f"read_parquet({source})"
    else:
        delimiter = ", delim = '\\t'" if ".tsv" in path.name else ""
        reader = (
            f"read_csv({source}, all_varchar = true, header = true, store_rejects = true, "
            f"rejects_table = 'rejects_{name}', rejects_scan = 'scan_{name}'{delimiter})"
        )
    try:
        found = [row[0] for row in db.execute(f"DESCRIBE SELECT * FROM {reader}").fetchall()]
        columns, ignored = _understand(name, found)
        missing = [m for m in REQUIRED[name] if m not in columns]
        if missing:
            raise DataError(
                f"{path.name} has no column for {missing[0]!r}; found {', '.join(found[:12])}; "
                "expected one of " + ", ".join(ALIASES[name][missing[0]])
            )
        chosen = ", ".join(f'"{_column(c)}"::VARCHAR AS "{m}"' for m, c in columns.items())
        db.execute(f"CREATE TABLE raw_{name} AS SELECT {chosen} FROM {reader}")
    except duckdb.Error as error:
        raise DataError(f"{path} cannot be read: {_line(error)}") from error
    rows = db.execute(f"SELECT count(*) FROM raw_{name}").fetchall()[0][0]
    bad: dict[str, int] = {}
    examples: dict[str, str] = {}
    if path.suffix != ".parquet":
        for reason, n, line, example in db.execute(
            f"SELECT lower(error_type::VARCHAR), count(DISTINCT line), min(line), min_by(csv_line, line) "
            f"FROM rejects_{name} GROUP BY 1"
        ).fetchall():
            bad[reason] = n
            examples[reason] = f"line {line}: {(example or '')[:80]}"
    return TableReport(path.name, rows, columns, tuple(ignored), bad, examples)


def _column(name: str) -> str:
    return name.replace('"', '""')


def _understand(table: str, found: list[str]) -> tuple[dict[str, str], list[str]]:
    """(meaning → column, columns that mean nothing here)."""
    plain: dict[str, str] = {}
    for column in found:
        key = column.strip().lower().replace(" ", "_").replace("-", "_").replace(".", "_")
        plain.setdefault(key, column)
    columns: dict[str, str] = {}
    for meaning, names in ALIASES[table].items():
        column_or_none = next(
            (plain[n] for n in names if n in plain and plain[n] not in columns.values()), None
        )
        if column_or_none is not None:
            columns[meaning] = column_or_none
    return columns, [c for c in found if c not in columns.values()]


# ---- reporting and writing


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in counts.items())


def _report(db: Any, tables: dict[str, TableReport], dry_run: bool) -> ImportReport:
    faults = f"SELECT {FAULT} AS fault, count(*), any_value(example) FROM acts WHERE NOT ({GOOD}) GROUP BY 1"
    i = tables["interactions"]
    for reason, n, example in db.execute(faults).fetchall():
        i.bad_rows[reason] = n
        i.examples[reason] = example
    if "searches" in tables and (
        n := db.execute("SELECT count(*) FROM seeks WHERE time_us IS NULL OR time_us <= 0").fetchall()[0][0]
    ):
        tables["searches"].bad_rows["no time that can be read"] = n
    unknown = dict(
        db.execute("SELECT coalesce(type_text, ''), count(*) FROM acts WHERE kind IS NULL GROUP BY 1 "
                   "ORDER BY 2 DESC, 1 LIMIT 20").fetchall()
    )  # fmt: skip
    kinds = db.execute("SELECT kind, count(*) FROM events GROUP BY 1 ORDER BY 1").fetchall()
    first, last = db.execute("SELECT min(time_us), max(time_us) FROM acted").fetchall()[0]
    counts = db.execute(
        "SELECT (SELECT count(*) FROM minimal), (SELECT count(*) FROM acted WHERE attributed), "
        "(SELECT count(*) FROM events WHERE occurrence > 1)"
    ).fetchall()[0]
    ids = {}
    for what, column in (("user", "user_key"), ("item", "item_key")):
        n, whole, example = db.execute(
            f"SELECT count(DISTINCT {column}), bool_and({id_sql(column)} < {1 << 62}), min({column}) "
            "FROM acted"
        ).fetchall()[0]
        ids[what] = f"{n:,} {'whole numbers' if whole else 'texts, hashed to 62 bits'}, such as {example}"
    report = ImportReport(
        dry_run=dry_run,
        tables=tables,
        events={KINDS[k]: n for k, n in kinds},
        unknown_types=unknown,
        first_us=first,
        last_us=last,
        id_kinds=ids,
        minimal_items=counts[0],
        attributed=counts[1],
        repeated_rows=counts[2],
    )
    return replace(report, text=_text(report))


def _text(report: ImportReport) -> str:
    lines = []
    for table in report.tables.values():
        lines.append(
            f"{table.file}: {table.rows:,} rows; "
            + ", ".join(f"{m} from {c}" for m, c in table.understood.items())
        )
        if table.ignored:
            lines.append(f"  ignored: {', '.join(table.ignored)}")
        lines += [
            f"  {n:,} rows left out: {reason} ({table.examples.get(reason, 'no example')})"
            for reason, n in table.bad_rows.items()
        ]
    if report.unknown_types:
        lines.append(
            f"types not understood: {_counts(report.unknown_types)}; understood are {', '.join(TYPES)}"
        )
    lines.append(f"from {_date(report.first_us)} to {_date(report.last_us)} UTC")
    lines += [f"{what}s: {kind}" for what, kind in report.id_kinds.items()]
    if report.minimal_items:
        lines.append(f"{report.minimal_items:,} items are in no catalogue: their key becomes their title")
    if report.attributed:
        lines.append(f"{report.attributed:,} interactions joined to the search before them (30 minutes)")
    if report.repeated_rows:
        lines.append(
            f"{report.repeated_rows:,} rows repeat another word for word: each is kept as one more occurrence"
        )
    if not report.events.get("impression"):
        lines.append("no impressions: what was shown is not known, and none are made up")
    lines.append(f"events: {_counts(report.events)}")
    lines.append("nothing was written (dry run)" if report.dry_run else "now run `shelflife ingest`")
    return "\n".join(lines)


def _date(us: int) -> str:
    return str(duckdb.execute("SELECT make_timestamp(?)::VARCHAR", [us]).fetchall()[0][0])[:19]


def _write(db: Any, report: ImportReport, layout: Home, say: Callable[..., None]) -> ImportReport:
    columns = ", ".join(n for n in EVENT_SCHEMA.names if n not in _ABSENT)
    reader = db.sql(f"SELECT {columns} FROM events ORDER BY known_time, event_id").to_arrow_reader()
    total, done, segments = sum(report.events.values()), 0, 0
    names: list[str] = []
    for table in _chunks(reader):
        names.append(content_hash(table))
        segments += len(write_segments(table, layout.segments, name=f"import-{names[-1]}"))
        done += table.num_rows
        say(f"wrote {done:,} of {total:,} events")
    return replace(report, segments=segments, content_hash="+".join(names))


def _chunks(reader: Any) -> Iterator[pa.Table]:
    """Event tables of about a million rows, in the reader's order."""
    batches: list[Any] = []
    for batch in reader:
        batches.append(batch)
        if sum(b.num_rows for b in batches) >= CHUNK_ROWS:
            yield _whole(pa.Table.from_batches(batches))
            batches = []
    if batches:
        yield _whole(pa.Table.from_batches(batches))


_ABSENT = ("wall_time", "release_id", "photo", "propensity", "state_time", "vector_score", "category_prob")


def _whole(table: pa.Table) -> pa.Table:
    arrays = [
        table[f.name].cast(f.type)
        if f.name in table.column_names
        else pa.repeat(pa.scalar(none_row()[f.name], f.type), table.num_rows)
        for f in EVENT_SCHEMA
    ]
    return pa.table(arrays, schema=EVENT_SCHEMA)
