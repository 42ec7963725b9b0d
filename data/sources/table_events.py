"""How tables as text become events: good rows, the search that a click came of, the catalogue, the ids.

Runs in the importer's in-memory DuckDB. Used by `data/sources/tables.py` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from data.schema import IMPRESSION, ITEM_UPSERT, SEARCH, USER_UPSERT
from data.sources.table_sql import id_sql, key_sql, kind_sql, object_sql, time_sql

__all__ = ["ATTRIBUTION_US", "FAULT", "GOOD", "make_events"]

ATTRIBUTION_US = 30 * 60 * 1_000_000


def make_events(db: Any, has: dict[str, dict[str, str]]) -> bool:
    """Make the view `events` from `raw_<table>`; False if no interaction is good.

    `has`: table → meaning → column. Leaves beside it `acts` (every interaction), `acted` (the good ones,
    joined to their search), `seeks`, `shown`, `goods`, `minimal`, `people`.
    """

    def text(table: str, meaning: str) -> str:
        return f'"{meaning}"' if meaning in has.get(table, {}) else "NULL::VARCHAR"

    i = "interactions"
    db.execute(f"""
CREATE TABLE acts AS
SELECT {key_sql('"user"')} AS user_key, {key_sql('"item"')} AS item_key,
    {time_sql('trim("time")')} AS time_us,
    {kind_sql('"type"')} AS kind, "type" AS type_text, {key_sql(text(i, "session"))} AS session_key,
    {key_sql(text(i, "request"))} AS request_key, coalesce(trim({text(i, "query")}), '') AS query,
    coalesce(TRY_CAST(TRY_CAST({text(i, "position")} AS DOUBLE) AS SMALLINT), -1) AS position,
    concat_ws(', ', "user", "item", "time", "type") AS example
FROM raw_{i}""")
    if not db.execute(f"SELECT count(*) FROM acts WHERE {GOOD}").fetchall()[0][0]:
        return False
    _make_searches(db, "searches" in has, text)
    _make_catalogue(db, has, text)
    db.execute(f"CREATE VIEW events AS {_EVENTS}")
    return True


FAULT = """CASE WHEN user_key IS NULL THEN 'no user' WHEN item_key IS NULL THEN 'no item'
    WHEN time_us IS NULL OR time_us <= 0 THEN 'no time that can be read'
    WHEN kind IS NULL THEN 'unknown type' END"""
GOOD = f"({FAULT}) IS NULL"


def _make_searches(db: Any, present: bool, text: Callable[[str, str], str]) -> None:
    s = "searches"
    source = f"raw_{s}" if present else "(SELECT NULL WHERE false)"
    given = f"{key_sql(text(s, 'request'))}"
    t = {m: text(s, m) for m in ("time", "user", "session", "query", "items", "page")}
    db.execute(f"""
CREATE TABLE seeks AS
SELECT *, coalesce(given, md5(concat_ws(chr(31), coalesce(user_key, ''), coalesce(session_key, ''), time_us,
    query))) AS request_key FROM (
    SELECT {given} AS given, {key_sql(t["user"])} AS user_key, {key_sql(t["session"])} AS session_key,
        {time_sql(f"trim({t['time']})")} AS time_us, coalesce(trim({t["query"]}), '') AS query,
        coalesce(TRY_CAST({t["page"]} AS SMALLINT), 0) AS page,
        list_filter(list_transform(string_split_regex(coalesce({t["items"]}, ''), '[\\s,;|\\[\\]"'']+'),
            lambda x: {key_sql("x")}), lambda x: x IS NOT NULL) AS items
    FROM {source})""")
    db.execute("""
CREATE TABLE shown AS
SELECT user_key, session_key, request_key, time_us, query, page, unnest(items) AS item_key,
    generate_subscripts(items, 1) - 1 AS position
FROM seeks WHERE time_us > 0""")
    # A click without a request belongs to the newest search of its session (else its user) within half
    # an hour, if that search showed the item or says nothing of what it showed.
    db.execute(f"""
CREATE TABLE acted AS
WITH numbered AS (SELECT row_number() OVER () AS n, * FROM acts WHERE {GOOD}),
who AS (
    SELECT *, coalesce('s' || session_key, 'u' || user_key) AS who FROM numbered WHERE request_key IS NULL),
asked AS (
    SELECT 's' || session_key AS who, * FROM seeks WHERE session_key IS NOT NULL AND time_us > 0
    UNION ALL SELECT 'u' || user_key, * FROM seeks WHERE user_key IS NOT NULL AND time_us > 0),
newest AS (
    SELECT w.n, a.request_key, a.query
    FROM who w ASOF JOIN asked a ON w.who = a.who AND w.time_us >= a.time_us
    WHERE w.time_us - a.time_us <= {ATTRIBUTION_US}
        AND (len(a.items) = 0 OR list_contains(a.items, w.item_key))),
named AS (SELECT request_key, any_value(query) AS query FROM seeks GROUP BY 1)
SELECT i.* EXCLUDE (request_key, query, n), coalesce(i.request_key, newest.request_key) AS request_key,
    coalesce(nullif(i.query, ''), newest.query, named.query, '') AS query, newest.n IS NOT NULL AS attributed
FROM numbered i LEFT JOIN newest ON i.n = newest.n LEFT JOIN named ON i.request_key = named.request_key""")


def _make_catalogue(db: Any, has: dict[str, dict[str, str]], text: Callable[[str, str], str]) -> None:
    db.execute("""
CREATE TABLE first_seen AS SELECT item_key, min(time_us) AS time_us
FROM (SELECT item_key, time_us FROM acted UNION ALL SELECT item_key, time_us FROM shown) GROUP BY 1""")
    start = "(SELECT min(time_us) - 1 FROM first_seen)"
    if "items" in has:
        fields = {m: f'"{m}"' for m in has["items"] if m != "item"}
        created = time_sql(f"trim({text('items', 'created_at')})")
        made = object_sql({"item_id": key_sql('"item"'), **fields}, kind=ITEM_UPSERT)
        db.execute(f"""
CREATE TABLE goods AS
SELECT item_key, payload, least(coalesce(created, {start}), coalesce(seen - 1, {1 << 62})) AS time_us FROM (
    SELECT {key_sql('"item"')} AS item_key, {made} AS payload,
        CASE WHEN {created} > 0 THEN {created} END AS created
    FROM raw_items) LEFT JOIN (SELECT item_key AS k, time_us AS seen FROM first_seen) ON k = item_key
WHERE item_key IS NOT NULL""")
    else:
        db.execute("CREATE TABLE goods (item_key VARCHAR, payload VARCHAR, time_us BIGINT)")
    # Items that were met but are in no catalogue: their key is all that is known.
    db.execute("""
CREATE TABLE minimal AS
SELECT item_key, json_object('item_id', item_key, 'title', item_key)::VARCHAR AS payload,
    time_us - 1 AS time_us
FROM first_seen WHERE item_key NOT IN (SELECT item_key FROM goods)""")
    if "users" in has:
        made = object_sql({m: f'"{m}"' for m in has["users"] if m != "user"}, kind=USER_UPSERT)
        db.execute(f"""
CREATE TABLE people AS SELECT {key_sql('"user"')} AS user_key, {made} AS payload, {start} AS time_us
FROM raw_users WHERE {key_sql('"user"')} IS NOT NULL""")
    else:
        db.execute("CREATE TABLE people (user_key VARCHAR, payload VARCHAR, time_us BIGINT)")


_NULL = "NULL::VARCHAR"
_ROWS = f"""
SELECT {ITEM_UPSERT} AS kind, time_us, {_NULL} AS user_key, {_NULL} AS session_key, {_NULL} AS request_key,
    '' AS query, 0 AS page, item_key, -1 AS position, payload FROM goods
UNION ALL BY NAME SELECT {ITEM_UPSERT} AS kind, time_us, item_key, payload FROM minimal
UNION ALL BY NAME SELECT {USER_UPSERT} AS kind, time_us, user_key, payload FROM people
UNION ALL BY NAME SELECT {SEARCH} AS kind, time_us, user_key, session_key, request_key, query, page
    FROM seeks WHERE time_us > 0
UNION ALL BY NAME SELECT {IMPRESSION} AS kind, time_us, user_key, session_key, request_key, query, page,
    item_key, position FROM shown
UNION ALL BY NAME SELECT kind, time_us, user_key, session_key, request_key, query, item_key, position
    FROM acted"""

# The id is of what happened and of which occurrence of it this is: not of the file or the line.
_IDENTITY = "kind, time_us, user_key, session_key, request_key, query, page, item_key, position, payload"
_DIGEST = f"md5({' || chr(31) || '.join(f'''coalesce({c}::VARCHAR, '')''' for c in _IDENTITY.split(', '))})"
_EVENTS = f"""
WITH hashed AS (SELECT *, {_DIGEST} AS digest FROM ({_ROWS})),
numbered AS (SELECT *, row_number() OVER (PARTITION BY digest) AS occurrence FROM hashed)
SELECT (md5_number_lower(digest || occurrence) >> 1)::BIGINT AS event_id, kind::TINYINT AS kind,
    time_us AS event_time, time_us AS known_time, {id_sql("user_key")} AS user_id,
    {id_sql("session_key")} AS session_id, {id_sql("request_key")} AS request_id,
    CASE WHEN kind <= 4 AND coalesce(query, '') <> '' THEN 1 ELSE 0 END::TINYINT AS surface,
    coalesce(query, '') AS query, coalesce(page, -1)::SMALLINT AS page, {id_sql("item_key")} AS item_id,
    coalesce(position, -1)::SMALLINT AS position, coalesce(payload, '') AS payload, occurrence
FROM numbered"""
