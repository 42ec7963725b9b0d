"""How other people's columns are understood: names, ids, times, types, as SQL expressions.

Used by `data/sources/tables.py` alone. Everything is read as text and converted here, so that a
value that fits nothing is a row to report and never an abort.
"""

from __future__ import annotations

from data.schema import CART, CLICK, IMPRESSION, ITEM_FIELDS, ORDER, USER_UPSERT

__all__ = ["ALIASES", "NUMERIC_FIELDS", "TYPES", "id_sql", "key_sql", "kind_sql", "object_sql", "time_sql"]

_USER = (
    "user",
    "user_id",
    "userid",
    "visitor",
    "visitor_id",
    "visitorid",
    "customer_id",
    "customerid",
    "household_id",
)
_ITEM = ("item", "item_id", "itemid", "product", "product_id", "productid", "sku", "article_id", "asin")
_TIME = (
    "time",
    "timestamp",
    "event_time",
    "datetime",
    "date_time",
    "ts",
    "date",
    "created_at",
    "unixreviewtime",
)
_SESSION = ("session", "session_id", "sessionid", "user_session")
_REQUEST = ("request", "request_id", "search_id", "searchid", "query_id", "queryid")
_QUERY = ("query", "q", "query_text", "search_term", "searchterm", "keyword", "keywords")

# table → meaning → column names understood, the first that is there is used; case and [ -.] do not matter
ALIASES: dict[str, dict[str, tuple[str, ...]]] = {
    "interactions": {
        "user": _USER,
        "item": _ITEM,
        "time": _TIME,
        "type": (
            "type",
            "event",
            "event_type",
            "eventtype",
            "action",
            "interaction",
            "behavior",
            "behaviour",
        ),
        "session": _SESSION,
        "request": _REQUEST,
        "query": _QUERY,
        "position": ("position", "rank"),
    },
    "searches": {
        "time": _TIME,
        "query": _QUERY,
        "user": _USER,
        "session": _SESSION,
        "request": (*_REQUEST, "id"),
        "items": ("items", "item_ids", "results", "shown", "shown_items", "impressions", "products"),
        "page": ("page", "page_number"),
    },
    "items": {
        "item": (*_ITEM, "id", "key"),
        "title": ("title", "name", "product_name", "item_name", "product_title"),
        "description": ("description", "product_description", "text"),
        "category": (
            "category",
            "category_name",
            "product_class",
            "category_code",
            "category_id",
            "categoryid",
        ),
        "colour": ("colour", "color", "product_color"),
        "brand": ("brand", "brand_name", "product_brand", "manufacturer"),
        "price": ("price", "unit_price", "sale_price"),
        "created_at": ("created_at", "created", "available_from", "release_date", "timestamp", "time"),
    },
    "users": {
        "user": (*_USER, "id", "key"),
        "gender": ("gender", "sex"),
        "age": ("age",),
        "purchasing_power": ("purchasing_power",),
    },
}
for _field in ITEM_FIELDS[1:]:
    ALIASES["items"].setdefault(_field, (_field,))

TYPES: dict[str, int] = {
    **dict.fromkeys(
        ("click", "clicks", "view", "views", "detail", "pageview", "page_view", "product_view"), CLICK
    ),
    **dict.fromkeys(("impression", "impressions", "shown", "exposure"), IMPRESSION),
    **dict.fromkeys(("cart", "addtocart", "add_to_cart", "basket", "add_to_basket", "atc"), CART),
    **dict.fromkeys(
        ("order", "orders", "purchase", "purchases", "transaction", "buy", "bought", "sale"), ORDER
    ),
}

NUMERIC_FIELDS = frozenset(
    {"price", "list_price", "cost", "stock", "weight_g", "rating_sum", "rating_count", "review_count",
     "sales_total", "return_rate", "photo", "photo_count"}
)  # fmt: skip
_TIME_FIELDS = frozenset({"created_at", "updated_at"})


def key_sql(column: str) -> str:
    """The key as text: trimmed, whole numbers that were written as 12.0 as 12, NULL where empty."""
    return rf"nullif(regexp_replace(trim({column}), '^([0-9]+)\.0$', '\1'), '')"


def id_sql(key: str) -> str:
    """The int64 id of a key, the same as `data.schema.key_to_id`; -1 where there is none."""
    return f"""CASE WHEN {key} IS NULL THEN -1
        WHEN regexp_full_match({key}, '0|[1-9][0-9]{{0,18}}') AND TRY_CAST({key} AS UBIGINT) < {1 << 62}
        THEN TRY_CAST({key} AS BIGINT)
        ELSE ({1 << 62}::UBIGINT | (md5_number_upper({key}) & {(1 << 62) - 1}::UBIGINT))::BIGINT END"""


def time_sql(column: str) -> str:
    """Microseconds since 1970 UTC of ISO text (UTC if it says no zone) or an epoch in s, ms, us or ns.

    The unit of an epoch is told by its size: 1e11 s is the year 5138, 1e11 ms is 1973. NULL if neither.
    """
    whole, real = f"TRY_CAST({column} AS BIGINT)", f"TRY_CAST({column} AS DOUBLE)"
    return f"""CASE
        WHEN {real} IS NULL THEN epoch_us(TRY_CAST({column} AS TIMESTAMPTZ))
        WHEN NOT isfinite({real}) OR {real} >= 9e18 THEN NULL
        WHEN {real} < 1e11 THEN ({real} * 1e6)::BIGINT
        WHEN {real} < 1e14 THEN ({real} * 1e3)::BIGINT
        WHEN {real} < 1e17 THEN coalesce({whole}, {real}::BIGINT)
        ELSE coalesce({whole}, {real}::BIGINT) // 1000 END"""


def kind_sql(column: str) -> str:
    """The kind of event of a type, NULL where it is unknown."""
    plain = f"regexp_replace(lower(trim({column})), '[ .-]+', '_', 'g')"
    cases = " ".join(f"WHEN '{name}' THEN {kind}" for name, kind in TYPES.items())
    return f"CASE {plain} {cases} END"


def object_sql(fields: dict[str, str], *, kind: int) -> str:
    """A JSON object of the fields that are there. `fields`: name → column (SQL)."""
    pairs = []
    for name, column in fields.items():
        text = f"nullif(trim({column}), '')"
        if kind == USER_UPSERT:
            value = _user_field(name, text)
        elif name in _TIME_FIELDS:
            value = time_sql(column)
        elif name in NUMERIC_FIELDS:
            number = f"TRY_CAST({text} AS DOUBLE)"
            value = f"CASE WHEN isfinite({number}) THEN {number} END"
        else:
            value = text
        pairs.append(f"'{name}', {value}")
    # A merge patch drops what is null (RFC 7396).
    return f"json_merge_patch('{{}}', json_object({', '.join(pairs)}))::VARCHAR" if pairs else "'{}'"


def _user_field(name: str, text: str) -> str:
    if name == "gender":
        return (
            f"CASE WHEN lower({text}) IN ('0', 'f', 'female', 'w', 'woman') THEN 0 "
            f"WHEN lower({text}) IN ('1', 'm', 'male', 'man') THEN 1 END"
        )
    top = 149 if name == "age" else 6
    number = f"TRY_CAST(TRY_CAST({text} AS DOUBLE) AS INTEGER)"
    return f"CASE WHEN {number} BETWEEN 0 AND {top} THEN {number} END"
