"""Whether any reply was made of two releases, found out from what was journalled and what was paged.

Of each impression the service journals the vector score that it ranked with. Here it is computed anew
from the release that the reply names: its speller, its encoder, its item vectors. A part of another
release gives another score. And each page of a cursor has to come of the list of the first.
"""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import numpy as np
import orjson

from components.search.queries import QueryMemory
from data.schema import IMPRESSION, SURFACES
from data.tail import JournalTail
from infra.settings import Home, Settings
from models.release import Release, load_release, read_manifest

__all__ = ["Pager", "Scores", "check_journal"]

TOLERANCE = 2e-3  # between two computations of one product
_PARTS = ("encoder", "speller", "vector_index")


@dataclass(frozen=True)
class Scores:
    """Replies whose impressions were looked at, those of a mixture, and how telling the check is.

    `told_apart`: share of the replies that would have been found out, had the encoder or the vectors been
    those of another release of the run.
    """

    replies: int
    mixed: int
    told_apart: float


def check_journal(layout: Home, writer: str, *, most: int = 20_000, seed: int = 0) -> Scores:
    """Look at up to `most` replies to typed queries, drawn evenly from what the writer journalled."""
    tail = JournalTail(layout.journal, after={})
    kept: list[Any] = []
    for name, _, events in tail.poll():
        if name == writer:
            kept.append(
                events.select(
                    ["kind", "surface", "request_id", "release_id", "query", "item_id", "vector_score"]
                )
            )
    tail.close()
    if not kept:
        return Scores(0, 0, 0.0)
    import pyarrow as pa

    events = pa.concat_tables(kept)
    shown = (events["kind"].to_numpy() == IMPRESSION) & (
        events["surface"].to_numpy() == SURFACES.index("search")
    )
    events = events.filter(pa.array(shown))
    requests, first, inverse = np.unique(
        events["request_id"].to_numpy(), return_index=True, return_inverse=True
    )
    picked = np.random.default_rng(seed).permutation(len(requests))[:most]
    kinds = _Kinds(layout)
    for release_id in events["release_id"].unique().to_pylist():
        kinds.of(release_id)
    release_of = events["release_id"].take(first).to_pylist()
    query_of = events["query"].take(first).to_pylist()
    order = np.argsort(inverse, kind="stable")
    starts = np.searchsorted(inverse[order], np.arange(len(requests) + 1))
    items, scores = events["item_id"].to_numpy(), events["vector_score"].to_numpy()
    looked = mixed = told = 0
    for k in picked.tolist():
        rows = order[starts[k] : starts[k + 1]]
        right = kinds.of(release_of[k]).score(query_of[k], items[rows])
        if right is None:
            continue
        looked += 1
        mixed += not np.allclose(right, scores[rows], rtol=0, atol=TOLERANCE)
        told += any(
            other is not None and not np.allclose(other, right, rtol=0, atol=TOLERANCE)
            for other in (k2.score(query_of[k], items[rows]) for k2 in kinds.others(release_of[k]))
        )
    return Scores(looked, mixed, round(told / looked, 4) if looked else 0.0)


class _Kind:
    """What gives vector scores in one release."""

    def __init__(self, release: Release) -> None:
        self._queries = QueryMemory(release, capacity=20_000)
        self._order = np.argsort(release.item_ids)
        self._ids = np.asarray(release.item_ids)[self._order]
        self._vectors = release.item_vectors

    def score(self, query: str, item_ids: Any) -> Any | None:
        """float32 [n], None for a query without words or items that the index lacks."""
        vector = self._queries.of(query).vector
        at = np.minimum(np.searchsorted(self._ids, item_ids), len(self._ids) - 1)
        if vector is None or not np.array_equal(self._ids[at], item_ids):
            return None
        return np.asarray(self._vectors[self._order[at]]) @ vector


class _Kinds:
    """One `_Kind` for all releases whose encoder, speller and vectors are the same files."""

    def __init__(self, layout: Home) -> None:
        self._layout = layout
        self._known: dict[tuple[str, ...], _Kind] = {}
        self._key: dict[str, tuple[str, ...]] = {}

    def of(self, release_id: str) -> _Kind:
        key = self._key.get(release_id)
        if key is None:
            held = read_manifest(self._layout, release_id).artifacts
            key = self._key[release_id] = tuple(held[n].content if n in held else "" for n in _PARTS)
            if key not in self._known:
                self._known[key] = _Kind(load_release(self._layout, release_id))
        return self._known[key]

    def others(self, release_id: str) -> list[_Kind]:
        return [kind for key, kind in self._known.items() if key != self._key[release_id]]


@dataclass
class Pager:
    """Turns pages by cursor in a thread, slowly enough that releases change in between.

    `mixed`: sessions in which a page came of another release than the first, or an item came twice.
    """

    settings: Settings
    queries: list[str]
    pause_s: float = 0.7
    pages: int = 3
    sessions: int = 0
    mixed: int = 0
    failed: int = 0
    crossed: int = 0  # sessions during which the live release changed
    _stopped: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Pager:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="pager", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End; the counts are final afterwards."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        k = 0
        while not self._stopped.is_set():
            self._session(self.queries[k % len(self.queries)])
            k += 1

    def _session(self, query: str) -> None:
        try:
            page = self._get(f"/search?q={quote(query)}&size=5")
            first, items = page["release_id"], [i["item_id"] for i in page["items"]]
            for _ in range(self.pages - 1):
                if page["cursor"] is None or self._stopped.wait(self.pause_s):
                    return
                page = self._get(f"/search?q={quote(query)}&size=5&cursor={quote(page['cursor'])}")
                if "cursor_expired" in page["degraded"]:
                    return  # said so: more than two releases ago
                items += [i["item_id"] for i in page["items"]]
                if page["release_id"] != first or len(set(items)) < len(items):
                    self.mixed += 1
                    return
            live = self._get("/release")["release_id"]
        except (OSError, urllib.error.URLError):
            self.failed += 1
            return
        self.sessions += 1
        self.crossed += live != first

    def _get(self, path: str) -> Any:
        base = f"http://{self.settings.host}:{self.settings.http_port}"
        with urllib.request.urlopen(base + path, timeout=10) as reply:
            return orjson.loads(reply.read())
