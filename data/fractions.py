"""Which keys belong to a fraction of the data: nested, group-safe, the same everywhere.

Each key falls into one of 10,000 buckets by md5; a fraction is the lowest buckets, so that
60 % ⊂ 80 % ⊂ 100 %. The caller chooses the key: what must not be torn apart shares one.
"""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from infra.errors import ConfigError

__all__ = ["BUCKETS", "bucket_of", "in_fraction"]

BUCKETS = 10_000

# md5, not hash(): DuckDB's own hash changes between releases.
BUCKET_SQL = "SELECT (md5_number_lower(key || ':' || $salt) % $buckets)::INTEGER AS bucket FROM keys"


def bucket_of(keys: NDArray[np.int64], *, salt: str) -> NDArray[np.int32]:
    """The bucket of each key: int32 [n] in [0, 10,000). `keys`: int64 [n]."""
    unique, inverse = np.unique(np.asarray(keys, np.int64), return_inverse=True)
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET threads = 1")  # keeps the order of the keys
        connection.register("keys", pa.table({"key": unique}))
        found = connection.sql(BUCKET_SQL, params={"salt": salt, "buckets": BUCKETS}).to_arrow_table()
    buckets: NDArray[np.int32] = found["bucket"].to_numpy().astype(np.int32)
    return buckets[inverse.reshape(-1)]


def in_fraction(keys: NDArray[np.int64], fraction: float, *, salt: str) -> NDArray[np.bool_]:
    """Whether each key belongs to this fraction: bool [n]. `fraction` in (0, 1]."""
    if not 0 < fraction <= 1:
        raise ConfigError(f"fraction is {fraction}; expected more than 0 and at most 1")
    if fraction == 1:
        return np.ones(len(keys), bool)
    return bucket_of(keys, salt=salt) < round(fraction * BUCKETS)
