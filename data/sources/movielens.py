"""100,000 timed film ratings (MovieLens-100k, GroupLens), out of a Python package that carries them.

Their terms forbid to pass them on: they stay in the cache (docs/real-logs.md). A rating is not a
viewing: people rated in long sittings what the site put before them. It knows nothing of models.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
from numpy.typing import NDArray

from data.sources.interactions import GAP_US, InteractionLog, bursts
from data.sources.package_files import PackageFiles, cached_file, fetch_files
from infra.cache import Say
from infra.clock import SECOND_US

__all__ = ["LIKED", "MOST", "PACKAGE", "fetch", "load"]

PACKAGE = PackageFiles(
    set_name="movielens",
    package="recbole",
    version="1.2.1",
    files={
        "recbole/dataset_example/ml-100k/ml-100k.inter": (
            "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff"
        ),
        "recbole/dataset_example/ml-100k/ml-100k.item": (
            "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532"
        ),
    },
    megabytes=2,
)
LIKED = 4.0  # a rating from which a film is what should have been found
MOST = 20  # ratings a basket; longer sittings are cut


def fetch(cache: Path, *, progress: Say | None = None) -> Path:
    """Obtain the tables unless they are cached and whole; the folder that holds them."""
    return fetch_files(PACKAGE, cache, progress=progress)


def load(cache: Path) -> InteractionLog:
    """Every rating; those of 4 and 5 are positive. DataError where the set is not cached.

    A basket is up to 20 ratings of one user without a pause of half an hour. A film's category is its
    genres together, its department the first of them, its brand the year it came out.
    """
    ratings = _table(cached_file(PACKAGE, cache, "ml-100k.inter"))
    films = _table(cached_file(PACKAGE, cache, "ml-100k.item"))
    stamp = ratings["timestamp:float"].cast("float64").to_numpy().astype(np.int64) * SECOND_US
    user = ratings["user_id:token"].cast("int64").to_numpy()
    film = ratings["item_id:token"].cast("int64").to_numpy()
    order = np.lexsort((film, user, stamp))
    user, film, stamp = user[order], film[order], stamp[order]
    stars = ratings["rating:float"].cast("float64").to_numpy()[order]
    ids = films["item_id:token"].cast("int64").to_numpy()
    by_id = np.argsort(ids)

    def codes(texts: list[str]) -> NDArray[np.int32]:
        found = np.unique(np.array(texts)[by_id], return_inverse=True)[1]
        return np.asarray(found + 1, np.int32)

    genres = films["class:token_seq"].to_pylist()
    return InteractionLog(
        name="movielens",
        user_ids=user,
        item_ids=film,
        basket_ids=bursts(user, stamp, gap_us=GAP_US, most=MOST),
        time_us=stamp,
        positive=stars >= LIKED,
        price=np.full(len(user), np.nan, np.float32),
        items=ids[by_id],
        category=codes(genres),
        brand=codes(films["release_year:token"].to_pylist()),
        department=codes([g.split(" ")[0] for g in genres]),
        repeats=False,
        settle_us=GAP_US,
        resolution_us=SECOND_US,
        about={
            "what": "100,000 ratings of 1,682 films by 943 users, 1997-09 to 1998-04",
            "basket": f"up to {MOST} ratings of one user without a pause of half an hour; "
            f"those of {LIKED:.0f} and more are what should be found",
            "realness": "real ratings; people rated in long sittings what the site put before them",
        },
    )


def _table(path: Path) -> pa.Table:
    """A tab-separated table, all columns as text."""
    text = pc.ParseOptions(delimiter="\t", quote_char=False)
    with path.open(encoding="utf-8") as file:
        names = file.readline().rstrip("\n").split("\t")
    types = pc.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
    return pc.read_csv(path, parse_options=text, convert_options=types)
