"""The store's SQL: one named constant or builder a query. Used by `data/store.py` alone."""

from __future__ import annotations

from data.frames import REQUIRED, none_row
from data.schema import EVENT_SCHEMA, ITEM_DELETE, ITEM_UPSERT, KINDS, ORDER, SURFACES, USER_UPSERT

_TYPES = {
    "int64": "BIGINT",
    "int32": "INTEGER",
    "int16": "SMALLINT",
    "int8": "TINYINT",
    "float": "FLOAT",
    "string": "VARCHAR",
}
TYPES = {f.name: _TYPES[str(f.type)] for f in EVENT_SCHEMA}
COLUMNS = ", ".join(TYPES)
_TYPED = ", ".join(f"{name} {type_}" for name, type_ in TYPES.items())

UNKNOWN_ITEM = "unknown item"

# known_time first: what the shop knew first is what it knew.
_ORDERED = ("known_time", "event_time", *(n for n in TYPES if n not in ("known_time", "event_time")))
_ORDER = ", ".join(_ORDERED)


def _row(table: str) -> str:
    return "row(" + ", ".join(f"{table}.{name}" for name in _ORDERED) + ")"


SETTINGS = "SET preserve_insertion_order = false"

SCHEMA = 1  # of the store's tables; a newer number is of a newer Shelflife
SCHEMA_HELD = "SELECT max(number) FROM store_schema"

TABLES = f"""
CREATE TABLE IF NOT EXISTS store_schema (number INTEGER);
INSERT INTO store_schema SELECT {SCHEMA} WHERE NOT EXISTS (SELECT 1 FROM store_schema);
CREATE TABLE IF NOT EXISTS events ({_TYPED}, commit_number INTEGER);
ALTER TABLE events ADD COLUMN IF NOT EXISTS gone INTEGER;
CREATE TABLE IF NOT EXISTS items (item_id BIGINT, commit_number INTEGER);
CREATE TABLE IF NOT EXISTS quarantine ({_TYPED}, raw VARCHAR, reason VARCHAR, commit_number INTEGER);
CREATE TABLE IF NOT EXISTS segments (
    path VARCHAR, size BIGINT, mtime_ns BIGINT, hash VARCHAR, rows BIGINT, writer VARCHAR,
    first_seq BIGINT, last_seq BIGINT, part INTEGER, parts INTEGER, commit_number INTEGER);
CREATE TABLE IF NOT EXISTS commits (
    number INTEGER, held BIGINT, rows BIGINT, first_us BIGINT, last_us BIGINT, watermark_us BIGINT,
    hash_sum VARCHAR);
CREATE TABLE IF NOT EXISTS floors (floor_us BIGINT, rows BIGINT, hash_sum VARCHAR);
CREATE SEQUENCE IF NOT EXISTS generations;
CREATE TABLE IF NOT EXISTS parts (
    file VARCHAR, first_commit INTEGER, last_commit INTEGER, rows BIGINT, gone BIGINT, first_us BIGINT,
    last_us BIGINT);
INSERT INTO parts
SELECT printf('part-%08d.parquet', number), number, number, rows, 0, first_us, last_us FROM commits
WHERE rows > 0 AND NOT EXISTS (SELECT 1 FROM parts) AND NOT EXISTS (SELECT 1 FROM floors);
"""

KNOWN_FILES = "SELECT path, size, mtime_ns FROM segments"
KNOWN_HASHES = "SELECT DISTINCT hash FROM segments"
ADD_SEGMENTS = "INSERT INTO segments BY NAME SELECT * FROM found"
LAST_COMMIT = """
SELECT number, watermark_us, held, hash_sum FROM commits
UNION ALL SELECT 0, 0, 0, '0' ORDER BY number DESC LIMIT 1"""
ADD_COMMIT = "INSERT INTO commits VALUES (?, ?, ?, ?, ?, ?, ?)"

STAGE_TABLE = f"CREATE OR REPLACE TEMP TABLE staged ({_TYPED}, raw VARCHAR, reason VARCHAR, released BOOLEAN)"


def _literal(name: str) -> str:
    value = none_row()[name]
    if isinstance(value, str):
        return "''"
    return "'nan'::FLOAT" if value != value else str(value)


def stage(columns: tuple[tuple[str, str], ...]) -> str:
    """Read files of these columns into `staged`. `columns`: (name, "same", "cast", "float" or "time")."""
    how = dict(columns)
    values, faults = [], []
    for name, type_ in TYPES.items():
        kind = how.get(name)
        column = f'"{name}"'
        if kind is None:
            value = "NULL" if name in REQUIRED else _literal(name)
        elif kind == "time":
            value = f"epoch_us({column})"
        elif kind == "same":
            value = column
        else:
            value = f"TRY_CAST({column} AS {type_})"
            wrong = f"{value} IS NULL"
            if kind == "float" and type_ not in ("FLOAT", "VARCHAR"):
                wrong = f"({wrong} OR {column} <> floor({column}))"
            faults.append(f"WHEN {column} IS NOT NULL AND {wrong} THEN 'wrong type: {name}'")
        if kind is not None and name not in REQUIRED:
            value = f"coalesce({value}, {_literal(name)})"
        values.append(f"CAST({value} AS {type_}) AS {name}")
    fault = f"CASE {' '.join(faults)} END" if faults else "NULL"
    cast = [n for n, k in columns if k in ("cast", "float")]
    raw = (
        "to_json({" + ", ".join(f"'{n}': \"{n}\"::VARCHAR" for n in cast) + "})::VARCHAR" if cast else "NULL"
    )
    return f"""
INSERT INTO staged
WITH read AS (
    SELECT {", ".join(values)}, {fault} AS fault, {raw} AS raw FROM read_parquet($files)
)
SELECT {COLUMNS}, CASE WHEN fault IS NOT NULL THEN raw END, {_REASON}, false FROM read"""


_REASON = f"""CASE
    WHEN fault IS NOT NULL THEN fault
    WHEN event_id IS NULL THEN 'no event_id'
    WHEN kind IS NULL OR kind < 0 OR kind >= {len(KINDS)} THEN 'unknown kind'
    WHEN surface < 0 OR surface >= {len(SURFACES)} THEN 'unknown surface'
    WHEN event_time IS NULL OR known_time IS NULL OR known_time <= 0 THEN 'no time'
    WHEN known_time > $now + $lateness OR event_time > known_time + $lateness THEN 'time in the future'
    WHEN kind BETWEEN 1 AND {ITEM_DELETE} AND item_id = -1 THEN 'missing item'
    WHEN kind = {USER_UPSERT} AND user_id = -1 THEN 'missing user'
    END"""

# DuckDB reads more than JSON (NaN, a comma too many): what the state has to read is looked at one by one.
UPSERTS = f"""
SELECT rowid, payload FROM staged WHERE reason IS NULL AND kind IN ({ITEM_UPSERT}, {USER_UPSERT})"""
NO_OBJECT = """
UPDATE staged SET reason = 'payload is no JSON object' WHERE rowid IN (SELECT unnest($rows))"""

ADD_ITEMS = f"""
INSERT INTO items
SELECT DISTINCT item_id, $commit::INTEGER FROM staged
WHERE kind = {ITEM_UPSERT} AND reason IS NULL AND item_id NOT IN (SELECT item_id FROM items)"""

# Quarantined rows whose item is known by now come back among the staged ones.
_KNOWN_NOW = f"reason = '{UNKNOWN_ITEM}' AND item_id IN (SELECT item_id FROM items)"
RELEASE = f"INSERT INTO staged SELECT {COLUMNS}, NULL, NULL, true FROM quarantine WHERE {_KNOWN_NOW}"
RELEASED_GO = f"DELETE FROM quarantine WHERE {_KNOWN_NOW}"

UNKNOWN_ITEMS = f"""
CREATE OR REPLACE TEMP TABLE unknown AS
SELECT DISTINCT item_id FROM staged
WHERE reason IS NULL AND kind BETWEEN 1 AND {ORDER} AND item_id NOT IN (SELECT item_id FROM items)"""
_UNKNOWN = f"(kind BETWEEN 1 AND {ORDER} AND item_id IN (SELECT item_id FROM unknown))"

# The same bad row may come in two segments: it is set aside once.
SET_ASIDE = f"""
INSERT INTO quarantine
SELECT {COLUMNS}, raw, coalesce(reason, '{UNKNOWN_ITEM}'), $commit::INTEGER FROM staged AS new
WHERE (reason IS NOT NULL OR {_UNKNOWN})
    AND (event_id IS NULL OR NOT EXISTS (
        SELECT 1 FROM quarantine AS held
        WHERE held.event_id = new.event_id AND {_row("held")} IS NOT DISTINCT FROM {_row("new")}))
QUALIFY event_id IS NULL OR row_number() OVER (PARTITION BY {COLUMNS}) = 1"""
SET_ASIDE_COUNTS = "SELECT reason, count(*) FROM quarantine WHERE commit_number = $commit GROUP BY 1"
COUNT_BAD = f"SELECT count(*) FROM staged WHERE reason IS NOT NULL OR {_UNKNOWN}"
BAD_GO = f"DELETE FROM staged WHERE reason IS NOT NULL OR {_UNKNOWN}"

# Replay: what is held by now in a good copy goes for good; the rest is judged again.
REPLAYED_GO = """
DELETE FROM quarantine WHERE event_id IN (SELECT event_id FROM events WHERE gone IS NULL)"""
REPLAY = f"""
INSERT INTO staged
WITH read AS (SELECT {COLUMNS}, CASE WHEN raw IS NOT NULL THEN reason END AS fault, raw FROM quarantine)
SELECT {COLUMNS}, raw, {_REASON}, true FROM read"""
CLEAR_QUARANTINE = "DELETE FROM quarantine"

FLOOR = "SELECT coalesce(max(floor_us), 0) FROM floors"
EXPIRED_GO = "DELETE FROM staged WHERE known_time < $floor AND reason IS NULL"

# Of several rows of one event the least in the order of their columns stays, whenever which one came.
COUNT_STAGED = "SELECT count(*), coalesce(sum(released::INTEGER), 0)::BIGINT FROM staged"
TWICE = """
CREATE OR REPLACE TEMP TABLE twice AS
SELECT event_id FROM staged GROUP BY event_id HAVING count(*) > 1"""
COUNT_TWICE = "SELECT count(*) FROM twice"
REPEATED_GO = f"""
DELETE FROM staged WHERE rowid IN (
    SELECT spot FROM (
        SELECT rowid AS spot, row_number() OVER (PARTITION BY event_id ORDER BY {_ORDER}) AS place
        FROM staged WHERE event_id IN (SELECT event_id FROM twice))
    WHERE place > 1)"""
AGAIN = """
CREATE OR REPLACE TEMP TABLE again AS
SELECT event_id FROM staged WHERE event_id IN (SELECT event_id FROM events WHERE gone IS NULL)"""
COUNT_AGAIN = "SELECT count(*) FROM again"
BETTER = f"""
CREATE OR REPLACE TEMP TABLE better AS
SELECT new.event_id FROM staged AS new
JOIN events AS held ON new.event_id = held.event_id AND held.gone IS NULL
WHERE {_row("new")} < {_row("held")}"""
COUNT_BETTER = "SELECT count(*) FROM better"
AGAIN_GO = """
DELETE FROM staged WHERE event_id IN (SELECT event_id FROM again)
    AND event_id NOT IN (SELECT event_id FROM better)"""
SUPERSEDE = """
UPDATE events SET gone = $commit WHERE gone IS NULL AND event_id IN (SELECT event_id FROM better)"""
SUPERSEDED = f"SELECT {COLUMNS} FROM events WHERE gone = $commit"
NEW_ROWS = f"INSERT INTO events SELECT {COLUMNS}, $commit::INTEGER, NULL FROM staged"
STAGED = f"SELECT {COLUMNS} FROM staged"
TIMES = """
SELECT event_time, known_time FROM events WHERE commit_number = $commit AND gone IS NULL
ORDER BY known_time, event_id"""
DROP_STAGED = """
DROP TABLE staged; DROP TABLE unknown; DROP TABLE twice; DROP TABLE again; DROP TABLE IF EXISTS better"""

COMMIT_STARTS = "SELECT number, first_us FROM commits WHERE rows > 0 ORDER BY number DESC LIMIT $most"
WRITERS = "SELECT writer, first_seq, last_seq, part, parts FROM segments WHERE writer <> ''"
KIND_COUNTS = "SELECT kind, count(*) FROM events WHERE gone IS NULL GROUP BY kind ORDER BY kind"
QUARANTINE_COUNTS = "SELECT reason, count(*) FROM quarantine GROUP BY reason ORDER BY reason"
SEGMENT_COUNT = "SELECT count(*) FROM segments"

PARTS = "SELECT file, first_commit, last_commit, rows, gone, first_us, last_us FROM parts ORDER BY 2"
ADD_PART = "INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?, ?)"
REMOVE_PARTS = "DELETE FROM parts WHERE first_commit >= ? AND last_commit <= ?"
GENERATION = "SELECT nextval('generations')"
TOUCHED_COMMITS = "SELECT DISTINCT commit_number FROM events WHERE gone = $commit"
OF_COMMITS = """
SELECT count(*), count(gone), min(known_time), max(known_time) FROM events
WHERE commit_number BETWEEN ? AND ?"""

LAST_FLOOR = "SELECT floor_us, rows, hash_sum FROM floors UNION ALL SELECT 0, 0, '0' ORDER BY 1 DESC LIMIT 1"
ADD_FLOOR = "INSERT INTO floors VALUES (?, ?, ?)"
BEFORE_FLOOR = f"SELECT {COLUMNS} FROM events WHERE known_time < $floor AND gone IS NULL"
EXPIRE_EVENTS = "DELETE FROM events WHERE known_time < ?"
# A row without a time of its own goes by when it came in.
EXPIRE_QUARANTINE = """
DELETE FROM quarantine WHERE known_time BETWEEN 1 AND $floor - 1 OR (coalesce(known_time, 0) <= 0
    AND commit_number IN (SELECT number FROM commits WHERE watermark_us < $floor))"""
LESS_HELD = "UPDATE commits SET held = ?, hash_sum = ? WHERE number = ?"


def write_part(path: str, first: int, last: int) -> str:
    """Write the events of a range of commits in canonical order to a Parquet file."""
    quoted = path.replace("'", "''")
    return f"""
COPY (
    SELECT {COLUMNS}, commit_number, gone FROM events WHERE commit_number BETWEEN {first} AND {last}
    ORDER BY known_time, event_id)
TO '{quoted}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, ROW_GROUP_SIZE 122880)"""
